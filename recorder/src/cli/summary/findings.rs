//! What was found to be wrong.

use std::fmt;

use serde::Serialize;

use super::{OF_MACHINE, places::Alike, runtimes::RuntimeFound};
use crate::{
    cli::counts::{Count, several},
    session::{FindingSummary, LeftOut},
    timeline::{Cause, Counted, Fault},
};

/// Places that people are told of, and of those that tell of the machine.
const TOLD: usize = 10;
const TOLD_OF_MACHINE: usize = 3;

/// The part of the summary about it.
#[derive(Debug, Serialize)]
pub struct Findings {
    /// Polls that were told, long or not. Of none nothing can be said.
    polls: u64,
    /// What lasted as long as that is told.
    threshold_ns: u64,
    /// How many of each kind there are.
    counts: Vec<Kind>,
    /// Those that are alike: first those that tell of the program, of each cause what took most first.
    places: Vec<Alike>,
    /// What is wrong with runtimes as a whole, what lasted longest first.
    runtimes: Vec<RuntimeFound>,
    #[serde(flatten)]
    left_out: LeftOut,
}

#[derive(Debug, Serialize)]
struct Kind {
    #[serde(skip)]
    fault: Fault,
    kind: &'static str,
    /// What was slept for, if that is it.
    waited_for: Option<&'static str>,
    count: u64,
    /// Those of them that tell of the machine.
    of_machine: u64,
}

impl Findings {
    /// Takes them from an outcome in which so many polls were told; none where no program polls tasks, or nothing was to be
    /// found.
    pub fn new(summary: Option<&FindingSummary>, polls: u64) -> Option<Findings> {
        let FindingSummary { threshold, counts, places, runtimes, left_out } = summary?;
        let kind = |&(fault, Counted { all, of_machine }): &(Fault, Counted)| Kind {
            fault,
            kind: fault.name(),
            waited_for: fault.wait().map(|wait| wait.name()),
            count: all,
            of_machine,
        };
        Some(Findings {
            polls,
            threshold_ns: threshold.as_nanos() as u64,
            counts: counts.iter().map(kind).collect(),
            places: places.iter().map(Alike::of).collect(),
            runtimes: runtimes.iter().map(RuntimeFound::of).collect(),
            left_out: *left_out,
        })
    }
}

impl fmt::Display for Findings {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let threshold = self.threshold_ns as f64 / 1e6;
        if self.counts.is_empty() {
            match self.polls {
                0 => writeln!(out, "  findings  none: no poll was told")?,
                _ => writeln!(out, "  findings  nothing took {threshold} ms or more")?,
            }
            return self.write_runtimes(out);
        }
        write!(out, "  findings  of {threshold} ms or more: ")?;
        match self.counted(|kind| kind.count - kind.of_machine) {
            told if told.is_empty() => writeln!(out, "nothing that the program did")?,
            told => writeln!(out, "{told}")?,
        }
        self.write_places(Cause::Program, TOLD, out)?;
        let of_machine = self.counted(|kind| kind.of_machine);
        if !of_machine.is_empty() {
            writeln!(out, "            {OF_MACHINE}: {of_machine}")?;
            self.write_places(Cause::Machine, TOLD_OF_MACHINE, out)?;
        }
        let counted: u64 = self.counts.iter().map(|kind| kind.count).sum();
        let placed: u64 = self.places.iter().map(|alike| alike.count).sum();
        if counted > placed {
            writeln!(out, "            and {} whose places were too many to keep", Count(counted - placed))?;
        }
        self.write_runtimes(out)
    }
}

impl Kind {
    /// So many of them, in words.
    fn counted(&self, count: u64) -> String {
        match self.fault {
            Fault::LongPoll => several(count, "long poll", "long polls"),
            Fault::Starved => several(count, "starved task", "starved tasks"),
            Fault::Convoy => several(count, "lock convoy", "lock convoys"),
            Fault::Preempted => format!("{} preempted", several(count, "poll", "polls")),
            Fault::Slept(wait) => format!("{} that slept ({})", several(count, "poll", "polls"), wait.name()),
        }
    }
}

impl Findings {
    /// How many there are of each kind, of those that count.
    fn counted(&self, count: impl Fn(&Kind) -> u64) -> String {
        let counted = self.counts.iter().filter(|kind| count(kind) > 0).map(|kind| kind.counted(count(kind)));
        counted.collect::<Vec<_>>().join(", ")
    }

    fn write_places(&self, cause: Cause, most: usize, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let places = || self.places.iter().filter(|alike| alike.cause == cause);
        for alike in places().take(most) {
            writeln!(out, "          {alike}")?;
        }
        match places().skip(most).count() as u64 {
            0 => Ok(()),
            more => writeln!(out, "            and in {}", several(more, "more place", "more places")),
        }
    }

    fn write_runtimes(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for runtime in self.runtimes.iter().take(TOLD) {
            writeln!(out, "            {runtime}")?;
        }
        let more = self.runtimes.len().saturating_sub(TOLD) as u64;
        if more > 0 {
            writeln!(out, "            and {} of runtimes", several(more, "more finding", "more findings"))?;
        }
        let LeftOut { findings_crowded, runtimes_not_kept, convoys_cut_short } = self.left_out;
        if findings_crowded > 0 {
            let crowded = several(findings_crowded, "finding", "findings");
            writeln!(
                out,
                "            of {crowded} only the longest of a future is told where it was: there were too many places; \
                 `polletto report` knows all"
            )?;
        }
        if convoys_cut_short > 0 {
            let cut_short = several(convoys_cut_short, "time", "times");
            writeln!(
                out,
                "            and {cut_short} lock convoys in parts, or not at all: too many threads slept at locks"
            )?;
        }
        if runtimes_not_kept > 0 {
            let not_kept = several(runtimes_not_kept, "time", "times");
            writeln!(out, "            and {not_kept} a runtime or a worker's thread was one too many to be judged")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::timeline::Wait;

    #[test]
    fn where_no_poll_was_told_nothing_is_said_to_be_well() {
        let told = |polls| {
            let summary = FindingSummary {
                threshold: Duration::from_millis(5),
                counts: Vec::new(),
                places: Vec::new(),
                runtimes: Vec::new(),
                left_out: LeftOut::default(),
            };
            Findings::new(Some(&summary), polls).map(|findings| findings.to_string())
        };
        assert_eq!(told(0).as_deref(), Some("  findings  none: no poll was told\n"));
        assert_eq!(told(1).as_deref(), Some("  findings  nothing took 5 ms or more\n"));
    }

    fn told(counts: &[(Fault, u64, u64)], places: &[(Cause, usize)]) -> String {
        let kind = |&(fault, count, of_machine): &(Fault, u64, u64)| Kind {
            fault,
            kind: fault.name(),
            waited_for: None,
            count,
            of_machine,
        };
        let places = places.iter().flat_map(|&(cause, count)| (0..count).map(move |_| Alike::example(cause)));
        let findings = Findings {
            polls: 100,
            threshold_ns: 5_000_000,
            counts: counts.iter().map(kind).collect(),
            places: places.collect(),
            runtimes: Vec::new(),
            left_out: LeftOut { findings_crowded: 7, ..LeftOut::default() },
        };
        findings.to_string()
    }

    #[test]
    fn what_the_program_does_is_told_before_what_tells_of_the_machine() {
        let counts = [(Fault::LongPoll, 8, 0), (Fault::Preempted, 4, 4), (Fault::Starved, 4, 1)];
        let told = told(&counts, &[(Cause::Program, 12), (Cause::Machine, 4)]);
        let lines: Vec<&str> = told.lines().collect();
        assert_eq!(lines[0], "  findings  of 5 ms or more: 8 long polls, 3 starved tasks");
        assert_eq!(lines[TOLD + 1], "            and in 2 more places");
        let expected =
            "            of the machine, since other threads had the CPUs meanwhile: 4 polls preempted, 1 starved task";
        assert_eq!(lines[TOLD + 2], expected);
        assert_eq!(lines[TOLD + TOLD_OF_MACHINE + 3], "            and in 1 more place");
        let crowded = lines[TOLD + TOLD_OF_MACHINE + 4];
        assert!(crowded.starts_with("            of 7 findings only the longest of a future is told"), "{crowded}");
        assert_eq!(lines.len(), TOLD + TOLD_OF_MACHINE + 5, "{told}");
    }

    #[test]
    fn where_one_of_the_two_has_nothing_to_be_told_of_the_other_is_told_alone() {
        let of_program = told(&[(Fault::Slept(Wait::File), 1, 0)], &[(Cause::Program, 1)]);
        assert!(of_program.contains("1 poll that slept (file)") && !of_program.contains("machine"), "{of_program}");
        let of_machine = told(&[(Fault::Preempted, 1, 1)], &[(Cause::Machine, 1)]);
        assert!(of_machine.starts_with("  findings  of 5 ms or more: nothing that the program did\n"), "{of_machine}");
    }
}
