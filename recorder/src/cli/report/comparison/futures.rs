//! Which futures are the same in two traces.
//!
//! Mostly those of one name. A stripped program's futures are called by the lines where they are written, `src/main.rs:42`: what
//! the other trace has a name for and knows to be written there is the same, so that line tells both. Not so if a trace has
//! futures for which there are several candidates, `a | b`, one of which is it: their polls would be missing on one side.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    super::found::{Found, file_of},
    Pair, Polls, Recording,
    place::in_every_build,
};
use crate::{
    cli::summary::WrittenAt,
    symbols::{origin_of, told_place},
};

/// Between several names of which nothing more is known than that a future has one of them.
const OR: &str = " | ";

/// What a trace tells of a future.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Called<'a> {
    pub future: &'a str,
    /// As the trace has it: `file:line`.
    pub written_at: Option<&'a str>,
}

impl<'a> Called<'a> {
    /// The line that it is called by, since it has no better name.
    fn line(self) -> Option<&'a str> {
        self.written_at.filter(|line| WrittenAt::of(Some(line), self.future).is_none())
    }

    /// Whether it has a name.
    pub fn is_named(self) -> bool {
        self.line().is_none()
    }
}

impl<'a> From<&'a Found> for Called<'a> {
    fn from(found: &'a Found) -> Called<'a> {
        Called { future: &found.future, written_at: found.written_at.as_deref() }
    }
}

impl<'a> From<&'a Polls> for Called<'a> {
    fn from(polls: &'a Polls) -> Called<'a> {
        Called { future: &polls.future, written_at: polls.written_at.as_deref() }
    }
}

/// Futures that are the same in both.
#[derive(Debug)]
pub struct SameFutures<'a> {
    /// Lines of each trace by which futures are told that one of them has no name for, and what both call that line.
    lines: Pair<BTreeMap<&'a str, &'a str>>,
    /// Those of these lines where one of the traces has several futures.
    of_several: BTreeSet<&'a str>,
    /// What is told of futures of both.
    in_both: BTreeSet<String>,
}

impl<'a> SameFutures<'a> {
    pub fn of(recordings: Pair<&'a Recording>) -> SameFutures<'a> {
        let called = recordings.map(all_called);
        let mut lines = Pair::<BTreeMap<&str, &str>>::default();
        for (named, stripped) in [(0, 1), (1, 0)] {
            for line in called[stripped].iter().filter_map(|called| called.line()) {
                let Some(other) = the_same(line, &called[stripped], &called[named]) else { continue };
                let of_both = if named == 0 { other } else { line };
                lines[named].insert(other, of_both);
                lines[stripped].insert(line, of_both);
            }
        }
        let mut same = SameFutures { lines, of_several: BTreeSet::new(), in_both: BTreeSet::new() };
        for (at, called) in called.iter().enumerate() {
            let mut seen = BTreeSet::new();
            let lines = called.iter().filter_map(|&called| same.line(at, called));
            let again: Vec<&str> = lines.filter(|line| !seen.insert(*line)).collect();
            same.of_several.extend(again);
        }
        let [before, after] = [0, 1].map(|at| {
            let told = called[at].iter().map(|&called| same.key(at, called));
            told.collect::<BTreeSet<String>>()
        });
        same.in_both = before.intersection(&after).cloned().collect();
        same
    }

    /// Whether any are told by their lines.
    pub fn are_by_line(&self) -> bool {
        self.lines.iter().any(|lines| !lines.is_empty())
    }

    /// The line that tells a future of one of the traces, if that is what does.
    pub fn line(&self, at: usize, called: Called<'_>) -> Option<&'a str> {
        called.written_at.and_then(|line| self.lines[at].get(line)).copied()
    }

    /// What tells a future of one of the traces from others, in both.
    pub fn key(&self, at: usize, called: Called<'_>) -> String {
        self.line(at, called).map_or_else(|| in_every_build(called.future), str::to_owned)
    }

    /// The same, but for lines at which there are several: what polls of one of them take is not what those of all do.
    pub fn key_of_one(&self, at: usize, called: Called<'_>) -> String {
        let is_one = self.line(at, called).is_none_or(|line| !self.of_several.contains(line));
        if is_one { self.key(at, called) } else { in_every_build(called.future) }
    }

    /// The same, if it is known in both.
    pub fn key_in_both(&self, at: usize, called: Called<'_>) -> Option<String> {
        Some(self.key(at, called)).filter(|key| self.in_both.contains(key))
    }
}

/// All futures that a trace tells of.
fn all_called(recording: &Recording) -> BTreeSet<Called<'_>> {
    let of_findings = recording.found.iter().map(Called::from);
    of_findings.chain(recording.futures.iter().map(Called::from)).collect()
}

/// The line at which a trace with names has what another calls by its line, if that is one and no other.
fn the_same<'a>(line: &str, stripped: &BTreeSet<Called<'a>>, named: &BTreeSet<Called<'a>>) -> Option<&'a str> {
    let there: Vec<Called<'a>> = named.iter().filter(|called| is_written_at(called, line)).copied().collect();
    let other = there.iter().find(|called| called.is_named())?.written_at?;
    let is_one = there.iter().all(|called| called.written_at == Some(other));
    let back: Vec<Called<'a>> = stripped.iter().filter(|called| is_written_at(called, other)).copied().collect();
    let is_one_back = back.iter().all(|called| called.written_at == Some(line));
    let is_certain = !is_candidate(&there, named) && !is_candidate(&back, stripped);
    (is_one && is_one_back && is_certain).then_some(other)
}

/// Whether one of these is a candidate for what its trace is not certain of.
fn is_candidate(these: &[Called<'_>], all: &BTreeSet<Called<'_>>) -> bool {
    let mut uncertain = all.iter().filter(|called| called.future.contains(OR));
    uncertain.any(|several| several.future.split(OR).any(|one| these.iter().any(|called| called.future == one)))
}

fn is_written_at(called: &Called<'_>, line: &str) -> bool {
    called.written_at.is_some_and(|at| is_same_line(at, line))
}

/// Of a dependency it is the same wherever that lies. Else one path is the end of the other: debug information has absolute ones,
/// and what stands in stripped programs is relative.
fn is_same_line(one: &str, other: &str) -> bool {
    let ends_in = |path: &str, end: &str| path.strip_suffix(end).is_some_and(|before| before.ends_with('/'));
    let is_of_dependency = || [one, other].iter().all(|line| origin_of(file_of(line)).is_some());
    one == other
        || ends_in(one, other)
        || ends_in(other, one)
        || is_of_dependency() && told_place(one) == told_place(other)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn same<'a>(before: &[Called<'a>], after: &[Called<'a>], line: &str) -> Option<&'a str> {
        let [before, after] = [before, after].map(|called| called.iter().copied().collect());
        the_same(line, &after, &before)
    }

    fn called<'a>(future: &'a str, written_at: &'a str) -> Called<'a> {
        Called { future, written_at: Some(written_at).filter(|at| !at.is_empty()) }
    }

    #[test]
    fn what_is_called_by_its_line_is_what_the_other_trace_has_there() {
        let line = "server/src/main.rs:42";
        let of_line = called(line, line);
        for (named, expected) in [
            (vec![called("app::f", line)], Some(line)),
            (vec![called("app::f", "/home/user/server/src/main.rs:42")], Some("/home/user/server/src/main.rs:42")),
            // Two types of one generic function.
            (vec![called("app::f<A>", line), called("app::f<B>", line)], Some(line)),
            (vec![called("app::f", "server/src/main.rs:43")], None),
            (vec![called("app::f", "client/src/main.rs:42")], None),
            (vec![called("app::f", "my-server/src/main.rs:42")], None),
            // No name is known there either.
            (vec![of_line], None),
            (vec![called("app::f", "/a/server/src/main.rs:42"), called("app::g", "/b/server/src/main.rs:42")], None),
            (vec![called("app::f", line), called("app::f | app::g", "")], None),
            (vec![called("app::g", "server/src/main.rs:50"), called("app::f | app::g", "")], None),
        ] {
            assert_eq!(same(&named, &[of_line], line), expected, "{named:?}");
        }
        let named = [called("app::f", "/home/user/server/src/main.rs:42")];
        let several = called("server/src/main.rs:42 | server/src/main.rs:50", "");
        assert_eq!(same(&named, &[of_line, several], line), None, "some of its polls may be told elsewhere");
        let short = called("src/main.rs:42", "src/main.rs:42");
        assert_eq!(same(&named, &[of_line, short], line), None, "it may be either");
    }

    #[test]
    fn a_dependency_s_line_is_the_same_wherever_it_lies() {
        let [before, after] = ["root", "home/user"].map(|home| {
            format!("/{home}/.cargo/registry/src/index.crates.io-1949cf8c6b5b557f/axum-0.8.9/src/serve/mod.rs:389")
        });
        assert!(is_same_line(&before, &after));
        assert!(!is_same_line(&before, &after.replace("0.8.9", "0.8.8")));
        assert!(!is_same_line("/a/app/src/main.rs:1", "/b/app/src/main.rs:1"));
        assert!(!called("axum-0.8.9/src/serve/mod.rs:389", &after).is_named());
    }
}
