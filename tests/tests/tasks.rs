//! Which task a thread polls, as samples and switches tell it, against what the program itself wrote down.
//!
//! These scenarios need root and a kernel that takes BPF programs. They fail where it does not.

use polletto_tests::{
    oracle::{Build, NEWEST, Truth},
    recorder::Outcome,
    trace::{StackSample, Trace, Value},
    turn::Turn,
};

/// Around the moments that the program wrote down: it does so a little after a poll begins, and before it ends.
const MARGIN_NS: u64 = 20_000;

/// Around the same moments, for what is certainly none of a poll: in a debug build Tokio takes its time with both.
const IDLE_MARGIN_NS: u64 = 200_000;

/// A task is also about its own when its future is dropped and its result kept, which it can't write down itself, and in a
/// debug build takes a while: of polls that are shown, so many may lie partly outside of one that was written down, in
/// percent.
const OUTSIDE_PERCENT: usize = 5;

/// Samples that must have the right task, in percent.
const RIGHT_PERCENT: usize = 98;

/// Of samples in polls, how many have the right task; and of those in none, how many have none.
fn attributed(trace: &Trace, truth: &Truth) -> [(usize, usize); 2] {
    let (mut polling, mut idle) = ((0, 0), (0, 0));
    for sample in trace.samples.iter().filter(|sample| !sample.is_blocked()) {
        if let Some(poll) = truth.polled(sample.tid, sample.at, MARGIN_NS) {
            polling.1 += 1;
            polling.0 += usize::from(task_id(sample) == Some(truth.id(poll)));
        } else if truth.is_idle(sample.tid, sample.at, IDLE_MARGIN_NS) {
            idle.1 += 1;
            idle.0 += usize::from(task_id(sample).is_none());
        }
    }
    [polling, idle]
}

/// `future #id`
fn task_id(sample: &StackSample) -> Option<u64> {
    let task = sample.task.as_ref()?;
    let (_, id) = task.name.rsplit_once(" #").unwrap_or_else(|| panic!("{task:?}"));
    Some(id.parse().expect("an id"))
}

/// Polls that are shown lie within one that happened, of that task, on that thread. Returns how many there are.
fn shown_polls_happened(trace: &Trace, truth: &Truth) -> usize {
    let polls: Vec<_> = trace.slices_of("poll").collect();
    let outside = polls.iter().filter(|poll| {
        let number = |name: &str| match poll.arguments.get(name) {
            Some(Value::Integer(number)) => u64::try_from(*number).expect("a positive number"),
            other => panic!("{name}: {other:?}"),
        };
        let (id, tid) = (number("task_id"), i32::try_from(number("tid")).expect("an id"));
        let happened = truth.polls.iter().any(|happened| {
            let around = happened.begin.saturating_sub(MARGIN_NS)..happened.end + MARGIN_NS;
            happened.tid == tid
                && truth.id(happened) == id
                && around.contains(&poll.begin)
                && around.contains(&poll.end)
        });
        !happened
    });
    let outside: Vec<_> = outside.collect();
    assert!(outside.len() * 100 <= polls.len() * OUTSIDE_PERCENT + 100, "no such polls: {outside:#?}");
    polls.len()
}

/// The names of futures that are shown, each of which must be that of its task.
fn names_are_right(trace: &Trace, truth: &Truth, is_right: impl Fn(&str, &str, &str) -> bool) {
    for poll in trace.slices_of("poll") {
        let text = |name: &str| match poll.arguments.get(name) {
            Some(Value::Text(text)) => text.as_str(),
            other => panic!("{name}: {other:?}"),
        };
        let Some(Value::Integer(id)) = poll.arguments.get("task_id") else { panic!("{poll:?}") };
        let (future, tier) = (text("future"), text("name_tier"));
        let Some(spawn) = truth.spawns.values().find(|spawn| i128::from(spawn.id) == *id) else {
            // The runtime itself spawns a task for each worker thread: what it does before and after it works.
            assert!(tier == "vtable" || future.contains("launch"), "nobody has spawned {poll:?}");
            continue;
        };
        assert!(is_right(&spawn.name, future, tier), "{future:?} by {tier} is not {}", spawn.name);
    }
}

fn assert_attributed(build: Build) -> (Outcome, Trace, Truth) {
    let (outcome, truth) = build.recorded(&["-F", "999", "--polls", "off"]);
    let trace = outcome.trace();
    let [(right, of), (none, idle)] = attributed(&trace, &truth);
    println!("{build:?}: {right} of {of} samples in polls have the right task, {none} of {idle} in none have none");
    assert!(of > 300, "{of} samples");
    assert!(right * 100 >= of * RIGHT_PERCENT, "{build:?}: {right} of {of} samples have the right task");
    // There are few of them.
    assert!((none + 2) * 100 >= idle * RIGHT_PERCENT, "{build:?}: {none} of {idle} samples in no poll have no task");
    let shown = shown_polls_happened(&trace, &truth);
    println!("{build:?}: {shown} polls are shown");
    assert!(shown > 20, "{build:?}: {shown} polls are shown");
    (outcome, trace, truth)
}

#[test]
fn samples_of_a_release_build_have_their_tasks() {
    let _turn = Turn::alone();
    let (outcome, trace, truth) = assert_attributed(Build { profile: "release", tokio: NEWEST });
    // `spawn("hog", hog(rounds))`: its future is `hog::{async}`.
    names_are_right(&trace, &truth, |spawned, future, _| {
        let function = spawned.split('<').next().unwrap_or(spawned);
        let function = match function {
            "local" => "hog",
            "child" => "parent",
            function => function,
        };
        future.contains(function) || future.contains("main.rs")
    });
    let programs = outcome.summary()["tasks"].as_array().expect("programs with tasks").clone();
    assert_eq!(programs.len(), 1, "{programs:?}");
    assert!(programs[0]["tasks_unseen"].is_null(), "{programs:?}");
}

#[test]
fn samples_of_a_stripped_program_have_their_tasks() {
    let _turn = Turn::alone();
    let (_, trace, truth) = assert_attributed(Build { profile: "stripped", tokio: NEWEST });
    names_are_right(&trace, &truth, |_, future, tier| tier == "vtable" || future.contains(".rs:"));
}

#[test]
fn samples_of_an_optimised_whole_have_their_tasks() {
    let _turn = Turn::alone();
    assert_attributed(Build { profile: "fat", tokio: NEWEST });
}

#[test]
fn samples_of_a_debug_build_have_their_tasks_and_workers() {
    let _turn = Turn::alone();
    let (_, trace, _) = assert_attributed(Build { profile: "dev", tokio: NEWEST });
    let mut workers: Vec<_> = trace
        .slices_of("poll")
        .map(|poll| trace.tracks[&poll.track].name.clone())
        .filter(|name| !name.starts_with("thread "))
        .collect();
    workers.sort();
    workers.dedup();
    assert_eq!(workers, ["current thread", "worker 0", "worker 1"]);
}

#[test]
fn samples_of_an_old_tokio_have_their_tasks() {
    let _turn = Turn::alone();
    assert_attributed(Build { profile: "release", tokio: "~1.38" });
}
