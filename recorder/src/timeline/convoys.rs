//! Locks at which many threads stood at once.
//!
//! A thread that waits for a lock sleeps in the system call `futex`, on the lock's address. Who lets a lock go wakes
//! one of those that wait for it, so who woke a thread had held the lock: with the locks of Rust's standard library, of
//! the C library, and of `parking_lot`. The last let each thread sleep on an address of its own, instead of which the
//! kernel programs tell the lock's: see [`polletto_common::parked`]. Of several readers that held a lock, the last
//! wakes.

use std::sync::Arc;

use polletto_common::id::{Tgid, Tid};
use rustc_hash::{FxHashMap, FxHashSet};

use super::{blocked::Absence, task_code::PollBody, tokio_tracks::Poller};

/// Threads of a process that sleep at the same time on one address: fewer are no convoy.
const LEAST_THREADS: usize = 3;

/// A sleep is told when it is over. One that lasts by so much longer than all that it overlaps comes too late.
const PATIENCE_NS: u64 = 10_000_000_000;

/// How often it is looked for sleeps that are old enough.
const PERIOD_NS: u64 = 1_000_000_000;

/// Sleeps that are kept until they are.
const MAX_SLEEPS: usize = 1 << 14;

/// What a thread polled that slept.
#[derive(Clone, Debug)]
pub struct SleptIn {
    pub poller: Poller,
    pub task: u64,
    /// What the task is, if that was known.
    pub body: Option<Arc<PollBody>>,
    /// With which the thread went to sleep.
    pub callstack: u64,
}

/// A sleep at a lock.
#[derive(Clone, Debug)]
pub struct Sleep {
    pub tid: Tid,
    pub absence: Absence,
    /// Who ended it; 0 if that is not known.
    pub waker: Tid,
    /// Since when that one is known to have been awake, nanoseconds.
    pub waker_since_ns: u64,
    /// The poll that it was in the middle of, if that was of a task that awaits.
    pub poll: Option<SleptIn>,
}

/// Threads that stood at one lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Convoy {
    /// The address on which they slept.
    pub lock: u64,
    /// How many threads there were.
    pub threads: u64,
    /// And how many of them at the same time, at most.
    pub at_once: u64,
    /// Who held the lock longest at a time, if anybody was seen to let it go.
    pub held: Option<Turn>,
}

/// A thread held a lock, from when it was let go before, or somebody first waited for it, until it let it go itself. Not from
/// before it was awake: it may have slept at the lock since before the recording began, and who let it go for it then is not
/// known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turn {
    /// The thread.
    pub tid: Tid,
    /// From when.
    pub since_ns: u64,
    /// Until when.
    pub until_ns: u64,
}

impl Turn {
    /// How long that was, nanoseconds.
    pub fn held_ns(self) -> u64 {
        self.until_ns - self.since_ns
    }
}

/// A convoy, as long as somebody stood there.
#[derive(Clone, Debug)]
pub struct Found {
    pub convoy: Convoy,
    pub tgid: Tgid,
    pub since_ns: u64,
    pub until_ns: u64,
    /// The longest sleep of it that was in a poll: whose, and how long.
    pub tid: Tid,
    pub slept_ns: u64,
    pub slept_in: SleptIn,
}

/// Sleeps on addresses, until it is known which of them were at the same time.
#[derive(Debug, Default)]
pub struct Convoys {
    sleeps: FxHashMap<(Tgid, u64), Vec<Sleep>>,
    count: usize,
    /// Without polls, there is nobody to be kept from them. As many as are recorded at the same time, at most.
    polling: FxHashSet<Tgid>,
    looked_ns: u64,
    /// Those are told of which a sleep in a poll is as long, nanoseconds; none if 0.
    threshold_ns: u64,
    /// How often there were too many to wait for others.
    cut_short: u64,
}

impl Convoys {
    /// Tells convoys in which a poll slept for so long.
    pub fn find(&mut self, threshold_ns: u64) {
        self.threshold_ns = threshold_ns;
    }

    /// A thread of that process leaves its CPU in the middle of a poll.
    pub fn polls(&mut self, tgid: Tgid) {
        self.polling.insert(tgid);
    }

    /// Whether it is of interest what threads of a process do that may hold locks.
    pub fn are_looked_for(&self, tgid: Tgid) -> bool {
        self.threshold_ns > 0 && self.polling.contains(&tgid)
    }

    /// A thread has slept on an address. Tells convoys that are over.
    pub fn slept(&mut self, (tgid, lock): (Tgid, u64), sleep: Sleep) -> Vec<Found> {
        if !self.are_looked_for(tgid) {
            return Vec::new();
        }
        let now_ns = sleep.absence.returned_ns;
        self.sleeps.entry((tgid, lock)).or_default().push(sleep);
        self.count += 1;
        if self.count >= MAX_SLEEPS {
            self.cut_short += 1;
            // Most are of threads that rest, each on an address of its own.
            self.sleeps.retain(|_, sleeps| sleeps.iter().any(|sleep| sleep.tid != sleeps[0].tid));
            self.count = self.sleeps.values().map(Vec::len).sum();
            if self.count >= MAX_SLEEPS / 2 {
                return self.take(|_| true, u64::MAX);
            }
        }
        if now_ns < self.looked_ns.saturating_add(PERIOD_NS) {
            return Vec::new();
        }
        self.looked_ns = now_ns;
        self.take(|_| true, now_ns.saturating_sub(PATIENCE_NS))
    }

    /// All of a process that has ended, or runs another program.
    pub fn take_process(&mut self, tgid: Tgid) -> Vec<Found> {
        self.polling.remove(&tgid);
        self.take(|of| of == tgid, u64::MAX)
    }

    /// All that are left.
    pub fn take_all(&mut self) -> Vec<Found> {
        self.take(|_| true, u64::MAX)
    }

    /// How often convoys may have been told in parts, or not at all, since there were too many sleeps.
    pub fn cut_short(&self) -> u64 {
        self.cut_short
    }

    /// Those that were over before that time.
    fn take(&mut self, is_theirs: impl Fn(Tgid) -> bool, before_ns: u64) -> Vec<Found> {
        let mut found = Vec::new();
        for (&(tgid, lock), sleeps) in self.sleeps.iter_mut().filter(|((tgid, _), _)| is_theirs(*tgid)) {
            sleeps.sort_by_key(|sleep| sleep.absence.left_ns);
            // The begin of those that are not over yet.
            let mut rest = 0;
            while let Some(together) = standing(&sleeps[rest..]).filter(|together| until_ns(together) < before_ns) {
                rest += together.len();
                found.extend(judged(tgid, lock, together, self.threshold_ns));
            }
            sleeps.drain(..rest);
        }
        self.sleeps.retain(|_, sleeps| !sleeps.is_empty());
        self.count = self.sleeps.values().map(Vec::len).sum();
        // So that the same record makes the same trace.
        found.sort_by_key(|found| (found.since_ns, found.tgid, found.convoy.lock));
        found
    }
}

/// The first of these sleeps, and as many of the next as there was always somebody asleep.
fn standing(sleeps: &[Sleep]) -> Option<&[Sleep]> {
    let mut until_ns = sleeps.first()?.absence.woken_ns;
    let is_after = |sleep: &Sleep| {
        let Absence { left_ns, woken_ns, .. } = sleep.absence;
        let is_after = left_ns > until_ns;
        until_ns = until_ns.max(woken_ns);
        is_after
    };
    let length = sleeps.iter().position(is_after).unwrap_or(sleeps.len());
    Some(&sleeps[..length])
}

fn until_ns(together: &[Sleep]) -> u64 {
    together.iter().map(|sleep| sleep.absence.woken_ns).max().unwrap_or_default()
}

/// Whether sleeps in the order of their begin, between which there was always somebody asleep, are a convoy.
fn judged(tgid: Tgid, lock: u64, together: &[Sleep], threshold_ns: u64) -> Option<Found> {
    let length_ns = |sleep: &Sleep| sleep.absence.weights().off_cpu_ns;
    let in_polls = together.iter().filter_map(|sleep| sleep.poll.as_ref().map(|poll| (sleep, poll)));
    let (longest, slept_in) = in_polls.max_by_key(|(sleep, _)| length_ns(sleep))?;
    let at_once = most_at_once(together);
    if length_ns(longest) < threshold_ns || at_once < LEAST_THREADS {
        return None;
    }
    let threads: FxHashSet<Tid> = together.iter().map(|sleep| sleep.tid).collect();
    let held = longest_turn(together);
    let convoy = Convoy { lock, threads: threads.len() as u64, at_once: at_once as u64, held };
    let since_ns = together.first()?.absence.left_ns;
    let (tid, slept_ns, slept_in) = (longest.tid, length_ns(longest), slept_in.clone());
    Some(Found { convoy, tgid, since_ns, until_ns: until_ns(together), tid, slept_ns, slept_in })
}

fn most_at_once(together: &[Sleep]) -> usize {
    // Who wakes when another falls asleep was not asleep at the same time.
    let mut changes: Vec<(u64, bool)> = Vec::with_capacity(2 * together.len());
    for Sleep { absence, .. } in together {
        changes.extend([(absence.left_ns, true), (absence.woken_ns, false)]);
    }
    changes.sort_unstable();
    let (mut asleep, mut most) = (0_usize, 0);
    for (_, falls_asleep) in changes {
        asleep = if falls_asleep { asleep + 1 } else { asleep.saturating_sub(1) };
        most = most.max(asleep);
    }
    most
}

/// Who held the lock longest at a time.
fn longest_turn(together: &[Sleep]) -> Option<Turn> {
    let mut woken: Vec<(u64, Tid, u64)> =
        together.iter().map(|sleep| (sleep.absence.woken_ns, sleep.waker, sleep.waker_since_ns)).collect();
    woken.sort_unstable();
    let mut since_ns = together.first()?.absence.left_ns;
    let turns = woken.into_iter().map(|(until_ns, tid, awake_ns)| {
        let since_ns = std::mem::replace(&mut since_ns, until_ns).max(awake_ns).min(until_ns);
        Turn { tid, since_ns, until_ns }
    });
    turns.filter(|turn| turn.tid != Tid::IDLE).max_by_key(|turn| (turn.held_ns(), turn.tid, turn.until_ns))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROCESS: Tgid = Tgid(10);
    const LOCK: (Tgid, u64) = (PROCESS, 0x7000);
    const MS: u64 = 1_000_000;

    fn sleep(tid: u32, left_ms: u64, woken_ms: u64, waker: u32, in_poll: bool) -> Sleep {
        let (left_ns, woken_ns) = (left_ms * MS, woken_ms * MS);
        let poller = Poller::Thread { tgid: PROCESS, tid: Tid(tid) };
        let poll = in_poll.then_some(SleptIn { poller, task: u64::from(tid), body: None, callstack: 5 });
        let absence = Absence { left_ns, woken_ns, returned_ns: woken_ns };
        Sleep { tid: Tid(tid), absence, waker: Tid(waker), waker_since_ns: 0, poll }
    }

    fn looking(polls: bool) -> Convoys {
        let mut convoys = Convoys::default();
        convoys.find(5 * MS);
        if polls {
            convoys.polls(PROCESS);
        }
        convoys
    }

    fn found(mut convoys: Convoys, sleeps: &[Sleep]) -> Vec<Found> {
        let mut found: Vec<Found> = sleeps.iter().flat_map(|sleep| convoys.slept(LOCK, sleep.clone())).collect();
        found.extend(convoys.take_all());
        found
    }

    fn convoys(sleeps: &[Sleep]) -> Vec<Found> {
        found(looking(true), sleeps)
    }

    #[test]
    fn threads_that_stand_at_one_lock_are_a_convoy_and_who_wakes_them_held_it() {
        // Each holds it for ten milliseconds, the first for fifteen. They are told when they wake.
        let sleeps = [sleep(2, 1, 15, 1, true), sleep(3, 2, 25, 2, true), sleep(4, 3, 35, 3, false)];
        let found = convoys(&sleeps);
        let [Found { convoy, since_ns, until_ns, tid, slept_ns, slept_in, .. }] = &found[..] else {
            panic!("{found:?}")
        };
        let held = Some(Turn { tid: Tid(1), since_ns: MS, until_ns: 15 * MS });
        let expected = Convoy { lock: LOCK.1, threads: 3, at_once: 3, held };
        assert_eq!((*convoy, *since_ns, *until_ns), (expected, MS, 35 * MS));
        assert_eq!((*tid, slept_in.task, *slept_ns), (Tid(3), 3, 23 * MS), "the longest sleep in a poll");
    }

    #[test]
    fn what_is_no_convoy_is_not_told() {
        let cases: [(&str, &[Sleep]); 5] = [
            ("two at once", &[sleep(2, 1, 15, 1, true), sleep(3, 2, 25, 2, true), sleep(4, 15, 35, 3, true)]),
            ("no poll", &[sleep(2, 1, 15, 1, false), sleep(3, 2, 25, 2, false), sleep(4, 3, 35, 3, false)]),
            ("short in polls", &[sleep(2, 1, 5, 1, true), sleep(3, 2, 25, 2, false), sleep(4, 3, 35, 3, false)]),
            ("apart", &[sleep(2, 1, 15, 1, true), sleep(3, 16, 25, 2, true), sleep(4, 26, 35, 3, true)]),
            ("one thread", &[sleep(2, 1, 15, 1, true), sleep(2, 15, 25, 2, true), sleep(2, 25, 35, 3, true)]),
        ];
        for (what, sleeps) in cases {
            assert!(convoys(sleeps).is_empty(), "{what}");
        }
        let all = [sleep(2, 1, 15, 1, true), sleep(3, 2, 25, 2, true), sleep(4, 3, 35, 3, true)];
        assert_eq!(convoys(&all).len(), 1);
        assert!(found(looking(false), &all).is_empty(), "nobody polls");
        let mut unwanted = looking(true);
        unwanted.find(0);
        assert!(found(unwanted, &all).is_empty(), "nobody asks");
    }

    #[test]
    fn a_convoy_lasts_as_long_as_somebody_stands_there() {
        let of = |first: u64| {
            [(first, first + 8), (first + 1, first + 20), (first + 2, first + 30)]
                .map(|(left, woken)| sleep((left % 100) as u32 + 1, left, woken, 1, true))
        };
        let sleeps = [of(0), of(30), of(100)].concat();
        let lasted: Vec<_> = convoys(&sleeps).iter().map(|found| (found.since_ns / MS, found.until_ns / MS)).collect();
        assert_eq!(lasted, [(0, 60), (100, 130)]);
    }

    #[test]
    fn who_woke_all_at_once_held_it_and_an_unknown_waker_did_not() {
        let all = [sleep(2, 1, 30, 9, true), sleep(3, 2, 30, 9, true), sleep(4, 3, 30, 9, true)];
        let unknown = all.clone().map(|sleep| Sleep { waker: Tid::IDLE, ..sleep });
        let held = |sleeps: &[Sleep]| convoys(sleeps)[0].convoy.held;
        assert_eq!(held(&all), Some(Turn { tid: Tid(9), since_ns: MS, until_ns: 30 * MS }));
        assert_eq!(held(&unknown), None);
    }

    #[test]
    fn the_longest_turn_is_told_and_not_who_had_most_of_them() {
        let sleeps =
            [sleep(2, 1, 10, 8, true), sleep(3, 2, 18, 8, true), sleep(4, 3, 30, 9, true), sleep(5, 4, 39, 8, true)];
        assert_eq!(convoys(&sleeps)[0].convoy.held, Some(Turn { tid: Tid(9), since_ns: 18 * MS, until_ns: 30 * MS }));
    }

    #[test]
    fn nobody_held_a_lock_before_it_was_awake() {
        let woken_by = |awake_ms, of| Sleep { waker_since_ns: awake_ms * MS, ..of };
        // Two others slept there before, the first of which let the lock go for the second at 26 ms.
        let mut sleeps = [sleep(2, 1, 34, 9, true), sleep(3, 2, 41, 2, true), sleep(4, 3, 43, 3, true)];
        let held = |sleeps: &[Sleep]| convoys(sleeps)[0].convoy.held.map(|turn| (turn.tid.0, turn.held_ns() / MS));
        assert_eq!(held(&sleeps), Some((9, 33)));
        sleeps[0] = woken_by(26, sleeps[0].clone());
        assert_eq!(held(&sleeps), Some((9, 8)));
        sleeps[0] = woken_by(29, sleeps[0].clone());
        assert_eq!(held(&sleeps), Some((2, 7)), "another had it longer");
        sleeps[0] = woken_by(35, sleeps[0].clone());
        assert_eq!(held(&sleeps), Some((2, 7)), "clocks differ");
    }

    #[test]
    fn a_sleep_that_is_told_late_belongs_to_those_it_overlaps() {
        let sleeps = [
            sleep(2, 1, 15, 1, true),
            sleep(3, 2, 25, 2, true),
            // Somewhere in between it is looked for what is over.
            sleep(5, 3000, 3001, 1, false),
            sleep(4, 3, 6000, 3, false),
        ];
        let found = convoys(&sleeps);
        assert_eq!(found.iter().map(|found| (found.since_ns, found.convoy.threads)).collect::<Vec<_>>(), [(MS, 4)]);
    }

    #[test]
    fn threads_that_rest_crowd_no_convoy_out() {
        let mut all = looking(true);
        let early = [sleep(2, 0, 9, 1, true), sleep(3, 0, 9, 1, true)];
        assert!(early.into_iter().all(|sleep| all.slept(LOCK, sleep).is_empty()));
        for at in 0..2 * MAX_SLEEPS as u64 {
            assert!(all.slept((PROCESS, at), sleep(9, 8, 9, 1, true)).is_empty());
            assert!(all.count < MAX_SLEEPS);
        }
        assert!(all.slept(LOCK, sleep(4, 0, 9, 1, true)).is_empty());
        assert_eq!((all.take_all().len(), all.cut_short()), (1, 2));
    }

    #[test]
    fn what_is_kept_is_bounded_and_told_after_a_while() {
        let mut all = looking(true);
        let mut found = 0;
        for at in 0..3 * MAX_SLEEPS as u64 {
            found += all.slept(LOCK, sleep(2 + (at % 3) as u32, at, at + 8, 1, true)).len();
            assert!(all.count < MAX_SLEEPS);
        }
        assert!(found > 0 && all.cut_short() > 0);
        let mut rare = looking(true);
        for at in (0..60).map(|turn| turn * 1000) {
            let three = [sleep(2, at, at + 9, 1, true), sleep(3, at, at + 9, 1, true), sleep(4, at, at + 9, 1, true)];
            let found: Vec<Found> = three.into_iter().flat_map(|sleep| rare.slept(LOCK, sleep)).collect();
            assert_eq!(found.len(), usize::from(at > 10_000), "at {at} ms");
            assert!(rare.count <= 36);
        }
        assert_eq!((rare.take_process(PROCESS).len(), rare.cut_short()), (11, 0));
    }
}
