//! `polletto report`

mod asking;

use std::{
    collections::HashMap,
    fmt,
    io::{self, Write},
    process::ExitCode,
    time::Duration,
};

use anyhow::Result;
use serde::Serialize;

use self::asking::Found;
use super::{
    arguments::{FailOn, ReportArguments},
    summary::several,
    tell,
};
use crate::timeline::{Fault, Wait};

/// Something was found that must not be.
const FOUND: u8 = 3;

/// How many kinds of findings people are told of.
const TOLD: usize = 20;

/// Tells what is wrong in a trace, and returns the exit status.
pub fn run(arguments: &ReportArguments) -> ExitCode {
    match report(arguments) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            tell(format_args!("polletto: {error:#}\n"));
            ExitCode::FAILURE
        }
    }
}

fn report(arguments: &ReportArguments) -> Result<u8> {
    let limits = arguments.fail_on.iter().map(|fail_on| fail_on.limit);
    let least = limits.chain([arguments.threshold]).min().unwrap_or(arguments.threshold);
    let found = asking::findings(&arguments.trace, nanoseconds(least), arguments.trace_processor.as_deref())?;
    let failed: Vec<&FailOn> =
        arguments.fail_on.iter().filter(|fail_on| found.iter().any(|f| is_over(f, fail_on))).collect();
    let threshold_ns = nanoseconds(arguments.threshold);
    let told: Vec<&Found> = found.iter().filter(|found| found.dur >= threshold_ns).collect();
    let report = Report { threshold_ns, groups: grouped(&told), findings: told };
    let mut out = io::stdout().lock();
    if arguments.json {
        serde_json::to_writer_pretty(&mut out, &report)?;
        writeln!(out)?;
    } else {
        write!(out, "{report}")?;
    }
    for FailOn { kind, limit } in &failed {
        tell(format_args!("polletto: there is a {kind} of {} ms or more\n", limit.as_secs_f64() * 1e3));
    }
    Ok(if failed.is_empty() { 0 } else { FOUND })
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn is_over(found: &Found, fail_on: &FailOn) -> bool {
    found.kind == fail_on.kind && found.dur >= nanoseconds(fail_on.limit)
}

/// What is told. Its fields are what `--json` prints.
#[derive(Debug, Serialize)]
struct Report<'f> {
    threshold_ns: u64,
    /// Those that are alike, the group that took most first.
    groups: Vec<Group<'f>>,
    /// Each of them, the longest first.
    findings: Vec<&'f Found>,
}

/// Findings of one kind, in one place.
#[derive(Debug, Serialize)]
struct Group<'f> {
    count: u64,
    longest_ns: u64,
    total_ns: u64,
    #[serde(flatten)]
    alike: Alike<'f>,
}

/// What makes findings alike.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
struct Alike<'f> {
    kind: &'f str,
    /// What a sleep was for.
    waited_for: Option<&'f str>,
    future: &'f str,
    /// In the program's own code if that is known, else wherever the thread was.
    function: Option<&'f str>,
    source: Option<&'f str>,
}

fn grouped<'f>(found: &[&'f Found]) -> Vec<Group<'f>> {
    let mut groups = HashMap::<Alike<'f>, Group<'f>>::new();
    for found in found {
        let alike = Alike {
            kind: &found.kind,
            waited_for: found.detail.as_deref().filter(|_| found.kind == Fault::Slept(Wait::Other).name()),
            future: &found.future,
            function: found.own_function.as_deref().or(found.function.as_deref()),
            source: found.own_source.as_deref(),
        };
        let none = Group { count: 0, longest_ns: 0, total_ns: 0, alike: alike.clone() };
        let group = groups.entry(alike).or_insert(none);
        group.count += 1;
        group.total_ns += found.dur;
        group.longest_ns = group.longest_ns.max(found.dur);
    }
    let mut groups: Vec<Group<'f>> = groups.into_values().collect();
    // The same order every time.
    groups.sort_by(|a, b| {
        (b.total_ns, a.alike.future, a.alike.source).cmp(&(a.total_ns, b.alike.future, b.alike.source))
    });
    groups
}

impl fmt::Display for Report<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let threshold = self.threshold_ns as f64 / 1e6;
        if self.groups.is_empty() {
            return writeln!(out, "nothing took {threshold} ms or more");
        }
        writeln!(out, "{} of {threshold} ms or more\n", several(self.findings.len() as u64, "finding", "findings"))?;
        writeln!(out, "{:>7} {:>12} {:>12}  what", "count", "longest", "total")?;
        let milliseconds = |nanoseconds: u64| format!("{:.1} ms", nanoseconds as f64 / 1e6);
        for Group { count, longest_ns, total_ns, alike } in self.groups.iter().take(TOLD) {
            write!(
                out,
                "{count:>7} {:>12} {:>12}  {}",
                milliseconds(*longest_ns),
                milliseconds(*total_ns),
                alike.kind
            )?;
            if let Some(wait) = alike.waited_for {
                write!(out, " ({wait})")?;
            }
            writeln!(out, ": {}", alike.future)?;
            match (alike.function, alike.source) {
                (Some(function), Some(source)) => writeln!(out, "{:35}in {function} at {source}", "")?,
                (Some(function), None) => writeln!(out, "{:35}in {function}", "")?,
                (None, _) => {}
            }
        }
        match self.groups.len().checked_sub(TOLD) {
            Some(more) if more > 0 => writeln!(out, "\nand {more} more kinds, which --json has"),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(kind: &str, dur: u64, own_source: Option<&str>) -> Found {
        Found {
            kind: kind.to_owned(),
            detail: Some("timer".to_owned()),
            ts: 0,
            dur,
            pid: None,
            tid: None,
            task_id: 7,
            future: "app::f".to_owned(),
            worker: None,
            cpu_ns: None,
            off_cpu_ns: None,
            runqueue_ns: None,
            function: Some("burn".to_owned()),
            own_function: None,
            own_source: own_source.map(str::to_owned),
        }
    }

    #[test]
    fn findings_of_a_kind_in_a_place_are_told_together_and_what_takes_most_first() {
        let all = [
            found("long poll", 9_000_000, Some("f.rs:1")),
            found("slept in poll", 7_000_000, None),
            found("long poll", 6_000_000, Some("f.rs:2")),
            found("slept in poll", 5_000_000, None),
        ];
        let findings: Vec<&Found> = all.iter().collect();
        let report = Report { threshold_ns: 5_000_000, groups: grouped(&findings), findings };
        let lines: Vec<String> = report.to_string().lines().map(|line| line.trim().to_owned()).collect();
        assert_eq!(
            lines,
            [
                "4 findings of 5 ms or more",
                "",
                "count      longest        total  what",
                "2       7.0 ms      12.0 ms  slept in poll (timer): app::f",
                "in burn",
                "1       9.0 ms       9.0 ms  long poll: app::f",
                "in burn at f.rs:1",
                "1       6.0 ms       6.0 ms  long poll: app::f",
                "in burn at f.rs:2",
            ]
        );
    }

    #[test]
    fn what_must_not_be_is_of_a_kind_and_as_long() {
        let limit = FailOn { kind: "long poll", limit: Duration::from_millis(9) };
        assert!(is_over(&found("long poll", 9_000_000, None), &limit));
        assert!(!is_over(&found("long poll", 8_999_999, None), &limit));
        assert!(!is_over(&found("slept in poll", 9_000_000, None), &limit));
    }
}
