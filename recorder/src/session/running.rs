//! A pipeline that works on its own thread, as the others see it.

use std::{
    io::Write,
    os::{
        fd::{AsFd, BorrowedFd},
        unix::net::UnixStream,
    },
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc::{Receiver, Sender},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::Result;

use super::pipeline::Finished;

/// How a recording goes.
#[derive(Debug)]
pub struct Progress {
    pub(super) began: Instant,
    pub(super) records: AtomicU64,
    pub(super) lost: AtomicU64,
    pub(super) bytes: Arc<AtomicU64>,
    pub(super) targets_gone: AtomicBool,
}

impl Progress {
    /// Since everything was attached.
    pub fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    /// Records so far.
    pub fn records(&self) -> u64 {
        self.records.load(Ordering::Relaxed)
    }

    /// Records that were lost so far.
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// Bytes in the file so far.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Whether no recorded thread is left.
    pub fn targets_gone(&self) -> bool {
        self.targets_gone.load(Ordering::Relaxed)
    }
}

/// How a pipeline learns that it should end.
pub(super) struct Stop {
    /// Readable when there is something in `grace`.
    pub(super) woken: UnixStream,
    pub(super) grace: Receiver<Duration>,
}

/// A pipeline on its own thread.
pub struct RunningPipeline {
    pub(super) stop: Sender<Duration>,
    pub(super) wake: UnixStream,
    pub(super) ended: UnixStream,
    pub(super) progress: Arc<Progress>,
    pub(super) thread: JoinHandle<Result<Finished>>,
}

impl RunningPipeline {
    /// How it goes.
    pub fn progress(&self) -> &Progress {
        &self.progress
    }

    /// Readable once it has ended.
    pub fn ended(&self) -> BorrowedFd<'_> {
        self.ended.as_fd()
    }

    /// Tells it to end as soon as no recorded thread is left, at the latest after `grace`.
    pub fn stop(&self, grace: Duration) {
        // It may have ended by itself.
        self.stop.send(grace).ok();
        (&self.wake).write_all(&[0]).ok();
    }

    /// What it did.
    pub fn join(self) -> Result<Finished> {
        self.thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}
