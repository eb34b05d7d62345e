//! What is wrong with runtimes as a whole, as the summary, the timeline and a report tell it.
//!
//! These scenarios need root and a kernel that takes BPF programs. They fail where it does not. Traces are asked where
//! there is a `trace_processor_shell`.

use std::{thread, time::Duration};

use polletto_tests::{
    check::trace_processor,
    program,
    program::Program,
    recorder::{Outcome, Record},
    report::json,
    trace::{Event, EventKind},
    turn::Turn,
};
use serde_json::Value;

/// By how much the recorder and the package of SQL may differ in how long something lasted, nanoseconds, and in percent.
/// The one takes a thread for a worker once it is found to be one, the other knows it from the beginning.
const SAME_NS: u64 = 100_000_000;
const SAME_PERCENT: f64 = 2.0;

/// Something wrong with a runtime: its kind and worker, whose it is, how long it lasted, and in words.
#[derive(Debug)]
struct OfRuntime {
    what: (String, Option<String>),
    of: (u64, String),
    lasted_ns: u64,
    detail: String,
}

/// What is wrong with runtimes, as the summary or a report tells it.
fn of_runtimes(told: &Value, lasted: &str) -> Vec<OfRuntime> {
    let text = |of: &Value| of.as_str().map(str::to_owned);
    let found = told["runtimes"].as_array().expect("a list").iter().map(|of| OfRuntime {
        what: (text(&of["kind"]).expect("a kind"), text(&of["worker"])),
        of: (of["pid"].as_u64().expect("a process"), text(&of["runtime"]).expect("a group")),
        lasted_ns: of[lasted].as_u64().expect("a duration"),
        detail: text(&of["detail"]).expect("words"),
    });
    let mut found: Vec<OfRuntime> = found.collect();
    found.sort_by(|one, other| one.what.cmp(&other.what));
    found
}

fn percents(detail: &str) -> Vec<f64> {
    detail.split(' ').filter_map(|word| word.parse().ok()).collect()
}

/// What the summary, the timeline and a report say of runtimes is the same. Kinds and workers.
fn of_runtimes_by_all(outcome: &Outcome) -> Vec<(String, Option<String>)> {
    let summed = of_runtimes(&outcome.summary()["findings"], "duration_ns");
    println!("{summed:?}");
    let trace = outcome.trace();
    // Convoys stand there as well, and are of a task.
    let is_of_runtime = |event: &&Event| {
        let is_begin = trace.tracks[&event.track].name == "findings" && event.kind == EventKind::Begin;
        is_begin && !event.arguments.contains_key("task_id")
    };
    let mut shown: Vec<&str> = trace.events.iter().filter(is_of_runtime).map(|event| event.name.as_str()).collect();
    shown.sort_unstable();
    assert_eq!(shown, summed.iter().map(|found| found.what.0.as_str()).collect::<Vec<_>>());
    if trace_processor().is_some() {
        let asked = of_runtimes(&json(&outcome.output, &["--json"]), "dur");
        assert_eq!(asked.len(), summed.len(), "{asked:?}");
        for (asked, summed) in asked.iter().zip(&summed) {
            assert_eq!((&asked.what, &asked.of), (&summed.what, &summed.of));
            assert!(asked.lasted_ns.abs_diff(summed.lasted_ns) <= SAME_NS, "{asked:?}, {summed:?}");
            let (ours, theirs) = (percents(&summed.detail), percents(&asked.detail));
            let is_same = ours.iter().zip(&theirs).all(|(our, their)| (our - their).abs() <= SAME_PERCENT);
            assert!(ours.len() == theirs.len() && !ours.is_empty() && is_same, "{asked:?}, {summed:?}");
        }
    }
    summed.into_iter().map(|found| found.what).collect()
}

#[test]
fn a_worker_that_has_all_the_work_is_told() {
    let _turn = Turn::alone();
    let program = Program::start(program!("poll-mill"), &["--workers", "2", "--tasks", "1"]);
    let outcome = Record::new().process(program.pid()).arguments(["-d", "3", "--no-symbols"]).run().expect_success();
    drop(program);
    let told = of_runtimes_by_all(&outcome);
    let kinds: Vec<&str> = told.iter().map(|(kind, _)| kind.as_str()).collect();
    assert_eq!(kinds, ["one busy worker", "worker never parks"]);
    assert!(told[0].1.is_some() && told[0].1 == told[1].1, "{told:?}");
}

#[test]
fn a_blocking_pool_that_is_full_is_told() {
    let _turn = Turn::alone();
    let mut program = Program::start(program!("many-tasks"), &["--tasks", "10"]);
    let recording = Record::new().process(program.pid()).arguments(["--no-symbols"]).start();
    thread::sleep(Duration::from_secs(1));
    program.begin();
    program.wait_for_at_most("stuck", Duration::from_secs(10));
    thread::sleep(Duration::from_millis(2_500));
    let outcome = recording.stop().expect_success();
    drop(program);
    assert_eq!(of_runtimes_by_all(&outcome), [("blocking pool full".to_owned(), None)]);
}
