//! What threads did while they held locks that others waited for.
//!
//! That a thread held a lock is known when it wakes one of those that wait for it, and what it polled then once that poll has
//! ended. Where it was meanwhile, its samples and sleeps of that time tell.

use std::{collections::VecDeque, sync::Arc};

use polletto_common::id::Tid;
use rustc_hash::FxHashMap;

use super::task_code::Future;

/// Samples and sleeps, and polls, of each thread that are remembered, the latest.
const MAX_MOMENTS: usize = 16;
const MAX_POLLS: usize = 32;

/// Polls that are shorter are not remembered: there are very many, and who held a lock for long was in a long one.
const LEAST_POLL_NS: u64 = 20_000;

/// When a thread let locks go, of which the poll is not told yet.
const MAX_ASKED: usize = 64;

/// Locks that were let go of which is remembered by whom.
const MAX_TURNS: usize = 1 << 14;

/// A turn is asked for when the convoy is over that it was in, which is mostly sooner.
const KEPT_NS: u64 = 30_000_000_000;

/// A thread was found there, for so long.
#[derive(Clone, Copy, Debug)]
struct Moment {
    since_ns: u64,
    until_ns: u64,
    callstack: u64,
}

#[derive(Clone, Debug)]
struct PollOf {
    since_ns: u64,
    until_ns: u64,
    task: u64,
    future: Arc<Future>,
}

#[derive(Debug, Default)]
struct Thread {
    moments: VecDeque<Moment>,
    polls: VecDeque<PollOf>,
    asked: VecDeque<u64>,
}

/// Until a lock was let go.
#[derive(Debug)]
struct Turn {
    moments: Vec<Moment>,
    poll: Option<PollOf>,
}

/// What a thread did that held a lock, as far as that was told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// The task that it polled when it let the lock go, and its future.
    pub task: Option<(u64, Arc<Future>)>,
    /// The callstack with which it was found for most of the time.
    pub callstack: Option<u64>,
}

/// What is remembered of all threads.
#[derive(Debug, Default)]
pub struct Holders {
    threads: FxHashMap<Tid, Thread>,
    /// By thread, and when it let a lock go.
    turns: FxHashMap<(Tid, u64), Turn>,
}

fn push<T>(kept: &mut VecDeque<T>, new: T, most: usize) {
    if kept.len() >= most {
        kept.pop_front();
    }
    kept.push_back(new);
}

impl Holders {
    /// A thread was found with this callstack: asleep from then to then, or by a timer that stands for that time.
    pub fn found(&mut self, tid: Tid, (since_ns, until_ns): (u64, u64), callstack: u64) {
        let moments = &mut self.threads.entry(tid).or_default().moments;
        push(moments, Moment { since_ns, until_ns, callstack }, MAX_MOMENTS);
    }

    /// A thread has polled a task from then to then.
    pub fn polled(&mut self, tid: Tid, (since_ns, until_ns): (u64, u64), task: u64, future: &Arc<Future>) {
        // Who was never found anywhere has no turn that could be told.
        let Some(thread) = self.threads.get_mut(&tid) else { return };
        let poll = || PollOf { since_ns, until_ns, task, future: Arc::clone(future) };
        let is_within = |at_ns: &u64| (since_ns..=until_ns).contains(at_ns);
        for at_ns in thread.asked.iter().copied().filter(is_within) {
            if let Some(turn) = self.turns.get_mut(&(tid, at_ns)) {
                turn.poll = Some(poll());
            }
        }
        thread.asked.retain(|at_ns| !is_within(at_ns));
        if until_ns - since_ns >= LEAST_POLL_NS {
            push(&mut thread.polls, poll(), MAX_POLLS);
        }
    }

    /// A thread has let a lock go, for which others waited.
    pub fn let_go(&mut self, tid: Tid, at_ns: u64) {
        if tid == Tid::IDLE || self.turns.contains_key(&(tid, at_ns)) {
            return;
        }
        if self.turns.len() >= MAX_TURNS {
            self.turns.retain(|(_, of_ns), _| of_ns.saturating_add(KEPT_NS) >= at_ns);
            if self.turns.len() >= MAX_TURNS {
                return;
            }
        }
        let thread = self.threads.entry(tid).or_default();
        let around = thread.polls.iter().filter(|poll| (poll.since_ns..=poll.until_ns).contains(&at_ns));
        // Of polls within polls the innermost.
        let poll = around.max_by_key(|poll| poll.since_ns).cloned();
        if poll.is_none() {
            push(&mut thread.asked, at_ns, MAX_ASKED);
        }
        self.turns.insert((tid, at_ns), Turn { moments: thread.moments.iter().copied().collect(), poll });
    }

    /// What a thread did in the turn that began and ended then.
    pub fn held(&self, tid: Tid, (since_ns, until_ns): (u64, u64)) -> Held {
        let Some(turn) = self.turns.get(&(tid, until_ns)) else { return Held::default() };
        let mut weights: Vec<(u64, u64)> = Vec::new();
        for moment in &turn.moments {
            let weight_ns = moment.until_ns.min(until_ns).saturating_sub(moment.since_ns.max(since_ns));
            match weights.iter_mut().find(|(callstack, _)| *callstack == moment.callstack) {
                Some((_, sum_ns)) => *sum_ns += weight_ns,
                None => weights.push((moment.callstack, weight_ns)),
            }
        }
        let heaviest = weights.into_iter().filter(|(_, weight_ns)| *weight_ns > 0).max_by_key(|(_, ns)| *ns);
        Held {
            task: turn.poll.as_ref().map(|poll| (poll.task, Arc::clone(&poll.future))),
            callstack: heaviest.map(|(callstack, _)| callstack),
        }
    }

    /// The thread has ended, or its id is another's now.
    pub fn forget_thread(&mut self, tid: Tid) {
        self.threads.remove(&tid);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOLDER: Tid = Tid(9);

    fn future(name: &str) -> Arc<Future> {
        Arc::new(Future::example(name))
    }

    fn task(held: &Held) -> Option<(u64, &str)> {
        held.task.as_ref().map(|(task, future)| (*task, &*future.name))
    }

    #[test]
    fn who_held_a_lock_was_in_the_innermost_poll_then_whether_that_is_told_before_or_after() {
        for is_told_before in [true, false] {
            let mut holders = Holders::default();
            holders.found(HOLDER, (0, 1), 1);
            if !is_told_before {
                holders.let_go(HOLDER, 500_000);
            }
            holders.polled(HOLDER, (100_000, 300_000), 6, &future("before"));
            holders.polled(HOLDER, (400_000, 700_000), 7, &future("inner"));
            holders.polled(HOLDER, (350_000, 900_000), 8, &future("outer"));
            if is_told_before {
                holders.let_go(HOLDER, 500_000);
            }
            let held = holders.held(HOLDER, (450_000, 500_000));
            assert_eq!(task(&held), Some((7, "inner")), "{is_told_before}");
        }
    }

    #[test]
    fn where_a_thread_was_while_it_held_a_lock_is_told_and_not_where_it_was_before_or_after() {
        let mut holders = Holders::default();
        // It waited for the lock itself, and ran for a moment before it slept with it.
        for (times, callstack) in [((0, 1_000), 1), ((1_000, 1_010), 2), ((1_050, 1_500), 3)] {
            holders.found(HOLDER, times, callstack);
        }
        holders.let_go(HOLDER, 1_600);
        holders.found(HOLDER, (1_600, 9_000), 4);
        assert_eq!(holders.held(HOLDER, (1_000, 1_600)), Held { task: None, callstack: Some(3) });
        assert_eq!(holders.held(HOLDER, (1_550, 1_600)), Held::default());
        assert_eq!(holders.held(Tid(1), (1_000, 1_600)), Held::default());
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut holders = Holders::default();
        let one = future("one");
        for at_ns in 0..3 * MAX_TURNS as u64 {
            holders.found(HOLDER, (at_ns, at_ns + 1), at_ns);
            holders.let_go(HOLDER, at_ns);
            holders.polled(HOLDER, (at_ns, at_ns + LEAST_POLL_NS), 7, &one);
        }
        let thread = &holders.threads[&HOLDER];
        assert_eq!(
            (thread.moments.len(), thread.polls.len(), holders.turns.len()),
            (MAX_MOMENTS, MAX_POLLS, MAX_TURNS)
        );
        holders.let_go(HOLDER, KEPT_NS + 3 * MAX_TURNS as u64);
        assert!(holders.turns.len() < MAX_TURNS);
        holders.forget_thread(HOLDER);
        assert!(holders.threads.is_empty());
    }
}
