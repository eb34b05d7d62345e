//! The code of programs: what their functions refer to, and where probes can stand in them.

mod allowance;
mod probes;
#[cfg(test)]
mod tests;
pub(crate) mod x86_64;

use std::ops::Range;

use self::allowance::Allowance;
pub(crate) use self::probes::pieces_of_code;
pub use self::{
    probes::{AfterReturn, Entry, Place, PollCode, Polls, Seen, Unprobed},
    x86_64::probes::PollCall,
};
use crate::{
    target::image::{Architecture, Contents, Image, ImageError, Pointers, Source},
    unwind::{self, Bounds},
};

/// Bytes of a function that are looked at. Those of the largest futures have some hundred thousand.
const MAX_FUNCTION: u64 = 1 << 20;

/// Thunks that may stand one behind another.
const MAX_THUNKS: usize = 4;

/// Bytes that a function may have and still do nothing but jump.
const LARGEST_THUNK: u64 = 16;

/// The instructions of a file, function by function.
///
/// They are only read for x86_64: of other architectures' functions nothing is known but where they are.
pub struct Code<'c, 'a, S: ?Sized> {
    architecture: Architecture,
    contents: &'c Contents<'a, S>,
    pointers: &'c Pointers,
    bounds: Bounds,
    allowance: Allowance,
}

/// What an instruction refers to. Addresses are the file's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reference {
    /// It calls this function, directly or through a word that always holds its address.
    Call(u64),
    /// It jumps to this address outside of its function, likewise: mostly instead of a call and a return.
    Jump(u64),
    /// It reads or writes what stands here, or takes its address.
    Data(u64),
}

/// What a function does with variables that every thread has its own of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ThreadLocals {
    /// In the order of its instructions.
    pub(crate) accesses: Vec<ThreadLocalAccess>,
    /// The one whose address it returns, counted from the thread pointer, bytes.
    pub(crate) returned: Option<i64>,
    /// Those whose addresses it gives to other functions, counted likewise: among them each object that is freed with its
    /// thread, to whoever remembers these.
    pub(crate) given: Vec<i64>,
}

/// What an instruction does with a variable that every thread has its own of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ThreadLocalAccess {
    /// Where it stands, counted from the thread pointer, bytes.
    pub(crate) offset: i64,
    /// Where the object begins that it was found in, if that was said apart.
    pub(crate) object: Option<i64>,
    /// Bytes of it.
    pub(crate) size: usize,
    /// What is done.
    pub(crate) kind: AccessKind,
}

/// What is done with a variable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AccessKind {
    /// It is read.
    Load,
    /// It gets a value that was not made of what it held.
    Store,
    /// It gets a value that was made of what it held: a count.
    Update,
}

impl<'c, 'a, S: Source + ?Sized> Code<'c, 'a, S> {
    /// That of a file.
    pub fn read(
        image: &Image,
        source: &S,
        contents: &'c Contents<'a, S>,
        pointers: &'c Pointers,
    ) -> Result<Code<'c, 'a, S>, unwind::Error> {
        let bounds = Bounds::read(image, source)?;
        Ok(Code { architecture: image.architecture, contents, pointers, bounds, allowance: Allowance::default() })
    }

    /// The function that an address is in. `None` if the file doesn't say where it begins and ends.
    pub fn function(&self, address: u64) -> Option<Range<u64>> {
        self.bounds.around(address)
    }

    /// What the instructions of a function refer to, in their order.
    pub fn references(&self, function: &Range<u64>) -> Result<Vec<Reference>, ImageError> {
        match self.architecture {
            Architecture::X86_64 => {
                let mut found = Vec::new();
                let bytes = self.bytes(function)?;
                for reference in x86_64::references(&bytes, function) {
                    found.extend(self.resolved(reference)?);
                }
                Ok(found)
            }
            Architecture::Aarch64 => Ok(Vec::new()),
        }
    }

    /// What a function does with thread-locals whose places are fixed. `returned_by` knows what the functions return that it
    /// calls.
    pub(crate) fn thread_locals(
        &self,
        function: &Range<u64>,
        returned_by: &mut dyn FnMut(u64) -> Option<i64>,
    ) -> Result<ThreadLocals, ImageError> {
        match self.architecture {
            Architecture::X86_64 => Ok(x86_64::thread_locals(&self.bytes(function)?, function, returned_by)),
            Architecture::Aarch64 => Ok(ThreadLocals::default()),
        }
    }

    /// The addresses that are on the stack while a function runs that was called at `address`: its own, and where it does
    /// nothing but jump, those where it jumps to.
    pub fn bodies(&self, address: u64) -> Result<Vec<Range<u64>>, ImageError> {
        let mut bodies = Vec::new();
        let mut next = self.function(address);
        while let Some(function) = next.take() {
            let is_small = function.end - function.start <= LARGEST_THUNK;
            if is_small
                && let [Reference::Jump(to)] = self.references(&function)?[..]
                && bodies.len() < MAX_THUNKS
            {
                next = self.function(to);
            }
            bodies.push(function);
        }
        Ok(bodies)
    }

    /// Those of a function, as far as they are looked at.
    pub(crate) fn bytes(&self, function: &Range<u64>) -> Result<Vec<u8>, ImageError> {
        let size = function.end.saturating_sub(function.start).min(MAX_FUNCTION);
        self.allowance.take(size)?;
        let mut bytes = vec![0; size as usize];
        let count =
            if self.contents.is_code(function.start) { self.contents.read(function.start, &mut bytes)? } else { 0 };
        bytes.truncate(count);
        Ok(bytes)
    }

    /// Looks up what a word holds that is called or jumped through. What other files hold is left out.
    fn resolved(&self, reference: x86_64::Raw) -> Result<Option<Reference>, ImageError> {
        let through = |word: u64| -> Result<Option<u64>, ImageError> {
            let to = match self.pointers.at(word) {
                Some(to) => Some(to),
                None if self.pointers.sorted().is_empty() => self.contents.word(word)?,
                None => None,
            };
            Ok(to.filter(|&to| self.contents.is_code(to)))
        };
        Ok(match reference {
            x86_64::Raw::Direct(reference) => Some(reference),
            x86_64::Raw::CallThrough(word) => through(word)?.map(Reference::Call),
            x86_64::Raw::JumpThrough(word) => through(word)?.map(Reference::Jump),
        })
    }
}
