//! What threads did of late: for who learns only later what one should have done in that time.

use std::{cmp::Reverse, collections::VecDeque, fmt};

use polletto_common::id::Tid;
use rustc_hash::FxHashMap;

/// Threads that are watched, and changes of each that are remembered, the latest.
const MAX_THREADS: usize = 1 << 16;
const MAX_CHANGES: usize = 256;

/// What a thread does, as readers of a trace see it by its states.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Doing {
    /// It could run, but has no CPU.
    NoCpu,
    /// It runs.
    Runs,
    /// It sleeps.
    Sleeps,
    /// It left its CPU, and nobody saw how.
    Unseen,
}

/// As `polletto_findings` has it, of a thread that is a worker.
impl fmt::Display for Doing {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Doing::NoCpu => "its worker had no CPU",
            Doing::Runs => "its worker ran",
            Doing::Sleeps => "its worker slept",
            Doing::Unseen => "its worker was not observed",
        })
    }
}

/// When a thread began to do something else.
#[derive(Clone, Copy, Debug)]
struct Change {
    at_ns: u64,
    to: Doing,
}

/// What those threads did that poll. Others cost nothing here.
#[derive(Debug, Default)]
pub struct Doings(FxHashMap<Tid, VecDeque<Change>>);

impl Doings {
    /// A thread polls: what it does from now on is remembered.
    pub fn watch(&mut self, time_ns: u64, tid: Tid) {
        if !self.0.contains_key(&tid) && self.0.len() < MAX_THREADS {
            self.0.insert(tid, VecDeque::from([Change { at_ns: time_ns, to: Doing::Runs }]));
        }
    }

    /// A thread begins to do something, or goes on with it.
    pub fn change(&mut self, time_ns: u64, tid: Tid, to: Doing) {
        let Some(changes) = self.0.get_mut(&tid) else { return };
        if changes.back().is_some_and(|last| last.to == to) {
            return;
        }
        if changes.len() >= MAX_CHANGES {
            changes.pop_front();
        }
        changes.push_back(Change { at_ns: time_ns, to });
    }

    /// A thread is woken: who slept could run from now on.
    pub fn wake(&mut self, time_ns: u64, tid: Tid) {
        let last = self.0.get(&tid).and_then(VecDeque::back);
        if last.is_some_and(|last| last.to == Doing::Sleeps) {
            self.change(time_ns, tid, Doing::NoCpu);
        }
    }

    /// What a thread did most from then to then; none if that is not remembered.
    pub fn most(&self, tid: Tid, (since_ns, until_ns): (u64, u64)) -> Option<Doing> {
        let changes = self.0.get(&tid)?;
        changes.front().filter(|first| first.at_ns <= since_ns)?;
        let ends = changes.iter().skip(1).map(|next| next.at_ns).chain([u64::MAX]);
        let mut sums: [(Doing, u64); 4] =
            [Doing::NoCpu, Doing::Runs, Doing::Sleeps, Doing::Unseen].map(|doing| (doing, 0));
        for (change, end_ns) in changes.iter().zip(ends) {
            let shared_ns = end_ns.min(until_ns).saturating_sub(change.at_ns.max(since_ns));
            sums.iter_mut().filter(|(doing, _)| *doing == change.to).for_each(|(_, sum_ns)| *sum_ns += shared_ns);
        }
        let (most, most_ns) = sums.into_iter().min_by_key(|&(doing, sum_ns)| (Reverse(sum_ns), doing))?;
        (most_ns > 0).then_some(most)
    }

    /// Records are missing: what threads did before is not known.
    pub fn lost(&mut self) {
        self.0.clear();
    }

    /// The thread has ended, or its id is another's now.
    pub fn forget_thread(&mut self, tid: Tid) {
        self.0.remove(&tid);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const THREAD: Tid = Tid(7);

    fn watched() -> Doings {
        let mut doings = Doings::default();
        doings.watch(100, THREAD);
        doings
    }

    #[test]
    fn what_a_thread_did_for_most_of_a_time_is_told() {
        let mut doings = watched();
        for (at_ns, to) in [(200, Doing::NoCpu), (400, Doing::Runs), (450, Doing::Sleeps)] {
            doings.change(at_ns, THREAD, to);
        }
        doings.wake(500, THREAD);
        doings.change(900, THREAD, Doing::Unseen);
        doings.change(1_000, THREAD, Doing::Runs);
        for (from, to, expected) in [
            (100, 250, Doing::Runs),
            (150, 400, Doing::NoCpu),
            (440, 520, Doing::Sleeps),
            (450, 1_000, Doing::NoCpu),
            (890, 950, Doing::Unseen),
            (950, 5_000, Doing::Runs),
        ] {
            assert_eq!(doings.most(THREAD, (from, to)), Some(expected), "{from} to {to}");
        }
    }

    #[test]
    fn of_what_is_not_remembered_nothing_is_told() {
        let mut doings = watched();
        assert_eq!(doings.most(THREAD, (99, 200)), None, "before it polled");
        assert_eq!(doings.most(THREAD, (200, 200)), None, "no time at all");
        assert_eq!(doings.most(Tid(8), (100, 200)), None, "another");
        doings.wake(150, THREAD);
        assert_eq!(doings.most(THREAD, (100, 200)), Some(Doing::Runs), "who runs is not woken");
        for at_ns in 0..MAX_CHANGES as u64 {
            doings.change(200 + at_ns, THREAD, [Doing::NoCpu, Doing::Runs][at_ns as usize % 2]);
        }
        assert_eq!(doings.most(THREAD, (199, 300)), None, "too long ago");
        doings.lost();
        assert_eq!(doings.most(THREAD, (300, 400)), None, "records were lost");
    }

    #[test]
    fn no_more_threads_are_watched_than_there_is_room_for() {
        let mut doings = Doings::default();
        (0..=MAX_THREADS as u32).for_each(|tid| doings.watch(0, Tid(tid)));
        assert_eq!(doings.0.len(), MAX_THREADS);
        doings.forget_thread(Tid(0));
        assert_eq!(doings.0.len(), MAX_THREADS - 1);
    }
}
