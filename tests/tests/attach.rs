//! Probes that come and go again and again in a server that answers requests meanwhile.
//!
//! These scenarios need root and a kernel that takes BPF programs. They fail where it does not.

use std::{thread, time::Instant};

use polletto_tests::{code::patched, program, recorder::Record, served::Server, turn::Turn};

/// As many as the server takes, on few connections: short polls, one after another.
const LOAD: [&str; 4] = ["--rate", "2000", "--mix", "ok=1"];

/// What came of so many recordings, one after another.
#[derive(Debug, Default)]
struct Cycles {
    /// Polls that were told from begin to end.
    polls: u64,
    /// Polls of which only the begin was seen.
    without_end: u64,
    /// Seconds that the longest took from its start until its process had ended.
    longest: f64,
}

/// Records a process so often, all of its polls, each time for a moment; then its code is that of its files.
fn cycles(pid: i32, count: usize) -> Cycles {
    let mut cycles = Cycles::default();
    for cycle in 0..count {
        let began = Instant::now();
        let recording = Record::new().process(pid).arguments(["--polls", "all", "--no-stacks", "-d", "0.05"]);
        let summary = recording.run().expect_success().summary();
        let number = |name: &str| summary[name].as_u64().unwrap_or_else(|| panic!("{name} in {summary}"));
        cycles.polls += number("polls_exact");
        cycles.without_end += number("polls_without_end");
        cycles.longest = cycles.longest.max(began.elapsed().as_secs_f64());
        assert_eq!(patched(pid), Some(Vec::new()), "after {cycle} recordings");
    }
    cycles
}

fn attached_and_detached(count: usize) {
    let _turn = Turn::alone();
    let server = Server::demo(program!("demo-server"), &[]);
    let load = || server.asked(program!("demo-load"), &LOAD, 3);
    let unrecorded = load();
    let began = Instant::now();
    let (cycles, recorded) = thread::scope(|scope| {
        let cycles = scope.spawn(|| cycles(server.pid(), count));
        let mut recorded = vec![load()];
        while !cycles.is_finished() {
            recorded.push(load());
        }
        (cycles.join().expect("no cycle fails"), recorded)
    });
    let seconds = began.elapsed().as_secs_f64();
    let answered: u64 = recorded.iter().map(|answers| answers.answered).sum();
    println!("without: {}", unrecorded.report);
    println!("at last: {}", recorded[recorded.len() - 1].report);
    println!(
        "{count} recordings in {seconds:.1} s, while {answered} requests were answered and none failed: {cycles:?}"
    );
    assert!(cycles.polls > 0, "no poll was told");
    assert!(answered > 0, "nothing was asked");
}

#[test]
fn twenty_times() {
    attached_and_detached(20);
}

#[test]
#[ignore = "takes minutes: `cargo xtask bench attach`"]
fn a_thousand_times() {
    attached_and_detached(1000);
}
