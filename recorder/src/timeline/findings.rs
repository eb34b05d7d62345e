//! What is wrong with polls: those that keep a worker from all its other tasks.

use std::{collections::BTreeMap, fmt, sync::Arc};

use polletto_common::id::Tid;
use rustc_hash::FxHashMap;

use super::{
    convoys::Convoy, doings::Doing, extent::Extent, holders::Held, task_code::Future, tokio_tracks::Poller, waits::Wait,
};
use crate::trace::Weights;

/// Groups of findings that are told apart by their callstacks. There may be as many of one function as it has instructions.
const MAX_GROUPS: usize = 4096;

/// Groups of those beyond, which are told apart by their futures alone.
const MAX_OTHERS: usize = 4096;

/// What is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fault {
    /// A poll was long because it ran.
    LongPoll,
    /// A poll was long because its thread slept in it.
    Slept(Wait),
    /// A poll was long because its thread had to make room for others, or waited for a CPU.
    Preempted,
    /// A task that was woken had to wait for its poll.
    Starved,
    /// Several threads slept at one lock, in polls too.
    Convoy,
}

impl Fault {
    /// What a poll's length is owed to, most of all.
    pub fn of(weights: Weights, wait: Option<Wait>) -> Fault {
        let Weights { cpu_ns, off_cpu_ns, run_queue_ns } = weights;
        if cpu_ns >= off_cpu_ns.max(run_queue_ns) {
            Fault::LongPoll
        } else if off_cpu_ns >= run_queue_ns {
            Fault::Slept(wait.unwrap_or(Wait::NotSeen))
        } else {
            Fault::Preempted
        }
    }

    /// One of each kind: all sleeps are of one.
    pub const KINDS: [Fault; 5] =
        [Fault::LongPoll, Fault::Slept(Wait::Other), Fault::Preempted, Fault::Starved, Fault::Convoy];

    /// What traces and summaries call it. The same for all sleeps.
    pub fn name(self) -> &'static str {
        match self {
            Fault::LongPoll => "long poll",
            Fault::Slept(_) => "slept in poll",
            Fault::Preempted => "preempted in poll",
            Fault::Starved => "starved task",
            Fault::Convoy => "lock convoy",
        }
    }

    /// What was slept for, if that is it.
    pub fn wait(self) -> Option<Wait> {
        match self {
            Fault::Slept(wait) => Some(wait),
            Fault::LongPoll | Fault::Preempted | Fault::Starved | Fault::Convoy => None,
        }
    }
}

/// What a finding tells of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Cause {
    /// What the program did.
    Program,
    /// That others had the CPUs.
    Machine,
}

impl Cause {
    /// What summaries call it, and `polletto_findings`.
    pub fn name(self) -> &'static str {
        match self {
            Cause::Program => "program",
            Cause::Machine => "machine",
        }
    }
}

/// Something that lasted too long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What it is.
    pub fault: Fault,
    /// When it began, CLOCK_BOOTTIME nanoseconds.
    pub since_ns: u64,
    /// How well it is known how long it lasted.
    pub extent: Extent,
    /// Who polled.
    pub poller: Poller,
    /// And on which thread.
    pub tid: Tid,
    /// The task's id.
    pub task: u64,
    /// Its future.
    pub future: Arc<Future>,
    /// What its time went to. Of a starved task all is waiting, of a convoy the longest sleep in a poll.
    pub weights: Weights,
    /// The number of the callstack that weighs most, if any was seen.
    pub callstack: Option<u64>,
    /// Of a poll that slept: the callstacks with which it did so for the same, and for how long with each, nanoseconds.
    pub slept_with: Vec<(u64, u64)>,
    /// Of a starved task: what was done while it waited.
    pub meanwhile: Option<Meanwhile>,
    /// What is told besides of a convoy. The rest is then about the longest sleep in a poll.
    pub convoy: Option<ConvoyHeld>,
}

/// What was done while a task waited for its poll.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Meanwhile {
    /// The long poll of its runtime that took most of that time, if there was one.
    Polled(Keeper),
    /// Else what the thread did that polled it in the end.
    Did(Doing),
}

impl Meanwhile {
    /// What a task tells of that waited for so long.
    fn cause(&self, waited_ns: u64) -> Cause {
        match self {
            Meanwhile::Polled(keeper) if 2 * keeper.preempted_ns >= waited_ns => Cause::Machine,
            Meanwhile::Did(Doing::NoCpu) => Cause::Machine,
            Meanwhile::Polled(_) | Meanwhile::Did(_) => Cause::Program,
        }
    }
}

/// As `polletto_findings` has it.
impl fmt::Display for Meanwhile {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Meanwhile::Polled(keeper) => keeper.fmt(out),
            Meanwhile::Did(doing) => doing.fmt(out),
        }
    }
}

/// A poll that kept a worker from others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keeper {
    /// The worker.
    pub poller: Poller,
    /// The group of its runtime's tracks, if that is known.
    pub runtime: Option<String>,
    /// What it polled.
    pub future: Arc<Future>,
    /// For how long, nanoseconds.
    pub lasted_ns: u64,
    /// For how much of the time in which the other task waited it had no CPU, if it was preempted; else 0. Nanoseconds.
    pub preempted_ns: u64,
}

/// As `polletto_findings` has it.
impl fmt::Display for Keeper {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} polled {} for {:.1} ms", self.poller.name(), self.future.name, self.lasted_ns as f64 / 1e6)?;
        self.runtime.as_ref().map_or(Ok(()), |runtime| write!(out, " ({runtime})"))
    }
}

/// A convoy, and what its lock's holder did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConvoyHeld {
    /// How long it lasted, nanoseconds.
    pub lasted_ns: u64,
    /// Who stood there.
    pub convoy: Convoy,
    /// What was done in [`Convoy::held`].
    pub held: Held,
}

impl Finding {
    /// What it tells of.
    pub fn cause(&self) -> Cause {
        let of = |meanwhile: &Meanwhile| meanwhile.cause(self.duration_ns());
        match self.fault {
            Fault::Preempted => Cause::Machine,
            Fault::Starved => self.meanwhile.as_ref().map_or(Cause::Program, of),
            Fault::LongPoll | Fault::Slept(_) | Fault::Convoy => Cause::Program,
        }
    }

    /// How long it lasted, nanoseconds.
    pub fn duration_ns(&self) -> u64 {
        self.convoy.as_ref().map_or(self.weights.wall_ns(), |convoy| convoy.lasted_ns)
    }

    /// For how much of that a poll slept with its callstack, nanoseconds; none if it is no poll that slept.
    pub fn slept_there_ns(&self) -> Option<u64> {
        let (_, slept_ns) = self.slept_with.iter().find(|(callstack, _)| Some(*callstack) == self.callstack)?;
        Some(*slept_ns)
    }
}

/// Findings of one kind and cause, of one future, with one callstack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// How many there are.
    pub count: u64,
    /// How long all of them lasted, nanoseconds.
    pub total_ns: u64,
    /// The longest of them.
    pub longest: Finding,
}

impl Group {
    /// As one group with another.
    pub fn add(&mut self, other: &Group) {
        self.count += other.count;
        self.total_ns += other.total_ns;
        if other.longest.duration_ns() > self.longest.duration_ns() {
            self.longest = other.longest.clone();
        }
    }
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// In the order of [`Fault`].
    counts: BTreeMap<Fault, Counted>,
    groups: FxHashMap<(Fault, Cause, Arc<Future>, Option<u64>), Group>,
    /// Those for which there was no room, of whatever callstacks: they are told where the longest was.
    others: FxHashMap<(Fault, Cause, Arc<Future>), Group>,
    /// How many these are, and those for which there was no room here either.
    crowded: u64,
}

/// How many there are of a kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    /// All of them.
    pub all: u64,
    /// Those of them that tell of the machine.
    pub of_machine: u64,
}

impl Findings {
    /// Takes one more.
    pub fn push(&mut self, finding: Finding) {
        let cause = finding.cause();
        let counted = self.counts.entry(finding.fault).or_default();
        counted.all += 1;
        counted.of_machine += u64::from(cause == Cause::Machine);
        let alike = (finding.fault, cause, Arc::clone(&finding.future), finding.callstack);
        let own = Group { count: 1, total_ns: finding.duration_ns(), longest: finding };
        if let Some(group) = self.groups.get_mut(&alike) {
            group.add(&own);
            return;
        }
        if self.groups.len() < MAX_GROUPS {
            self.groups.insert(alike, own);
            return;
        }
        self.crowded += 1;
        let (fault, cause, future, _) = alike;
        let alike = (fault, cause, future);
        if let Some(group) = self.others.get_mut(&alike) {
            group.add(&own);
        } else if self.others.len() < MAX_OTHERS {
            self.others.insert(alike, own);
        }
    }

    /// How many are told where others of the same future were, or nowhere.
    pub fn crowded(&self) -> u64 {
        self.crowded
    }

    /// How many of each kind there are.
    pub fn counts(&self) -> impl Iterator<Item = (Fault, Counted)> {
        self.counts.iter().map(|(&fault, &count)| (fault, count))
    }

    /// Those that are alike.
    pub fn groups(&self) -> impl Iterator<Item = &Group> {
        self.groups.values().chain(self.others.values())
    }
}

/// Callstacks that were seen in a poll, and what each weighs.
#[derive(Debug, Default)]
pub struct Callstacks(Vec<(u64, Option<Wait>, u64)>);

/// Different ones that are kept of a poll.
const MAX_CALLSTACKS: usize = 64;

impl Callstacks {
    /// One was seen that stands for so many nanoseconds, slept for something or run.
    pub fn push(&mut self, callstack: u64, wait: Option<Wait>, weight_ns: u64) {
        if let Some((_, _, weight)) = self.0.iter_mut().find(|(known, of, _)| (*known, *of) == (callstack, wait)) {
            *weight += weight_ns;
        } else if self.0.len() < MAX_CALLSTACKS {
            self.0.push((callstack, wait, weight_ns));
        }
    }

    /// And those that were seen later.
    pub fn add(&mut self, later: Callstacks) {
        later.0.into_iter().for_each(|(callstack, wait, weight_ns)| self.push(callstack, wait, weight_ns));
    }

    /// The one that weighs most of those that ran, or of those that slept for what was slept for most. Of several, the one that
    /// came last: polls begin with what prepares the rest, as with memory. `tools/sql/polletto/faults.sql` tells it alike.
    pub fn heaviest(&self, slept: bool) -> Option<(u64, Option<Wait>)> {
        let of_kind = self.0.iter().filter(|(_, wait, _)| wait.is_some() == slept);
        let all_ns =
            |wait| -> u64 { self.0.iter().filter(|(_, of, _)| *of == wait).map(|(_, _, weight)| weight).sum() };
        let heaviest = of_kind.max_by_key(|&&(_, wait, weight)| (all_ns(wait), wait, weight));
        heaviest.map(|&(callstack, wait, _)| (callstack, wait))
    }

    /// All that slept for that, and what each weighs.
    pub fn slept_for(&self, wait: Wait) -> Vec<(u64, u64)> {
        let of_wait = self.0.iter().filter(|(_, of, _)| *of == Some(wait));
        of_wait.map(|&(callstack, _, weight_ns)| (callstack, weight_ns)).collect()
    }
}

#[cfg(test)]
mod tests {
    use polletto_common::id::Tgid;

    use super::*;

    #[test]
    fn a_poll_is_long_for_what_took_most_of_it() {
        let weights = |cpu_ns, off_cpu_ns, run_queue_ns| Weights { cpu_ns, off_cpu_ns, run_queue_ns };
        for (weights, expected) in [
            (weights(5, 3, 2), Fault::LongPoll),
            (weights(2, 5, 3), Fault::Slept(Wait::Lock)),
            (weights(2, 3, 5), Fault::Preempted),
            (weights(0, 0, 0), Fault::LongPoll),
        ] {
            assert_eq!(Fault::of(weights, Some(Wait::Lock)), expected);
        }
        assert_eq!(Fault::of(weights(0, 1, 0), None), Fault::Slept(Wait::NotSeen));
    }

    #[test]
    fn a_task_starves_by_the_machine_if_its_worker_or_the_poll_that_kept_it_had_no_cpu() {
        let polled = |preempted_ns| {
            let (poller, future) = (Poller::Thread { tgid: Tgid(1), tid: Tid(1) }, Arc::new(Future::example("f")));
            Meanwhile::Polled(Keeper { poller, runtime: None, future, lasted_ns: 9, preempted_ns })
        };
        for (meanwhile, expected) in [
            (polled(0), Cause::Program),
            (polled(4), Cause::Program),
            (polled(5), Cause::Machine),
            (Meanwhile::Did(Doing::NoCpu), Cause::Machine),
            (Meanwhile::Did(Doing::Runs), Cause::Program),
            (Meanwhile::Did(Doing::Unseen), Cause::Program),
        ] {
            assert_eq!(meanwhile.cause(10), expected, "{meanwhile}");
        }
    }

    #[test]
    fn all_are_counted_and_those_that_are_alike_are_a_group() {
        let future = Future::example("f");
        let finding = |cpu_ns| Finding {
            fault: Fault::LongPoll,
            since_ns: 0,
            extent: Extent::Exact,
            poller: Poller::Thread { tgid: Tgid(1), tid: Tid(1) },
            tid: Tid(1),
            task: 7,
            future: Arc::new(future.clone()),
            weights: Weights { cpu_ns, ..Weights::default() },
            callstack: None,
            slept_with: Vec::new(),
            meanwhile: None,
            convoy: None,
        };
        let mut findings = Findings::default();
        [3, 9, 5].into_iter().for_each(|cpu_ns| findings.push(finding(cpu_ns)));
        findings.push(Finding { callstack: Some(1), ..finding(7) });
        findings.push(Finding { fault: Fault::Starved, ..finding(20) });
        let no_cpu = Some(Meanwhile::Did(Doing::NoCpu));
        findings.push(Finding { fault: Fault::Starved, meanwhile: no_cpu, ..finding(30) });
        let of = |all, of_machine| Counted { all, of_machine };
        assert_eq!(findings.counts().collect::<Vec<_>>(), [(Fault::LongPoll, of(4, 0)), (Fault::Starved, of(2, 1))]);
        let mut groups: Vec<(u64, u64, u64)> =
            findings.groups().map(|group| (group.count, group.total_ns, group.longest.duration_ns())).collect();
        groups.sort_unstable();
        assert_eq!(groups, [(1, 7, 7), (1, 20, 20), (1, 30, 30), (3, 17, 9)]);
        (0..2 * MAX_GROUPS as u64).for_each(|at| findings.push(Finding { callstack: Some(at), ..finding(1) }));
        findings.push(Finding { callstack: Some(u64::MAX), ..finding(500) });
        let all = 5 + 2 * MAX_GROUPS as u64;
        assert_eq!(findings.counts().next(), Some((Fault::LongPoll, of(all, 0))));
        assert_eq!(findings.groups().count(), MAX_GROUPS + 1);
        assert_eq!(findings.groups().map(|group| group.count).sum::<u64>(), all + 2);
        // For the other two kinds and the first two of this one there was room before, and one came a second time.
        assert_eq!(findings.crowded(), all - 4 - (MAX_GROUPS as u64 - 4) - 1);
        let longest = findings.groups().max_by_key(|group| group.longest.duration_ns()).expect("some");
        assert_eq!((longest.count, longest.longest.callstack), (findings.crowded(), Some(u64::MAX)));
    }

    #[test]
    fn the_callstack_that_weighs_most_is_of_the_kind_that_is_asked_for() {
        let mut callstacks = Callstacks::default();
        for (callstack, wait, weight) in [(1, None, 10), (2, None, 8), (2, None, 3), (3, Some(Wait::File), 5)] {
            callstacks.push(callstack, wait, weight);
        }
        assert_eq!(callstacks.heaviest(false), Some((2, None)));
        assert_eq!(callstacks.heaviest(true), Some((3, Some(Wait::File))));
        assert_eq!(Callstacks::default().heaviest(true), None);
        callstacks.push(4, None, 11);
        assert_eq!(callstacks.heaviest(false), Some((4, None)), "the last of two that weigh as much");
    }

    #[test]
    fn what_was_slept_for_most_tells_the_callstack_whatever_else_was_slept_for_longer_at_once() {
        let mut callstacks = Callstacks::default();
        for (callstack, wait, weight) in
            [(1, Wait::Timer, 10), (2, Wait::Lock, 8), (3, Wait::Lock, 7), (2, Wait::Lock, 1)]
        {
            callstacks.push(callstack, Some(wait), weight);
        }
        assert_eq!(callstacks.heaviest(true), Some((2, Some(Wait::Lock))));
        assert_eq!(callstacks.slept_for(Wait::Lock), [(2, 9), (3, 7)]);
        assert_eq!(callstacks.slept_for(Wait::File), []);
    }
}
