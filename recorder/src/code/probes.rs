//! Where probes can stand that tell when polls begin and end.

use std::{error, fmt, ops::Range};

use super::{Allowance, PollCall, x86_64};
use crate::{
    target::image::{Architecture, Contents, Image, ImageError, Pointers, Source},
    unwind::Bounds,
};

/// Bytes of a function in which probes are looked for.
const MAX_FUNCTION: u64 = 1 << 20;

/// Bytes in which calls are looked for at once.
const CHUNK: usize = 1 << 20;

/// Bytes of code in which calls are looked for: several times what the largest programs have. Segments may show the same
/// bytes at many addresses, and files have holes.
const MAX_CODE: u64 = 512 << 20;

/// Calls that may look like those of polls. Programs have some ten.
const MAX_LIKELY: usize = 256;

/// The same before it is known which of them are told twice, and functions that hand polls over.
const MAX_FOUND: usize = 1 << 16;

/// The code of a file, as far as it takes probes.
#[derive(Debug)]
pub struct PollCode {
    architecture: Architecture,
    bounds: Bounds,
    /// Where polls begin: of each function that polls once.
    entries: Vec<Entry>,
    /// Addresses that polls return to, for all that calls look like.
    likely_returns: Vec<u64>,
}

/// A function that polls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its address.
    pub function: u64,
    /// What.
    pub polls: Polls,
    /// Where every call of it comes by.
    pub place: Result<Place, Unprobed>,
}

/// What a function polls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Polls {
    /// Tokio's tasks, each of which tells what it is.
    Tokio,
    /// Tasks that are known by this function.
    Own {
        /// They are code that may block.
        may_block: bool,
    },
}

/// An instruction at which a probe can stand. Addresses are the file's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Its address.
    pub address: u64,
    /// How far the stack pointer has been moved up on the way there, bytes; negative if down.
    pub moved: i64,
    /// The instructions that lead there, and itself.
    pub seen: Seen,
    /// The thread runs a copy of the instruction, which takes much longer than letting the kernel carry it out.
    pub is_stepped: bool,
}

/// Instructions, as they were when they were decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Where the first of them stands.
    pub address: u64,
    /// All of them.
    pub bytes: Box<[u8]>,
}

impl Seen {
    /// Those at these addresses, of a function whose bytes these are.
    pub(crate) fn of(bytes: &[u8], function: &Range<u64>, addresses: Range<u64>) -> Seen {
        let [start, end] = [addresses.start, addresses.end].map(|at| at.saturating_sub(function.start) as usize);
        Seen { address: addresses.start, bytes: bytes.get(start..end).unwrap_or_default().into() }
    }

    /// Where they stand.
    pub fn addresses(&self) -> Range<u64> {
        self.address..self.address.saturating_add(self.bytes.len() as u64)
    }
}

/// What comes after the return from a poll.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AfterReturn {
    /// A place for a probe.
    Place(Place),
    /// Nothing but another return, whose address lies so many bytes above where that of the poll lay.
    Outwards {
        /// At least 8.
        bytes: u64,
    },
}

/// Why there is no place for a probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Unprobed {
    /// Code of this architecture isn't read.
    Architecture,
    /// The file does not say where the function begins and ends.
    NoFunction,
    /// No instruction begins there, or some before can't be read.
    NoInstruction,
    /// There is no instruction within reach that can be carried out elsewhere.
    NoPlace,
    /// The file has more code than is looked at.
    TooLarge,
    /// The file could not be read.
    Unreadable,
}

impl PollCode {
    /// Of the functions in a file that poll, and are called like this.
    pub fn of<S: Source + ?Sized>(
        polls: impl Iterator<Item = (u64, Polls)>,
        calls: &PollCall,
        image: &Image,
        source: &S,
    ) -> PollCode {
        // Where functions are not known to begin and end, each of them is refused.
        let bounds = Bounds::read(image, source).unwrap_or_default();
        let mut code =
            PollCode { architecture: image.architecture, bounds, entries: Vec::new(), likely_returns: Vec::new() };
        let mut polls: Vec<(u64, Polls)> = polls.collect();
        polls.sort_unstable();
        polls.dedup_by_key(|(function, _)| *function);
        let (contents, allowance) = (Contents::new(image, source), Allowance::default());
        let entry = |(function, polls)| Entry { function, polls, place: code.entry(&contents, function, &allowance) };
        code.entries = polls.into_iter().map(entry).collect();
        // Without them, calls through pointers are not found before they are made.
        let pointers = Pointers::read(image, source, &contents).unwrap_or_default();
        code.likely_returns = code.calls(calls, &contents, &pointers, &allowance);
        code
    }

    /// Addresses that polls return to, for all that the calls before them look like. Some may be none, and some be missing.
    pub fn likely_returns(&self) -> &[u64] {
        &self.likely_returns
    }

    /// Where polls begin, in the order of the functions.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// What comes when a poll has returned to this address.
    pub fn after_return<S: Source + ?Sized>(
        &self,
        image: &Image,
        source: &S,
        address: u64,
    ) -> Result<AfterReturn, Unprobed> {
        let (bytes, function) = self.function(&Contents::new(image, source), address, &Allowance::default())?;
        x86_64::probes::after_return(&bytes, &function, address)
    }

    /// The calls that look like those of polls, by where they return to. What can't be read is left out.
    fn calls<S: Source + ?Sized>(
        &self,
        polls: &PollCall,
        contents: &Contents<'_, S>,
        pointers: &Pointers,
        allowance: &Allowance,
    ) -> Vec<u64> {
        let (mut functions, mut handovers): (Vec<Range<u64>>, _) = (Vec::new(), Vec::new());
        if self.architecture == Architecture::X86_64 {
            for (start, code) in pieces_of_code(contents) {
                let code = code.unwrap_or_default();
                let calls = code.windows(3).zip(start..).filter(|(bytes, _)| x86_64::probes::may_be_call(bytes, polls));
                for function in calls.filter_map(|(_, address)| self.bounds.around(address)) {
                    if functions.last() != Some(&function) {
                        functions.push(function);
                    }
                }
                let found = x86_64::probes::handovers(&code, polls).map(|at| start + at);
                handovers.extend(found.take(MAX_FOUND.saturating_sub(handovers.len())));
            }
        }
        let returns = functions.iter().flat_map(|function| {
            let (bytes, _) = self.function(contents, function.start, allowance).unwrap_or((Vec::new(), 0..0));
            x86_64::probes::likely_returns(&bytes, function, polls)
        });
        let mut returns: Vec<u64> = returns.take(MAX_FOUND).collect();
        if !handovers.is_empty() {
            let is_handover = |to: u64| handovers.binary_search(&to).is_ok();
            for (start, code) in pieces_of_code(contents) {
                let code = code.unwrap_or_default();
                let found = x86_64::probes::returns_of_calls(&code, start, |slot| pointers.at(slot), is_handover);
                returns.extend(found.take((2 * MAX_FOUND).saturating_sub(returns.len())));
            }
        }
        returns.sort_unstable();
        returns.dedup();
        returns.truncate(MAX_LIKELY);
        returns
    }

    fn entry<S: Source + ?Sized>(
        &self,
        contents: &Contents<'_, S>,
        address: u64,
        allowance: &Allowance,
    ) -> Result<Place, Unprobed> {
        let (bytes, function) = self.function(contents, address, allowance)?;
        if function.start != address {
            return Err(Unprobed::NoFunction);
        }
        x86_64::probes::at_entry(&bytes, &function, address, x86_64::probes::Argument::First)
    }

    fn function<S: Source + ?Sized>(
        &self,
        contents: &Contents<'_, S>,
        address: u64,
        allowance: &Allowance,
    ) -> Result<(Vec<u8>, Range<u64>), Unprobed> {
        if self.architecture != Architecture::X86_64 {
            return Err(Unprobed::Architecture);
        }
        let function = self.bounds.around(address).ok_or(Unprobed::NoFunction)?;
        if !contents.is_code(function.start) {
            return Err(Unprobed::NoFunction);
        }
        let size = (function.end - function.start).min(MAX_FUNCTION);
        allowance.take(size)?;
        Ok((contents.piece(function.start, size)?, function))
    }
}

/// All code of a file, in pieces that overlap, each with its address: an instruction may reach into the next one. Where
/// the file ends before a segment does, that has no more; and of more than any honest file has, the rest is left out.
pub(crate) fn pieces_of_code<S: Source + ?Sized>(
    contents: &Contents<'_, S>,
) -> impl Iterator<Item = (u64, Result<Vec<u8>, ImageError>)> {
    /// No instruction is longer.
    const LONGEST: u64 = 16;
    let code = contents.ranges().filter(|(_, is_code)| *is_code).scan(MAX_CODE, |left, (range, _)| {
        let end = range.end.min(range.start.saturating_add(*left));
        *left -= end - range.start;
        Some(range.start..end)
    });
    code.flat_map(move |range| {
        let mut ends = false;
        range.clone().step_by(CHUNK).map_while(move |start| {
            let wanted = (CHUNK as u64 + LONGEST).min(range.end - start);
            let piece = (!ends).then(|| contents.piece(start, wanted))?;
            ends = piece.as_ref().is_ok_and(|bytes| (bytes.len() as u64) < wanted);
            Some((start, piece))
        })
    })
}

impl From<ImageError> for Unprobed {
    fn from(error: ImageError) -> Unprobed {
        match error {
            ImageError::TooLarge { .. } => Unprobed::TooLarge,
            _ => Unprobed::Unreadable,
        }
    }
}

impl fmt::Display for Unprobed {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Unprobed::Architecture => "polletto does not read code of this architecture",
            Unprobed::NoFunction => "the file does not say where the function begins and ends",
            Unprobed::NoInstruction => "its instructions can't be told from one another",
            Unprobed::NoPlace => "no instruction within reach takes a probe",
            Unprobed::TooLarge => "the file has more code than polletto looks at",
            Unprobed::Unreadable => "the file can't be read",
        })
    }
}

impl error::Error for Unprobed {}
