//! What a recording's stacks came to.

use std::fmt;

use polletto_common::record::StackEnding;
use serde::Serialize;

use crate::{
    cli::counts::{Count, several},
    session::{Outcome, Unreadable},
};

/// Files that are named in the summary for people.
const NAMED_FILES: usize = 5;

/// The part of the summary about stacks.
#[derive(Debug, Serialize)]
pub struct StackSummary {
    /// Samples of running threads, and those of them whose stack lacks nothing.
    samples: u64,
    samples_to_root: u64,
    /// Those of the samples with frames that were found by frame pointers alone.
    samples_by_frame_pointers: u64,
    /// Samples and stretches whose stack lacks something, by what stood in the way.
    stacks_incomplete: Vec<Incomplete>,
    /// Stretches of sleep that were told, and those of them whose stack lacks nothing.
    blocked: u64,
    blocked_to_root: u64,
    /// Different stacks.
    stacks: u64,
    /// Samples and stretches whose stack never came, and those whose stack was one too many.
    stacks_lost: u64,
    stacks_not_kept: u64,
    /// Samples, stretches and stacks for which there was no room, each marked in the trace.
    samples_lost: u64,
    /// Times that a thread's sleep was not watched because too many threads sleep.
    pub sleeps_not_watched: u64,
    /// Files whose code was mapped.
    modules: u64,
    /// Those that could not be read, or have no unwind information, and why.
    modules_without_table: Vec<Unreadable>,
}

/// Samples and stretches whose stack lacks something.
#[derive(Debug, Serialize)]
struct Incomplete {
    reason: &'static str,
    samples: u64,
    blocked: u64,
}

/// What stood in the way of a stack, as the summary says it.
const REASONS: [(StackEnding, &str); 9] = [
    (StackEnding::NOT_KNOWN_YET, "their code was mapped just before"),
    (StackEnding::FRAME_POINTERS_END, "frame pointers lead no further"),
    (StackEnding::NO_RULE, "no unwind information"),
    (StackEnding::UNREADABLE, "unreadable memory"),
    (StackEnding::UNSUPPORTED, "unwind information of an unsupported kind"),
    (StackEnding::TOO_DEEP, "too deep"),
    (StackEnding::CONTRADICTION, "contradictory unwind information"),
    (StackEnding::MAPPINGS_CHANGED, "mappings changed meanwhile"),
    (StackEnding::FOREIGN_CODE, "32-bit code"),
];

impl StackSummary {
    pub fn new(outcome: &Outcome) -> StackSummary {
        let Outcome { seen, kernel, code, .. } = outcome;
        let incomplete = REASONS.iter().map(|&(ending, reason)| Incomplete {
            reason,
            samples: seen.samples_by_ending.of(ending),
            blocked: seen.blocked_by_ending.of(ending),
        });
        StackSummary {
            samples: seen.samples,
            samples_to_root: seen.samples_by_ending.complete(),
            samples_by_frame_pointers: seen.by_frame_pointers,
            stacks_incomplete: incomplete.filter(|incomplete| incomplete.samples + incomplete.blocked > 0).collect(),
            blocked: seen.blocked,
            blocked_to_root: seen.blocked_by_ending.complete(),
            stacks: seen.stacks,
            stacks_lost: seen.stacks_lost,
            stacks_not_kept: seen.stacks_not_kept,
            samples_lost: seen.samples_lost,
            sleeps_not_watched: kernel.untracked_sleeps,
            modules: code.modules,
            modules_without_table: code.without_table.clone(),
        }
    }
}

impl fmt::Display for StackSummary {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.samples + self.blocked == 0 {
            return Ok(());
        }
        let (samples, blocked) =
            (Reached(self.samples, self.samples_to_root), Reached(self.blocked, self.blocked_to_root));
        writeln!(out, "  stacks    {} of running threads{samples}", several(self.samples, "sample", "samples"))?;
        let stretches = several(self.blocked, "stretch", "stretches");
        writeln!(
            out,
            "            {stretches} of sleep{blocked}; {}",
            several(self.stacks, "stack", "different stacks")
        )?;
        for Incomplete { reason, samples, blocked } in &self.stacks_incomplete {
            let (samples, blocked) =
                (several(*samples, "sample", "samples"), several(*blocked, "stretch", "stretches"));
            writeln!(out, "            {samples} and {blocked} cut short: {reason}")?;
        }
        if self.samples_by_frame_pointers > 0 {
            let samples = several(self.samples_by_frame_pointers, "sample", "samples");
            writeln!(
                out,
                "            {samples} with callers found by frame pointers, where code has no unwind information"
            )?;
        }
        for (count, what) in [
            (self.stacks_lost, "whose stack was lost"),
            (self.stacks_not_kept, "whose stack was not kept: there were too many different ones"),
        ] {
            if count > 0 {
                writeln!(out, "            {} {what}", Count(count))?;
            }
        }
        for Unreadable { path, reason } in self.modules_without_table.iter().take(NAMED_FILES) {
            writeln!(out, "            {}: {reason}", crate::target::printable(path))?;
        }
        if let Some(more @ 1..) = self.modules_without_table.len().checked_sub(NAMED_FILES) {
            writeln!(out, "            and {}; --json names them", several(more as u64, "more file", "more files"))?;
        }
        Ok(())
    }
}

/// Of how many stacks, and how many of them lack nothing.
struct Reached(u64, u64);

impl fmt::Display for Reached {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Reached(0, _) => Ok(()),
            Reached(all, complete) if all == complete => write!(out, ", all to the root"),
            // Never 100 % when it is not all.
            Reached(all, complete) => {
                write!(out, ", {:.1} % to the root", (1000.0 * complete as f64 / all as f64).floor() / 10.0)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_never_rounded_up_to_all() {
        assert_eq!(Reached(10_000, 9_999).to_string(), ", 99.9 % to the root");
        assert_eq!(Reached(3, 3).to_string(), ", all to the root");
        assert_eq!(Reached(0, 0).to_string(), "");
    }
}
