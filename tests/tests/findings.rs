//! What is told to be wrong with polls, beside what a program says of them.
//!
//! These scenarios need root and a kernel that takes BPF programs. They fail where it does not.

use std::collections::BTreeMap;

use polletto_tests::{
    oracle::{Build, NEWEST, Poll, Truth},
    recorder::Outcome,
    trace::{Event, Trace, text, the_number},
    turn::Turn,
};
use serde_json::Value;

/// What is told, nanoseconds, and what is so near to it that either is right: a poll lasts a little longer than the program
/// can say.
const THRESHOLD_NS: u64 = 5_000_000;
const NEAR_NS: u64 = 100_000;

/// Polls that lasted, or slept, only because of the machine itself: virtual ones are stopped, and where memory is scarce a
/// program sleeps for it anywhere. Out of thousands.
const MOST_BY_THE_MACHINE: usize = 3;

/// How long the program has its threads sleep in polls, at least, and how long they then are awake.
const SLEEP_NS: u64 = 8_000_000;
const AWAKE_NS: u64 = 300_000;

const ALL: [&str; 5] = ["--polls", "all", "-F", "499", "--no-symbols"];

/// Findings about polls that lasted.
fn findings(trace: &Trace) -> Vec<&Event> {
    let of_category = trace.events.iter().filter(|event| event.categories.iter().any(|of| of == "finding"));
    // Those of runtimes are of no task.
    of_category.filter(|event| event.name != "starved task" && event.arguments.contains_key("task_id")).collect()
}

/// Those of a poll.
fn of_poll<'t>(findings: &[&'t Event], truth: &Truth, poll: &Poll) -> Vec<&'t Event> {
    let is_its = |event: &&&Event| {
        let is_around = event.at <= poll.begin && poll.end <= event.at + the_number(&event.arguments, "duration_ns");
        // A task may be polled by another before its last poll has come to its end.
        let is_own = the_number(&event.arguments, "task_id") == truth.id(poll)
            && the_number(&event.arguments, "tid") == u64::from(poll.tid.unsigned_abs());
        is_own && is_around
    };
    findings.iter().filter(is_its).copied().collect()
}

fn recorded(build: Build, arguments: &[&str]) -> (Outcome, Truth) {
    let (outcome, truth) = build.recorded(arguments);
    println!("{build:?}: {}", outcome.summary()["findings"]["counts"]);
    (outcome, truth)
}

fn every_long_poll_is_found_and_no_other(build: Build) {
    let _turn = Turn::alone();
    let (outcome, truth) = recorded(build, &ALL);
    let trace = outcome.trace();
    let findings = findings(&trace);
    let hidden = outcome.summary()["switches_not_reported"].as_u64().expect("a count");
    let (mut found, mut by_the_machine, mut not_seen) = (BTreeMap::<&str, usize>::new(), 0, 0);
    for poll in &truth.polls {
        let lasted_ns = poll.end - poll.begin;
        let told = of_poll(&findings, &truth, poll);
        if lasted_ns >= THRESHOLD_NS {
            assert_eq!(told.len(), 1, "{build:?}: {poll:?} is found: {told:?}");
        }
        let Some(finding) = told.first() else { continue };
        let [ran, slept, queued] =
            ["cpu_ns", "off_cpu_ns", "runqueue_ns"].map(|name| the_number(&finding.arguments, name));
        // Its thread may have had to make room just before or after the program's own words.
        if lasted_ns + queued + NEAR_NS < THRESHOLD_NS {
            println!("{poll:?} is none: {finding:?}");
            by_the_machine += 1;
        }
        assert_eq!(ran + slept + queued, the_number(&finding.arguments, "duration_ns"), "{finding:?}");
        let spawn = &truth.spawns[&poll.number];
        match spawn.name.as_str() {
            // Its last poll does nothing.
            "sleeper" if lasted_ns >= SLEEP_NS => {
                assert!(slept + queued + NEAR_NS >= SLEEP_NS, "{build:?}: {poll:?}, {finding:?}");
                let waited_for = text(&finding.arguments, "waited_for");
                match waited_for {
                    // The thread was seen to leave its CPU and not to return: it seems asleep for the rest of the poll.
                    Some("not seen") => {
                        assert!(finding.stack.is_none(), "{build:?}: {finding:?}");
                        not_seen += 1;
                    }
                    // What it writes down has a lock, and whoever holds that may have to make room.
                    Some("lock") => assert!(slept >= 2 * SLEEP_NS, "{build:?}: {poll:?}, {finding:?}"),
                    Some("timer") => {
                        assert!(slept + AWAKE_NS <= lasted_ns + NEAR_NS, "{build:?}: {poll:?}, {finding:?}");
                        assert!(finding.stack.is_some(), "{build:?}: {finding:?}");
                    }
                    other => assert!(finding.name != "slept in poll", "{build:?}: waits for {other:?}: {finding:?}"),
                }
            }
            _ if slept < NEAR_NS => {}
            name => {
                println!("{poll:?} of {name} sleeps nowhere: {finding:?}");
                by_the_machine += 1;
            }
        }
        *found.entry(finding.name.as_str()).or_default() += 1;
    }
    let is_of_none = |finding: &&&Event| truth.polls.iter().all(|poll| of_poll(&[finding], &truth, poll).is_empty());
    let of_none: Vec<_> = findings.iter().filter(is_of_none).collect();
    assert!(of_none.is_empty(), "{build:?}: {of_none:?}");
    assert_eq!(found.values().sum::<usize>(), findings.len(), "{build:?}: two of one poll");
    println!("{build:?}: {found:?}");
    assert!(by_the_machine <= MOST_BY_THE_MACHINE, "{build:?}: {by_the_machine} polls are not as the program tells");
    assert!(not_seen <= hidden, "{build:?}: {not_seen} sleeps without an end, and {hidden} switches not reported");
    let burned = ["long poll", "preempted in poll"].map(|name| found.get(name).copied().unwrap_or_default());
    let slept = found.get("slept in poll").copied().unwrap_or_default();
    assert!(burned.iter().sum::<usize>() >= 10 && slept >= 10, "{build:?}: {found:?}");
}

#[test]
fn every_long_poll_of_an_ordinary_program_is_found_and_no_other() {
    every_long_poll_is_found_and_no_other(Build { profile: "release", tokio: NEWEST });
}

#[test]
fn every_long_poll_of_a_stripped_program_is_found_and_no_other() {
    every_long_poll_is_found_and_no_other(Build { profile: "stripped", tokio: NEWEST });
}

#[test]
fn the_summary_names_the_programs_own_code() {
    let _turn = Turn::alone();
    let (outcome, _) = recorded(Build { profile: "dev", tokio: NEWEST }, &["--polls", "all", "-F", "999"]);
    let summary = outcome.summary();
    let places = summary["findings"]["places"].as_array().expect("a list");
    let is_hog = |place: &&Value| place["future"].as_str().is_some_and(|future| future.contains("::hog::"));
    // What burns the CPU does so in one function, whether others take it away for a while or not.
    let burning = places.iter().filter(is_hog).find(|place| place["kind"] != "starved task" && !place["own"].is_null());
    let own = &burning.expect("one is among them")["own"];
    assert_eq!(own["function"], "task_oracle::burn", "{own}");
    assert!(own["file"].as_str().is_some_and(|file| file.ends_with("src/main.rs")) && own["line"].is_u64(), "{own}");
}

#[test]
fn what_is_found_depends_on_the_threshold_and_what_is_recorded_does_not() {
    let _turn = Turn::alone();
    let build = Build { profile: "release", tokio: NEWEST };
    let (outcome, truth) = recorded(build, &["--polls", "all", "--threshold", "0", "--no-symbols"]);
    assert!(outcome.summary()["findings"].is_null());
    assert!(findings(&outcome.trace()).is_empty());
    assert_eq!(outcome.summary()["polls_exact"], truth.polls.len());
}
