//! What tasks were found waiting for.

use std::fmt;

use serde::Serialize;

use crate::{
    cli::counts::{Count, several},
    session::{AwaitedBy, Outcome, Unreadable},
    target::printable,
};

/// Chains, and processes that can't be read, that are told of in the summary for people.
const TOLD: usize = 5;

/// The part of the summary about it.
#[derive(Debug, Serialize)]
pub struct AwaitSummary {
    /// How often processes were read.
    looks: u64,
    /// Tasks of which it is known what they waited for when the recording was over.
    tasks: u64,
    /// What they waited for, those first that were not polled for longest.
    longest: Vec<AwaitedBy>,
    /// In how many ways more.
    more: u64,
    /// How often processes were not read since that would have taken too long.
    left_out: u64,
    /// How often what a task waited for was not kept.
    not_kept: u64,
    /// Processes that can't be read, and why.
    refused: Vec<Unreadable>,
}

impl AwaitSummary {
    /// Takes the figures from an outcome. None where there is nothing to tell.
    pub fn new(outcome: &Outcome) -> Option<AwaitSummary> {
        let awaits = outcome.awaits.as_ref().filter(|awaits| awaits.looks > 0 || !awaits.refused.is_empty())?;
        Some(AwaitSummary {
            looks: awaits.looks,
            tasks: awaits.tasks,
            longest: awaits.longest.clone(),
            more: awaits.more,
            left_out: awaits.left_out,
            not_kept: outcome.seen.waits_not_kept,
            refused: awaits.refused.clone(),
        })
    }
}

/// Nanoseconds in which no poll was seen, in the unit that fits.
struct Waited(u64);

impl fmt::Display for Waited {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SECOND_NS: u64 = 1_000_000_000;
        match self.0 {
            SECOND_NS.. => write!(out, "{:.1} s", self.0 as f64 / 1e9),
            _ => write!(out, "{:.1} ms", self.0 as f64 / 1e6),
        }
    }
}

impl fmt::Display for AwaitSummary {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "  awaits    ")?;
        match (self.looks, self.tasks) {
            (0, _) => writeln!(out, "not read")?,
            (looks, 0) => writeln!(out, "read {}; no task was left at the end", several(looks, "time", "times"))?,
            (_, tasks) => {
                let is_timed = self.longest.iter().any(|of| of.since_poll_ns.is_some());
                let what = if is_timed { "longest without a poll" } else { "since when is not known, without probes" };
                writeln!(out, "{} at the end; {what}:", several(tasks, "task waits", "tasks wait"))?
            }
        }
        for AwaitedBy { tasks, since_poll_ns, awaits } in self.longest.iter().take(TOLD) {
            let time = since_poll_ns.map(|ns| format!(" up to {}", Waited(ns))).unwrap_or_default();
            writeln!(out, "            {} ×{time}: {}", Count(*tasks), printable(awaits))?;
        }
        let told = self.longest.len().min(TOLD) as u64;
        let more = self.longest.len() as u64 - told + self.more;
        if more > 0 {
            writeln!(out, "            and {}", several(more, "more chain", "more chains"))?;
        }
        if self.left_out > 0 {
            let left_out = several(self.left_out, "time", "times");
            writeln!(out, "            left out {left_out}: reading them takes too long")?;
        }
        if self.not_kept > 0 {
            let not_kept = several(self.not_kept, "time", "times");
            writeln!(out, "            not kept {not_kept}: tasks waited for too many things")?;
        }
        for Unreadable { path, reason } in self.refused.iter().take(TOLD) {
            writeln!(out, "            nothing of {}: {reason}", printable(path))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_for_less_than_a_second_is_told_in_milliseconds() {
        let told = [0, 12_340_000, 999_000_000, 1_000_000_000, 2_340_000_000].map(|ns| Waited(ns).to_string());
        assert_eq!(told, ["0.0 ms", "12.3 ms", "999.0 ms", "1.0 s", "2.3 s"]);
    }
}
