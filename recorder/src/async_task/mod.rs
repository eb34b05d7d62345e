//! Tasks of async-task, on which the executors of smol and async-std are built, as they are seen from outside.
//!
//! Their vtables are as easy to find as Tokio's, and polls begin at one of their functions. All else is less: tasks have no
//! ids, threads don't show what they poll, and no list has all tasks. So nothing is known of tasks but their polls, and of
//! these nothing where there are no probes.

mod names;
#[cfg(test)]
mod tests;
mod vtable;

use std::ops::Range;

pub use self::vtable::{TaskVtable, scan};
use crate::{
    code::{Code, PollCall, PollCode, Polls},
    families::{CodeFile, Family, FamilyName, PolledFuture, ProbedCode, TaskFile, Wanted},
    tokio::Seeing,
};

/// How it calls what polls. Compilers arrange the header as they like: `mov (%rdi),%rax; jmp *0x28(%rax)` where a function
/// does nothing else.
pub(crate) const POLL_CALL: PollCall =
    PollCall { vtable: 0..=0x20, slot: 0x28, handover: [0x48, 0x8b, 0x07, 0xff, 0x60, 0x28] };

/// The family of all runtimes that spawn by async-task.
pub struct AsyncTask;

/// Whether a file can spawn such tasks.
pub fn has_tasks(file: &CodeFile<'_>) -> bool {
    vtables(file).is_some()
}

/// None if there are none.
fn vtables(file: &CodeFile<'_>) -> Option<Vec<TaskVtable>> {
    scan(&file.contents, file.pointers()?).ok().filter(|vtables| !vtables.is_empty())
}

impl Family for AsyncTask {
    fn examine(&self, file: &CodeFile<'_>, wanted: Wanted) -> Option<TaskFile> {
        let vtables = vtables(file)?;
        let futures = names::futures(&vtables, file.bytes());
        let bodies = bodies(&futures, file).unwrap_or_default();
        let probed = wanted.probes.then(|| {
            let functions = futures.iter().map(|future| (future.key, Polls::Own { may_block: future.may_block }));
            ProbedCode { polls: PollCode::of(functions, &POLL_CALL, file.image, file.source), wakes: None }
        });
        const UNSEEN: &str = "only the probes tell what such threads poll";
        let seeing = Seeing { tasks_unseen: Some(UNSEEN.to_owned()), ..Seeing::default() };
        Some(TaskFile {
            family: FamilyName::AsyncTask,
            versions: Vec::new(),
            futures,
            bodies,
            seeing,
            places: None,
            may_tell_awaits: false,
            probed,
        })
    }
}

/// The code that is on the stack while a future is polled. Each has a function of its own that polls it.
fn bodies(futures: &[PolledFuture], file: &CodeFile<'_>) -> Option<Vec<(Range<u64>, Vec<usize>)>> {
    // A file without sound unwind information still has tasks.
    let code = Code::read(file.image, file.source, &file.contents, file.pointers()?).ok()?;
    let mut bodies = Vec::new();
    for (index, future) in futures.iter().enumerate() {
        bodies.extend(code.bodies(future.key).ok()?.into_iter().map(|body| (body, vec![index])));
    }
    Some(bodies)
}
