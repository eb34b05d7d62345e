//! Waiting for what ends a recording.

use std::{
    io::{self, Read},
    os::{
        fd::{AsFd, BorrowedFd},
        unix::net::UnixStream,
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::retry_on_intr,
};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use super::{Observer, Progress};
use crate::target::Watch;

/// How often the observer hears of progress.
const PROGRESS_PERIOD: Duration = Duration::from_millis(250);

/// Why a recording ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Everything that was to be recorded has ended.
    TargetsExited,
    /// The time that the user gave it is over.
    DurationElapsed,
    /// Ctrl-C.
    Interrupted,
    /// SIGTERM.
    Terminated,
    /// The terminal was closed.
    HungUp,
    /// It could not go on.
    Failed,
}

/// Signals that end a recording, as descriptors that can be waited for.
#[derive(Debug)]
pub struct Signals {
    interrupt: UnixStream,
    terminate: UnixStream,
    hang_up: UnixStream,
}

impl Signals {
    /// From now on these signals no longer end the recorder by themselves.
    pub fn catch() -> io::Result<Signals> {
        Ok(Signals { interrupt: caught(SIGINT)?, terminate: caught(SIGTERM)?, hang_up: caught(SIGHUP)? })
    }

    /// The first of them that came since this was asked last.
    pub fn take(&self) -> Option<Ending> {
        if came(&self.interrupt) {
            Some(Ending::Interrupted)
        } else if came(&self.terminate) {
            Some(Ending::Terminated)
        } else if came(&self.hang_up) {
            Some(Ending::HungUp)
        } else {
            None
        }
    }

    /// Whether someone asks once more. A terminal that closes does not: kernel and shell both tell of it.
    fn take_impatience(&self) -> bool {
        matches!(self.take(), Some(Ending::Interrupted | Ending::Terminated))
    }
}

fn caught(signal: i32) -> io::Result<UnixStream> {
    let (read, write) = UnixStream::pair()?;
    read.set_nonblocking(true)?;
    signal_hook::low_level::pipe::register(signal, write)?;
    Ok(read)
}

fn came(mut stream: &UnixStream) -> bool {
    let mut byte = [0];
    matches!(stream.read(&mut byte), Ok(1))
}

/// Everything that can end a recording.
pub struct Waiter<'a> {
    pub watch: Watch,
    pub signals: &'a mut Signals,
    /// Readable once the pipeline has ended.
    pub ended: BorrowedFd<'a>,
    pub duration: Option<Duration>,
}

impl Waiter<'_> {
    /// Waits for the first of them, and tells the observer how it goes until then.
    pub fn wait(&mut self, progress: &Progress, observer: &mut dyn Observer) -> Result<Ending> {
        let began = Instant::now();
        let mut next_progress = began + PROGRESS_PERIOD;
        let has_targets = self.watch.running().len() > 0;
        loop {
            let deadline = self.duration.map_or(next_progress, |duration| next_progress.min(began + duration));
            let targets: Vec<_> = self.watch.descriptors().collect();
            let ended = self.poll(&targets, Some(deadline.saturating_duration_since(Instant::now())))?;
            if let Some(ending) = self.signals.take() {
                return Ok(ending);
            }
            if ended {
                return Ok(if progress.targets_gone() { Ending::TargetsExited } else { Ending::Failed });
            }
            self.watch.take_exited().context("could not watch the target")?;
            if has_targets && self.watch.running().len() == 0 {
                return Ok(Ending::TargetsExited);
            }
            if self.duration.is_some_and(|duration| began.elapsed() >= duration) {
                return Ok(Ending::DurationElapsed);
            }
            if Instant::now() >= next_progress {
                next_progress = Instant::now() + PROGRESS_PERIOD;
                observer.progress(progress);
            }
        }
    }

    /// Waits for the file to be complete. A second signal means not to wait.
    pub fn wait_for_pipeline(&mut self) -> Result<()> {
        while !self.poll(&[], None)? {
            if self.signals.take_impatience() {
                bail!("ended at once by a second signal: the trace lacks what was not written yet");
            }
        }
        Ok(())
    }

    /// Waits for any of the descriptors. True when the pipeline has ended.
    fn poll(&self, targets: &[BorrowedFd<'_>], timeout: Option<Duration>) -> Result<bool> {
        let Signals { interrupt, terminate, hang_up } = &*self.signals;
        let own = [self.ended, interrupt.as_fd(), terminate.as_fd(), hang_up.as_fd()];
        let mut polled: Vec<_> =
            own.iter().chain(targets).map(|fd| PollFd::from_borrowed_fd(*fd, PollFlags::IN)).collect();
        let timeout = timeout
            .map(|timeout| Timespec { tv_sec: timeout.as_secs() as i64, tv_nsec: i64::from(timeout.subsec_nanos()) });
        retry_on_intr(|| poll(&mut polled, timeout.as_ref())).context("could not wait")?;
        Ok(!polled[0].revents().is_empty())
    }
}
