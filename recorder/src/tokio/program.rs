//! All that a file tells of the tasks of its program.

use std::ops::Range;

use polletto_common::poll::HEADER_VTABLE;

use super::{Context, Origins, Vtable, vtable};
use crate::{
    code::{Code, PollCall, PollCode, Polls},
    target::image::{Contents, Image, ImageError, Pointers, Source},
    unwind,
};

/// How Tokio calls what polls: `mov 0x10(%rdi),%rax; jmp *(%rax)` where a function does nothing else.
const POLL_CALL: PollCall = PollCall {
    vtable: HEADER_VTABLE..=HEADER_VTABLE,
    slot: 0,
    handover: [0x48, 0x8b, 0x47, HEADER_VTABLE as u8, 0xff, 0x20],
};

/// What a file tells of the tasks of its program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// Those of all its tasks, in the order of their addresses; at least one.
    pub vtables: Vec<Vtable>,
    /// What it was built from.
    pub origins: Origins,
    /// Where its threads keep what they are polling.
    pub context: Context,
    /// The code that is on the stack while a task is polled, in the order of its addresses.
    pub poll_bodies: Vec<PollBody>,
}

/// Code that is on the stack while a task is polled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PollBody {
    /// Its addresses.
    pub addresses: Range<u64>,
    /// The addresses of the vtables whose tasks it polls, in their order: several where compilers found their code alike.
    pub vtables: Vec<u64>,
}

/// Finds out what a file tells of the tasks of its program. `None` if it has none, or can't be understood.
pub fn examine(image: &Image, source: &(impl Source + ?Sized)) -> Option<Program> {
    Program::read(image, source).ok().flatten()
}

impl Program {
    /// As [`examine`], with what went wrong.
    pub fn read<S: Source + ?Sized>(image: &Image, source: &S) -> Result<Option<Program>, ImageError> {
        let contents = Contents::new(image, source);
        let pointers = Pointers::read(image, source, &contents)?;
        Program::with(image, source, &contents, &pointers)
    }

    /// As [`Program::read`], with what is read already.
    pub(super) fn with<S: Source + ?Sized>(
        image: &Image,
        source: &S,
        contents: &Contents<'_, S>,
        pointers: &Pointers,
    ) -> Result<Option<Program>, ImageError> {
        let vtables = vtable::scan_pointers(contents, pointers)?;
        if vtables.is_empty() {
            return Ok(None);
        }
        let code = match Code::read(image, source, contents, pointers) {
            Ok(code) => Some(code),
            Err(unwind::Error::Image(error)) => return Err(error),
            // A file without sound unwind information still has tasks.
            Err(_) => None,
        };
        let context = Context::find(image, source, &vtables, code.as_ref())?;
        let poll_bodies = code.as_ref().map_or(Ok(Vec::new()), |code| poll_bodies(&vtables, code))?;
        Ok(Some(Program { origins: Origins::read(contents)?, context, poll_bodies, vtables }))
    }

    /// Where probes can stand that tell of its polls. Its file is this one.
    pub fn poll_code<S: Source + ?Sized>(&self, image: &Image, source: &S) -> PollCode {
        let polls = self.vtables.iter().map(|vtable| (vtable.poll, Polls::Tokio));
        PollCode::of(polls, &POLL_CALL, image, source)
    }

    /// The vtables of which a task may be polled by the code at an address.
    pub fn polled_at(&self, address: u64) -> &[u64] {
        let behind = self.poll_bodies.partition_point(|body| body.addresses.start <= address);
        match self.poll_bodies[..behind].last() {
            Some(body) if body.addresses.contains(&address) => &body.vtables,
            _ => &[],
        }
    }
}

fn poll_bodies<S: Source + ?Sized>(vtables: &[Vtable], code: &Code<'_, '_, S>) -> Result<Vec<PollBody>, ImageError> {
    let mut pairs = Vec::new();
    for vtable in vtables {
        // The function of the vtable is `raw::poll`, which calls the one that does the work, has taken it in, or was made a
        // mere jump to it.
        for Range { start, end } in code.bodies(vtable.poll)? {
            pairs.push((start, end, vtable.address));
        }
    }
    pairs.sort_unstable();
    pairs.dedup();
    let bodies = pairs
        .chunk_by(|one, next| one.0 == next.0)
        .map(|same| PollBody { addresses: same[0].0..same[0].1, vtables: same.iter().map(|pair| pair.2).collect() });
    Ok(bodies.collect())
}
