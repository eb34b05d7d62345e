//! Programs on smol, whose tasks are async-task's, beside what they say of their polls.
//!
//! These scenarios need root and a kernel that takes BPF programs. They fail where it does not.

use std::{path::Path, process::Command};

use polletto_tests::{
    check::trace_processor,
    program,
    program::{Program, strip},
    recorder::{Outcome, Record, polletto},
    trace::{Event, Nanoseconds, Trace, TrackSlice, number, the_number, the_text},
    turn::Turn,
};
use serde_json::Value;

/// Longer than a poll and shorter than those that block.
const THRESHOLD_MS: &str = "5";

/// What the program ran on a thread.
#[derive(Debug)]
struct Ran {
    what: String,
    tid: u64,
    begin: Nanoseconds,
    end: Nanoseconds,
}

impl Ran {
    fn read(line: &Value) -> Ran {
        let number = |name: &str| line[name].as_u64().unwrap_or_else(|| panic!("{line}: {name}"));
        let what = line["what"].as_str().unwrap_or_else(|| panic!("{line}: what")).to_owned();
        Ran { what, tid: number("tid"), begin: number("begin"), end: number("end") }
    }
}

fn recorded(program: &Path) -> (Outcome, Vec<Ran>) {
    let mut program = Program::start(program, &[]);
    let arguments = ["--polls", "all", "--workers", "smol-", "--threshold", THRESHOLD_MS];
    let recording = Record::new().process(program.pid()).arguments(arguments).start();
    program.begin();
    program.wait_for("done");
    let outcome = recording.stop().expect_success();
    (outcome, program.truth().iter().map(Ran::read).collect())
}

/// All that ran has a poll around it, on its thread and no other, but for the first ones: it is learnt from them where polls
/// return to. Nothing else has. Those that are shown, with what they ran.
fn matched<'t>(outcome: &Outcome, trace: &'t Trace, all: &'t [Ran]) -> Vec<(&'t Ran, TrackSlice<'t>)> {
    let mut left: Vec<TrackSlice<'t>> = trace.slices_of("poll").collect();
    let count = left.len();
    let mut shown = Vec::new();
    for ran in all {
        let is_around = |poll: &TrackSlice<'_>| {
            poll.begin <= ran.begin && ran.end <= poll.end && the_number(poll.arguments, "tid") == ran.tid
        };
        if let Some(at) = left.iter().position(is_around) {
            shown.push((ran, left.swap_remove(at)));
        }
    }
    let unseen = outcome.summary()["polls_without_end"].as_u64().expect("a number");
    assert!(all.len() >= 1_600 && (all.len() - shown.len()) as u64 <= unseen, "{} of {count}", all.len());
    // Few: the first of each address at which polls return, and what was polled until there was a probe.
    assert!(shown.len() * 10 >= all.len() * 9, "{} of {} are shown", shown.len(), all.len());
    let strange: Vec<&TrackSlice<'_>> = left.iter().filter(|poll| all.iter().any(|ran| is_within(ran, poll))).collect();
    assert!(strange.is_empty(), "{strange:?}");
    shown
}

fn is_within(ran: &Ran, poll: &TrackSlice<'_>) -> bool {
    ran.begin < poll.end && poll.begin < ran.end && the_number(poll.arguments, "tid") == ran.tid
}

/// Who polled what is shown where it belongs, and what blocked a thread of the executor is found; what may block is not.
fn check(outcome: &Outcome, all: &[Ran], future_of: impl Fn(&str) -> Option<String>) {
    let trace = outcome.trace();
    let shown = matched(outcome, &trace, all);
    for (ran, poll) in &shown {
        let track = &trace.tracks[&poll.track];
        let may_block = ran.what == "blocking";
        assert_eq!(track.name.starts_with("worker "), !may_block, "{ran:?}: {track:?}");
        assert_eq!(poll.arguments.contains_key("kind"), may_block, "{ran:?}: {poll:?}");
        // What a thread polled last had noted its end, and may not have come to it when the recording was over.
        let is_last = all.iter().all(|other| other.tid != ran.tid || other.begin <= ran.begin);
        assert!(the_text(poll.arguments, "extent") == "exact" || is_last, "{ran:?}: {poll:?}");
        assert!(!poll.arguments.contains_key("task_id"), "there are no ids: {poll:?}");
        if let Some(future) = future_of(&ran.what) {
            assert_eq!(poll.name, future, "{ran:?}");
        }
    }
    let tracks: Vec<&str> = trace.tracks.values().map(|track| &*track.name).collect();
    assert!(
        tracks.contains(&"async-task workers") && !tracks.iter().any(|name| name.starts_with("Tokio")),
        "{tracks:?}"
    );
    // Others may have the CPU for longer than it runs or sleeps.
    for (what, kind, took) in [("sleeping", "slept in poll", "off_cpu_ns"), ("computing", "long poll", "cpu_ns")] {
        for (_, poll) in shown.iter().filter(|(ran, _)| ran.what == what) {
            let of_poll = trace.events.iter().filter(|event| event.track == poll.track && event.at == poll.begin);
            let mut findings = of_poll.filter(|event| event.categories.iter().any(|of| of == "finding"));
            let [took_ns, had_no_cpu_ns] = [took, "runqueue_ns"].map(|name| number(poll.arguments, name));
            let kind = if had_no_cpu_ns > took_ns { "preempted in poll" } else { kind };
            assert!(findings.any(|event: &Event| event.name.starts_with(kind)), "{what}: {poll:?}");
        }
    }
    let places = outcome.summary()["findings"]["places"].clone();
    let places = places.as_array().expect("a list");
    assert!(!places.is_empty() && places.iter().all(|place| place["longest"]["task_id"].is_null()), "{places:?}");
    asked(outcome);
}

/// A report finds in the trace what the recorder found, where there is a `trace_processor_shell` to ask.
fn asked(outcome: &Outcome) {
    if trace_processor().is_none() {
        return;
    }
    let output = Command::new(polletto()).arg("report").arg(&outcome.output).arg("--json").output().expect("it starts");
    assert!(output.status.success(), "{output:?}");
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let found = report["findings"].as_array().expect("a list");
    let counts = outcome.summary()["findings"]["counts"].clone();
    let told = counts.as_array().expect("a list").iter().filter_map(|of| of["count"].as_u64()).sum::<u64>();
    assert_eq!(found.len() as u64, told, "{counts}");
}

#[test]
fn polls_of_smol_are_told_and_what_blocks_in_them_is_found() {
    let _turn = Turn::alone();
    let (outcome, all) = recorded(program!("smol-mill"));
    check(&outcome, &all, |what| match what {
        "blocking" => Some("main::{closure}".to_owned()),
        _ => Some(format!("{what}::{{async}}")),
    });
    let tasks = outcome.summary()["tasks"].clone();
    assert_eq!((&tasks[0]["family"], tasks.as_array().map(Vec::len)), (&"async-task".into(), Some(1)), "{tasks}");
}

#[test]
fn that_its_tasks_are_in_no_list_is_told() {
    let program = Program::start(program!("smol-mill"), &[]);
    let mut command = Command::new(polletto());
    let output = command.args(["tasks", "-p", &program.pid().to_string()]).output().expect("it starts");
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && told.contains("can't be listed: they are async-task's"), "{told}");
}

/// The places where futures panic are left.
#[test]
fn in_a_stripped_program_they_are_too() {
    let _turn = Turn::alone();
    let directory = tempfile::tempdir().expect("a directory");
    let stripped = directory.path().join("smol-mill-stripped");
    strip(program!("smol-mill"), &stripped);
    let (outcome, all) = recorded(&stripped);
    check(&outcome, &all, |_| None);
}
