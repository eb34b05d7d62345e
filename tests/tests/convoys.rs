//! Lock convoys: who stood at which lock, and who held it, beside what the program says of it.
//!
//! These scenarios need root and a kernel that takes BPF programs. They fail where it does not. Traces are asked where there
//! is a `trace_processor_shell`.

use std::{path::Path, process::Command};

use polletto_tests::{
    check::trace_processor,
    program,
    program::{Program, strip},
    recorder::{Outcome, Record, polletto},
    trace::{Event, Nanoseconds, Trace, number, the_number},
    turn::Turn,
};
use serde_json::Value;

const ROUNDS: usize = 10;

/// A thread wakes, and is woken, a little later than the program says. Where CPUs are busy, those that were woken may have to
/// wait for one before they wake the next.
const NEAR_NS: u64 = 5_000_000;

/// Rounds of which something else is told, where CPUs are busy: a thread comes to the lock, and does not fall asleep there
/// before it has been let go.
const DISTURBED: usize = 1;

/// A lock that one thread held while others wanted it.
#[derive(Debug)]
struct Round {
    /// `polls`, `blocking code` or `polls apart`, each of which wants a lock of its own.
    by: String,
    count: u64,
    /// Where the lock lies.
    lock: std::ops::Range<u64>,
    holder: u64,
    begin: Nanoseconds,
    end: Nanoseconds,
}

impl Round {
    fn read(line: &Value) -> Round {
        let number = |name: &str| line[name].as_u64().unwrap_or_else(|| panic!("{line}: {name}"));
        Round {
            by: line["by"].as_str().unwrap_or_else(|| panic!("{line}: by")).to_owned(),
            count: number("count"),
            lock: number("lock")..number("lock") + number("bytes"),
            holder: number("holder"),
            begin: number("begin"),
            end: number("end"),
        }
    }
}

fn recorded(program: &Path, lock: &str) -> (Outcome, Vec<Round>) {
    let mut program = Program::start(program, &["--rounds", &ROUNDS.to_string(), "--lock", lock]);
    let recording = Record::new().process(program.pid()).arguments(["--polls", "all"]).start();
    program.begin();
    program.wait_for("done");
    let outcome = recording.stop().expect_success();
    (outcome, program.truth().iter().map(Round::read).collect())
}

/// Those that were told while a round lasted.
fn of_round<'t>(trace: &'t Trace, round: &Round) -> Vec<&'t Event> {
    let is_its = |event: &&Event| {
        event.name == "lock convoy"
            && event.at < round.end
            && event.at + the_number(&event.arguments, "duration_ns") > round.begin
    };
    trace.events.iter().filter(is_its).collect()
}

/// Whether a convoy is told as it was.
fn is_as_told(convoy: &Event, round: &Round) -> bool {
    let until = convoy.at + the_number(&convoy.arguments, "duration_ns");
    convoy.at.abs_diff(round.begin) <= NEAR_NS
        && until.abs_diff(round.end) <= NEAR_NS
        && round.lock.contains(&the_number(&convoy.arguments, "lock"))
        && ["threads", "at_once"].iter().all(|name| the_number(&convoy.arguments, name) == round.count)
        && number(&convoy.arguments, "held_by") == Some(round.holder)
        && number(&convoy.arguments, "held_ns").is_some_and(|held| held.abs_diff(round.end - round.begin) <= NEAR_NS)
}

/// Every convoy of polls is told as it was, and nothing else is. How many are told.
fn check(outcome: &Outcome, trace: &Trace, rounds: &[Round]) -> usize {
    let (mut told, mut disturbed) = (0, 0);
    for round in rounds {
        let found = of_round(trace, round);
        if round.by == "polls" && round.count == 3 {
            match found[..] {
                [convoy] if is_as_told(convoy, round) => assert!(convoy.stack.is_some(), "{convoy:?}"),
                _ => {
                    println!("{round:?} is told as {found:?}");
                    disturbed += 1;
                }
            }
            told += found.len();
        } else {
            assert!(found.is_empty(), "{round:?} is none: {found:?}");
        }
    }
    assert_eq!(rounds.len(), 4 * ROUNDS);
    assert!(disturbed <= DISTURBED, "{disturbed} of {ROUNDS}");
    assert_eq!(trace.events.iter().filter(|event| event.name == "lock convoy").count(), told, "and no others");
    asked(outcome, trace);
    told
}

/// All is told of the convoys at locks of that kind, by the recorder and in a report.
fn are_told(lock: &str) {
    let _turn = Turn::alone();
    let (outcome, rounds) = recorded(program!("convoying"), lock);
    let told = check(&outcome, &outcome.trace(), &rounds);
    let summary = &outcome.summary()["findings"];
    let is_convoy = |of: &&Value| of["kind"] == "lock convoy";
    let counts: Vec<&Value> = summary["counts"].as_array().expect("a list").iter().filter(is_convoy).collect();
    assert_eq!(counts.iter().filter_map(|of| of["count"].as_u64()).sum::<u64>(), told as u64);
    let place = summary["places"].as_array().expect("a list").iter().find(is_convoy).expect("it has a place");
    assert_eq!(place["own"]["function"].as_str().map(|name| name.ends_with("want")), Some(true), "{place}");
    let convoy = &place["longest"]["convoy"];
    assert_eq!(convoy["held_by"].as_u64(), Some(rounds[0].holder), "{place}");
    // A thread that polls nothing holds it, asleep.
    assert!(convoy["held_by_task_id"].is_null(), "{place}");
    // Once in dozens of runs its stack is not known: where it is, it is the one in which it sleeps.
    match convoy["held_in"]["function"].as_str() {
        Some(function) => assert!(function.contains("hold"), "{place}"),
        None => println!("where the holder sleeps is not told: {place}"),
    }
}

#[test]
fn who_stands_at_a_lock_in_polls_and_who_held_it_is_told() {
    are_told("std");
}

/// Threads that it parks sleep each on a word of their own.
#[test]
fn who_stands_at_a_lock_of_parking_lot_and_who_held_it_is_told() {
    are_told("parking_lot");
}

/// One of the writers waits for the reader, apart from the others.
#[test]
fn writers_that_stand_at_a_lock_of_parking_lot_which_a_reader_holds_are_told() {
    are_told("readers");
}

/// Nothing but what the runtime does with them then tells closures that may block from tasks that await.
fn are_told_of_a_stripped_program(lock: &str) {
    let _turn = Turn::alone();
    let directory = tempfile::tempdir().expect("a directory");
    let stripped = directory.path().join("convoying-stripped");
    strip(program!("convoying"), &stripped);
    let (outcome, rounds) = recorded(&stripped, lock);
    check(&outcome, &outcome.trace(), &rounds);
}

#[test]
fn in_a_stripped_program_those_are_told_and_no_others() {
    are_told_of_a_stripped_program("std");
}

#[test]
fn in_a_stripped_program_those_at_locks_of_parking_lot_are_told_and_no_others() {
    are_told_of_a_stripped_program("parking_lot");
    are_told_of_a_stripped_program("readers");
}

/// Who stood there before it began is not known, but let the lock go nevertheless.
#[test]
fn in_the_first_convoy_of_a_recording_a_lock_is_held_for_as_long_as_in_others() {
    let _turn = Turn::alone();
    let mut program = Program::start(program!("convoying"), &["--before", "3"]);
    let recording = Record::new().process(program.pid()).arguments(["--polls", "all"]).start();
    program.begin();
    program.wait_for("done");
    let outcome = recording.stop().expect_success();
    let turns: Vec<Round> = program.truth().iter().map(Round::read).collect();
    let trace = outcome.trace();
    let told: Vec<&Event> = trace.events.iter().filter(|event| event.name == "lock convoy").collect();
    let [convoy] = told[..] else { panic!("one convoy: {told:?}") };
    let holder = the_number(&convoy.arguments, "held_by");
    let turn = turns.iter().find(|turn| turn.holder == holder).unwrap_or_else(|| panic!("{convoy:?}: {turns:?}"));
    let held = the_number(&convoy.arguments, "held_ns");
    assert!(held.abs_diff(turn.end - turn.begin) <= NEAR_NS, "{held}: {turn:?}");
    let lasted = the_number(&convoy.arguments, "duration_ns");
    assert!(lasted > 2 * held, "others held it before: {lasted}");
    asked(&outcome, &trace);
}

/// A report finds the same in the trace.
fn asked(outcome: &Outcome, trace: &Trace) {
    if trace_processor().is_none() {
        return;
    }
    let output = Command::new(polletto()).arg("report").arg(&outcome.output).arg("--json").output().expect("it starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let of_report = report["findings"].as_array().expect("a list").iter().filter(|of| of["kind"] == "lock convoy");
    let mut asked: Vec<_> = of_report
        .map(|of| (of["ts"].as_u64(), of["dur"].as_u64(), of["tid"].as_u64(), of["task_id"].as_u64()))
        .collect();
    asked.sort_unstable();
    let integer = |event: &Event, name: &str| number(&event.arguments, name);
    let told = trace.events.iter().filter(|event| event.name == "lock convoy");
    let mut told: Vec<_> = told
        .map(|event| (Some(event.at), integer(event, "duration_ns"), integer(event, "tid"), integer(event, "task_id")))
        .collect();
    told.sort_unstable();
    assert_eq!(asked, told);
    let details: Vec<&str> = report["findings"]
        .as_array()
        .expect("a list")
        .iter()
        .filter(|of| of["kind"] == "lock convoy")
        .filter_map(|of| of["detail"].as_str())
        .collect();
    for event in trace.events.iter().filter(|event| event.name == "lock convoy") {
        let held_ms = the_number(&event.arguments, "held_ns") as f64 / 1e6;
        let holder = format!(" {} held it for up to {held_ms:.1} ms", the_number(&event.arguments, "held_by"));
        assert!(details.iter().any(|detail| detail.contains(&holder)), "{holder}: {details:?}");
    }
}

#[test]
fn locks_of_sleeps_stand_at_their_slices() {
    let _turn = Turn::alone();
    ["std", "parking_lot"].into_iter().for_each(locks_stand_at_sleeps);
}

fn locks_stand_at_sleeps(lock: &str) {
    let (outcome, rounds) = recorded(program!("convoying"), lock);
    let trace = outcome.trace();
    for round in &rounds {
        let is_at_lock = |event: &&Event| {
            event.arguments.contains_key("lock")
                && event.name == "blocked: lock"
                && round.lock.contains(&the_number(&event.arguments, "lock"))
                && (round.begin - NEAR_NS..round.end).contains(&event.at)
        };
        let slept = trace.events.iter().filter(is_at_lock).count();
        // Of those that each want their own, that is the first one's.
        let wanted = if round.by == "polls apart" { 1 } else { round.count as usize };
        assert!(slept + DISTURBED >= wanted, "{slept} of {round:?}");
    }
    let timers =
        trace.events.iter().filter(|event| event.name == "blocked: timer" && !event.arguments.contains_key("lock"));
    assert!(timers.count() >= rounds.len(), "the holder sleeps at no lock");
}
