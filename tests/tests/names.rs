//! Names of functions in a recording, as it is when it is over.
//!
//! These scenarios need root and a kernel that takes BPF programs. They fail where it does not.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use polletto_tests::{
    program,
    program::Program,
    recorder::{Outcome, Record},
    symbolize::symbolize,
    symbols::{Symbols, build_id, short_name},
    trace::{Frame, Line, Trace},
    turn::Turn,
};
use serde_json::Value;
use tempfile::TempDir;

/// A recording of `deep-stacks`, and of what the trace says of the functions in its file.
struct Named {
    outcome: Outcome,
    trace: Trace,
    path: PathBuf,
    build_id: String,
}

impl Named {
    /// Records a program while `meanwhile` is done to it.
    fn recorded(path: &Path, arguments: &[&str], meanwhile: impl FnOnce()) -> Named {
        let build_id = build_id(path);
        let mut program = Program::start(path, &["--rounds", "4", "--threads", "1"]);
        let recording = Record::new().process(program.pid()).arguments(["-F", "997"]).arguments(arguments).start();
        program.begin();
        meanwhile();
        program.wait_for("done");
        program.finish();
        let outcome = recording.wait().expect_success();
        let trace = outcome.trace();
        Named { outcome, trace, path: path.to_owned(), build_id }
    }

    /// Its different frames, and what the trace says of each.
    fn frames(&self) -> Vec<(&Frame, Option<&[Line]>)> {
        let path = self.path.to_str().expect("a plain path");
        let all = self.trace.samples.iter().flat_map(|sample| sample.stack.user_frames());
        let mut frames: Vec<&Frame> = all.filter(|frame| frame.path() == Some(path)).collect();
        frames.sort_by_key(|frame| frame.rel_pc);
        frames.dedup_by_key(|frame| frame.rel_pc);
        assert!(frames.len() >= 100, "{} frames in {path}", frames.len());
        let lines = |frame: &&Frame| self.trace.symbols.lines(path, &self.build_id, frame.rel_pc);
        frames.into_iter().map(|frame| (frame, lines(&frame))).collect()
    }

    /// What the summary tells of it.
    fn told(&self) -> Value {
        let summary = self.outcome.summary();
        let modules = summary["names"].as_array().into_iter().flatten();
        let mut own = modules.filter(|module| module["path"].as_str() == self.path.to_str());
        own.next().unwrap_or_else(|| panic!("{summary}")).clone()
    }

    /// Every frame has the function that `symbols` says.
    fn assert_named(&self, symbols: &mut Symbols) {
        for (frame, lines) in self.frames() {
            let wanted = symbols.name(frame).unwrap_or_else(|| panic!("{frame:?} is in no function"));
            // The others were inlined into the last one.
            let outermost = lines.and_then(<[Line]>::last).unwrap_or_else(|| panic!("{frame:?} has no name"));
            assert_eq!(short_name(&outermost.function), wanted, "{frame:?}");
        }
    }

    /// How many of a hundred frames have a line.
    fn percent_with_lines(&self) -> usize {
        let frames = self.frames();
        let has_line =
            |lines: &Option<&[Line]>| lines.is_some_and(|lines| lines.iter().any(|line| line.line.is_some()));
        frames.iter().filter(|(_, lines)| has_line(lines)).count() * 100 / frames.len()
    }
}

/// Copies `deep-stacks` into a directory of its own, by a tool that may change it.
fn copied(name: &str, tool: &str, options: &[&str]) -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().expect("a directory for the program");
    let path = directory.path().canonicalize().expect("it is there").join(name);
    let mut command = Command::new(tool);
    let status = command.args(options).arg(program!("deep-stacks")).arg(&path).status();
    assert!(status.is_ok_and(|status| status.success()), "{tool} fails");
    (directory, path)
}

#[test]
fn functions_have_the_names_and_lines_that_their_file_gives_them() {
    let _turn = Turn::with_others();
    let named = Named::recorded(program!("deep-stacks"), &[], || {});
    named.assert_named(&mut Symbols::new());
    assert!(named.percent_with_lines() >= 95, "{} % have lines", named.percent_with_lines());
    let inlined = named.frames().iter().filter(|(_, lines)| lines.is_some_and(|lines| lines.len() > 1)).count();
    assert!(inlined >= 20, "{inlined} frames have functions that were inlined");
    let own = named.told();
    assert_eq!(own["addresses"], own["named"], "{own}");
    if let Some(rows) =
        named.outcome.sql("select count(*) from stack_profile_symbol where source_file glob '*deep-stacks/*.rs'")
    {
        assert_ne!(rows, [["0"]], "trace_processor has no lines");
    }
}

#[test]
fn a_program_that_was_removed_while_it_ran_is_named() {
    let _turn = Turn::with_others();
    let (directory, path) = copied("deep-removed", "cp", &[]);
    let mut symbols = Symbols::new().with_original(&path, program!("deep-stacks"));
    let named = Named::recorded(&path, &[], || drop(directory));
    assert!(!path.exists());
    named.assert_named(&mut symbols);
}

#[test]
fn a_stripped_program_is_named_by_debug_information_that_was_kept() {
    let _turn = Turn::with_others();
    let (_directory, path) = copied("deep-stripped", "objcopy", &["--strip-all"]);
    let named = Named::recorded(&path, &[], || {});
    assert!(named.frames().iter().all(|(_, lines)| lines.is_none()), "a stripped program has names");
    let told = named.told();
    assert!(told["missing"].as_str().is_some_and(|missing| missing.starts_with("it is stripped")), "{told}");

    let kept = tempfile::tempdir().expect("a directory for debug information");
    let (first, rest) = named.build_id.split_at(2);
    let by_build_id = kept.path().join(".build-id").join(first);
    fs::create_dir_all(&by_build_id).expect("it can be made");
    let debug = by_build_id.join(format!("{rest}.debug"));
    let mut objcopy = Command::new("objcopy");
    let status = objcopy.arg("--only-keep-debug").arg(program!("deep-stacks")).arg(&debug).status();
    assert!(status.is_ok_and(|status| status.success()), "objcopy fails");
    let directory = kept.path().to_str().expect("a plain path");
    let named = Named::recorded(&path, &["--debug-dir", directory], || {});
    named.assert_named(&mut Symbols::new().with_original(&path, program!("deep-stacks")));
    assert!(named.percent_with_lines() >= 95, "{} % have lines", named.percent_with_lines());
}

#[test]
fn debug_information_that_turns_up_later_is_found_then() {
    let _turn = Turn::with_others();
    let (_directory, path) = copied("deep-later", "objcopy", &["--strip-debug"]);
    let mut named = Named::recorded(&path, &[], || {});
    named.assert_named(&mut Symbols::new().with_original(&path, program!("deep-stacks")));
    assert_eq!(named.percent_with_lines(), 0);

    fs::remove_file(&path).expect("it is there");
    fs::copy(program!("deep-stacks"), &path).expect("the directory is writable");
    symbolize(&named.outcome.output, [""; 0]).expect_success();
    named.trace = named.outcome.trace();
    named.assert_named(&mut Symbols::new());
    assert!(named.percent_with_lines() >= 95, "{} % have lines", named.percent_with_lines());
}
