//! What is known of a process with probes.

use std::{thread::JoinHandle, time::Duration};

use polletto_common::{
    id::{Tgid, Tid},
    poll::Site,
};
use rustc_hash::FxHashSet;

use super::estimate::Taking;
use crate::{
    code::Place,
    kernel::PollLink,
    session::{
        changes::Code,
        governor::{Account, Budget},
        preamble::boottime_ns,
    },
    target::{Excerpt, Memory, ProcessMemory},
    timeline::Unobserved,
};

/// A process with probes.
pub(super) struct Probed {
    /// Where its files are that poll, and where there are probes in each as long as there are any.
    pub(super) files: Vec<(Code, Vec<Wanted>)>,
    /// Where probes are, in the process.
    pub(super) places: FxHashSet<u64>,
    /// Where there ever were any.
    pub(super) ever: FxHashSet<u64>,
    /// Addresses that polls return to, and about which nothing can be done.
    pub(super) refused: FxHashSet<u64>,
    pub(super) account: Account,
    pub(super) granted: Granted,
    pub(super) taking: Taking,
    pub(super) window: Window,
    /// Polls that had given their workers away, to block, when the last window closed: threads and [`polletto_common::polled::Polled::tick`].
    pub(super) given: FxHashSet<(Tid, u64)>,
    /// Since when that is so, CLOCK_BOOTTIME nanoseconds.
    pub(super) since_ns: u64,
    /// Why it has none, when it has none.
    pub(super) why: Unobserved,
}

/// What probes have taken between two looks.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Taken {
    /// On how many CPUs they were reached.
    pub(super) cpus: usize,
    /// When one of these had nothing left, CLOCK_BOOTTIME nanoseconds.
    pub(super) over_ns: Option<u64>,
}

/// What a process's probes may take until the next look.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Granted {
    /// On all CPUs, nanoseconds.
    left_ns: u64,
    /// On how many they were reached when they were reached last.
    cpus: usize,
}

impl Granted {
    /// What is granted next, when they were reached on so many CPUs since, or on none.
    pub(super) fn next(self, left_ns: u64, cpus: usize) -> Granted {
        Granted { left_ns, cpus: if cpus > 0 { cpus } else { self.cpus.max(1) } }
    }

    /// On each CPU, nanoseconds: each counts for itself. A burst of polls comes on some of them alone, so half of them may take
    /// all of it. If all do, they take twice as much, for which the account pays later.
    pub(super) fn on_each_ns(self) -> u64 {
        /// Of the CPUs.
        const BURST: f64 = 0.5;
        (self.left_ns as f64 / (self.cpus as f64 * BURST).max(1.0)) as u64
    }

    /// Much more is left by now, since it was not used.
    pub(super) fn is_outgrown(self, left_ns: u64) -> bool {
        left_ns / 5 * 4 > self.left_ns
    }
}

/// Whether a process has its probes.
pub(super) enum Window {
    /// It has, and what they may take has been granted until the next look.
    Open(Vec<PollLink>),
    /// They are being removed; ends with the CPU time that it took, nanoseconds.
    Closing(JoinHandle<u64>),
    /// It has none.
    Closed,
}

/// Why a process has its probes no longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Closing {
    /// It has nothing left to spend.
    Budget,
    /// It is of no interest any more.
    End,
}

/// A place in a file, and what the probe there tells.
#[derive(Clone)]
pub(super) struct Wanted {
    pub(super) place: Place,
    pub(super) site: Site,
}

/// Those of a process's open polls that have no worker at this moment, of [`crate::kernel::PollProbes::open_with_worker`].
/// Where its memory can't be read, that is said of none.
pub(super) fn given_away(process: Tgid, open: &[(Tid, u64, u64)]) -> FxHashSet<(Tid, u64)> {
    let mut words: Vec<Excerpt> = open.iter().map(|&(_, _, core)| Excerpt::of(core, size_of::<u64>())).collect();
    ProcessMemory(process).read_each(&mut words);
    let read = open.iter().zip(&words).filter(|(_, word)| word.word(0) == Some(0));
    read.map(|(&(tid, tick, _), _)| (tid, tick)).collect()
}

impl Probed {
    /// It has had code that polls since then.
    pub(super) fn new(budget: Budget, since_ns: u64) -> Probed {
        Probed {
            files: Vec::new(),
            places: FxHashSet::default(),
            ever: FxHashSet::default(),
            refused: FxHashSet::default(),
            account: Account::new(budget, boottime_ns()),
            granted: Granted::default(),
            taking: Taking::default(),
            window: Window::Closed,
            given: FxHashSet::default(),
            since_ns,
            why: Unobserved::NotYet,
        }
    }

    /// When to look whether there is something to do.
    pub(super) fn next_look(&self) -> Duration {
        /// Removing probes takes some 20 ms.
        const REMOVED: Duration = Duration::from_millis(5);
        match self.window {
            Window::Open(_) => self.account.next_look(),
            Window::Closing(_) => REMOVED,
            Window::Closed => self.account.is_full_in(),
        }
    }

    /// Probes are wanted at these places of a file, whenever there may be any.
    pub(super) fn remember(&mut self, code: &Code, wanted: Vec<Wanted>) {
        let Some((_, all)) = self.files.iter_mut().find(|(known, _)| known.addresses == code.addresses) else { return };
        for wanted in wanted {
            if all.iter().all(|known| known.place.address != wanted.place.address) {
                all.push(wanted);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_used_is_granted_too_and_half_of_the_cpus_can_take_it() {
        let granted = Granted::default().next(5_000_000, 0);
        assert_eq!(granted.on_each_ns(), 5_000_000);
        assert!(!granted.is_outgrown(6_000_000) && granted.is_outgrown(7_000_000));
        let granted = granted.next(16_000_000, 4);
        assert_eq!(granted.on_each_ns(), 8_000_000);
        // Where they were reached before, they are likely to be reached again.
        assert_eq!(granted.next(8_000_000, 0).on_each_ns(), 4_000_000);
        assert_eq!(granted.next(8_000_000, 2).on_each_ns(), 8_000_000);
        assert_eq!(granted.next(8_000_000, 16).on_each_ns(), 1_000_000);
        assert!(!granted.is_outgrown(u64::MAX / 10_u64.pow(12)) && granted.is_outgrown(u64::MAX));
        assert!(!granted.next(u64::MAX, 1).is_outgrown(u64::MAX));
    }

    #[test]
    fn who_has_no_worker_any_more_has_given_it_away_and_who_can_t_be_read_has_not() {
        let words = [7_u64, 0];
        let open = [(Tid(1), 40, &raw const words[0]), (Tid(2), 41, &raw const words[1])];
        let mut open = open.map(|(tid, tick, word)| (tid, tick, word.addr() as u64)).to_vec();
        open.push((Tid(3), 42, 8));
        assert_eq!(given_away(Tgid(std::process::id()), &open), FxHashSet::from_iter([(Tid(2), 41)]));
    }
}
