//! What happens to the memory of recorded processes, and the threads that are told of it.
//!
//! What follows from a change can take longer than a ring has room for, so the thread that drains the rings only says what
//! changed.

use std::{
    fmt,
    ops::Range,
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel},
    },
    thread::JoinHandle,
    time::Duration,
};

use anyhow::{Context, Result};
use polletto_common::id::Tgid;

use super::modules::ModuleFile;
use crate::pieces::Piece;

/// How long a follower is waited for, at the beginning and at the end.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// What happened to processes' memory.
#[derive(Clone)]
pub enum Change {
    /// Code of this file will be mapped.
    Prepare(Arc<ModuleFile>),
    /// Code was mapped.
    Mapped { process: Tgid, time_ns: u64, code: Code },
    /// This is all the code that a process has, and the `exec_id` of its program.
    Scanned { process: Tgid, time_ns: u64, exec_id: u64, code: Vec<Code> },
    /// A process began as a copy of another.
    Copied { from: Tgid, to: Tgid, time_ns: u64 },
    /// A process starts another program: what was mapped is not any more.
    Cleared { process: Tgid },
    /// A process runs the program with this `exec_id`.
    Runs { process: Tgid, exec_id: u64 },
    /// A process has ended.
    Ended { process: Tgid },
    /// The recording is over: no program's code may be patched any more.
    Unprobe,
    /// Everything before is done.
    Done(SyncSender<()>),
}

/// Code in a process's memory.
#[derive(Clone)]
pub struct Code {
    pub addresses: Range<u64>,
    /// What to subtract (wrapping) from its addresses to get the file's own.
    pub bias: u64,
    /// None where the program compiled it itself.
    pub file: Option<Arc<ModuleFile>>,
}

impl Piece for Code {
    fn addresses(&self) -> Range<u64> {
        self.addresses.clone()
    }

    fn part(&self, addresses: Range<u64>) -> Code {
        Code { addresses, ..self.clone() }
    }
}

impl From<SyncSender<()>> for Change {
    fn from(done: SyncSender<()>) -> Change {
        Change::Done(done)
    }
}

/// Why a thread that was told of changes says nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unfinished {
    /// It has not come to an end.
    Late,
    /// A fault of the recorder's own has ended it.
    Failed,
}

/// Behind what was not done or found out.
impl fmt::Display for Unfinished {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unfinished::Late => write!(out, "it took more than {} s", PATIENCE.as_secs()),
            Unfinished::Failed => out.write_str("polletto failed at it, a fault of its own"),
        }
    }
}

/// A thread that is told of changes, and says something when there are no more.
pub struct Follower<T, C = Change> {
    changes: Sender<C>,
    thread: JoinHandle<T>,
}

impl<T: Send + 'static, C: From<SyncSender<()>> + Send + 'static> Follower<T, C> {
    /// Starts it under a name of at most fifteen letters.
    pub fn start(name: &str, follow: impl FnOnce(Receiver<C>) -> T + Send + 'static) -> Result<Follower<T, C>> {
        let (changes, coming) = channel();
        let thread = std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || follow(coming))
            .with_context(|| format!("could not start the thread {name}"))?;
        Ok(Follower { changes, thread })
    }

    pub fn tell(&self, change: C) {
        // If the thread has panicked, `finish` tells.
        self.changes.send(change).ok();
    }

    /// Waits until everything so far has had its consequences, but not for ever: what is missing then comes later.
    pub fn wait(&self) {
        self.done().recv_timeout(PATIENCE).ok();
    }

    /// Ends the thread, unless it does not come to an end: neither a file system that does not answer nor what can't be
    /// understood of some program may keep a trace from being closed.
    pub fn finish(self) -> Result<T, Unfinished> {
        let is_done = self.done();
        drop(self.changes);
        if is_done.recv_timeout(PATIENCE) == Err(RecvTimeoutError::Timeout) {
            return Err(Unfinished::Late);
        }
        // Its panic was told of when it came.
        self.thread.join().map_err(|_| Unfinished::Failed)
    }

    fn done(&self) -> Receiver<()> {
        let (done, is_done) = sync_channel(1);
        self.tell(C::from(done));
        is_done
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_fails_takes_nobody_along() {
        let failing = Follower::<(), Change>::start("failing", |_| panic!("on purpose")).unwrap();
        failing.tell(Change::Unprobe);
        failing.wait();
        assert_eq!(failing.finish(), Err(Unfinished::Failed));
        let sound = Follower::<u8, Change>::start("sound", |coming| {
            let done = coming.iter().filter(|change| matches!(change, Change::Done(_)));
            u8::try_from(done.count()).unwrap()
        });
        assert_eq!(sound.unwrap().finish(), Ok(1));
    }
}
