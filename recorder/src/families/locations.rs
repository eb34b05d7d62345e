//! Places in source files that the code of futures would tell when it panics.
//!
//! A future that is polled once more than it may be panics with the place of its own block. What it passes this place to says
//! "`async fn` resumed after completion", so the place can be told from others. Polls of other futures that were inlined have
//! theirs too.

use std::collections::BTreeSet;

use rustc_hash::FxHashMap;

use super::calls::Calls;
use crate::{code::Reference, symbols::origin_of};

/// How deep functions that call each other are followed from the one that polls. That of the vtable calls the one that does
/// the work, which calls what catches panics, which calls the future.
const LEVELS: usize = 4;

/// How deep places count that are not of blocks.
const NEAR_LEVELS: usize = 3;

/// Longer paths are none: the kernel's limit.
const MAX_PATH: u64 = 4096;

/// Files have fewer lines, and lines fewer columns.
const MAX_LINE: u32 = 1 << 20;

/// What is told when a future is polled after its end.
const RESUMED: &[u8] = b"`async fn` resumed after";

/// `core::panic::Location`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Location {
    file: String,
    line: u32,
    column: u32,
}

impl Location {
    fn line(&self) -> (String, u32) {
        (self.file.clone(), self.line)
    }
}

/// Where a future may have been written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Places {
    /// The blocks that are polled, sorted: one is the future's, others were inlined into it. Columns don't count.
    pub blocks: Vec<(String, u32)>,
    /// Where there are none: a place near to it.
    pub near: Option<(String, u32)>,
}

/// A place that a function refers to.
struct Found {
    location: Location,
    /// It is that of a block.
    is_of_block: bool,
}

/// Finds places.
pub struct Locations<'w, 'c, 'a> {
    calls: &'w mut Calls<'c, 'a>,
    known: FxHashMap<u64, Option<Location>>,
    /// Whether functions tell that a future ended before.
    resumed: FxHashMap<u64, bool>,
}

impl<'w, 'c, 'a> Locations<'w, 'c, 'a> {
    pub fn new(calls: &'w mut Calls<'c, 'a>) -> Locations<'w, 'c, 'a> {
        Locations { calls, known: FxHashMap::default(), resumed: FxHashMap::default() }
    }

    /// Where the future may have been written that the function here polls.
    ///
    /// The block that is nearest to the function which polls is the future's, or was inlined into it: nothing tells which.
    /// Where there is none it was written by hand, or blocks: then the nearest place of the program's own code is near it.
    /// Where else dependencies panic says nothing.
    pub fn of_future(&mut self, poll: u64) -> Places {
        let mut near: Option<Location> = None;
        for (depth, level) in self.calls.levels(poll, LEVELS).into_iter().enumerate() {
            let mut found = Vec::new();
            for function in level {
                self.add_of_function(function, &mut found);
            }
            let (own, others): (Vec<Found>, Vec<Found>) =
                found.into_iter().partition(|place| is_own(&place.location.file));
            for places in [&own, &others] {
                let blocks = places.iter().filter(|place| place.is_of_block);
                let blocks: BTreeSet<(String, u32)> = blocks.map(|place| place.location.line()).collect();
                if !blocks.is_empty() {
                    return Places { blocks: blocks.into_iter().collect(), near: None };
                }
            }
            if depth < NEAR_LEVELS {
                near = near.or_else(|| own.into_iter().map(|place| place.location).min());
            }
        }
        Places { blocks: Vec::new(), near: near.map(|place| place.line()) }
    }

    /// Adds the places that a function refers to, and whether they are those of blocks.
    fn add_of_function(&mut self, function: u64, found: &mut Vec<Found>) {
        let references = self.calls.references(function);
        for (at, reference) in references.iter().enumerate() {
            let Reference::Data(address) = *reference else { continue };
            let Some(location) = self.location(address) else { continue };
            let called = references[at + 1..].first();
            let is_of_block = match called {
                Some(&(Reference::Call(to) | Reference::Jump(to))) => self.tells_of_an_end(to),
                _ => false,
            };
            if !is_of_runtime(&location.file) {
                found.push(Found { location, is_of_block });
            }
        }
    }

    fn location(&mut self, address: u64) -> Option<Location> {
        if let Some(known) = self.known.get(&address) {
            return known.clone();
        }
        let location = self.read(address);
        self.known.insert(address, location.clone());
        location
    }

    fn read(&self, address: u64) -> Option<Location> {
        let Calls { contents, pointers, .. } = &*self.calls;
        let path = match pointers.at(address) {
            Some(path) => path,
            None if pointers.sorted().is_empty() => contents.word(address).ok()??,
            None => return None,
        };
        let rest: [u8; 16] = contents.array(address.wrapping_add(8)).ok()??;
        let (words, _) = rest.as_chunks::<4>();
        let [low, high, line, column] = [words[0], words[1], words[2], words[3]].map(u32::from_le_bytes);
        let length = u64::from(high) << 32 | u64::from(low);
        let is_place =
            (4..MAX_PATH).contains(&length) && (1..MAX_LINE).contains(&line) && (1..MAX_LINE).contains(&column);
        if !is_place || contents.is_code(path) {
            return None;
        }
        let file = String::from_utf8(contents.piece(path, length).ok()?).ok()?;
        let is_file = file.len() as u64 == length && file.ends_with(".rs") && !file.contains(char::is_control);
        is_file.then_some(Location { file, line, column })
    }

    /// Whether a function refers to the text of a panic that tells of a future polled after its end.
    fn tells_of_an_end(&mut self, function: u64) -> bool {
        if let Some(&known) = self.resumed.get(&function) {
            return known;
        }
        let references = self.calls.references(function);
        let Calls { contents, pointers, .. } = &*self.calls;
        let is_text = |address: u64| {
            contents
                .piece(address, RESUMED.len() as u64 + 2)
                .is_ok_and(|text| text.windows(RESUMED.len()).any(|window| window == RESUMED))
        };
        let tells = references.iter().any(|reference| match *reference {
            Reference::Data(address) => is_text(address) || pointers.at(address).is_some_and(is_text),
            _ => false,
        });
        self.resumed.insert(function, tells);
        tells
    }
}

fn is_own(file: &str) -> bool {
    origin_of(file).is_none()
}

/// What every poll of a runtime goes through, and blocks of the runtime's own: nobody spawns these, but they are inlined
/// into others. Where a future has no place of its own, since it never ends, such a place would be taken for it.
fn is_of_runtime(file: &str) -> bool {
    const RUNTIMES: [&str; 4] = ["tokio-", "async-task-", "async-executor-", "blocking-"];
    let folder = origin_of(file).and_then(|origin| origin.trim_end_matches('/').rsplit('/').next());
    folder.is_some_and(|folder| {
        let mut rests = RUNTIMES.iter().filter_map(|name| folder.strip_prefix(name));
        rests.any(|rest| rest.starts_with(|at: char| at.is_ascii_digit()))
    })
}

#[cfg(test)]
mod tests {
    use super::is_of_runtime;

    #[test]
    fn places_in_runtimes_themselves_are_nobodys() {
        let registry = "/home/a/.cargo/registry/src/index.crates.io-1949cf8c6b5b557f";
        let is_nobodys = |file: &str| is_of_runtime(&format!("{registry}/{file}"));
        assert!(["tokio-1.54.1/src/time/interval.rs", "async-executor-1.14.1/src/lib.rs"].into_iter().all(is_nobodys));
        assert!(!["tokio-util-0.7.1/src/time/delay_queue.rs", "hyper-1.9.0/src/rt.rs"].into_iter().any(is_nobodys));
        assert!(!is_of_runtime("src/runtime/main.rs"));
    }
}
