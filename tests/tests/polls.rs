//! Polls that are told from begin to end, beside what a program says that it polled.
//!
//! These scenarios need root and a kernel that takes BPF programs. They fail where it does not.

use std::{
    collections::{BTreeMap, HashMap},
    env,
    path::{Path, PathBuf},
    process::Command,
};

use polletto_tests::{
    program::Program,
    recorder::{Outcome, Record},
    trace::{EventKind, Nanoseconds, Tid, Trace, Value},
    turn::Turn,
};
use serde_json::Value as Json;

/// By how much the times of a poll may differ from those that the program took just inside.
const SAME_NS: u64 = 20_000;

/// Of all polls; the others met an interrupt, or a machine that took the CPU away.
const MOST: f64 = 0.95;

/// A poll, as either side tells it.
#[derive(Clone, Debug)]
struct Poll {
    task: u64,
    begin: Nanoseconds,
    end: Nanoseconds,
}

/// The program that knows what it did, in one of its profiles.
fn oracle(profile: &str) -> PathBuf {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("oracle");
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("oracle")).args([
        "build",
        "--quiet",
        "--locked",
        "--profile",
        profile,
    ]);
    cargo.arg("--target-dir").arg(&target).env_remove("RUSTFLAGS").env_remove("CARGO_ENCODED_RUSTFLAGS");
    assert!(cargo.status().expect("cargo starts").success(), "the oracle is built");
    target.join(if profile == "dev" { "debug" } else { profile }).join("task-oracle")
}

/// Records the oracle, and gives what it says of its own polls by thread.
fn recorded(path: &Path) -> (Outcome, BTreeMap<Tid, Vec<Poll>>) {
    let mut program = Program::start(path, &[]);
    let recording = Record::new().process(program.pid()).arguments(["--polls", "all", "--no-symbols"]).start();
    program.begin();
    program.wait_for("done");
    let outcome = recording.stop().expect_success();
    (outcome, truth(&program.truth()))
}

fn truth(lines: &[Json]) -> BTreeMap<Tid, Vec<Poll>> {
    let number = |line: &Json, name: &str| line[name].as_u64().unwrap_or_else(|| panic!("{name} of {line}"));
    let spawns: HashMap<u64, u64> = lines
        .iter()
        .filter(|line| line["spawn"].is_u64())
        .map(|line| (number(line, "spawn"), number(line, "id")))
        .collect();
    let mut polls = BTreeMap::<Tid, Vec<Poll>>::new();
    for line in lines.iter().filter(|line| line["poll"].is_u64()) {
        let task = spawns.get(&number(line, "poll")).copied().expect("what is polled was spawned");
        let poll = Poll { task, begin: number(line, "begin"), end: number(line, "end") };
        polls.entry(Tid::try_from(number(line, "tid")).expect("a thread")).or_default().push(poll);
    }
    polls.values_mut().for_each(|polls| polls.sort_by_key(|poll| poll.begin));
    polls
}

/// The polls that a trace shows from begin to end, by thread.
fn shown(trace: &Trace) -> BTreeMap<Tid, Vec<Poll>> {
    let mut open: HashMap<u64, Vec<usize>> = HashMap::new();
    let mut slices: Vec<Option<(Tid, Poll)>> = Vec::new();
    for event in &trace.events {
        match event.kind {
            EventKind::Begin => {
                let is_exact = event.arguments.get("extent") == Some(&Value::Text("exact".into()));
                let number = |name: &str| match event.arguments.get(name) {
                    Some(Value::Integer(number)) => *number,
                    other => panic!("{name} is {other:?} of {event:?}"),
                };
                let slice = is_exact.then(|| {
                    let poll = Poll { task: u64::try_from(number("task_id")).expect("an id"), begin: event.at, end: 0 };
                    (Tid::try_from(number("tid")).expect("a thread"), poll)
                });
                open.entry(event.track).or_default().push(slices.len());
                slices.push(slice);
            }
            EventKind::End => {
                let slice = open.get_mut(&event.track).and_then(Vec::pop).expect("a slice that ends has begun");
                if let Some((_, poll)) = &mut slices[slice] {
                    poll.end = event.at;
                }
            }
            EventKind::Instant | EventKind::Counter(_) => {}
        }
    }
    let mut polls = BTreeMap::<Tid, Vec<Poll>>::new();
    for (thread, poll) in slices.into_iter().flatten() {
        polls.entry(thread).or_default().push(poll);
    }
    polls
}

/// The time that most of these stay below.
fn usual(mut times: Vec<u64>) -> u64 {
    times.sort_unstable();
    times[((times.len() - 1) as f64 * MOST) as usize]
}

fn every_poll_is_told_from_its_begin_to_its_end(profile: &str) {
    let _turn = Turn::alone();
    let (outcome, truth) = recorded(&oracle(profile));
    let summary = outcome.summary();
    println!("{profile}: {} of {}", summary["polls_exact"], summary["poll_probes"]);
    let trace = outcome.trace();
    let shown = shown(&trace);
    let (mut early, mut late, mut polls) = (Vec::new(), Vec::new(), 0);
    for (thread, truth) in &truth {
        let shown = shown.get(thread).map(Vec::as_slice).unwrap_or_default();
        for poll in truth {
            polls += 1;
            let around = shown.iter().filter(|shown| shown.task == poll.task && shown.begin <= poll.begin);
            let own = around.max_by_key(|shown| shown.begin).filter(|shown| shown.end >= poll.end);
            let own = own.unwrap_or_else(|| panic!("thread {thread} has polled this: {poll:?}"));
            early.push(poll.begin - own.begin);
            late.push(own.end - poll.end);
        }
        let shown_of_known = shown.iter().filter(|shown| truth.iter().any(|poll| poll.task == shown.task));
        assert_eq!(shown_of_known.count(), truth.len(), "{profile}: thread {thread} has polled as often as it says");
    }
    assert!(polls > 1000, "{polls} polls");
    let (early, late) = (usual(early), usual(late));
    println!("{profile}: {polls} polls, most from {early} ns before to {late} ns after what they do");
    assert!(early < SAME_NS && late < SAME_NS, "{profile}: {early} ns early and {late} ns late");
}

#[test]
fn every_poll_of_an_ordinary_program_is_told() {
    every_poll_is_told_from_its_begin_to_its_end("release");
}

#[test]
fn every_poll_of_a_stripped_program_is_told() {
    every_poll_is_told_from_its_begin_to_its_end("stripped");
}

#[test]
fn every_poll_of_a_program_that_was_optimized_as_a_whole_is_told() {
    every_poll_is_told_from_its_begin_to_its_end("fat");
}

#[test]
fn every_poll_of_a_small_program_is_told() {
    every_poll_is_told_from_its_begin_to_its_end("small");
}

#[test]
fn without_being_asked_for_no_poll_is_told_exactly() {
    let _turn = Turn::with_others();
    let mut program = Program::start(&oracle("release"), &["--seconds", "1"]);
    let recording = Record::new().process(program.pid()).arguments(["--no-symbols"]).start();
    program.begin();
    program.wait_for("done");
    let outcome = recording.stop().expect_success();
    let summary = outcome.summary();
    assert_eq!((summary["polls_exact"].as_u64(), &summary["poll_probes"]), (Some(0), &Json::Null));
    assert!(shown(&outcome.trace()).is_empty());
}
