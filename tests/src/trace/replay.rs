//! From switches and wake-ups to what ran where and what every thread did.
//!
//! As `trace_processor` does it: a switch says only what runs next. What ran before is what the last switch on that CPU
//! left running, so a CPU's first switch ends nothing. `prev_state` belongs to the thread that is switched out.

use std::{collections::BTreeMap, ops::Range, slice::Iter};

use super::{
    Nanoseconds, Tid,
    compact::{Bundle, EndState, Switch, Waking},
};

/// A stretch of a CPU's time that a thread had to itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slice {
    /// Where.
    pub cpu: u32,
    /// Who.
    pub tid: Tid,
    /// From when on.
    pub start: Nanoseconds,
    /// When it was switched out, and as what. None if it ran when the trace ended.
    pub end: Option<(Nanoseconds, EndState)>,
}

/// What a thread does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It runs on a CPU.
    Running {
        /// Which.
        cpu: u32,
    },
    /// It waits for a CPU after it was woken or taken off one.
    Runnable {
        /// Who woke it. None after a preemption, or where the trace does not know what the waking CPU ran.
        waker: Option<Tid>,
    },
    /// It waits for something else.
    Blocked(EndState),
    /// It has ended.
    Dead,
}

/// A state and how long it lasted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interval {
    /// From when on.
    pub start: Nanoseconds,
    /// Until when. None if it lasted when the trace ended.
    pub end: Option<Nanoseconds>,
    /// What it did.
    pub state: State,
}

/// What one thread did, one interval after the other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ThreadIntervals(Vec<Interval>);

impl ThreadIntervals {
    pub(super) const fn new() -> ThreadIntervals {
        ThreadIntervals(Vec::new())
    }

    /// All of them, in the order of time.
    pub fn iter(&self) -> Iter<'_, Interval> {
        self.0.iter()
    }

    /// Nanoseconds of running in intervals that ended within `moments`: what the kernel's accounting adds in between.
    pub fn ran_in_slices_ending_in(&self, moments: &Range<Nanoseconds>) -> Nanoseconds {
        self.ended_in(moments, |state| matches!(state, State::Running { .. }))
    }

    /// Nanoseconds of waiting for a CPU in intervals that ended within `moments`.
    pub fn waited_in_intervals_ending_in(&self, moments: &Range<Nanoseconds>) -> Nanoseconds {
        self.ended_in(moments, |state| matches!(state, State::Runnable { .. }))
    }

    /// Nanoseconds of being blocked in intervals that ended within `moments`.
    pub fn blocked_in_intervals_ending_in(&self, moments: &Range<Nanoseconds>) -> Nanoseconds {
        self.ended_in(moments, |state| matches!(state, State::Blocked(_)))
    }

    /// Nanoseconds of running within `moments`.
    pub fn ran_within(&self, moments: &Range<Nanoseconds>) -> Nanoseconds {
        let within = |interval: &Interval| {
            let end = interval.end.unwrap_or(Nanoseconds::MAX).min(moments.end);
            end.saturating_sub(interval.start.max(moments.start))
        };
        self.0.iter().filter(|interval| matches!(interval.state, State::Running { .. })).map(within).sum()
    }

    fn ended_in(&self, moments: &Range<Nanoseconds>, wanted: impl Fn(State) -> bool) -> Nanoseconds {
        let ended = |interval: &Interval| {
            let end = interval.end.filter(|end| moments.contains(end) && wanted(interval.state))?;
            Some(end - interval.start)
        };
        self.0.iter().filter_map(ended).sum()
    }

    fn state(&self) -> Option<State> {
        self.0.last().map(|interval| interval.state)
    }

    fn enter(&mut self, at: Nanoseconds, state: State) {
        if let Some(last) = self.0.last_mut() {
            last.end = Some(at);
        }
        self.0.push(Interval { start: at, end: None, state });
    }
}

/// What the scheduler's events of a trace amount to.
#[derive(Debug, Default)]
pub(super) struct Replayed {
    pub slices: Vec<Slice>,
    pub switches: Vec<Switch>,
    pub wakings: Vec<Waking>,
    pub threads: BTreeMap<Tid, ThreadIntervals>,
}

pub(super) fn replay(bundles: &[Bundle]) -> Replayed {
    let mut switches: Vec<Switch> = bundles.iter().flat_map(|bundle| bundle.switches.iter().cloned()).collect();
    let mut wakings: Vec<Waking> = bundles.iter().flat_map(|bundle| bundle.wakings.iter().cloned()).collect();
    switches.sort_by_key(|switch| switch.at);
    wakings.sort_by_key(|waking| waking.at);
    let mut machine = Machine::default();
    let mut ahead = wakings.iter().peekable();
    for switch in &switches {
        while let Some(waking) = ahead.next_if(|waking| waking.at < switch.at) {
            machine.wake(waking);
        }
        machine.switch(switch);
    }
    ahead.for_each(|waking| machine.wake(waking));
    Replayed { slices: machine.slices, switches, wakings, threads: machine.threads }
}

/// What is known at one moment of the replay.
#[derive(Default)]
struct Machine {
    slices: Vec<Slice>,
    threads: BTreeMap<Tid, ThreadIntervals>,
    /// The slice that each CPU is in, as an index.
    current: BTreeMap<u32, usize>,
}

impl Machine {
    fn switch(&mut self, switch: &Switch) {
        if let Some(ended) = self.current.insert(switch.cpu, self.slices.len()) {
            self.slices[ended].end = Some((switch.at, switch.prev_state));
            let state = match switch.prev_state {
                state if state.is_dead() => State::Dead,
                state if state.is_runnable() => State::Runnable { waker: None },
                state => State::Blocked(state),
            };
            self.enter(self.slices[ended].tid, switch.at, state);
        }
        self.slices.push(Slice { cpu: switch.cpu, tid: switch.next, start: switch.at, end: None });
        self.enter(switch.next, switch.at, State::Running { cpu: switch.cpu });
    }

    fn wake(&mut self, waking: &Waking) {
        let state = self.threads.get(&waking.tid).and_then(ThreadIntervals::state);
        // One that wants a CPU or has one already does not change by being told to wake.
        if !matches!(state, Some(State::Running { .. } | State::Runnable { .. })) {
            let waker = self.current.get(&waking.cpu).map(|slice| self.slices[*slice].tid);
            self.enter(waking.tid, waking.at, State::Runnable { waker });
        }
    }

    fn enter(&mut self, tid: Tid, at: Nanoseconds, state: State) {
        // Every CPU has an idle thread, and all of them have id 0: they are no thread whose life could be told.
        if tid != 0 {
            self.threads.entry(tid).or_default().enter(at, state);
        }
    }
}

/// Where the scheduler's data contradicts itself.
pub(super) fn faults(bundles: &[Bundle], slices: &[Slice]) -> Vec<String> {
    let mut faults = Vec::new();
    let mut ends: BTreeMap<(u32, &str), Nanoseconds> = BTreeMap::new();
    for Bundle { cpu, switches, wakings } in bundles {
        let spans = [
            ("switch", switches.first().map(|first| first.at), switches.last().map(|last| last.at)),
            ("waking", wakings.first().map(|first| first.at), wakings.last().map(|last| last.at)),
        ];
        for (kind, first, last) in spans {
            let (Some(first), Some(last)) = (first, last) else { continue };
            if let Some(before) = ends.insert((*cpu, kind), last).filter(|before| *before > first) {
                faults
                    .push(format!("cpu {cpu}: a {kind} bundle begins at {first}, before the last one's end {before}"));
            }
        }
    }
    faults.extend(overlaps(slices, "two threads at once on cpu", |slice| Some(i64::from(slice.cpu))));
    faults.extend(overlaps(slices, "on two CPUs at once: thread", |slice| {
        (slice.tid > 0).then_some(i64::from(slice.tid))
    }));
    faults
}

/// Slices that begin before the one before them has ended, among those with the same key.
fn overlaps(slices: &[Slice], what: &str, key: impl Fn(&Slice) -> Option<i64>) -> Vec<String> {
    let mut last: BTreeMap<i64, &Slice> = BTreeMap::new();
    let mut faults = Vec::new();
    for slice in slices {
        let Some(key) = key(slice) else { continue };
        if let Some(before) = last.insert(key, slice)
            && before.end.is_none_or(|(end, _)| end > slice.start)
        {
            faults.push(format!("{what} {key}: {before:?} and {slice:?}"));
        }
    }
    faults
}

#[cfg(test)]
mod tests {
    use perfetto_protos::ftrace_event_bundle::FtraceEventBundle;

    use super::*;
    use crate::trace::synthetic::{bundle, switch};

    fn read(bundles: &[FtraceEventBundle]) -> Vec<Bundle> {
        bundles.iter().map(Bundle::new).collect()
    }

    #[test]
    fn a_cpus_first_switch_only_says_what_runs_next() {
        let replayed = replay(&read(&[bundle(0, &[switch(10, 1, 7, "a"), switch(30, 1, 0, "idle")], &[])]));
        assert_eq!(
            replayed.slices,
            [
                Slice { cpu: 0, tid: 7, start: 10, end: Some((30, EndState::SLEEPING)) },
                Slice { cpu: 0, tid: 0, start: 30, end: None }
            ]
        );
    }

    #[test]
    fn a_thread_sleeps_is_woken_waits_and_runs() {
        let switches =
            [switch(10, 0, 7, "a"), switch(30, 1, 0, "idle"), switch(60, 0, 7, "a"), switch(70, 0x100, 8, "b")];
        let replayed =
            replay(&read(&[bundle(0, &switches, &[]), bundle(1, &[switch(5, 0, 9, "waker")], &[(50, 7, "a")])]));
        let states: Vec<_> = replayed.threads[&7].iter().map(|interval| (interval.start, interval.state)).collect();
        assert_eq!(
            states,
            [
                (10, State::Running { cpu: 0 }),
                (30, State::Blocked(EndState::SLEEPING)),
                (50, State::Runnable { waker: Some(9) }),
                (60, State::Running { cpu: 0 }),
                (70, State::Runnable { waker: None }),
            ]
        );
        let thread = &replayed.threads[&7];
        assert_eq!(thread.ran_in_slices_ending_in(&(30..71)), 30);
        assert_eq!(thread.ran_within(&(20..65)), 15);
        assert_eq!(thread.waited_in_intervals_ending_in(&(0..100)), 10);
        assert_eq!(thread.blocked_in_intervals_ending_in(&(0..100)), 20);
    }

    #[test]
    fn waking_a_thread_that_runs_changes_nothing() {
        let replayed = replay(&read(&[bundle(0, &[switch(10, 0, 7, "a")], &[(20, 7, "a")])]));
        assert_eq!(replayed.threads[&7].iter().count(), 1);
    }

    #[test]
    fn the_dead_stay_dead() {
        let replayed = replay(&read(&[bundle(0, &[switch(10, 0, 7, "a"), switch(20, 0x20, 0, "idle")], &[])]));
        assert_eq!(replayed.threads[&7].state(), Some(State::Dead));
    }

    #[test]
    fn contradictions_are_found() {
        let one = |cpu, at| bundle(cpu, &[switch(at, 1, 7, "a")], &[]);
        let cases = [
            ([one(0, 10), one(1, 20)], "on two CPUs at once: thread 7"),
            ([one(0, 20), one(0, 10)], "cpu 0: a switch bundle begins at 10, before"),
        ];
        for (bundles, fault) in cases {
            let bundles = read(&bundles);
            let found = faults(&bundles, &replay(&bundles).slices);
            assert!(found.iter().any(|line| line.starts_with(fault)), "{found:?}");
        }
    }
}
