//! Where Tokio's threads keep what they are polling.
//!
//! `tokio::runtime::context::CONTEXT` is a thread-local, and in a program (not a library) its place is fixed. An unstripped
//! program names it. A stripped one still has the code that uses it: each poll of a task, from whatever future, puts the
//! task's id into `current_task_id` and what was there back afterwards.

#[cfg(test)]
mod tests;
mod votes;

use std::{error, fmt};

use self::votes::Votes;
use super::Vtable;
use crate::{
    code::Code,
    target::image::{Architecture, Image, ImageError, Source, ThreadLocal, thread_locals},
};

/// Where Tokio's thread-local `CONTEXT` is. Offsets are counted from the thread pointer, bytes: negative on x86_64.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Context {
    /// Where it begins.
    pub start: Result<Found, Unknown>,
    /// Where the id of the task stands that the thread polls, 64 bits. While it polls none, this is 0, or means nothing if
    /// there is a tag.
    pub current_task_id: Result<Found, Unknown>,
    /// Where 64 bits stand that are 1 while the thread polls a task, and 0 else: Tokio until 1.39 has tasks of id 0. Counted
    /// from the thread pointer, bytes.
    pub current_task_tag: Option<i64>,
    /// Where it is unclear, all places that the id may have: for whoever knows more of the object that it is in.
    pub contenders: Vec<Contender>,
}

/// A place that `current_task_id` may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Contender {
    /// Counted from the thread pointer, bytes.
    pub offset: i64,
    /// Where the object begins that it is in, if the code says so.
    pub start: Option<i64>,
}

/// A place, and why it is thought to be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// Counted from the thread pointer, bytes.
    pub offset: i64,
    /// Why.
    pub evidence: Evidence,
}

/// Why something is thought to be where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Evidence {
    /// The symbol table says so.
    Symbol,
    /// The code of polls uses it as nothing else is used.
    Code {
        /// Of so many different functions that poll.
        votes: u32,
        /// So many were asked.
        asked: u32,
    },
    /// Both.
    SymbolAndCode {
        /// As in [`Evidence::Code`].
        votes: u32,
        /// As in [`Evidence::Code`].
        asked: u32,
    },
}

/// Why it is unknown where something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Unknown {
    /// The file has no thread-locals with fixed places: it is a library, mostly.
    NotFixed,
    /// No symbol names it, and code of this architecture isn't read.
    Architecture,
    /// No symbol names it, and no code uses anything as it would be used.
    Unseen,
    /// There are several that it could be.
    Unclear,
}

/// Bytes that `CONTEXT` may take. It has about 80, and some more in builds that dump tasks.
const LARGEST: i64 = 256;

impl Context {
    /// Reads symbols, and the code by which `vtables` poll. Without `code`, symbols alone.
    pub(super) fn find<S: Source + ?Sized>(
        image: &Image,
        source: &S,
        vtables: &[Vtable],
        code: Option<&Code<'_, '_, S>>,
    ) -> Result<Context, ImageError> {
        let Some(locals) = thread_locals(image, source)? else {
            return Ok(Context::unknown(Unknown::NotFixed));
        };
        let named = named(locals.start, &ThreadLocal::named(source)?);
        let votes = match code {
            Some(code) if image.architecture == Architecture::X86_64 => votes::count(code, vtables)?,
            _ => Votes::default(),
        };
        let mut context = decide(&named, &votes);
        if image.architecture != Architecture::X86_64 {
            context.current_task_id = Err(Unknown::Architecture);
            context.start = context.start.map_err(|_| Unknown::Architecture);
        }
        Ok(context)
    }

    fn unknown(why: Unknown) -> Context {
        Context { start: Err(why), current_task_id: Err(why), current_task_tag: None, contenders: Vec::new() }
    }
}

/// A symbol's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Named {
    start: i64,
    end: i64,
}

/// What symbols call `CONTEXT`. Several where a program has several versions of Tokio.
///
/// Compilers have named what `thread_local!` makes in many ways: `VAL`, `__KEY`, `__RUST_STD_INTERNAL_VAL`, closures around
/// them. All begin with the path, the same in both manglings, and what else is below it is smaller: a state byte.
fn named(first: i64, symbols: &[ThreadLocal]) -> Vec<Named> {
    const PATH: &[u8] = b"5tokio7runtime7context7CONTEXT";
    const SMALLEST: u64 = 32;
    let is_it = |symbol: &&ThreadLocal| {
        symbol.name.windows(PATH.len()).any(|part| part == PATH) && (SMALLEST..LARGEST as u64).contains(&symbol.size)
    };
    let place = |symbol: &ThreadLocal| {
        let start = first.checked_add_unsigned(symbol.offset)?;
        Some(Named { start, end: start.checked_add_unsigned(symbol.size)? })
    };
    let mut found: Vec<Named> = symbols.iter().filter(is_it).filter_map(place).collect();
    found.sort_unstable_by_key(|named| named.start);
    found.dedup_by_key(|named| named.start);
    found
}

/// Puts together what symbols and code say. Where they contradict each other, nothing is known.
fn decide(named: &[Named], votes: &Votes) -> Context {
    let around = |offset: i64| named.iter().find(|named| (named.start..named.end).contains(&offset));
    let by_code = |offset: i64, votes: u32, asked: u32| Found { offset, evidence: Evidence::Code { votes, asked } };
    let both =
        |offset: i64, votes: u32, asked: u32| Found { offset, evidence: Evidence::SymbolAndCode { votes, asked } };
    let start_of_only = match named {
        [] => Err(Unknown::Unseen),
        [only] => Ok(Found { offset: only.start, evidence: Evidence::Symbol }),
        _ => Err(Unknown::Unclear),
    };
    let winner = match votes.winner(|offset| named.is_empty() || around(offset).is_some()) {
        Ok(winner) => winner,
        Err(unknown) => {
            let contenders = if unknown == Unknown::Unclear { votes.contenders() } else { Vec::new() };
            return Context { start: start_of_only, contenders, ..Context::unknown(unknown) };
        }
    };
    let (votes, asked) = (winner.votes, winner.asked);
    match around(winner.offset) {
        Some(named) => {
            let start = match winner.object {
                Some(object) if object == named.start => Ok(both(object, votes, asked)),
                // Code that reaches a field at once doesn't say where the object begins.
                _ => Ok(Found { offset: named.start, evidence: Evidence::Symbol }),
            };
            let current_task_id = Ok(both(winner.offset, votes, asked));
            Context { start, current_task_id, current_task_tag: winner.tag, contenders: Vec::new() }
        }
        None => Context {
            start: winner.object.map(|object| by_code(object, votes, asked)).ok_or(Unknown::Unclear),
            current_task_id: Ok(by_code(winner.offset, votes, asked)),
            current_task_tag: winner.tag,
            contenders: Vec::new(),
        },
    }
}

impl fmt::Display for Unknown {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Unknown::NotFixed => "its thread-locals have no fixed place, as those of a library",
            Unknown::Architecture => "no symbol names it, and polletto does not read code of this architecture",
            Unknown::Unseen => "no symbol names it, and no code shows it",
            Unknown::Unclear => "several thread-locals could be it",
        })
    }
}

impl error::Error for Unknown {}
