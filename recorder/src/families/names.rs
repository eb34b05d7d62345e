//! What futures are called, whoever polls them.

use std::fmt;

use super::written;
use crate::symbols::short_file;

/// How many futures a name may leave open.
const MAX_CANDIDATES: usize = 3;

/// What the name of a future was told from, the best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NameTier {
    /// The functions and types that debug information describes.
    Dwarf,
    /// Symbols in which the compiler wrote whole types.
    Symbol,
    /// The symbol of what drops the task, in programs whose symbols have no types.
    DropGlue,
    /// Places in source files that the code would tell when it panics.
    Location,
    /// Nothing: the vtable's address.
    Address,
}

impl NameTier {
    /// All of them, the best first.
    pub const ALL: [NameTier; 5] =
        [NameTier::Dwarf, NameTier::Symbol, NameTier::DropGlue, NameTier::Location, NameTier::Address];

    /// The name that a trace has for it. Queries rely on these: they don't change.
    pub const fn name(self) -> &'static str {
        match self {
            NameTier::Dwarf => "dwarf",
            NameTier::Symbol => "symbol",
            NameTier::DropGlue => "drop-glue",
            NameTier::Location => "location",
            NameTier::Address => "vtable",
        }
    }
}

impl fmt::Display for NameTier {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.name())
    }
}

/// What a future is called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FutureName {
    /// Its whole type, with `{async}` and `{closure#0}` for what has no name; or as much as is known.
    pub full: String,
    /// What fits on a slice.
    pub short: String,
    /// What it was told from.
    pub tier: NameTier,
    /// The file and the line that it was written at.
    pub place: Option<(String, u32)>,
    /// Its code has several blocks, of which one is its own.
    pub has_several_blocks: bool,
    /// It is one of those that the name has, with ` | ` between them, and nothing tells which. `…` stands for those whose
    /// names are lost.
    pub ambiguous: bool,
}

impl FutureName {
    /// Adds where it was written: it is a block, and its code polls only one.
    pub fn add_place(&mut self, blocks: &[(String, u32)]) {
        self.has_several_blocks = blocks.len() > 1;
        if let [block] = blocks
            && self.place.is_none()
            && !self.ambiguous
            && self.short.ends_with("{async}")
        {
            self.place = Some(block.clone());
        }
    }

    /// Why it is not known where it was written; none where it is, or where its name says so.
    pub fn no_place_for(&self) -> Option<&'static str> {
        match self.tier {
            _ if self.place.is_some() => None,
            NameTier::Location => None,
            NameTier::Address => Some("nothing in the program tells what it is"),
            _ if self.ambiguous => Some("several futures have its code"),
            _ if !self.short.ends_with("{async}") => Some("it is no async block"),
            NameTier::Dwarf => Some("debug information does not tell it"),
            _ if self.has_several_blocks => {
                Some("its code has several async blocks, and nothing tells which is its own")
            }
            NameTier::Symbol | NameTier::DropGlue => Some("its code does not tell it"),
        }
    }

    /// Says that another future of the same code may have lost its name. Blocks tell their own places, so those that are
    /// the same code are written at the same place: only what they are generic over differs.
    pub fn leave_open(&mut self) {
        self.full.push_str(" | …");
        self.short.push_str(" | …");
        self.ambiguous = true;
        self.place = None;
    }
}

/// A program's files, as they are: nothing in them is trusted.
#[derive(Clone, Copy, Debug, Default)]
pub struct ProgramFiles<'a> {
    /// The one that runs.
    pub binary: &'a [u8],
    /// Debug information that was taken out of it.
    pub debug: Option<&'a [u8]>,
    /// What that has in common with other files'.
    pub shared: Option<&'a [u8]>,
    /// Debug information that the compiler had split off, packed into one file.
    pub package: Option<&'a [u8]>,
}

/// None if there is none, or there are too many.
pub fn by_places(places: &[(String, u32)]) -> Option<FutureName> {
    if places.is_empty() || places.len() > MAX_CANDIDATES {
        return None;
    }
    let names = places.iter().map(|(file, line)| format!("{}:{line}", short_file(file)));
    let full = names.collect::<Vec<_>>().join(" | ");
    let place = match places {
        [place] => Some(place.clone()),
        _ => None,
    };
    Some(FutureName {
        short: full.clone(),
        full,
        tier: NameTier::Location,
        ambiguous: places.len() > 1,
        has_several_blocks: false,
        place,
    })
}

/// None if nothing is left, or too much.
pub fn by_futures(futures: &[&str], tier: NameTier) -> Option<FutureName> {
    if futures.is_empty() || futures.len() > MAX_CANDIDATES {
        return None;
    }
    let joined = |write: fn(&str) -> String| {
        let mut names: Vec<String> = Vec::with_capacity(futures.len());
        for name in futures.iter().map(|future| write(future)) {
            if !names.contains(&name) {
                names.push(name);
            }
        }
        names.join(" | ")
    };
    let (full, short) = (joined(written::full), joined(written::short));
    Some(FutureName { ambiguous: futures.len() > 1, full, short, tier, place: None, has_several_blocks: false })
}

/// Nothing is known but where its vtable is.
pub fn by_address(vtable: u64) -> FutureName {
    let full = format!("vtable {vtable:#x}");
    FutureName {
        short: full.clone(),
        full,
        tier: NameTier::Address,
        place: None,
        has_several_blocks: false,
        ambiguous: false,
    }
}

#[cfg(test)]
mod tests {
    use std::slice;

    use super::*;

    #[test]
    fn why_a_line_is_not_known_is_told() {
        let name = |future: &str, tier| by_futures(&[future], tier).expect("a name");
        let [one, other] = [7, 9].map(|line| ("src/a.rs".to_owned(), line));
        let placed = |blocks: &[(String, u32)]| {
            let mut name = name("app::serve::{async_fn_env#0}", NameTier::Symbol);
            name.add_place(blocks);
            name
        };
        let open = || {
            let mut name = placed(slice::from_ref(&one));
            name.leave_open();
            name
        };
        for (name, expected) in [
            (placed(slice::from_ref(&one)), None),
            (
                placed(&[one.clone(), other.clone()]),
                Some("its code has several async blocks, and nothing tells which is its own"),
            ),
            (placed(&[]), Some("its code does not tell it")),
            (open(), Some("several futures have its code")),
            (name("app::serve::{async_fn_env#0}", NameTier::Dwarf), Some("debug information does not tell it")),
            (name("tokio::time::Sleep", NameTier::Dwarf), Some("it is no async block")),
            (by_places(&[one.clone(), other.clone()]).expect("a name"), None),
            (by_address(7), Some("nothing in the program tells what it is")),
        ] {
            assert_eq!(name.no_place_for(), expected, "{name:?}");
        }
    }
}
