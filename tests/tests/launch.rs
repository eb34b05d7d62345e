//! Recording a command from its first instruction, finding a process by its name, and how both end.
//!
//! These scenarios need root and a kernel that takes BPF programs. They fail where it does not.

use std::time::Duration;

use polletto_tests::{
    program,
    program::Program,
    recorder::{Outcome, Record},
    trace::Trace,
    turn::Turn,
    workload::boottime,
};
use rustix::process::Signal;
use serde_json::Value;

/// Records `shape-shifter` with these steps.
fn launched(steps: &[&str]) -> Outcome {
    let shifter = program!("shape-shifter").to_str().expect("a plain path");
    Record::new().arguments(["--", shifter]).arguments(steps).run()
}

#[test]
fn the_commands_exit_status_is_passed_on() {
    let _turn = Turn::with_others();
    for (steps, code) in
        [(["exit", "0"], 0), (["exit", "7"], 7), (["signal", "15"], 128 + 15), (["signal", "9"], 128 + 9)]
    {
        let outcome = launched(&steps);
        assert_eq!(outcome.status.code(), Some(code), "{steps:?}: {}", outcome.stderr);
        outcome.trace();
    }
}

#[test]
fn a_command_is_recorded_from_its_first_instruction_to_its_last() {
    let _turn = Turn::with_others();
    let begin = boottime();
    let outcome = launched(&["spin", "30", "thread", "shape-late", "sleep", "40", "spin", "10"]);
    let trace = outcome.trace();
    let first = trace.tasks.named("shape-shifter")[0];
    let said = |step: &str| -> u64 {
        let line = outcome.stdout.lines().find(|line| line.starts_with(step)).expect("it says each step");
        line.split_ascii_whitespace().nth(3).expect("a time").parse().expect("a time")
    };
    let started = trace.thread(first).iter().next().expect("it ran").start;
    assert!(started > begin && started < said("spin"), "its start is missing");
    let ran = trace.thread(first).ran_within(&(0..u64::MAX));
    assert!((38_000_000..100_000_000).contains(&ran), "it spun 40 ms, and {ran} ns are in the trace");
    assert_eq!(trace.tasks.named("shape-late").len(), 1);
}

#[test]
fn a_command_that_is_not_there_is_a_clear_failure() {
    let _turn = Turn::with_others();
    let outcome = Record::new().arguments(["--", "/no/such/program-4af1"]).run();
    assert!(!outcome.status.success());
    assert!(outcome.stderr.contains("/no/such/program-4af1"), "{}", outcome.stderr);
}

#[test]
fn a_process_is_found_by_its_name() {
    let _turn = Turn::alone();
    let storm = Program::start(program!("switch-storm"), &["--wait", "--groups", "1", "--fan", "2"]);
    let outcome = Record::new().arguments(["-d", "0.3", "switch-storm"]).run().expect_success();
    assert!(outcome.trace().tasks.processes.contains_key(&storm.pid()));
}

#[test]
fn a_name_that_fits_several_lists_them_and_records_none() {
    let _turn = Turn::alone();
    let both = [0, 1].map(|_| Program::start(program!("switch-storm"), &["--wait", "--groups", "1", "--fan", "2"]));
    let outcome = Record::new().arguments(["switch-storm"]).run();
    assert_eq!(outcome.status.code(), Some(2), "{}", outcome.stderr);
    for storm in &both {
        assert!(outcome.stderr.contains(&storm.pid().to_string()), "a candidate is missing: {}", outcome.stderr);
    }
    assert!(!outcome.output.exists());
}

#[test]
fn a_name_that_fits_none_is_a_clear_failure() {
    let _turn = Turn::with_others();
    let outcome = Record::new().arguments(["no-such-name-9d3c"]).run();
    assert!(!outcome.status.success());
    assert!(outcome.stderr.contains("no-such-name-9d3c"), "{}", outcome.stderr);
}

#[test]
fn a_recording_lasts_as_long_as_it_was_told() {
    let _turn = Turn::with_others();
    let mut ring = Program::start(program!("token-ring"), &["--threads", "2", "--rounds", "1000000"]);
    let recording = Record::new().process(ring.pid()).arguments(["-d", "1"]).start();
    ring.begin();
    let outcome = recording.wait_at_most(Duration::from_secs(5)).expect_success();
    let trace = outcome.trace();
    let (first, last) = trace.span().expect("it holds switches");
    assert!((800_000_000..1_300_000_000).contains(&(last - first)), "it lasted {} ns", last - first);
}

#[test]
fn the_summary_for_scripts_agrees_with_the_trace() {
    let _turn = Turn::with_others();
    let mut ring = Program::start(program!("token-ring"), &["--threads", "2", "--rounds", "100"]);
    let recording = Record::new().process(ring.pid()).start();
    ring.begin();
    ring.wait_for("done");
    let outcome = recording.stop().expect_success();
    let (trace, summary) = (outcome.trace(), outcome.summary());
    let bytes = std::fs::metadata(&outcome.output).expect("there is a file").len();
    let cases = [
        ("file", Value::from(outcome.output.to_str().expect("a plain path"))),
        ("bytes", Value::from(bytes)),
        ("ended_by", Value::from("interrupted")),
        ("wakeups", Value::from(trace.wakings.len())),
        ("processes", Value::from(1)),
        ("threads", Value::from(trace.tasks.of_process(ring.pid()).count())),
        ("records_lost", Value::from(0)),
    ];
    for (field, expected) in cases {
        assert_eq!(summary[field], expected, "{field} in {summary}");
    }
    // What ran at the beginning and at the end is written as switches too, on both sides of a thread that goes on; and so is
    // each that the kernel did not report.
    let written = ["switches", "switches_of_others", "switches_not_reported"];
    let switches: u64 = written.iter().map(|field| summary[field].as_u64().expect("a number")).sum();
    let rows = u64::try_from(trace.switches.len()).expect("a number");
    assert!((switches..switches + 16).contains(&rows), "{rows} rows for {summary}");
    for field in ["seconds", "recorder_cpu_seconds", "recorder_peak_memory_bytes"] {
        assert!(summary[field].as_f64().is_some_and(|value| value > 0.0), "{field} in {summary}");
    }
}

#[test]
fn a_terminal_that_closes_ends_the_recording_but_not_a_command_that_ignores_it() {
    let _turn = Turn::with_others();
    let command = ["--", "sh", "-c", "trap '' HUP; sleep 0.5; exit 7"];
    let recording = Record::new().arguments(command).start();
    // The kernel sends one, and the shell another.
    recording.signal(Signal::HUP);
    recording.signal(Signal::HUP);
    let outcome = recording.wait();
    assert_eq!(outcome.status.code(), Some(7), "{}", outcome.stderr);
    assert_eq!(outcome.summary()["ended_by"], "terminal closed");
    outcome.trace();
}

#[test]
fn a_quiet_recording_prints_nothing() {
    let _turn = Turn::with_others();
    let directory = tempfile::tempdir().expect("a directory");
    let output = directory.path().join("quiet");
    let shifter = program!("shape-shifter");
    let ran = std::process::Command::new(polletto_tests::recorder::polletto())
        .args(["record", "-q", "-o"])
        .args([output.as_os_str(), "--".as_ref(), shifter.as_os_str()])
        .output()
        .expect("polletto starts");
    assert!(ran.status.success());
    assert_eq!((ran.stdout.as_slice(), ran.stderr.as_slice()), (&b""[..], &b""[..]));
    Trace::open(&output).assert_well_formed();
}
