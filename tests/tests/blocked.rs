//! Blocked stretches: what is one, how long it was, in which state, and who ended it.
//!
//! These scenarios need root and a kernel that takes BPF programs. They fail where it does not.

use std::collections::HashSet;

use polletto_tests::{
    duties::{Absence, absences, recorded},
    program,
    program::Program,
    recorder::{Outcome, Record},
    trace::{Event, EventKind, Nanoseconds, StackSample, State, Tid, Trace, Value, the_number, the_text},
    turn::Turn,
};

/// By how much a sample's times may differ from those of the switches it is about.
const SAME_NS: u64 = 1_000;

/// A slice on a thread's own track.
struct Slice<'trace> {
    begin: &'trace Event,
    end: Nanoseconds,
}

/// A thread's slices of the category `blocked`.
fn slices_of(trace: &Trace, tid: Tid) -> Vec<Slice<'_>> {
    let own = |event: &&Event| {
        matches!(event.kind, EventKind::Begin | EventKind::End)
            && trace.tracks.get(&event.track).is_some_and(|track| track.thread == Some(tid))
    };
    let mut open: Vec<&Event> = Vec::new();
    let mut slices = Vec::new();
    for event in trace.events.iter().filter(own) {
        if event.kind == EventKind::Begin {
            open.push(event);
        } else {
            let begin = open.pop().expect("a slice that ends has begun");
            slices.push(Slice { begin, end: event.at });
        }
    }
    assert!(open.is_empty(), "a slice never ends: {open:?}");
    slices.retain(|slice| slice.begin.categories.iter().any(|category| category == "blocked"));
    slices
}

/// How many switches the machine hid: each can make two stretches one, or none.
fn hidden_switches(outcome: &Outcome) -> u64 {
    outcome.summary()["switches_not_reported"].as_u64().expect("a count")
}

/// Whether a sample is about this absence.
fn is_same(sample: &StackSample, absence: &Absence) -> bool {
    let stretch = sample.stretch();
    stretch.start.abs_diff(absence.left) <= SAME_NS && stretch.end.abs_diff(absence.returned) <= SAME_NS
}

#[test]
fn a_thread_that_loses_its_cpu_is_not_blocked() {
    let _turn = Turn::alone();
    let (_, trace, duties) = recorded(program!("weights"), "2", "0:100:0,0:100:0", &["--min-block", "0"]);
    for duty in &duties {
        let section = duty.section();
        let lost = |pair: &&[&polletto_tests::trace::Interval]| {
            matches!((pair[0].state, pair[1].state), (State::Running { .. }, State::Runnable { waker: None }))
                && section.contains(&pair[1].start)
        };
        let intervals: Vec<_> = trace.thread(duty.tid).iter().collect();
        let lost = intervals.windows(2).filter(lost).count();
        println!("thread {} lost its CPU {lost} times", duty.tid);
        assert!(lost >= 20, "two threads on one CPU take turns: {lost}");
        // The section begins after a sleep and ends with one.
        let blocked: Vec<_> = duty.blocked(&trace).collect();
        let absences = duty.absences(&trace);
        assert_eq!(blocked.len(), absences.len(), "{blocked:?}");
        assert!(blocked.len() <= 2, "it only sleeps around its section: {blocked:?}");
    }
}

#[test]
fn nothing_shorter_than_asked_is_recorded_and_nothing_longer_is_missing() {
    let _turn = Turn::alone();
    for (arguments, shortest) in
        [(&["--min-block", "2.5"][..], 2_500_000), (&[], 1_000_000), (&["--min-block", "0"], 0)]
    {
        // Sleeps of half a millisecond and of four.
        let (outcome, trace, duties) = recorded(program!("weights"), "1", "0:1:0.4,1:1:4", arguments);
        for duty in &duties {
            let samples: Vec<_> = duty.blocked(&trace).collect();
            let absences = duty.absences(&trace);
            let too_short = samples.iter().find(|sample| sample.weight("wall-time") < shortest);
            assert_eq!(too_short, None, "{arguments:?}");
            let missing: Vec<_> = absences
                .iter()
                .filter(|absence| absence.length() >= shortest + SAME_NS)
                .filter(|absence| !samples.iter().any(|sample| is_same(sample, absence)))
                .collect();
            assert_eq!(missing, [] as [&Absence; 0], "{arguments:?}: thread {}", duty.tid);
            let invented = samples.iter().find(|sample| !absences.iter().any(|absence| is_same(sample, absence)));
            assert_eq!(invented, None, "{arguments:?}: thread {} was not away then", duty.tid);
            // It sleeps once in every turn.
            let least = if duty.sleep_ns >= shortest { duty.turns } else { 0 };
            let seen = samples.len() as u64 + hidden_switches(&outcome);
            assert!(duty.turns >= 10 && seen >= least, "{arguments:?}: {seen} stretches in {} turns", duty.turns);
        }
    }
}

#[test]
fn a_blocked_stretch_is_a_slice_with_the_same_stack() {
    let _turn = Turn::with_others();
    let (outcome, trace, duties) = recorded(program!("weights"), "1", "0:5:5,1:3:7", &[]);
    for duty in &duties {
        let slices = slices_of(&trace, duty.tid);
        let mut seen = HashSet::new();
        for sample in duty.blocked(&trace) {
            let stretch = sample.stretch();
            let mut same = slices.iter().filter(|slice| slice.begin.at == stretch.start && slice.end == stretch.end);
            let (Some(slice), None) = (same.next(), same.next()) else { panic!("not one slice for {sample:?}") };
            assert_eq!(slice.begin.name, "blocked: timer");
            assert_eq!(slice.begin.stack.as_ref(), Some(&sample.stack));
            assert_eq!(the_number(&slice.begin.arguments, "sleep_ns"), sample.weight("off-cpu-time"));
            assert_eq!(the_number(&slice.begin.arguments, "runqueue_ns"), sample.weight("run-queue-time"));
            assert_eq!(the_text(&slice.begin.arguments, "state"), "S");
            seen.insert(slice.begin.at);
        }
        // It sleeps once in every turn, longer than the shortest stretch that is recorded.
        let slept = seen.len() as u64 + hidden_switches(&outcome);
        assert!(duty.turns >= 10 && slept >= duty.turns, "thread {} slept {slept} times", duty.tid);
    }
}

#[test]
fn a_parent_that_waits_for_its_vforked_child_is_in_state_d() {
    let _turn = Turn::with_others();
    let mut shifter =
        Program::start(program!("shape-shifter"), &["wait", "sleep", "30", "vfork", "80", "sleep", "30", "spin", "1"]);
    let (pid, recording) = (shifter.pid(), Record::new().process(shifter.pid()).start());
    shifter.begin();
    let trace = recording.wait().expect_success().trace();
    let slices = slices_of(&trace, pid);
    let long: Vec<_> = slices.iter().filter(|slice| slice.end - slice.begin.at >= 25_000_000).collect();
    let states: Vec<_> = long.iter().map(|slice| the_text(&slice.begin.arguments, "state")).collect();
    assert_eq!(states, ["S", "D", "S"], "it slept, waited for its child, and slept");
    assert!(long[1].end - long[1].begin.at >= 80_000_000, "it waited for all of the child's life");
}

#[test]
fn who_woke_a_thread_stands_at_the_stretch_that_it_ended() {
    let _turn = Turn::with_others();
    for by in ["pipe", "condvar"] {
        let arguments = ["--threads", "3", "--rounds", "200", "--by", by];
        let mut ring = Program::start(program!("token-ring"), &arguments);
        let recording = Record::new().process(ring.pid()).arguments(["--min-block", "0"]).start();
        ring.begin();
        ring.wait_for("done");
        let trace = recording.stop().expect_success().trace();
        let tids: Vec<Tid> = ring.truth().iter().map(|line| line["tid"].as_i64().expect("an id") as Tid).collect();
        for (index, tid) in tids.iter().enumerate() {
            let before = tids[(index + tids.len() - 1) % tids.len()];
            let slices = slices_of(&trace, *tid);
            let (mut by_neighbour, mut apart) = (0, Vec::new());
            for absence in absences(&trace, *tid).iter().filter(|absence| absence.waker == Some(before)) {
                by_neighbour += 1;
                let mut same = slices.iter().filter(|slice| slice.end.abs_diff(absence.returned) <= SAME_NS);
                let waker = same.next().and_then(|slice| slice.begin.arguments.get("waker_tid"));
                if waker != Some(&Value::Integer(i128::from(before))) {
                    apart.push((absence.returned, waker));
                }
            }
            assert!(by_neighbour >= 190, "{by}: thread {before} woke {tid} {by_neighbour} times");
            assert!(
                apart.len() * 100 <= by_neighbour * 2,
                "{by}: {before} ended {by_neighbour} stretches of {tid} by the wake-ups, of which these say otherwise: {apart:?}"
            );
        }
    }
}
