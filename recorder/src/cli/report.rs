//! `polletto report`

mod asking;
mod comparison;
mod ended;
mod found;
mod groups;
mod judging;
mod span;

use std::{fmt, process::ExitCode, time::Duration};

use anyhow::Result;
use serde::Serialize;

use self::{
    asking::Processor,
    comparison::{Comparison, Recording, Verdict},
    found::{Found, Read, RuntimeFound},
    groups::{Group, grouped},
    judging::{Compared, Judged, Trace, WithVerdict},
    span::Span,
};
use super::{
    arguments::{FailOn, ReportArguments},
    counts::several,
    print,
    summary::OF_MACHINE,
    tell,
};
use crate::timeline::Cause;

/// The command line can't be followed.
const USAGE: u8 = 2;

/// Something was found that must not be.
const FOUND: u8 = 3;

/// It can't be told.
const FAILED: u8 = 1;

/// Why nothing is found in some traces.
const NO_POLLS: &str =
    "no poll is in this trace: none was made, or none could be told, as with --no-stacks, or of smol with --polls off";

/// How many kinds of findings people are told of, and of those that tell of the machine.
const TOLD: usize = 20;
const TOLD_OF_MACHINE: usize = 5;

/// Tells what is wrong in a trace, and returns the exit status.
pub fn run(arguments: &ReportArguments) -> ExitCode {
    if arguments.compare.is_none() && arguments.demands.fail_on.contains(&FailOn::Worse) {
        tell("polletto: --fail-on worse needs --compare: worse than what?\n");
        return ExitCode::from(USAGE);
    }
    match report(arguments) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            tell(format_args!("polletto: {error:#}\n"));
            ExitCode::FAILURE
        }
    }
}

fn report(arguments: &ReportArguments) -> Result<u8> {
    let processor =
        Processor::new(arguments.trace_processor.as_deref(), &arguments.categories.clone().unwrap_or_default())?;
    let threshold_ns = nanoseconds(arguments.threshold);
    let limits = arguments.demands.fail_on.iter().filter_map(FailOn::limit).map(nanoseconds);
    let least_ns = limits.min().unwrap_or(u64::MAX);
    let (demands, path, as_json) = (&arguments.demands, &*arguments.trace, arguments.json);
    let judged = match &arguments.compare {
        Some(compared_with) => {
            let least_ns = least_ns.min(comparison::least_ns(threshold_ns));
            let before = Recording::read(&processor, compared_with, least_ns)?;
            let after = Recording::read(&processor, path, least_ns)?;
            let comparison = Comparison::new(&before, &after, threshold_ns);
            let is_worse = comparison.count(Verdict::Worse) > 0;
            let trace = Trace { path, span: after.span(), has_polls: after.has_polls() };
            let before = Trace { path: compared_with, span: before.span(), has_polls: before.tells_polls() };
            let compared = Compared { before, is_worse, nothing_for: comparison.nothing_for() };
            let judged = Judged::new(demands, trace, &after.found, Some(compared));
            print(&WithVerdict { told: &comparison, fail_on: judged.as_ref() }, as_json)?;
            judged
        }
        None => {
            let Read { findings, runtimes, span } = found::read(&processor, path, least_ns.min(threshold_ns))?;
            let told: Vec<&Found> = findings.iter().filter(|found| found.kept_ns() >= threshold_ns).collect();
            let report = Report::new(threshold_ns, span, told, runtimes);
            let judged = Judged::new(demands, Trace { path, span, has_polls: span.polls > 0 }, &findings, None);
            print(&WithVerdict { told: &report, fail_on: judged.as_ref() }, as_json)?;
            judged
        }
    };
    let Some(Judged { verdict, reasons, .. }) = judged else { return Ok(0) };
    for reason in reasons {
        tell(format_args!("polletto: {reason}\n"));
    }
    Ok(match verdict {
        judging::Verdict::Passed => 0,
        judging::Verdict::Failed => FOUND,
        judging::Verdict::CantTell => FAILED,
    })
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// What is told. Its fields are what `--json` prints.
#[derive(Debug, Serialize)]
struct Report<'f> {
    threshold_ns: u64,
    /// Of how many polls, and for how long they were observed.
    #[serde(flatten)]
    span: Span,
    /// What of them can't be told, in words; null where it is next to nothing.
    missing: Option<String>,
    /// Those that are alike: first those that tell of the program, of each cause the group that took most first.
    groups: Vec<Group<'f>>,
    /// Each of them, the longest first.
    findings: Vec<&'f Found>,
    /// What is wrong with runtimes as a whole.
    runtimes: Vec<RuntimeFound>,
}

impl<'f> Report<'f> {
    fn new(threshold_ns: u64, span: Span, findings: Vec<&'f Found>, runtimes: Vec<RuntimeFound>) -> Report<'f> {
        let missing = if span.polls == 0 { Some(NO_POLLS.to_owned()) } else { span.missing() };
        Report { threshold_ns, span, missing, groups: grouped(&findings), findings, runtimes }
    }
}

impl fmt::Display for Report<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write_groups(out)?;
        if !self.runtimes.is_empty() {
            writeln!(out)?;
        }
        for RuntimeFound { kind, pid, runtime, worker, dur, detail, .. } in &self.runtimes {
            let (process, seconds) = (pid.unwrap_or_default(), *dur as f64 / 1e9);
            let who = worker.as_deref().map(|worker| format!(" ({worker})")).unwrap_or_default();
            writeln!(out, "{kind}{who} for {seconds:.1} s: {detail}; {runtime}, process {process}")?;
        }
        Ok(())
    }
}

impl Report<'_> {
    fn write_groups(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let threshold = self.threshold_ns as f64 / 1e6;
        if self.span.polls == 0 {
            return writeln!(out, "{NO_POLLS}");
        }
        let missing = self.missing.as_ref().map(|missing| format!("; {missing}")).unwrap_or_default();
        if self.groups.is_empty() {
            return writeln!(out, "nothing took {threshold} ms or more{missing}");
        }
        let findings = several(self.findings.len() as u64, "finding", "findings");
        writeln!(out, "{findings} of {threshold} ms or more{missing}\n")?;
        let head = format!("{:>7} {:>12} {:>12}  what", "count", "longest", "total");
        let [of_program, of_machine] =
            [Cause::Program, Cause::Machine].map(|cause| self.groups.iter().any(|group| group.is_of(cause)));
        if of_program {
            writeln!(out, "{head}")?;
            self.write_groups_of(Cause::Program, TOLD, out)?;
        }
        match (of_program, of_machine) {
            (_, false) => return Ok(()),
            (true, true) => writeln!(out, "\n{OF_MACHINE}:")?,
            (false, true) => writeln!(out, "{OF_MACHINE}:\n{head}")?,
        }
        self.write_groups_of(Cause::Machine, TOLD_OF_MACHINE, out)
    }

    /// The first of them, and how many more there are.
    fn write_groups_of(&self, cause: Cause, most: usize, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let groups = || self.groups.iter().filter(|group| group.is_of(cause));
        for group in groups().take(most) {
            write!(out, "{group}")?;
        }
        match groups().skip(most).count() as u64 {
            0 => Ok(()),
            more => writeln!(out, "\nand {}, which --json has", several(more, "more kind", "more kinds")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(kind: &str, dur: u64, own_source: Option<&str>) -> Found {
        Found::example(kind, dur, own_source)
    }

    fn report_of(findings: Vec<&Found>) -> Report<'_> {
        Report::new(5_000_000, Span::example(5_000_000_000, 5_000_000_000), findings, Vec::new())
    }

    #[test]
    fn what_a_trace_without_probes_cant_tell_is_said_whether_anything_was_found_or_not() {
        let long = found("long poll", 8_000_000, None);
        for findings in [vec![&long], Vec::new()] {
            let span = Span { polls: 7, polls_exact: 0, polls_found: 7, ..Span::example(5_000_000_000, 0) };
            let report = Report::new(5_000_000, span, findings, Vec::new());
            let told = report.to_string();
            let first = told.lines().next().expect("a line");
            let missing = "; polls were told by samples and switches alone: each lasted at least as long, some of them \
                           and lock convoys may be missing, and all starved tasks are";
            assert!(first.ends_with(missing), "{told}");
            let json = serde_json::to_value(&report).expect("JSON");
            assert_eq!(json["missing"].as_str(), missing.strip_prefix("; "));
            assert_eq!(
                (&json["has_probes"], &json["observed_ns"], &json["polls"]),
                (&false.into(), &0.into(), &7.into())
            );
        }
        let none = Report::new(5_000_000, Span::default(), Vec::new(), Vec::new());
        assert_eq!((none.to_string(), none.missing.as_deref()), (format!("{NO_POLLS}\n"), Some(NO_POLLS)));
    }

    #[test]
    fn findings_of_a_kind_in_a_place_are_told_together_and_what_takes_most_first() {
        let all = [
            found("long poll", 8_000_000, Some("f.rs:1")),
            found("long poll", 9_000_000, Some("g.rs:1")),
            found("long poll", 7_000_000, Some("f.rs:2")),
            found("slept in poll", 7_000_000, None),
            found("long poll", 6_000_000, Some("f.rs:2")),
            found("slept in poll", 5_000_000, None),
        ];
        let findings: Vec<&Found> = all.iter().collect();
        let runtimes = vec![RuntimeFound {
            kind: "one busy worker".to_owned(),
            pid: Some(7),
            runtime: "Tokio workers".to_owned(),
            worker: Some("worker 1".to_owned()),
            ts: None,
            dur: 2_340_000_000,
            detail: "busy for 99 % of the time, the others for 3 %".to_owned(),
        }];
        let report = Report { runtimes, ..report_of(findings) };
        let lines: Vec<String> = report.to_string().lines().map(|line| line.trim().to_owned()).collect();
        assert_eq!(
            lines,
            [
                "6 findings of 5 ms or more",
                "",
                "count      longest        total  what",
                "3       8.0 ms      21.0 ms  long poll (crypto): app::f",
                "in burn at f.rs:2 (and 1 other line)",
                "2       7.0 ms      12.0 ms  slept in poll (timer): app::f",
                "written at f.rs:7",
                "mostly in burn",
                "asleep there for 6.0 of the 7.0 ms",
                "1       9.0 ms       9.0 ms  long poll (crypto): app::f",
                "in burn at g.rs:1",
                "",
                "one busy worker (worker 1) for 2.3 s: busy for 99 % of the time, the others for 3 %; \
                 Tokio workers, process 7",
            ]
        );
    }

    #[test]
    fn what_tells_of_the_machine_alone_has_the_head_of_the_list() {
        let preempted = found("preempted in poll", 9_000_000, Some("f.rs:2"));
        let of_machine = Found { cause: Cause::Machine.name().to_owned(), ..preempted };
        let told = report_of(vec![&of_machine]).to_string();
        let lines: Vec<&str> = told.lines().collect();
        assert_eq!((lines[1], lines[2]), ("", &*format!("{OF_MACHINE}:")), "{told}");
        assert!(lines[3].trim_start().starts_with("count ") && lines[4].contains("preempted in poll"), "{told}");
    }

    #[test]
    fn of_what_was_in_no_function_it_is_told_where_the_future_is_written() {
        let starved = Found { function: None, ..found("starved task", 9_000_000, None) };
        let by_place = Found { future: "f.rs:7".to_owned(), ..starved.clone() };
        assert!(report_of(vec![&starved]).to_string().contains("meanwhile timer\n"));
        for (of, expected) in [(&starved, true), (&by_place, false)] {
            let report = report_of(vec![of]);
            assert_eq!(report.to_string().contains("written at f.rs:7"), expected, "{report}");
        }
    }

    #[test]
    fn that_the_end_of_the_longest_was_not_seen_is_told() {
        let cut_off = Found { extent: Some("at least".to_owned()), ..found("long poll", 9_000_000, None) };
        let exact = Found { extent: Some("exact".to_owned()), ..found("long poll", 7_000_000, None) };
        for (all, expected) in [([&cut_off, &exact], true), ([&exact, &exact], false)] {
            let told = report_of(all.to_vec()).to_string();
            assert_eq!(told.contains("the longest at least, since its end was not seen"), expected, "{told}");
        }
    }

    #[test]
    fn what_the_program_does_is_told_before_what_tells_of_the_machine() {
        let mut all: Vec<Found> = (0..8).map(|at| found("preempted in poll", 90_000_000 + at, None)).collect();
        all.iter_mut().zip(["a", "b", "c", "d", "e", "f", "g", "h"]).for_each(|(of, name)| of.future = name.to_owned());
        all.push(found("long poll", 8_000_000, Some("f.rs:1")));
        let told = report_of(all.iter().collect()).to_string();
        let lines: Vec<&str> = told.lines().map(str::trim).collect();
        assert_eq!(lines[3], "1       8.0 ms       8.0 ms  long poll (crypto): app::f");
        assert_eq!(lines[5..7], ["", "of the machine, since other threads had the CPUs meanwhile:"]);
        assert_eq!(lines[7], "1      90.0 ms      90.0 ms  preempted in poll: h");
        assert_eq!(lines.iter().filter(|line| line.contains("preempted")).count(), TOLD_OF_MACHINE);
        assert_eq!(lines.last(), Some(&"and 3 more kinds, which --json has"));
        let of_program = report_of(vec![&all[8]]).to_string();
        assert!(!of_program.contains("machine"), "{of_program}");
    }
}
