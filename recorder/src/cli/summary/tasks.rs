//! What a recording tells of tasks.

use std::fmt;

use serde::Serialize;

use crate::{
    cli::counts::{Count, several},
    families::FamilyName,
    session::{Outcome, TaskProgram},
};

/// Programs that are told of in the summary for people.
const SHOWN_PROGRAMS: usize = 5;

/// The part of the summary about tasks.
#[derive(Debug, Serialize)]
pub struct TaskSummary {
    /// Programs that poll tasks.
    tasks: Vec<TaskProgram>,
    /// Why it is not known what tasks there are; none where it is.
    tasks_unknown: Option<String>,
    /// Samples of threads that polled a task.
    samples_in_polls: u64,
    /// Files that were looked through for tasks.
    #[serde(skip)]
    files: u64,
    /// Threads that were taken for workers by their names; none where that was not wanted.
    workers_by_name: Option<u64>,
}

impl TaskSummary {
    pub fn new(outcome: &Outcome) -> TaskSummary {
        TaskSummary {
            tasks: outcome.tasks.programs.clone(),
            tasks_unknown: outcome.tasks.unfinished.map(|reason| reason.to_string()),
            samples_in_polls: outcome.seen.samples_in_polls,
            files: outcome.code.modules,
            workers_by_name: outcome.seen.workers_by_name,
        }
    }
}

impl fmt::Display for TaskSummary {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(reason) = &self.tasks_unknown {
            let samples = several(self.samples_in_polls, "sample", "samples");
            writeln!(out, "  tasks     {samples} in polls")?;
            return writeln!(out, "            what tasks the programs have was not found out: {reason}");
        }
        if self.tasks.is_empty() {
            return match self.files {
                0 => Ok(()),
                files => {
                    let files = several(files, "file", "files");
                    writeln!(out, "  tasks     none: there are no tasks of Tokio's or async-task's in {files} of code")
                }
            };
        }
        writeln!(out, "  tasks     {} in polls", several(self.samples_in_polls, "sample", "samples"))?;
        for program in self.tasks.iter().take(SHOWN_PROGRAMS) {
            write_program(program, out)?;
        }
        if self.tasks.len() > SHOWN_PROGRAMS {
            let more = (self.tasks.len() - SHOWN_PROGRAMS) as u64;
            writeln!(out, "            and {}", several(more, "more program", "more programs"))?;
        }
        match self.workers_by_name {
            None => {}
            Some(0) => writeln!(out, "            no thread that polled has a name that begins as --workers says")?,
            Some(workers) => {
                let threads = several(workers, "thread is", "threads are");
                writeln!(out, "            {threads} taken for workers by their names")?;
            }
        }
        Ok(())
    }
}

fn write_program(program: &TaskProgram, out: &mut fmt::Formatter<'_>) -> fmt::Result {
    let versions = match &program.versions[..] {
        // The code of such programs does not tell, whatever they were built with.
        [] if program.family == FamilyName::AsyncTask => String::new(),
        [] => " of an unknown version".to_owned(),
        versions => format!(" {}", versions.join(", ")),
    };
    let futures = several(program.futures, "kind of task", "kinds of tasks");
    write!(out, "            {}: {}{versions}, {futures}", program.path, program.family)?;
    let unnamed = program.names.get("vtable").copied().unwrap_or_default();
    let by_place = program.names.get("location").copied().unwrap_or_default();
    if by_place > 0 {
        write!(out, ", {} by their place in the source alone", Count(by_place))?;
    }
    if unnamed > 0 {
        write!(out, ", {} without a name", Count(unnamed))?;
    }
    writeln!(out)?;
    if let Some(reason) = &program.tasks_unseen {
        writeln!(out, "              which task a thread polls is not seen: {reason}")?;
    }
    if let Some(reason) = &program.workers_unseen {
        writeln!(out, "              workers are shown by their threads: {reason}")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_looked_for_in_vain_is_told() {
        let summary = |files| TaskSummary {
            tasks: Vec::new(),
            tasks_unknown: None,
            samples_in_polls: 0,
            files,
            workers_by_name: None,
        };
        let told = |files| summary(files).to_string();
        assert_eq!(told(3), "  tasks     none: there are no tasks of Tokio's or async-task's in 3 files of code\n");
        assert_eq!(told(0), "");
    }

    #[test]
    fn where_the_search_did_not_end_nothing_is_said_to_be_missing() {
        let reason = Some("it was too long".to_owned());
        let summary = TaskSummary {
            tasks: Vec::new(),
            tasks_unknown: reason,
            samples_in_polls: 7,
            files: 3,
            workers_by_name: None,
        };
        let told = "  tasks     7 samples in polls\n            what tasks the programs have was not found out: it was too long\n";
        assert_eq!(summary.to_string(), told);
    }

    #[test]
    fn that_no_thread_has_the_name_of_a_worker_is_told() {
        let summary = |workers_by_name| {
            let program = TaskProgram {
                path: "app".to_owned(),
                family: FamilyName::AsyncTask,
                versions: Vec::new(),
                futures: 2,
                names: [("vtable", 1)].into(),
                tasks_unseen: None,
                workers_unseen: None,
            };
            TaskSummary { tasks: vec![program], tasks_unknown: None, samples_in_polls: 0, files: 1, workers_by_name }
        };
        let told = |workers_by_name| summary(workers_by_name).to_string();
        let without =
            "  tasks     0 samples in polls\n            app: async-task, 2 kinds of tasks, 1 without a name\n";
        assert_eq!(told(None), without);
        let nobody = "            no thread that polled has a name that begins as --workers says\n";
        assert_eq!(told(Some(0)), format!("{without}{nobody}"));
        assert_eq!(serde_json::json!(summary(Some(0)))["workers_by_name"], 0);
        assert_eq!(told(Some(2)), format!("{without}            2 threads are taken for workers by their names\n"));
    }
}
