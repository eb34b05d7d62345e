//! A thread in the middle of a poll.

use std::collections::VecDeque;

use polletto_common::polled::Polled;

use super::TaskKey;
use crate::{
    timeline::{blocked::Absence, findings::Callstacks, waits::Wait},
    trace::Weights,
};

/// Stretches of sleep that are shown within one poll.
const MAX_STRETCHES: usize = 256;

/// Times for which a thread was away that are remembered, the latest. That a poll was told until a moment is told some 20 ms
/// after that.
const MAX_LATEST: usize = 64;

/// A poll that a thread was found in.
#[derive(Debug)]
pub(super) struct Presence {
    pub(super) task: TaskKey,
    pub(super) polled: Polled,
    pub(super) since_ns: u64,
    pub(super) last_ns: u64,
    /// It left its CPU in the middle of the poll and has not come back.
    left: Option<Left>,
    /// When it left its CPU without the worker that it had when the poll began, it had given that away.
    pub(super) has_given: bool,
    /// What it was away for; nothing of what it ran.
    away: Weights,
    /// The latest of these.
    latest: VecDeque<Absence>,
    pub(super) stretches: Vec<Stretch>,
    /// Where it was found.
    pub(super) callstacks: Callstacks,
}

/// A thread is not on a CPU.
#[derive(Clone, Copy, Debug)]
struct Left {
    at_ns: u64,
    is_asleep: bool,
    /// When it was woken; 0 if it was not yet, or nobody saw it.
    woken_ns: u64,
}

/// A stretch of sleep in the middle of a poll.
#[derive(Debug)]
pub(super) struct Stretch {
    pub(super) absence: Absence,
    pub(super) callstack: u64,
    /// What was slept for.
    pub(super) wait: Wait,
}

impl Presence {
    /// It is found for the first time.
    pub(super) fn new(task: TaskKey, polled: Polled, time_ns: u64) -> Presence {
        Presence {
            task,
            polled,
            since_ns: time_ns,
            last_ns: time_ns,
            left: None,
            has_given: false,
            away: Weights::default(),
            latest: VecDeque::new(),
            stretches: Vec::new(),
            callstacks: Callstacks::default(),
        }
    }

    /// It lasted from then to then, which is known better than where it was found.
    pub(super) fn lasted(mut self, since_ns: u64, last_ns: u64) -> Presence {
        // Who polls is back, even if nobody saw when.
        self.come_back(last_ns);
        // What came after that is not told of it.
        for absence in &self.latest {
            let (all, part) = (absence.weights(), absence.until(last_ns).weights());
            self.away.off_cpu_ns -= all.off_cpu_ns - part.off_cpu_ns;
            self.away.run_queue_ns -= all.run_queue_ns - part.run_queue_ns;
        }
        self.stretches.retain(|stretch| stretch.absence.left_ns < last_ns);
        Presence { since_ns, last_ns, latest: VecDeque::new(), ..self }
    }

    /// The same poll, found before and after.
    pub(super) fn and(mut self, later: Presence) -> Presence {
        self.come_back(later.since_ns);
        self.away.off_cpu_ns += later.away.off_cpu_ns;
        self.away.run_queue_ns += later.away.run_queue_ns;
        self.latest = later.latest;
        self.stretches.extend(later.stretches);
        self.stretches.truncate(MAX_STRETCHES);
        self.callstacks.add(later.callstacks);
        let has_given = self.has_given || later.has_given;
        Presence { last_ns: later.last_ns, left: later.left, has_given, ..self }
    }

    /// The thread leaves its CPU.
    pub(super) fn leave(&mut self, time_ns: u64, is_asleep: bool) {
        // Who leaves was back, even if nobody saw when.
        self.come_back(time_ns);
        self.left = Some(Left { at_ns: time_ns, is_asleep, woken_ns: 0 });
    }

    /// The thread is woken.
    pub(super) fn wake(&mut self, time_ns: u64) {
        if let Some(left) = self.left.as_mut().filter(|left| left.woken_ns == 0) {
            left.woken_ns = time_ns;
        }
    }

    /// The thread runs again, or nothing more is heard of it, if it is away.
    pub(super) fn come_back(&mut self, time_ns: u64) {
        let Some(Left { at_ns, is_asleep, woken_ns }) = self.left.take() else { return };
        // Who did not fall asleep could have gone on at once.
        let woken_ns = if is_asleep { woken_ns } else { at_ns };
        let absence = Absence::between(at_ns, woken_ns, time_ns);
        let away = absence.weights();
        self.away.off_cpu_ns += away.off_cpu_ns;
        self.away.run_queue_ns += away.run_queue_ns;
        if self.latest.len() == MAX_LATEST {
            self.latest.pop_front();
        }
        self.latest.push_back(absence);
        self.last_ns = self.last_ns.max(time_ns);
    }

    /// The thread slept with this callstack, for that.
    pub(super) fn sleep(&mut self, absence: Absence, callstack: u64, wait: Wait) {
        if self.since_ns <= absence.left_ns && self.stretches.len() < MAX_STRETCHES {
            self.stretches.push(Stretch { absence, callstack, wait });
        }
    }

    /// What its time went to.
    pub(super) fn weights(&self) -> Weights {
        let wall_ns = self.last_ns - self.since_ns;
        let off_cpu_ns = self.away.off_cpu_ns.min(wall_ns);
        let run_queue_ns = self.away.run_queue_ns.min(wall_ns - off_cpu_ns);
        Weights { cpu_ns: wall_ns - off_cpu_ns - run_queue_ns, off_cpu_ns, run_queue_ns }
    }
}
