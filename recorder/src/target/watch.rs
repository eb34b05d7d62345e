//! Noticing that processes end.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use polletto_common::id::{Tgid, Tid};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    process::{Pid, PidfdFlags, pidfd_open},
};

use super::process::{Error, thread_process};

/// Processes that are still running. Each is held by a pidfd, so that no later process of the same id is taken for it.
#[derive(Debug)]
pub struct Watch {
    running: Vec<(Tgid, OwnedFd)>,
}

impl Watch {
    /// Begins to watch. Fails if one of them does not exist, or has ended and been forgotten.
    pub fn new(processes: &[Tgid]) -> Result<Watch, Error> {
        let running = processes.iter().map(|&tgid| Ok((tgid, open(tgid)?))).collect::<Result<_, Error>>()?;
        Ok(Watch { running })
    }

    /// Those that have not been reported by [`Watch::take_exited`].
    pub fn running(&self) -> impl ExactSizeIterator<Item = Tgid> {
        self.running.iter().map(|&(tgid, _)| tgid)
    }

    /// Descriptors to poll for input: one is readable once its process has ended. They change with every call of
    /// [`Watch::take_exited`].
    pub fn descriptors(&self) -> impl ExactSizeIterator<Item = BorrowedFd<'_>> {
        self.running.iter().map(|(_, pidfd)| pidfd.as_fd())
    }

    /// Those that have ended since the last call. Returns at once.
    pub fn take_exited(&mut self) -> io::Result<Vec<Tgid>> {
        let mut polled: Vec<_> =
            self.descriptors().map(|pidfd| PollFd::from_borrowed_fd(pidfd, PollFlags::IN)).collect();
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        rustix::io::retry_on_intr(|| poll(&mut polled, Some(&at_once)))?;
        let mut ended = polled.iter().map(|polled| !polled.revents().is_empty()).collect::<Vec<_>>().into_iter();
        let exited = self.running.extract_if(.., |_| ended.next().unwrap_or(false));
        Ok(exited.map(|(tgid, _)| tgid).collect())
    }
}

/// A descriptor for a process, which is readable once it has ended.
pub(super) fn open(tgid: Tgid) -> Result<OwnedFd, Error> {
    let pid = i32::try_from(tgid.0).ok().and_then(Pid::from_raw).ok_or(Error::NoProcess(tgid))?;
    pidfd_open(pid, PidfdFlags::empty()).map_err(|errno| match errno {
        Errno::SRCH => Error::NoProcess(tgid),
        // What kernels say of a thread that is not the first of its process changed over time.
        Errno::INVAL | Errno::NOENT => match thread_process(Tid(tgid.0)) {
            Ok(process) if process != tgid => Error::IsThread { tid: Tid(tgid.0), process },
            _ => Error::NoProcess(tgid),
        },
        errno => Error::Unreadable { what: format!("a descriptor for process {tgid}"), source: errno.into() },
    })
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn a_process_is_reported_once_when_it_has_ended() {
        let mut child = Command::new("sleep").arg("600").spawn().unwrap();
        let (own, tgid) = (Tgid(std::process::id()), Tgid(child.id()));
        let mut watch = Watch::new(&[own, tgid]).unwrap();
        assert_eq!(watch.take_exited().unwrap(), []);
        child.kill().unwrap();
        {
            let mut polled: Vec<_> =
                watch.descriptors().map(|pidfd| PollFd::from_borrowed_fd(pidfd, PollFlags::IN)).collect();
            assert_eq!(poll(&mut polled, None), Ok(1));
        }
        assert_eq!(watch.take_exited().unwrap(), [tgid]);
        assert_eq!(watch.take_exited().unwrap(), []);
        assert_eq!(watch.running().collect::<Vec<_>>(), [own]);
        child.wait().unwrap();
    }

    #[test]
    fn a_process_that_has_vanished_cannot_be_watched() {
        let mut child = Command::new("true").spawn().unwrap();
        let tgid = Tgid(child.id());
        child.wait().unwrap();
        let watch = Watch::new(&[Tgid(std::process::id()), tgid]);
        assert!(matches!(watch, Err(Error::NoProcess(gone)) if gone == tgid), "{watch:?}");
        for id in [0, u32::MAX] {
            assert!(matches!(Watch::new(&[Tgid(id)]), Err(Error::NoProcess(_))));
        }
    }

    #[test]
    fn a_thread_cannot_be_watched_as_a_process() {
        let (sender, tid) = std::sync::mpsc::channel();
        let (finish, finished) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::spawn(move || {
            sender.send(rustix::thread::gettid().as_raw_pid() as u32).unwrap();
            finished.recv().ok();
        });
        let watch = Watch::new(&[Tgid(tid.recv().unwrap())]);
        assert!(matches!(watch, Err(Error::IsThread { process, .. }) if process.0 == std::process::id()), "{watch:?}");
        drop(finish);
        thread.join().unwrap();
    }
}
