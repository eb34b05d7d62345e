//! Code that comes and goes: libraries that are loaded late, programs that are replaced, children, generated code.
//!
//! These scenarios need root and a kernel that takes BPF programs. They fail where it does not.

use std::{ops::Range, path::Path as FilePath};

use polletto_tests::{
    paths::{Path, leads_through},
    plugin, program,
    program::Program,
    recorder::Record,
    symbols::{Symbols, build_id},
    trace::{Frame, FrameKind, Nanoseconds, StackSample, Tid, Trace},
    turn::Turn,
};

/// How long new code may be unknown.
const LEARNT_NS: u64 = 50_000_000;

/// The share of samples in known code that must be right, in percent.
const RIGHT_PERCENT: usize = 99;

/// A line of `shape-shifter`: who took a step, and when.
struct Step {
    tid: Tid,
    at: Nanoseconds,
    /// What stands behind.
    rest: Vec<String>,
}

fn steps(lines: &[String], name: &str) -> Vec<Step> {
    let read = |line: &String| {
        let fields: Vec<_> = line.split(' ').collect();
        let [step, _, tid, at, rest @ ..] = &fields[..] else { return None };
        let rest = rest.iter().map(|field| (*field).to_owned()).collect();
        (*step == name).then(|| Step { tid: tid.parse().expect("an id"), at: at.parse().expect("a time"), rest })
    };
    lines.iter().filter_map(read).collect()
}

fn text(path: &FilePath) -> &str {
    path.to_str().expect("a plain path")
}

fn timer_samples(trace: &Trace, tid: Tid, within: Range<Nanoseconds>) -> Vec<&StackSample> {
    let own = |sample: &&StackSample| sample.tid == tid && !sample.is_blocked() && within.contains(&sample.at);
    trace.samples.iter().filter(own).collect()
}

/// While `library` was called, the stacks go through its `plugin_work`, by its path and build id.
fn assert_called(trace: &Trace, symbols: &mut Symbols, library: &FilePath, call: &Step, called: &Step) {
    let id = build_id(library);
    assert!(!id.is_empty(), "{} has no build id to be known by", library.display());
    let samples = timer_samples(trace, call.tid, call.at + LEARNT_NS..called.at);
    assert!(samples.len() >= 100, "{} samples in {}", samples.len(), library.display());
    let is_right = |sample: &&StackSample| {
        let of_library = |path: Option<&str>| path == Some(text(library));
        let names = symbols.names(&sample.stack);
        let work = sample.stack.user_frames().zip(&names).find(|(_, name)| *name == "plugin_work");
        work.is_some_and(|(frame, _)| {
            of_library(frame.path()) && frame.mapping.as_ref().is_some_and(|mapping| mapping.build_id == id)
        }) && names.last().is_some_and(|name| name == "_start")
    };
    let (right, wrong): (Vec<_>, Vec<_>) = samples.iter().copied().partition(is_right);
    assert!(
        right.len() * 100 >= samples.len() * RIGHT_PERCENT,
        "{}: {} of {} are right; wrong: {:?}",
        library.display(),
        right.len(),
        samples.len(),
        wrong.iter().take(3).collect::<Vec<_>>()
    );
}

#[test]
fn a_library_is_known_soon_after_it_is_loaded_also_where_another_one_was() {
    let _turn = Turn::alone();
    let directory = tempfile::tempdir().expect("a directory");
    let directory = directory.path().canonicalize().expect("it is there");
    let libraries = [("first", 4), ("other", 300)].map(|(name, room)| plugin::build(&directory, name, room));
    let [first, other] = &libraries;
    let arguments =
        ["wait", "open", text(first), "call", "300", "close", "open", text(other), "call", "300", "spin", "1"];
    let mut shifter = Program::start(program!("shape-shifter"), &arguments);
    let recording = Record::new().process(shifter.pid()).arguments(["-F", "997"]).start();
    shifter.begin();
    let trace = recording.wait().expect_success().trace();
    let (_, lines) = shifter.finish();
    let bases: Vec<_> = steps(&lines, "opened").into_iter().map(|step| step.rest).collect();
    assert_eq!(bases[0], bases[1], "the other library did not take the first one's place: this proves nothing");
    let (calls, ends) = (steps(&lines, "call"), steps(&lines, "called"));
    let mut symbols = Symbols::new();
    for (library, (call, called)) in libraries.iter().zip(calls.iter().zip(&ends)) {
        assert_called(&trace, &mut symbols, library, call, called);
    }
}

#[test]
fn parent_and_child_have_different_libraries_at_the_same_address() {
    let _turn = Turn::alone();
    let directory = tempfile::tempdir().expect("a directory");
    let directory = directory.path().canonicalize().expect("it is there");
    let libraries = [("child", 300), ("other", 4)].map(|(name, room)| plugin::build(&directory, name, room));
    let [of_child, of_parent] = &libraries;
    let arguments = [
        "wait",
        "fork",
        "open",
        text(of_child),
        "call",
        "300",
        "join",
        "open",
        text(of_parent),
        "call",
        "300",
        "spin",
        "1",
    ];
    let mut shifter = Program::start(program!("shape-shifter"), &arguments);
    let recording = Record::new().process(shifter.pid()).arguments(["-F", "997", "--follow"]).start();
    shifter.begin();
    let pid = shifter.pid();
    let trace = recording.wait().expect_success().trace();
    let (_, lines) = shifter.finish();
    let bases: Vec<_> = steps(&lines, "opened").into_iter().map(|step| step.rest).collect();
    assert_eq!(bases[0], bases[1], "the libraries are at different addresses: this proves less");
    let (calls, ends) = (steps(&lines, "call"), steps(&lines, "called"));
    assert_ne!(calls[0].tid, pid, "the child has an id of its own");
    let mut symbols = Symbols::new();
    for (library, (call, called)) in libraries.iter().zip(calls.iter().zip(&ends)) {
        assert_called(&trace, &mut symbols, library, call, called);
        let samples = timer_samples(&trace, call.tid, call.at..called.at);
        assert!(samples.iter().all(|sample| sample.pid == call.tid), "each is a process of its own");
    }
}

#[test]
fn a_process_that_becomes_another_program_has_that_ones_code() {
    let _turn = Turn::alone();
    let (before, after) = (program!("shape-shifter"), program!("deep-stacks"));
    let arguments = ["wait", "spin", "200", "become", text(after), "--rounds", "20", "--threads", "1"];
    let mut shifter = Program::start(before, &arguments);
    let recording = Record::new().process(shifter.pid()).arguments(["-F", "997"]).start();
    shifter.begin();
    shifter.wait_for("ready ");
    shifter.begin();
    let (pid, trace) = (shifter.pid(), recording.wait().expect_success().trace());
    let (_, lines) = shifter.finish();
    let (spin, exec) = (&steps(&lines, "spin")[0], &steps(&lines, "become")[0]);
    let paths: Vec<_> = lines.iter().filter_map(|line| Path::read(line)).collect();
    assert_eq!(paths[0].tid, pid, "it is still the same process");
    let mentions = |sample: &StackSample, program: &FilePath| {
        sample.stack.frames().iter().any(|frame| frame.path() == Some(text(program)))
    };
    let old = timer_samples(&trace, pid, spin.at..exec.at);
    assert!(old.len() >= 100, "{} samples before it became another program", old.len());
    assert!(old.iter().all(|sample| !mentions(sample, after)), "it was not yet another program");
    let new = timer_samples(&trace, pid, paths[0].within.start..u64::MAX);
    assert!(new.len() >= 100, "{} samples after it became another program", new.len());
    assert!(new.iter().all(|sample| !mentions(sample, before)), "it was not the first program any more");

    let mut symbols = Symbols::new();
    let (mut seen, mut right) = (0, 0);
    for path in paths.iter().filter(|path| !path.burning.is_empty()) {
        for sample in timer_samples(&trace, pid, path.within.clone()) {
            let names = symbols.names(&sample.stack);
            if names.contains(&path.burning[0]) {
                seen += 1;
                let is_whole = names.last().is_some_and(|name| name == "_start");
                right += usize::from(is_whole && leads_through(&names, &path.burning));
            }
        }
    }
    assert!(seen >= 100 && right * 100 >= seen * RIGHT_PERCENT, "{right} of {seen} are right");
}

#[test]
fn stacks_go_through_generated_code_that_keeps_frame_pointers() {
    let _turn = Turn::alone();
    let mut program = Program::start(program!("jit-code"), &["--turns", "120"]);
    let recording = Record::new().process(program.pid()).arguments(["-F", "997"]).start();
    program.begin();
    program.wait_for("done");
    let pid = program.pid();
    let truth = program.truth().remove(0);
    let outcome = recording.wait().expect_success();
    std::fs::remove_file(format!("/tmp/perf-{pid}.map")).expect("the program has listed its functions");
    let trace = outcome.trace();
    let listed = |frame: &Frame| {
        let lines = trace.symbols.lines(&format!("/[anon:{pid}]"), "", frame.rel_pc)?;
        Some(lines.first()?.function.as_str())
    };
    let number = |name: &str| truth[name].as_u64().unwrap_or_else(|| panic!("{truth}: {name}"));
    let (within, code) = (number("begin")..number("end"), number("code_start")..number("code_end"));
    let mut symbols = Symbols::new();
    for (leaf, is_blocked) in [("burn", false), ("rest", true)] {
        let (mut seen, mut right) = (0, 0);
        for sample in
            trace.samples.iter().filter(|sample| sample.is_blocked() == is_blocked && within.contains(&sample.at))
        {
            let names = symbols.names(&sample.stack);
            if !names.iter().any(|name| name == leaf) {
                continue;
            }
            seen += 1;
            let frames: Vec<_> = sample.stack.user_frames().collect();
            let generated: Vec<_> = frames
                .iter()
                .map(|frame| {
                    frame.kind == FrameKind::Jit
                        && frame
                            .mapping
                            .as_ref()
                            .is_some_and(|mapping| mapping.start <= code.start && code.end <= mapping.end)
                })
                .collect();
            let position = |name: &str| names.iter().position(|other| other == name);
            // Its two functions lie between the callback and whoever called the first of them.
            let (Some(inside), Some(outside)) = (position("callback"), position("call")) else { continue };
            let between = outside == inside + 3
                && generated[inside + 1]
                && generated[inside + 2]
                && [listed(frames[inside + 1]), listed(frames[inside + 2])] == [Some("inner"), Some("outer")];
            let alone = generated.iter().filter(|generated| **generated).count() == 2;
            let is_whole =
                names.last().is_some_and(|name| name == "_start") && position("through_generated_code").is_some();
            right += usize::from(between && alone && is_whole);
        }
        assert!(seen >= 100, "{seen} samples in {leaf}");
        assert!(right * 100 >= seen * RIGHT_PERCENT, "{leaf}: {right} of {seen} go through generated code to the root");
    }
    let summary = outcome.summary();
    assert!(summary["samples_by_frame_pointers"].as_u64().is_some_and(|count| count >= 100), "{summary}");
}
