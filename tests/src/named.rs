//! What a recording of `deep-stacks` says of that program's functions.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::{
    program::Program,
    recorder::{Outcome, Record},
    symbols::{Symbols, build_id, short_name},
    trace::{Frame, Line, Trace},
};

/// What `deep-stacks` is to do: enough that its functions are seen.
pub const ARGUMENTS: [&str; 4] = ["--rounds", "4", "--threads", "1"];

/// What the C compiler's start files run when a program begins and ends. These have symbols without a size, of which the
/// reference says nothing.
const START_FILES: [&str; 4] = ["deregister_tm_clones", "register_tm_clones", "__do_global_dtors_aux", "frame_dummy"];

/// A recording of `deep-stacks`, whatever it was called and wherever it lay.
pub struct Named {
    /// How the recorder ended.
    pub outcome: Outcome,
    /// The trace.
    pub trace: Trace,
    /// The path of the program's file, as the program sees it.
    pub path: PathBuf,
    /// That file's build id.
    pub build_id: String,
}

impl Named {
    /// Records `program`, whose file has this path, until it has done everything. `meanwhile` comes once it has begun.
    pub fn recorded(
        mut program: Program,
        path: &Path,
        build_id: String,
        record: Record,
        meanwhile: impl FnOnce(),
    ) -> Named {
        let recording = record.process(program.pid()).arguments(["-F", "997"]).start();
        program.begin();
        meanwhile();
        program.wait_for("done");
        let (status, _) = program.finish();
        assert!(status.success(), "{status}");
        let outcome = recording.wait().expect_success();
        let trace = outcome.trace();
        Named { outcome, trace, path: path.to_owned(), build_id }
    }

    /// Records a program that is where its path says.
    pub fn here(path: &Path, record: Record) -> Named {
        Named::recorded(Program::start(path, &ARGUMENTS), path, build_id(path), record, || {})
    }

    /// Its different frames, and what the trace says of each.
    pub fn frames(&self) -> Vec<(&Frame, Option<&[Line]>)> {
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
    pub fn told(&self) -> Value {
        self.outcome.told(&self.path)
    }

    /// The summary says that something is missing, with this among the reasons.
    pub fn assert_missing(&self, reason: &str) {
        self.outcome.assert_missing(&self.path, reason);
    }

    /// Every frame has the function that the file says from which the program was made: any of those that are the same
    /// code.
    pub fn assert_named(&self, original: &Path) {
        let mut symbols = Symbols::new().with_original(&self.path, original);
        let path = self.path.to_str().expect("a plain path");
        for (frame, lines) in self.frames() {
            // The others were inlined into the last one.
            let outermost = lines.and_then(<[Line]>::last).unwrap_or_else(|| panic!("{frame:?} has no name"));
            let name = short_name(&outermost.function);
            let wanted: Vec<_> = symbols.functions(path, frame.rel_pc).collect();
            if wanted.is_empty() && START_FILES.contains(&name.as_str()) {
                continue;
            }
            assert!(wanted.contains(&name.as_str()), "{frame:?} is {name}, not any of {wanted:?}");
        }
    }

    /// No frame has a function.
    pub fn assert_nameless(&self) {
        assert!(self.frames().iter().all(|(_, lines)| lines.is_none()), "{} has names", self.path.display());
    }

    /// Of a hundred frames 95 or more have a line.
    pub fn assert_lines(&self) {
        let frames = self.frames();
        let with_lines = frames.iter().filter(|(_, lines)| has_line(*lines)).count();
        assert!(with_lines * 100 >= frames.len() * 95, "{with_lines} of {} frames have lines", frames.len());
    }

    /// No frame has a line.
    pub fn assert_no_lines(&self) {
        assert!(!self.frames().iter().any(|(_, lines)| has_line(*lines)), "{} has lines", self.path.display());
    }
}

/// Whether a line is known of any of an address's functions.
pub fn has_line(lines: Option<&[Line]>) -> bool {
    lines.is_some_and(|lines| lines.iter().any(|line| line.line.is_some()))
}
