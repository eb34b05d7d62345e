//! Where in a program's code that is what was found.

use std::time::Duration;

use rustc_hash::FxHashMap;

use crate::{
    symbols::{Answer, FrameKind, Function, kind_of},
    timeline::{Code, Fault, Finding, Timeline, path_of},
};

/// What was found in a recording.
#[derive(Clone, Debug)]
pub struct FindingSummary {
    /// What lasted as long as that is told.
    pub threshold: Duration,
    /// How many of each kind there are.
    pub counts: Vec<(Fault, u64)>,
    /// Some of the longest: polls, the longest first, then tasks.
    pub longest: Vec<Located>,
}

/// A finding, and where it was.
#[derive(Clone, Debug)]
pub struct Located {
    /// The finding.
    pub finding: Finding,
    /// The function that its thread was in, if that has a name.
    pub innermost: Option<Function>,
    /// The first of its callers, or itself, that is the program's own.
    pub own: Option<Function>,
    /// The code that its callstack leads through, the innermost first.
    frames: Vec<(Code, u64)>,
}

impl FindingSummary {
    /// What the timeline has found, without any names yet.
    pub fn of(timeline: &Timeline, threshold: Duration) -> FindingSummary {
        let findings = timeline.findings();
        let located = |finding: &Finding| Located {
            finding: finding.clone(),
            innermost: None,
            own: None,
            frames: timeline.code_of(finding),
        };
        let longest = findings.longest().map(located).collect();
        FindingSummary { threshold, counts: findings.counts().collect(), longest }
    }
}

/// Keeps the names of what was found, while all of a recording's go by.
pub struct Locator<'f> {
    findings: &'f mut FindingSummary,
    /// By module, as traces call it, and address.
    functions: FxHashMap<(String, u64), Option<Vec<Function>>>,
}

impl<'f> Locator<'f> {
    pub fn new(findings: &'f mut FindingSummary) -> Locator<'f> {
        let frames = findings.longest.iter().flat_map(|located| &located.frames);
        let functions = frames.map(|(code, address)| ((path_of(code).into_owned(), *address), None)).collect();
        Locator { findings, functions }
    }

    /// These functions have names.
    pub fn learn(&mut self, answer: &Answer) {
        for symbols in &answer.symbols {
            if let Some(functions) = self.functions.get_mut(&(answer.path.clone(), symbols.address)) {
                *functions = Some(symbols.functions.clone());
            }
        }
    }

    /// All names are known that will be.
    pub fn locate(self) {
        for located in &mut self.findings.longest {
            let keys = located.frames.iter().map(|(code, address)| (path_of(code).into_owned(), *address));
            let named = keys.map(|key| self.functions.get(&key).and_then(Option::as_deref));
            let mut named = named.peekable();
            // If the first has no name, another is not it.
            located.innermost = named.peek().copied().flatten().and_then(<[Function]>::first).cloned();
            let is_own =
                |function: &&Function| kind_of(&function.name, function.file.as_deref()).kind == FrameKind::User;
            located.own = named.flatten().flatten().find(is_own).cloned();
        }
    }
}
