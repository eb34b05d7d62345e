//! Programs whose polls are told exactly, by probes in their code: they behave as without, and have their own code
//! again when a recording is over, however that ends.
//!
//! These scenarios need root and a kernel that takes BPF programs. They fail where it does not.

use std::{
    fs,
    os::unix::process::ExitStatusExt,
    path::Path,
    process::{Command, ExitStatus},
    thread,
    time::Duration,
};

use polletto_tests::{
    code::{assert_untouched, patched},
    oracle::{Build, NEWEST},
    program,
    program::{DEADLINE, Program, until},
    recorder::{Outcome, Record},
    turn::Turn,
};
use regex::Regex;
use rustix::process::Signal;
use tempfile::NamedTempFile;

/// Recordings of each act, in all the ways to begin and end one.
const RECORDINGS: usize = 6;

/// How often an act of a few seconds is repeated for that.
const ACTS_AT_MOST: usize = 6;

/// What a program tells the world.
#[derive(Debug, PartialEq, Eq)]
struct Behaviour {
    status: ExitStatus,
    printed: Vec<String>,
    errors: String,
}

/// A program that has not said yet how it behaves.
struct Acting {
    program: Program,
    errors: NamedTempFile,
}

impl Acting {
    fn start(program: &Path, arguments: &[&str]) -> Acting {
        let errors = NamedTempFile::new().expect("a file for errors");
        let to = errors.reopen().expect("it can be written to");
        let mut command = Command::new(program);
        command.args(arguments).env("RUST_BACKTRACE", "1").stderr(to);
        Acting { program: Program::start_by(&mut command), errors }
    }

    fn perils(arguments: &[&str]) -> Acting {
        Acting::start(program!("perils"), arguments)
    }

    fn pid(&self) -> i32 {
        self.program.pid()
    }

    /// Without the ids of the process and of its threads, and without the addresses that Rust adds to a backtrace when
    /// a panic comes while another unwinds: they differ from run to run.
    fn behaviour(self) -> Behaviour {
        let (status, mut printed) = self.program.finish();
        printed.retain(|line| !line.starts_with("ready "));
        let errors = fs::read(self.errors.path()).expect("a file for errors");
        let mut errors = String::from_utf8_lossy(&errors).into_owned();
        for (differing, same) in [(r"(?m)^thread '(.*)' \(\d+\)", "thread '$1'"), (r"(?m)^( +\d+: +)0x[0-9a-f]+", "$1")]
        {
            errors = Regex::new(differing).expect("an expression").replace_all(&errors, same).into_owned();
        }
        Behaviour { status, printed, errors }
    }
}

/// Fails if one behaved otherwise than the other, and says where.
fn assert_same(probed: &Behaviour, alone: &Behaviour) {
    assert_eq!(probed.status, alone.status, "{}", probed.errors);
    let lines = |behaviour: &Behaviour| -> Vec<String> {
        behaviour.printed.iter().cloned().chain(behaviour.errors.lines().map(str::to_owned)).collect()
    };
    let (of_probed, of_alone) = (lines(probed), lines(alone));
    let differs = of_probed.iter().zip(&of_alone).position(|(probed, alone)| probed != alone);
    if let Some(at) = differs {
        let around = at.saturating_sub(20)..at + 5;
        let part = |lines: &[String]| lines[around.start..around.end.min(lines.len())].join("\n");
        panic!("with polletto:\n{}\n\nwithout:\n{}", part(&of_probed), part(&of_alone));
    }
    assert_eq!(of_probed.len(), of_alone.len(), "one has said more");
    assert_eq!(probed, alone);
}

/// A recording of all polls, in one of the ways that make a difference to how probes come and go.
fn recording_of(pid: i32) -> Record {
    let ways: [&[&str]; 4] =
        [&["--no-symbols"], &["--no-stacks"], &["--no-symbols", "--follow"], &["--no-symbols", "-F", "999"]];
    let way = ways[fastrand::usize(..ways.len())];
    Record::new().process(pid).arguments(["--polls", "all"]).arguments(way)
}

fn random_moment(at_most_ms: u64) {
    thread::sleep(Duration::from_micros(fastrand::u64(..at_most_ms * 1000)));
}

/// Polls that a recording has told from begin to end. Its trace must be without fault, but for what it says is missing:
/// some programs do nothing but poll.
fn told(outcome: &Outcome) -> u64 {
    let summary = outcome.summary();
    if summary["records_lost"] == 0 {
        outcome.trace();
    } else {
        outcome.trace_with_loss();
    }
    summary["polls_exact"].as_u64().expect("a number")
}

/// Records a process for a moment, ends that in one of several ways, and says how many polls it told.
fn record_for_a_moment(pid: i32) -> u64 {
    let recording = recording_of(pid);
    match fastrand::u8(..3) {
        0 => told(&recording.arguments(["-d", "0.1"]).run().expect_success()),
        1 => {
            let recording = recording.start();
            random_moment(200);
            told(&recording.stop().expect_success())
        }
        _ => {
            let recording = recording.start_without_waiting();
            random_moment(500);
            recording.signal(Signal::KILL);
            recording.wait();
            0
        }
    }
}

/// What came of recordings of a program that acts.
#[derive(Debug, Default)]
struct Recorded {
    recordings: usize,
    /// Polls that they told from begin to end.
    polls: u64,
}

/// A program is recorded again and again while it acts, beside one that is not.
fn act_while_recorded(act: &[&str], recorded: &mut Recorded) {
    let mut alone = Acting::perils(act);
    let mut probed = Acting::perils(act);
    let (pid, bystander) = (probed.pid(), alone.pid());
    alone.program.begin();
    probed.program.begin();
    thread::scope(|scope| {
        let acting = scope.spawn(|| probed.program.wait_for("done"));
        while !acting.is_finished() {
            recorded.polls += record_for_a_moment(pid);
            recorded.recordings += 1;
            for process in [pid, bystander] {
                assert_untouched(process, "after a recording");
            }
        }
    });
    assert_eq!(patched(pid), Some(Vec::new()), "it has been changed");
    alone.program.wait_for("done");
    assert_same(&probed.behaviour(), &alone.behaviour());
}

/// As often as it takes for enough recordings: machines differ in how long one lasts.
fn behaves_as_ever(act: &[&str]) {
    let _turn = Turn::with_others();
    let mut recorded = Recorded::default();
    for _ in 0..ACTS_AT_MOST {
        act_while_recorded(act, &mut recorded);
        if recorded.recordings >= RECORDINGS && recorded.polls > 0 {
            println!("{act:?}: {recorded:?}");
            return;
        }
    }
    panic!("{act:?}: only {recorded:?}");
}

#[test]
fn panics_are_caught_and_have_their_backtraces() {
    behaves_as_ever(&["panics"]);
}

#[test]
fn tasks_are_aborted() {
    behaves_as_ever(&["aborts"]);
}

#[test]
fn tasks_block_in_place() {
    behaves_as_ever(&["blocks"]);
}

#[test]
fn runtimes_end_while_their_tasks_live() {
    behaves_as_ever(&["shuts-down"]);
}

#[test]
fn tasks_fork_and_start_programs() {
    behaves_as_ever(&["forks"]);
}

#[test]
fn a_task_executes_another_program() {
    behaves_as_ever(&["executes", "8"]);
}

/// A program that ends itself in a poll is recorded from before it begins, or from some moment on.
fn ends_as_ever(program: &Path, arguments: &[&str]) {
    let _turn = Turn::with_others();
    let bystander = Acting::start(program, arguments);
    let mut alone = Acting::start(program, arguments);
    alone.program.begin();
    assert_eq!(alone.program.wait_for_or_end("done"), None, "it ends in a poll");
    let alone = alone.behaviour();
    for attempt in 0..6 {
        let mut probed = Acting::start(program, arguments);
        let recording = recording_of(probed.pid());
        let outcome = if attempt % 2 == 0 {
            let recording = recording.start();
            probed.program.begin();
            recording.wait()
        } else {
            let recording = recording.start_without_waiting();
            random_moment(250);
            probed.program.begin();
            recording.wait()
        };
        assert_same(&probed.behaviour(), &alone);
        if attempt % 2 == 0 {
            let outcome = outcome.expect_success();
            assert!(told(&outcome) > 0, "{}", outcome.summary());
        }
        assert_eq!(patched(bystander.pid()), Some(Vec::new()), "a process beside it has been changed");
    }
}

#[test]
fn a_task_aborts_its_process() {
    ends_as_ever(program!("perils"), &["abort"]);
}

#[test]
fn a_task_panics_while_it_panics() {
    ends_as_ever(program!("perils"), &["panic-twice"]);
}

#[test]
fn a_task_uses_up_its_stack() {
    ends_as_ever(program!("perils"), &["overflow"]);
}

#[test]
fn a_task_ends_its_process() {
    ends_as_ever(program!("perils"), &["exit"]);
}

#[test]
fn a_task_panics_in_a_program_that_aborts_then() {
    let program = Build { profile: "fat", tokio: NEWEST }.program();
    ends_as_ever(&program, &["--panics"]);
}

#[test]
fn a_program_that_is_killed_while_probes_come_or_go_ends_by_that() {
    let _turn = Turn::with_others();
    let bystander = Acting::perils(&["endless"]);
    for attempt in 0..24 {
        let mut probed = Acting::perils(&["endless"]);
        let pid = probed.pid();
        probed.program.begin();
        let recording = recording_of(pid);
        let recording = if attempt % 2 == 0 {
            let recording = recording.start_without_waiting();
            random_moment(400);
            recording
        } else {
            let recording = recording.start();
            random_moment(50);
            recording.signal(Signal::INT);
            random_moment(50);
            recording
        };
        probed.program.signal(Signal::KILL);
        let Behaviour { status, errors, .. } = probed.behaviour();
        assert_eq!((status.signal(), errors.as_str()), (Some(Signal::KILL.as_raw()), ""));
        let outcome = recording.wait_at_most(Duration::from_secs(10));
        let is_told = outcome.status.success() || outcome.stderr.contains(&pid.to_string());
        assert!(is_told && !outcome.stderr.contains("panicked"), "attempt {attempt}: {}", outcome.stderr);
        assert_eq!(patched(bystander.pid()), Some(Vec::new()), "a process beside it has been changed");
    }
}

#[test]
fn probes_are_in_the_recorded_process_alone_and_end_with_the_recorder() {
    let _turn = Turn::with_others();
    let bystander = Acting::perils(&["endless"]);
    let mut probed = Acting::perils(&["endless"]);
    let pid = probed.pid();
    probed.program.begin();
    for signal in [Signal::INT, Signal::TERM, Signal::KILL] {
        let recording = recording_of(pid).start();
        let places = until(DEADLINE, "probes", || patched(pid).filter(|patched| !patched.is_empty()));
        let started_later = Acting::perils(&["endless"]);
        for process in [&bystander, &started_later] {
            assert_eq!(patched(process.pid()), Some(Vec::new()), "while another process has {} probes", places.len());
        }
        recording.signal(signal);
        recording.wait();
        assert_eq!(patched(pid), Some(Vec::new()), "after {signal:?}");
    }
}
