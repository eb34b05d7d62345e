//! How long polls are said to have lasted, and what their time is said to have gone to, beside what the program measured.
//!
//! These scenarios need root and a kernel that takes BPF programs. They fail where it does not.

use polletto_tests::{
    program,
    program::Program,
    recorder::Record,
    trace::{Arguments, Event, Nanoseconds, State, Tid, Trace, TrackSlice, the_number, the_text},
    turn::Turn,
};
use serde_json::Value;

/// By how much a time may differ, in nanoseconds, where that is more than a share of the poll's length.
const ALLOWED_NS: u64 = 100_000;
const ALLOWED_PERCENT: u64 = 5;

/// How often the worker is kept by each cause for each length.
const ROUNDS: usize = 2;
const CAUSES: usize = 3;
const LENGTHS: usize = 9;

/// Polls whose split may differ since the machine disturbed them, in percent: it keeps switches from every tracer, or takes
/// the CPU away.
const DISTURBED_PERCENT: usize = 10;

/// A poll that kept its worker, as its task measured it.
#[derive(Debug)]
struct Stall {
    /// What kept it: `cpu`, `sleep` or `competitor`.
    cause: String,
    /// For how long, at least.
    length: Nanoseconds,
    /// The task's id.
    task: u64,
    tid: Tid,
    begin: Nanoseconds,
    end: Nanoseconds,
    /// For how long its thread had a CPU.
    ran: Nanoseconds,
    /// For how long its thread could have run.
    waited: Nanoseconds,
    /// How often its thread was given a CPU after it had to do without.
    turns: usize,
}

impl Stall {
    fn read(line: &Value) -> Stall {
        let number = |name: &str| line[name].as_u64().unwrap_or_else(|| panic!("{line}: {name}"));
        Stall {
            cause: line["cause"].as_str().unwrap_or_else(|| panic!("{line}: a cause")).to_owned(),
            length: number("length"),
            task: number("task"),
            tid: Tid::try_from(number("tid")).expect("an id"),
            begin: number("begin"),
            end: number("end"),
            ran: number("ran"),
            waited: number("waited"),
            turns: usize::try_from(number("turns")).expect("a small number"),
        }
    }

    fn lasted(&self) -> Nanoseconds {
        self.end - self.begin
    }

    /// In which its thread neither ran nor could have: it slept, or a hypervisor had taken the CPU away.
    fn rest(&self) -> Nanoseconds {
        self.lasted().saturating_sub(self.ran + self.waited)
    }

    /// Whether it was kept by what should keep it.
    fn is_as_meant(&self) -> bool {
        match self.cause.as_str() {
            "cpu" => self.ran >= self.length,
            "sleep" => self.rest() >= self.length,
            // Both had half of it.
            "competitor" => self.ran >= self.length / 2 && self.waited >= self.length / 2,
            other => panic!("nothing is known of {other}"),
        }
    }

    fn slept(&self) -> Nanoseconds {
        if self.cause == "sleep" { self.rest() } else { 0 }
    }

    fn allowed(&self) -> Nanoseconds {
        ALLOWED_NS.max(self.lasted() * ALLOWED_PERCENT / 100)
    }

    /// Whether the machine did what no tracer can tell: the kernel counts more switches to the thread than it has reported,
    /// or time that the thread was neither running nor waiting nor asleep.
    fn is_disturbed(&self, trace: &Trace) -> bool {
        let is_reported = |start| (self.begin..self.end).contains(&start) && !trace.was_not_reported(start);
        let runs = trace.thread(self.tid).iter().filter(|interval| matches!(interval.state, State::Running { .. }));
        let reported = runs.filter(|interval| is_reported(interval.start)).count();
        reported < self.turns || self.rest() - self.slept() > self.allowed()
    }

    /// How far what is told is from what was measured: the length, and time on the CPU, asleep and in the run queue.
    fn apart(&self, told: &Arguments) -> [Nanoseconds; 4] {
        let measured = [
            ("duration_ns", self.lasted()),
            ("cpu_ns", self.ran),
            ("off_cpu_ns", self.slept()),
            ("runqueue_ns", self.waited),
        ];
        measured.map(|(name, measured)| the_number(told, name).abs_diff(measured))
    }
}

/// The poll that a stall was in.
fn poll_of<'t>(polls: &'t [TrackSlice<'t>], stall: &Stall) -> &'t TrackSlice<'t> {
    let is_its = |poll: &&TrackSlice| {
        let is_around = poll.begin <= stall.begin && stall.end <= poll.end;
        the_number(poll.arguments, "task_id") == stall.task && is_around
    };
    let its: Vec<_> = polls.iter().filter(is_its).collect();
    let [poll] = its[..] else { panic!("{stall:?} is in {its:?}") };
    assert_eq!(the_text(poll.arguments, "extent"), "exact", "{poll:?}");
    poll
}

/// What is found of that poll, beside what its task waited for before it.
fn finding_of<'t>(trace: &'t Trace, poll: &TrackSlice, stall: &Stall) -> &'t Event {
    let is_its = |event: &&Event| {
        let is_finding = event.categories.iter().any(|of| of == "finding") && event.name != "starved task";
        is_finding && event.at == poll.begin && the_number(&event.arguments, "task_id") == stall.task
    };
    let its: Vec<_> = trace.events.iter().filter(is_its).collect();
    let [finding] = its[..] else { panic!("{stall:?} is found: {its:?}") };
    finding
}

#[test]
fn lengths_of_polls_and_what_their_time_went_to_are_as_the_program_measured_them() {
    let _turn = Turn::alone();
    let mut program = Program::start(program!("stalling"), &["--rounds", &ROUNDS.to_string()]);
    let recording =
        Record::new().process(program.pid()).arguments(["--polls", "all", "--threshold", "1", "--no-symbols"]).start();
    program.begin();
    program.wait_for("done");
    let outcome = recording.stop().expect_success();
    let trace = outcome.trace();
    let stalls: Vec<Stall> = program.truth().iter().map(Stall::read).collect();
    assert_eq!(stalls.len(), ROUNDS * CAUSES * LENGTHS);
    let polls: Vec<_> = trace.slices_of("poll").collect();
    let (mut disturbed, mut furthest) = (0, [0; 4]);
    for stall in &stalls {
        assert!(stall.is_as_meant(), "{stall:?}");
        let poll = poll_of(&polls, stall);
        let finding = finding_of(&trace, poll, stall);
        assert_eq!(the_number(&finding.arguments, "duration_ns"), poll.end - poll.begin, "{finding:?}");
        let apart = stall.apart(&finding.arguments);
        let [length, split @ ..] = apart.map(|apart| apart > stall.allowed());
        assert!(!length, "{stall:?} lasted as long as {finding:?}: {apart:?} ns apart");
        if split.contains(&true) && stall.is_disturbed(&trace) {
            println!("disturbed, {apart:?} ns apart: {stall:?}");
            disturbed += 1;
            continue;
        }
        assert!(!split.contains(&true), "{stall:?} is not as {finding:?}: {apart:?} ns apart");
        for (furthest, apart) in furthest.iter_mut().zip(apart) {
            *furthest = apart.max(*furthest);
        }
    }
    println!("{disturbed} of {} are disturbed, and of the others {furthest:?} ns apart at most", stalls.len());
    assert!(disturbed * 100 <= stalls.len() * DISTURBED_PERCENT, "{disturbed} of {} are disturbed", stalls.len());
}
