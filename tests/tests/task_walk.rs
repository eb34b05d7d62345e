//! The task walk: what a runtime knows of itself, and what a trace says of it.
//!
//! These scenarios need root and a kernel that takes BPF programs. They fail where it does not.

use std::{collections::BTreeMap, thread, time::Duration};

use polletto_tests::{
    program,
    program::Program,
    recorder::{Outcome, Record},
    trace::{Event, EventKind, Nanoseconds, Trace, Value as Argument},
    turn::Turn,
};
use serde_json::Value;

/// What a walk may come late.
const SEVERAL_WALKS: Duration = Duration::from_millis(1500);

/// Tasks of the program's other runtime.
const OF_ONE_THREAD: f64 = 7.0;

fn recorded(arguments: &[&str]) -> (Outcome, Vec<Value>) {
    let mut program = Program::start(program!("many-tasks"), arguments);
    let recording = Record::new().process(program.pid()).arguments(["--task-walk", "10"]).start();
    thread::sleep(SEVERAL_WALKS);
    program.begin();
    program.wait_for("stuck");
    thread::sleep(SEVERAL_WALKS);
    program.begin();
    thread::sleep(Duration::from_millis(200));
    let outcome = recording.stop().expect_success();
    (outcome, program.truth())
}

/// What each counter of the group with this name, or those below it, showed last before a moment.
fn counters(trace: &Trace, group: &str, at: Nanoseconds) -> BTreeMap<String, f64> {
    let mut shown = BTreeMap::new();
    for event in trace.events.iter().filter(|event| event.at <= at) {
        let EventKind::Counter(value) = event.kind else { continue };
        let track = &trace.tracks[&event.track];
        if track.parent.is_some_and(|parent| trace.tracks[&parent].name == group) {
            shown.insert(track.name.clone(), value);
        }
    }
    shown
}

/// The groups of the runtimes of workers and of one thread.
fn groups(trace: &Trace, at: Nanoseconds) -> [&'static str; 2] {
    let names = ["Tokio workers", "Tokio workers, runtime 2"];
    let has_workers = |group: &&str| counters(trace, group, at).contains_key("idle workers");
    let several = *names.iter().find(|group| has_workers(group)).expect("one of them has workers");
    [several, names[usize::from(several == names[0])]]
}

#[test]
fn counters_say_what_the_runtimes_know_of_themselves() {
    let _turn = Turn::alone();
    let (outcome, truth) = recorded(&["--tasks", "1000", "--workers", "2", "--blocking", "3"]);
    let trace = outcome.trace();
    assert_eq!(truth.len(), 2, "{truth:?}");
    let number = |truth: &Value, name: &str| truth[name].as_f64().unwrap_or_else(|| panic!("no {name} in {truth}"));
    for (truth, idle_workers) in truth.iter().zip([2.0, 0.0]) {
        let at = truth["at"].as_u64().expect("a time");
        let [several, one] = groups(&trace, at);
        let shown = counters(&trace, several, at);
        println!("{shown:?}\n{truth}");
        assert_eq!(shown["live tasks"], number(truth, "live"));
        assert_eq!(shown["injection queue"], number(truth, "injected"));
        assert_eq!(shown["blocking threads"], number(truth, "blocking"));
        assert_eq!(shown["blocking queue"], number(truth, "queued"));
        assert_eq!(shown["idle workers"], idle_workers);
        for worker in 0..2 {
            assert_eq!(shown[&format!("worker {worker} queue")], number(truth, "in_each_queue"));
        }
        assert_eq!(counters(&trace, one, at)["live tasks"], OF_ONE_THREAD);
    }
    let walks = &outcome.summary()["task_walks"];
    assert!(walks["tasks"].as_u64().is_some_and(|tasks| tasks >= 1007), "{walks}");
    assert_eq!(walks["refused"], Value::Array(Vec::new()));
}

#[test]
fn a_counter_that_does_not_change_is_written_once() {
    let _turn = Turn::with_others();
    let program = Program::start(program!("many-tasks"), &["--tasks", "10"]);
    let recording = Record::new().process(program.pid()).arguments(["--task-walk", "50"]).start();
    thread::sleep(SEVERAL_WALKS);
    let outcome = recording.stop().expect_success();
    drop(program);
    let trace = outcome.trace();
    let is_live_tasks = |track: &u64| trace.tracks[track].name == "live tasks";
    let shown = trace.events.iter().filter(|event| is_live_tasks(&event.track)).count();
    assert_eq!(shown, 2, "one for each runtime");
}

#[test]
fn nothing_is_walked_if_that_is_not_wanted() {
    let _turn = Turn::with_others();
    let program = Program::start(program!("many-tasks"), &["--tasks", "10"]);
    let recording = Record::new().process(program.pid()).arguments(["--task-walk", "0"]).start();
    thread::sleep(SEVERAL_WALKS);
    let outcome = recording.stop().expect_success();
    drop(program);
    assert!(outcome.trace().tracks.values().all(|track| track.name != "live tasks"));
    assert_eq!(outcome.summary()["task_walks"], Value::Null);
}

#[test]
fn fifty_thousand_tasks_take_less_than_two_percent_of_a_cpu() {
    let _turn = Turn::alone();
    for (tasks, length) in [("10", 5), ("1000", 5), ("50000", 20)] {
        let program = Program::start(program!("many-tasks"), &["--tasks", tasks]);
        let recording = Record::new().process(program.pid()).start();
        thread::sleep(Duration::from_secs(length));
        let outcome = recording.stop().expect_success();
        drop(program);
        let summary = outcome.summary();
        let (walks, seconds) = (&summary["task_walks"], summary["seconds"].as_f64().expect("seconds"));
        let cpu = walks["cpu_seconds"].as_f64().expect("seconds");
        println!("{tasks} tasks: {:.3} % of a CPU in {seconds:.1} s; {walks}", 100.0 * cpu / seconds);
        assert!(cpu < 0.02 * seconds);
        let found = walks["tasks"].as_u64().expect("a count");
        assert!(found >= tasks.parse().expect("a number"), "{found} of {tasks} tasks were found");
    }
}

#[test]
fn tasks_that_come_and_go_are_walked_without_harm() {
    let _turn = Turn::alone();
    let program = Program::start(program!("many-tasks"), &["--tasks", "500", "--churn", "50000"]);
    let recording = Record::new().process(program.pid()).arguments(["--task-walk", "50"]).start();
    thread::sleep(Duration::from_secs(5));
    let outcome = recording.stop().expect_success();
    let summary = outcome.summary();
    println!("{}", summary["task_walks"]);
    let (status, _) = program.finish();
    assert!(status.success(), "{status}");
    assert_eq!(summary["task_walks"]["refused"], Value::Array(Vec::new()));
}

/// Those of the program that come and go last 200 ms at most. The last walk that is due is half a second before the end.
#[test]
fn a_task_that_has_ended_since_the_last_walk_is_not_told_to_be_alive() {
    let _turn = Turn::alone();
    let program = Program::start(program!("many-tasks"), &["--tasks", "10", "--churn", "20000"]);
    let recording =
        Record::new().process(program.pid()).arguments(["--task-walk", "1", "--polls", "off", "--no-symbols"]).start();
    thread::sleep(Duration::from_millis(2_500));
    let outcome = recording.stop().expect_success();
    drop(program);
    let trace = outcome.trace();
    let (_, end) = trace.span().expect("something was recorded");
    let is_alive = |event: &&Event| event.arguments.get("end") == Some(&Argument::Text("alive".into()));
    let of_churn = trace.events.iter().filter(is_alive).filter(|event| event.name.contains("Sleep"));
    // Lists are read once more after the last switch.
    let lived_ms: Vec<u64> = of_churn.map(|event| end.saturating_sub(event.at) / 1_000_000).collect();
    let longest = lived_ms.iter().max();
    println!("{} are alive, for up to {longest:?} ms", lived_ms.len());
    assert!(longest.is_some_and(|&longest| longest <= 400), "{longest:?}");
}
