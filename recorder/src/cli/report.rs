//! `polletto report`

mod asking;
mod comparison;
mod ended;
mod found;
mod groups;
mod span;

use std::{fmt, process::ExitCode, time::Duration};

use anyhow::{Result, ensure};
use serde::Serialize;

use self::{
    asking::Processor,
    comparison::{Comparison, Recording, Verdict},
    found::{Found, Read, RuntimeFound},
    groups::{Group, grouped},
    span::Span,
};
use super::{
    arguments::{FailOn, ReportArguments},
    counts::several,
    print,
    summary::OF_MACHINE,
    tell,
};
use crate::timeline::{Cause, Fault};

/// The command line can't be followed.
const USAGE: u8 = 2;

/// Something was found that must not be.
const FOUND: u8 = 3;

/// Why nothing is found in some traces.
const NO_POLLS: &str =
    "no poll is in this trace: none was made, or none could be told, as with --no-stacks, or of smol with --polls off";

/// How many kinds of findings people are told of, and of those that tell of the machine.
const TOLD: usize = 20;
const TOLD_OF_MACHINE: usize = 5;

/// Tells what is wrong in a trace, and returns the exit status.
pub fn run(arguments: &ReportArguments) -> ExitCode {
    if arguments.compare.is_none() && arguments.fail_on.contains(&FailOn::Worse) {
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
    let limits = arguments.fail_on.iter().filter_map(FailOn::limit).map(nanoseconds);
    let least_ns = limits.min().unwrap_or(u64::MAX);
    let (found, is_worse, span) = match &arguments.compare {
        Some(compared_with) => {
            let least_ns = least_ns.min(comparison::least_ns(threshold_ns));
            let before = Recording::read(&processor, compared_with, least_ns)?;
            let after = Recording::read(&processor, &arguments.trace, least_ns)?;
            let comparison = Comparison::new(&before, &after, threshold_ns);
            print(&comparison, arguments.json)?;
            ensure_polls(arguments, after.has_polls())?;
            let can_tell = before.tells_polls() || !arguments.fail_on.contains(&FailOn::Worse);
            ensure!(can_tell, "{}: {NO_POLLS}, so --fail-on worse can't tell", compared_with.display());
            let is_worse = comparison.count(Verdict::Worse) > 0;
            let span = after.span();
            (after.found, is_worse, span)
        }
        None => {
            let Read { findings, runtimes, span } =
                found::read(&processor, &arguments.trace, least_ns.min(threshold_ns))?;
            let told: Vec<&Found> = findings.iter().filter(|found| found.kept_ns() >= threshold_ns).collect();
            let report = Report::new(threshold_ns, span, told, runtimes);
            print(&report, arguments.json)?;
            ensure_polls(arguments, span.polls() > 0)?;
            (findings, false, span)
        }
    };
    let mut code = 0;
    for fail_on in &arguments.fail_on {
        let told = match fail_on {
            FailOn::Longer { kind, limit } => over(&found, *kind, *limit),
            FailOn::Worse => is_worse.then(|| "something got worse".to_owned()),
        };
        if let Some(told) = told {
            tell(format_args!("polletto: {told}\n"));
            code = FOUND;
        }
    }
    if code == 0 && !arguments.fail_on.is_empty() {
        tell(format_args!("polletto: {}\n", passed(&arguments.fail_on, span)));
    }
    Ok(code)
}

/// Where no poll was told, nothing that must not be can be found.
fn ensure_polls(arguments: &ReportArguments, has_polls: bool) -> Result<()> {
    let trace = arguments.trace.display();
    ensure!(has_polls || arguments.fail_on.is_empty(), "{trace}: {NO_POLLS}, so --fail-on can't tell");
    Ok(())
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// What there is of a kind that lasts too long, in words; none if nothing does.
fn over(found: &[Found], kind: Fault, limit: Duration) -> Option<String> {
    let is_over = |found: &&Found| found.kind == kind.name() && found.kept_ns() >= nanoseconds(limit);
    let lasted_ns: Vec<u64> = found.iter().filter(is_over).map(Found::kept_ns).collect();
    let longest_ms = *lasted_ns.iter().max()? as f64 / 1e6;
    let (one, more, did) = match kind {
        Fault::LongPoll => ("poll", "polls", "ran"),
        Fault::Slept(_) => ("poll", "polls", "slept"),
        Fault::Preempted if lasted_ns.len() == 1 => ("poll", "polls", "was preempted"),
        Fault::Preempted => ("poll", "polls", "were preempted"),
        Fault::Starved => ("task", "tasks", "starved"),
        Fault::Convoy => ("lock convoy", "lock convoys", "held a poll up"),
    };
    let (count, limit_ms) = (several(lasted_ns.len() as u64, one, more), limit.as_secs_f64() * 1e3);
    let the_longest = if lasted_ns.len() == 1 { ":" } else { ", the longest" };
    Some(format!("{count} {did} for {limit_ms} ms or more{the_longest} {longest_ms:.1} ms"))
}

/// That nothing was found which must not be, in words, and for how much of the time it would have been.
fn passed(fail_on: &[FailOn], span: Span) -> String {
    let limits: Vec<String> = fail_on
        .iter()
        .filter_map(|of| match of {
            FailOn::Longer { kind, limit } => Some(format!("no {} of {} ms", kind.name(), limit.as_secs_f64() * 1e3)),
            FailOn::Worse => None,
        })
        .collect();
    let longer = (!limits.is_empty()).then(|| format!("{} or more", limits.join(", ")));
    let worse = fail_on.contains(&FailOn::Worse).then(|| "nothing got worse that both traces could tell".to_owned());
    let told: Vec<String> = longer.into_iter().chain(worse).collect();
    format!("{}; {}", told.join("; "), span.told())
}

/// What is told. Its fields are what `--json` prints.
#[derive(Debug, Serialize)]
struct Report<'f> {
    threshold_ns: u64,
    /// Polls in the trace, long or not.
    polls: u64,
    /// For how long they were observed.
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
        let polls = span.polls();
        let missing = if polls == 0 { Some(NO_POLLS.to_owned()) } else { span.missing() };
        Report { threshold_ns, polls, span, missing, groups: grouped(&findings), findings, runtimes }
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
        if self.polls == 0 {
            return writeln!(out, "{NO_POLLS}");
        }
        let missing = self.missing.as_ref().map(|missing| format!("; {missing}")).unwrap_or_default();
        if self.groups.is_empty() {
            return writeln!(out, "nothing took {threshold} ms or more{missing}");
        }
        let findings = several(self.findings.len() as u64, "finding", "findings");
        writeln!(out, "{findings} of {threshold} ms or more{missing}\n")?;
        writeln!(out, "{:>7} {:>12} {:>12}  what", "count", "longest", "total")?;
        self.write_groups_of(Cause::Program, TOLD, out)?;
        if self.groups.iter().any(|group| group.is_of(Cause::Machine)) {
            writeln!(out, "\n{OF_MACHINE}:")?;
            self.write_groups_of(Cause::Machine, TOLD_OF_MACHINE, out)?;
        }
        Ok(())
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
            let span = Span { polls_exact: 0, polls_found: 7, ..Span::example(5_000_000_000, 0) };
            let report = Report::new(5_000_000, span, findings, Vec::new());
            let told = report.to_string();
            let first = told.lines().next().expect("a line");
            let missing = "; polls were told by samples and switches alone: each lasted at least as long, some are missing, \
                           and so are all starved tasks";
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
                "in burn",
                "written at f.rs:7",
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
    fn what_must_not_be_is_of_a_kind_and_as_long() {
        let told = |all: &[Found]| over(all, Fault::LongPoll, Duration::from_micros(8_500));
        let [long, longer] = [8_500_000, 11_720_000].map(|dur| found("long poll", dur, None));
        assert_eq!(told(&[found("long poll", 8_499_999, None), found("slept in poll", 9_000_000, None)]), None);
        let expected = "1 poll ran for 8.5 ms or more: 8.5 ms";
        assert_eq!(told(std::slice::from_ref(&long)).as_deref(), Some(expected));
        let expected = "2 polls ran for 8.5 ms or more, the longest 11.7 ms";
        assert_eq!(told(&[long, longer]).as_deref(), Some(expected));
    }

    #[test]
    fn that_nothing_was_found_which_must_not_be_is_told_and_for_how_long_it_would_have_been() {
        let span = Span::example(5_000_000_000, 1_500_000_000);
        let longer = |kind, ms| FailOn::Longer { kind, limit: Duration::from_millis(ms) };
        let limits = [longer(Fault::LongPoll, 50), longer(Fault::Starved, 20)];
        let expected = "no long poll of 50 ms, no starved task of 20 ms or more; \
                        polls were observed for 30.0 % of the 5.0 s";
        assert_eq!(passed(&limits, span), expected);
        let sampled = Span::example(5_000_000_000, 0);
        let expected = "nothing got worse that both traces could tell; polls were told by samples and switches alone";
        assert_eq!(passed(&[FailOn::Worse], sampled), expected);
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
    fn a_convoy_is_held_against_a_threshold_by_the_longest_sleep_in_a_poll() {
        let convoy = Found { off_cpu_ns: Some(9_000_000), ..found("lock convoy", 30_000_000, None) };
        for (limit_ms, expected) in [(9, true), (10, false)] {
            let told = over(std::slice::from_ref(&convoy), Fault::Convoy, Duration::from_millis(limit_ms));
            assert_eq!(told.is_some(), expected, "{limit_ms} ms");
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
