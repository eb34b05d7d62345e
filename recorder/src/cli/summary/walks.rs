//! What became of walking the tasks of programs.

use std::fmt;

use serde::Serialize;

use crate::{
    cli::counts::several,
    session::{Outcome, Unreadable},
    target::printable,
};

/// Processes that are told about in the summary for people.
const TOLD: usize = 3;

/// The part of the summary about it.
#[derive(Debug, Serialize)]
pub struct TaskWalks {
    walks: u64,
    /// Tasks that were found, each once.
    tasks: u64,
    /// Those of them that are not shown from beginning to end, because there are too many.
    not_kept: u64,
    /// Walks that left tasks for the next one, each marked in the trace.
    cut_short: u64,
    cpu_seconds: f64,
    /// Processes or programs without numbers, and why.
    refused: Vec<Unreadable>,
}

impl TaskWalks {
    /// Takes the figures from an outcome. None where no program has lists of tasks.
    pub fn new(outcome: &Outcome) -> Option<TaskWalks> {
        let has_lists = outcome.tasks.programs.iter().any(|program| program.family.has_lists());
        let walks = outcome.walks.as_ref().filter(|_| has_lists)?;
        Some(TaskWalks {
            walks: walks.walks,
            tasks: outcome.seen.tasks_walked,
            not_kept: outcome.seen.tasks_not_kept,
            cut_short: outcome.seen.walks_cut_short,
            cpu_seconds: walks.cpu.as_secs_f64(),
            refused: walks.refused.clone(),
        })
    }
}

impl fmt::Display for TaskWalks {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "  walks     {}", several(self.tasks, "task found", "tasks found"))?;
        writeln!(out, " in {}, {:.0} ms of CPU time", several(self.walks, "walk", "walks"), self.cpu_seconds * 1e3)?;
        if self.not_kept > 0 {
            writeln!(out, "            {} not shown: there are too many", several(self.not_kept, "task", "tasks"))?;
        }
        if self.cut_short > 0 {
            writeln!(out, "            {} left tasks for the next", several(self.cut_short, "walk", "walks"))?;
        }
        for Unreadable { path, reason } in self.refused.iter().take(TOLD) {
            writeln!(out, "            no numbers of {}: {reason}", printable(path))?;
        }
        if let Some(more) = self.refused.len().checked_sub(TOLD).filter(|&more| more > 0) {
            writeln!(out, "            and of {more} more")?;
        }
        Ok(())
    }
}
