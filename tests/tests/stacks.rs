//! Stacks of a program that is built as everybody builds theirs: without frame pointers, with and without symbols.
//!
//! These scenarios need root and a kernel that takes BPF programs. They fail where it does not.

use std::{collections::BTreeMap, fs, path::Path as FilePath};

use polletto_tests::{
    generated::starts,
    oracle::{Build, NEWEST},
    paths::{Path, leads_through},
    program,
    program::{Program, strip},
    recorder::{Outcome, Record},
    symbols::Symbols,
    trace::{StackSample, Trace},
    turn::Turn,
};
use serde_json::Value;

/// How often each of the threads takes every path: thousands of samples, and as many blocked stretches.
const ROUNDS: usize = 40;
const THREADS: usize = 2;

/// A recording of `deep-stacks`, from its first path to its last.
struct Deep {
    outcome: Outcome,
    trace: Trace,
    paths: Vec<Path>,
}

fn recorded(program: &FilePath, rounds: usize, arguments: &[&str]) -> Deep {
    let (rounds, threads) = (rounds.to_string(), THREADS.to_string());
    let mut program = Program::start(program, &["--rounds", &rounds, "--threads", &threads]);
    let recording = Record::new().process(program.pid()).arguments(["-F", "997"]).arguments(arguments).start();
    program.begin();
    program.wait_for("done");
    let (_, lines) = program.finish();
    let outcome = recording.wait().expect_success();
    let trace = outcome.trace();
    Deep { outcome, trace, paths: lines.iter().filter_map(|line| Path::read(line)).collect() }
}

fn count(summary: &Value, name: &str) -> usize {
    let number = summary[name].as_u64().unwrap_or_else(|| panic!("{name}: {summary}"));
    usize::try_from(number).expect("a count")
}

/// Whether a stack ends where threads and programs begin, by what we know of them and no unwind table says.
///
/// The main thread begins in the program's `_start`. Any other begins in functions of libc, which has no names for
/// them, and which call the standard library's `thread_start` once the thread is set up.
fn reaches_root(sample: &StackSample, symbols: &mut Symbols) -> bool {
    let frames: Vec<_> = sample.stack.user_frames().collect();
    let Some(outermost) = frames.last() else { return false };
    if sample.stack.is_incomplete() {
        return false;
    }
    if symbols.name(outermost) == Some("_start") {
        return true;
    }
    let is_libc = |path: Option<&str>| path.is_some_and(|path| path.contains("libc.so") || path.contains("libc-2"));
    let libc = frames.iter().rev().take_while(|frame| is_libc(frame.path())).count();
    match frames.len() - libc {
        // It is not set up yet, or has left what it was started for.
        0 => libc > 0,
        program => libc >= 2 && symbols.name(frames[program - 1]) == Some("thread_start"),
    }
}

/// At least `wanted` thousandths of these samples reach the root.
fn assert_share_to_root<'trace>(
    what: &str,
    wanted: usize,
    samples: impl Iterator<Item = &'trace StackSample>,
    symbols: &mut Symbols,
) {
    let (whole, others): (Vec<_>, Vec<_>) = samples.partition(|sample| reaches_root(sample, symbols));
    let all = whole.len() + others.len();
    println!("{what}: {} of {all} reach the root", whole.len());
    let mut endings: BTreeMap<_, usize> = BTreeMap::new();
    for sample in &others {
        let ending = sample.stack.user_frames().last().map(|frame| format!("{frame:?}"));
        *endings.entry((sample.unwind_error.clone(), ending)).or_default() += 1;
    }
    assert!(all >= 1000, "{what}: only {all} samples");
    assert!(
        whole.len() * 1000 >= all * wanted,
        "{what}: {} of {all} reach the root; others: {endings:#?}",
        whole.len()
    );
}

/// All of them, and what the summary says of them.
fn assert_stacks_are_whole(deep: &Deep, symbols: &mut Symbols) {
    let of_kind = |blocked| deep.trace.samples.iter().filter(move |sample| sample.is_blocked() == blocked);
    assert_share_to_root("on a CPU", 995, of_kind(false), symbols);
    assert_share_to_root("blocked", 999, of_kind(true), symbols);
    let summary = deep.outcome.summary();
    for (all, whole, blocked) in [("samples", "samples_to_root", false), ("blocked", "blocked_to_root", true)] {
        assert_eq!(count(&summary, all), of_kind(blocked).count(), "{all}");
        let in_trace = of_kind(blocked).filter(|sample| !sample.stack.is_incomplete()).count();
        assert_eq!(count(&summary, whole), in_trace, "{whole}");
    }
    assert_eq!((count(&summary, "stacks_lost"), count(&summary, "samples_lost")), (0, 0));
    // Every module here has a table, but what a C compiler adds to each for the very end, `__do_global_dtors_aux` and
    // `_fini`, has no place in it.
    let over = deep.paths.iter().map(|path| path.within.end).max().expect("paths were taken");
    let at_the_end = of_kind(false).filter(|sample| sample.at >= over).count();
    println!("{at_the_end} samples after the last path");
    assert!(at_the_end <= 50, "that many prove nothing of tables");
    assert!(count(&summary, "samples_by_frame_pointers") <= at_the_end, "every module here has a table: {summary}");
    assert_eq!(summary["modules_without_table"], serde_json::json!([]));
    assert!(count(&summary, "modules") >= 4, "the program, libc, libgcc_s and the dynamic linker: {summary}");
}

/// Every time that a path was taken, what was on it is on the recorded stacks.
fn assert_paths_are_seen(deep: &Deep, symbols: &mut Symbols) {
    let mut burnt: BTreeMap<&str, usize> = BTreeMap::new();
    let (mut unseen, mut without_begin) = (Vec::new(), Vec::new());
    for path in &deep.paths {
        let within = deep.trace.samples.iter().filter(|sample| {
            sample.tid == path.tid && path.within.contains(&sample.at) && !sample.stack.is_incomplete()
        });
        let mut has_blocked = path.blocking.is_empty();
        for sample in within {
            if sample.is_blocked() && sample.stretch().start < path.within.start {
                without_begin.push((&path.section, path.tid, sample.stretch()));
                continue;
            }
            let through = if sample.is_blocked() { &path.blocking } else { &path.burning };
            let names = symbols.names(&sample.stack);
            // Not where the path ends: on the way there, or back.
            let Some(leaf) = through.first().filter(|leaf| names.contains(leaf)) else { continue };
            let section = &path.section;
            assert!(
                leads_through(&names, through),
                "{section}: {leaf} was reached by {names:?}, not by {through:?}, at {:?} in {:?}",
                sample.stretch(),
                path.within
            );
            if sample.is_blocked() {
                has_blocked = true;
            } else {
                *burnt.entry(section).or_default() += 1;
            }
        }
        if !has_blocked {
            unseen.push((&path.section, path.tid, path.within.clone()));
        }
    }
    println!("samples at the end of each path: {burnt:?}");
    // Each path blocks for longer than the shortest stretch that is recorded. A machine that hides switches makes two
    // stretches one, or none; how often it does is in the summary.
    let (taken, hidden) = (deep.paths.len(), count(&deep.outcome.summary(), "switches_not_reported"));
    println!("{hidden} switches were not reported; stretches without a begin: {without_begin:?}; paths: {unseen:?}");
    assert!(without_begin.len() <= hidden, "threads were not blocked for so long: {without_begin:?}");
    let allowed = taken / 1000 + hidden;
    assert!(unseen.len() <= allowed, "{} of {taken} were not seen to block: {unseen:?}", unseen.len());
    // It burns for one and a half periods or more each time.
    for path in deep.paths.iter().filter(|path| !path.burning.is_empty()) {
        let seen = burnt.get(path.section.as_str()).copied().unwrap_or_default();
        assert!(seen >= ROUNDS * THREADS, "{} was seen burning {seen} times", path.section);
    }
}

#[test]
fn stacks_of_a_release_build_are_whole() {
    let _turn = Turn::alone();
    let deep = recorded(program!("deep-stacks"), ROUNDS, &[]);
    let mut symbols = Symbols::new();
    assert_stacks_are_whole(&deep, &mut symbols);
    assert_paths_are_seen(&deep, &mut symbols);
}

#[test]
fn stacks_of_a_stripped_program_are_as_whole() {
    let _turn = Turn::alone();
    let directory = tempfile::tempdir().expect("a directory");
    let directory = directory.path().canonicalize().expect("it is there");
    let (original, stripped) = (program!("deep-stacks"), directory.join("deep-stripped"));
    strip(original, &stripped);
    // As a symbol, which a text of the program is not.
    let has_symbol = |program: &FilePath| {
        let bytes = fs::read(program).expect("it is there");
        bytes.windows(15).any(|window| window == b"13through_qsort")
    };
    assert!(has_symbol(original) && !has_symbol(&stripped), "stripping made no difference");

    let deep = recorded(&stripped, ROUNDS, &[]);
    let path = stripped.to_str().expect("a plain path");
    let mut symbols = Symbols::new().with_original(&stripped, original);
    assert!(
        deep.trace.samples.iter().any(|sample| sample.stack.frames().iter().any(|frame| frame.path() == Some(path)))
    );
    assert_stacks_are_whole(&deep, &mut symbols);
    assert_paths_are_seen(&deep, &mut symbols);
}

#[test]
fn frame_pointers_alone_would_not_do() {
    let _turn = Turn::alone();
    let deep = recorded(program!("deep-stacks"), 5, &["--unwind", "frame-pointers"]);
    let mut symbols = Symbols::new();
    let (whole, others): (Vec<_>, Vec<_>) =
        deep.trace.samples.iter().partition(|sample| reaches_root(sample, &mut symbols));
    println!("{} of {} reach the root by frame pointers", whole.len(), whole.len() + others.len());
    assert!(others.len() > whole.len(), "this build has frame pointers: it proves nothing about tables");
    let summary = deep.outcome.summary();
    assert!(count(&summary, "samples_by_frame_pointers") > 0, "{summary}");
}

#[test]
fn a_signal_s_handler_begins_with_its_first_instruction() {
    let _turn = Turn::with_others();
    let path = program!("signal-storm");
    let handler = *starts(path)["storm_handler"].first().expect("it has an address");
    let mut storm = Program::start(path, &[]);
    let recording = Record::new().process(storm.pid()).arguments(["-F", "4999", "--mode", "cpu"]).start();
    storm.begin();
    storm.wait_for("done");
    storm.finish();
    let trace = recording.wait().expect_success().trace();
    let innermost = trace.samples.iter().filter_map(|sample| Some((sample, sample.stack.user_frames().next()?)));
    let own = innermost.filter(|(_, frame)| frame.path() == path.to_str());
    let (at_begin, before): (Vec<_>, Vec<_>) = own
        .filter(|(_, frame)| (handler - 1..=handler).contains(&frame.rel_pc))
        .partition(|(_, frame)| frame.rel_pc == handler);
    println!("{} samples at the handler's beginning", at_begin.len());
    assert!(!at_begin.is_empty(), "no sample shows what is to be shown");
    assert!(before.is_empty(), "{} samples in front of the handler: {:?}", before.len(), before[0].0);
    let lost = at_begin.iter().filter(|(sample, _)| sample.stack.is_incomplete()).count();
    assert_eq!(lost, 0, "of {} stacks", at_begin.len());
}

/// Neither musl's functions nor what calls a thread's first one have unwind information.
#[test]
fn stacks_of_a_stripped_program_with_musl_are_whole() {
    let _turn = Turn::alone();
    let (outcome, _) = Build { profile: "musl", tokio: NEWEST }.recorded(&["-F", "999", "--no-symbols"]);
    let summary = outcome.summary();
    // There are few sleeps: one that is cut short for another reason is many of a hundred.
    for (all, whole, enough, percent) in
        [("samples", "samples_to_root", 500, 99), ("blocked", "blocked_to_root", 15, 90)]
    {
        let (all, whole) = (count(&summary, all), count(&summary, whole));
        println!("{whole} of {all} reach the root");
        assert!(all >= enough && whole * 100 >= all * percent, "{whole} of {all} reach the root: {summary}");
    }
    let guessed = count(&summary, "samples_by_frame_pointers");
    assert!(guessed * 100 <= count(&summary, "samples"), "what its code does tells all: {summary}");
}

/// Until the kernel has looked, a thread that has come to a probe stands behind the breakpoint, with nothing done.
#[test]
fn a_thread_that_has_just_come_to_a_probe_has_a_whole_stack() {
    let _turn = Turn::alone();
    let mill = Program::start(program!("poll-mill"), &["--workers", "2", "--tasks", "3"]);
    let arguments = ["-F", "1999", "-d", "0.6", "--polls", "all", "--no-symbols"];
    let trace = Record::new().process(mill.pid()).arguments(arguments).run().expect_success().trace();
    let (status, _) = mill.finish();
    assert!(status.success(), "{status}");
    let incomplete = trace.samples.iter().filter(|sample| sample.stack.is_incomplete()).count();
    println!("{incomplete} of {} stacks are incomplete", trace.samples.len());
    assert!(trace.samples.len() >= 300, "only {} samples", trace.samples.len());
    assert!(incomplete * 100 <= trace.samples.len(), "{incomplete} of {} are incomplete", trace.samples.len());
}
