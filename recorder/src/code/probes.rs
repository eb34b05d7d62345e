//! Where probes can stand that tell when polls begin and end.

use std::{error, fmt, ops::Range};

use super::{PollCall, x86_64};
use crate::{
    target::image::{Architecture, Contents, Image, ImageError, Pointers, Source},
    unwind::Bounds,
};

/// Bytes of a function in which probes are looked for.
const MAX_FUNCTION: u64 = 1 << 20;

/// Bytes in which calls are looked for at once.
const CHUNK: usize = 1 << 20;

/// Calls that may look like those of polls. Programs have some ten.
const MAX_LIKELY: usize = 256;

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
        let contents = Contents::new(image, source);
        let entry = |(function, polls)| Entry { function, polls, place: code.entry(&contents, function) };
        code.entries = polls.into_iter().map(entry).collect();
        // Without them, calls through pointers are not found before they are made.
        let pointers = Pointers::read(image, source, &contents).unwrap_or_default();
        code.likely_returns = code.calls(calls, &contents, &pointers);
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
        let (bytes, function) = self.function(&Contents::new(image, source), address)?;
        x86_64::probes::after_return(&bytes, &function, address)
    }

    /// The calls that look like those of polls, by where they return to. What can't be read is left out.
    fn calls<S: Source + ?Sized>(&self, polls: &PollCall, contents: &Contents<'_, S>, pointers: &Pointers) -> Vec<u64> {
        let (mut functions, mut handovers) = (Vec::new(), Vec::new());
        if self.architecture == Architecture::X86_64 {
            for (start, code) in pieces_of_code(contents) {
                let code = code.unwrap_or_default();
                let calls = code.windows(3).zip(start..).filter(|(bytes, _)| x86_64::probes::may_be_call(bytes, polls));
                functions.extend(calls.filter_map(|(_, address)| self.bounds.around(address)));
                handovers.extend(x86_64::probes::handovers(&code, polls).map(|at| start + at));
            }
        }
        functions.dedup();
        let returns = functions.iter().flat_map(|function| {
            let (bytes, _) = self.function(contents, function.start).unwrap_or((Vec::new(), 0..0));
            x86_64::probes::likely_returns(&bytes, function, polls)
        });
        let mut returns: Vec<u64> = returns.collect();
        if !handovers.is_empty() {
            let is_handover = |to: u64| handovers.binary_search(&to).is_ok();
            for (start, code) in pieces_of_code(contents) {
                let code = code.unwrap_or_default();
                returns.extend(x86_64::probes::returns_of_calls(&code, start, |slot| pointers.at(slot), is_handover));
            }
        }
        returns.sort_unstable();
        returns.dedup();
        returns.truncate(MAX_LIKELY);
        returns
    }

    fn entry<S: Source + ?Sized>(&self, contents: &Contents<'_, S>, address: u64) -> Result<Place, Unprobed> {
        let (bytes, function) = self.function(contents, address)?;
        if function.start != address {
            return Err(Unprobed::NoFunction);
        }
        x86_64::probes::at_entry(&bytes, &function, address, x86_64::probes::Argument::First)
    }

    fn function<S: Source + ?Sized>(
        &self,
        contents: &Contents<'_, S>,
        address: u64,
    ) -> Result<(Vec<u8>, Range<u64>), Unprobed> {
        if self.architecture != Architecture::X86_64 {
            return Err(Unprobed::Architecture);
        }
        let function = self.bounds.around(address).ok_or(Unprobed::NoFunction)?;
        if !contents.is_code(function.start) {
            return Err(Unprobed::NoFunction);
        }
        let size = (function.end - function.start).min(MAX_FUNCTION);
        Ok((contents.piece(function.start, size)?, function))
    }
}

/// All code of a file, in pieces that overlap, each with its address: an instruction may reach into the next one.
pub(crate) fn pieces_of_code<S: Source + ?Sized>(
    contents: &Contents<'_, S>,
) -> impl Iterator<Item = (u64, Result<Vec<u8>, ImageError>)> {
    /// No instruction is longer.
    const LONGEST: u64 = 16;
    let code = contents.ranges().filter(|(_, is_code)| *is_code);
    code.flat_map(|(range, _)| range.step_by(CHUNK)).map(|start| (start, contents.piece(start, CHUNK as u64 + LONGEST)))
}

impl From<ImageError> for Unprobed {
    fn from(_: ImageError) -> Unprobed {
        Unprobed::Unreadable
    }
}

impl fmt::Display for Unprobed {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Unprobed::Architecture => "polletto does not read code of this architecture",
            Unprobed::NoFunction => "the file does not say where the function begins and ends",
            Unprobed::NoInstruction => "its instructions can't be told from one another",
            Unprobed::NoPlace => "no instruction within reach takes a probe",
            Unprobed::Unreadable => "the file can't be read",
        })
    }
}

impl error::Error for Unprobed {}
