//! What a recording came to, for people and for scripts.

mod awaits;
mod findings;
mod names;
mod places;
mod polls;
mod runtimes;
mod stacks;
mod tasks;
mod walks;

use std::{fmt, path::PathBuf};

use serde::Serialize;

pub use self::names::ModuleNames;
use self::{
    awaits::AwaitSummary, findings::Findings, names::NameSummary, polls::PollSummary, stacks::StackSummary,
    tasks::TaskSummary, walks::TaskWalks,
};
use crate::{
    cli::counts::{Bytes, several},
    session::{Ending, Outcome},
    symbols::told_place,
    timeline::Extent,
};

/// The summary. Its fields are what `--json` prints: names stay, new ones may come.
#[derive(Debug, Serialize)]
pub struct Summary {
    /// The trace.
    file: PathBuf,
    /// Its size, and what it would be without compression.
    bytes: u64,
    uncompressed_bytes: u64,
    /// `targets exited`, `duration elapsed`, `interrupted`, `terminated` or `terminal closed`.
    ended_by: &'static str,
    /// How long the recording lasted.
    seconds: f64,
    /// Switches from or to recorded threads, and their wake-ups.
    switches: u64,
    wakeups: u64,
    /// Switches between idle and other programs, which the trace shows too.
    switches_of_others: u64,
    /// Recorded processes and threads, those that ended included.
    processes: u64,
    threads: u64,
    /// Records that the kernel programs wrote, and those of them that reached the recorder.
    records_written: u64,
    records_read: u64,
    /// Records for which there was no room, each marked in the trace.
    records_lost: u64,
    /// Children that were not followed because too many processes were recorded.
    processes_not_followed: u64,
    /// Switches from or to recorded threads that the kernel did not report, each marked in the trace.
    switches_not_reported: u64,
    #[serde(flatten)]
    stacks: StackSummary,
    #[serde(flatten)]
    polls: PollSummary,
    #[serde(flatten)]
    tasks: TaskSummary,
    /// What became of walking tasks; null where there were none, or it was not wanted.
    task_walks: Option<TaskWalks>,
    /// What tasks await; null where no program tells, or it was not wanted.
    awaits: Option<AwaitSummary>,
    /// What was found to be wrong; null where nothing was looked for.
    findings: Option<Findings>,
    #[serde(flatten)]
    names: NameSummary,
    /// What the recorder itself used.
    recorder_cpu_seconds: f64,
    recorder_peak_memory_bytes: u64,
    /// What the process used besides that found names.
    naming_cpu_seconds: f64,
    naming_peak_memory_bytes: u64,
}

impl Summary {
    /// Takes the figures from an outcome.
    pub fn new(outcome: &Outcome) -> Summary {
        Summary {
            file: outcome.file.clone(),
            bytes: outcome.written.bytes,
            uncompressed_bytes: outcome.written.uncompressed_bytes,
            ended_by: match outcome.ending {
                Ending::TargetsExited => "targets exited",
                Ending::DurationElapsed => "duration elapsed",
                Ending::Interrupted => "interrupted",
                Ending::Terminated => "terminated",
                Ending::HungUp => "terminal closed",
                Ending::Failed => "failed",
            },
            seconds: outcome.lasted.as_secs_f64(),
            switches: outcome.seen.switches,
            wakeups: outcome.seen.wakings,
            switches_of_others: outcome.seen.switches_of_others,
            processes: outcome.seen.processes,
            threads: outcome.seen.threads,
            records_written: outcome.kernel.written,
            records_read: outcome.records,
            records_lost: outcome.kernel.lost,
            processes_not_followed: outcome.kernel.unfollowed,
            switches_not_reported: outcome.seen.unreported,
            stacks: StackSummary::new(outcome),
            polls: PollSummary::new(outcome),
            tasks: TaskSummary::new(outcome),
            task_walks: TaskWalks::new(outcome),
            awaits: AwaitSummary::new(outcome),
            findings: Findings::new(
                outcome.findings.as_ref().filter(|_| !outcome.tasks.programs.is_empty()),
                outcome.seen.polls(),
            ),
            names: NameSummary::new(&outcome.names),
            recorder_cpu_seconds: outcome.own_use.cpu.as_secs_f64(),
            recorder_peak_memory_bytes: outcome.own_use.peak_memory_bytes,
            naming_cpu_seconds: outcome.naming_use.cpu.as_secs_f64(),
            naming_peak_memory_bytes: outcome.naming_use.peak_memory_bytes,
        }
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(out, "recorded {:.1} s, {}", self.seconds, self.ended_by)?;
        let (switches, wakeups) =
            (several(self.switches, "switch", "switches"), several(self.wakeups, "wake-up", "wake-ups"));
        let (threads, processes) =
            (several(self.threads, "thread", "threads"), several(self.processes, "process", "processes"));
        writeln!(out, "  seen      {switches}, {wakeups} of {threads} in {processes}")?;
        if self.switches == 0 {
            writeln!(out, "            nothing of what was to be recorded ran in this time")?;
        }
        write!(out, "{}{}{}", self.stacks, self.tasks, self.polls)?;
        if let Some(walks) = &self.task_walks {
            write!(out, "{walks}")?;
        }
        if let Some(awaits) = &self.awaits {
            write!(out, "{awaits}")?;
        }
        if let Some(findings) = &self.findings {
            write!(out, "{findings}")?;
        }
        write!(out, "{}", self.names)?;
        write!(out, "  trace     {}, {}", self.file.display(), Bytes(self.bytes))?;
        let events = self.switches + self.switches_of_others + self.wakeups;
        // What every trace holds would count for more than its events.
        if events >= 1000 {
            write!(out, " ({:.1} bytes an event)", self.bytes as f64 / events as f64)?;
        }
        writeln!(out)?;
        let missing = self.records_written.saturating_sub(self.records_read);
        let nothing = self.records_lost
            + self.processes_not_followed
            + self.switches_not_reported
            + self.stacks.sleeps_not_watched
            + missing
            == 0;
        write!(out, "  lost      {}", if nothing { "nothing\n" } else { "" })?;
        if self.records_lost > 0 {
            let share = 100.0 * self.records_lost as f64 / (self.records_lost + self.records_written) as f64;
            writeln!(
                out,
                "{} ({share:.1} %), marked in the trace: a larger --ring-kib helps",
                several(self.records_lost, "record", "records")
            )?;
        }
        if self.stacks.sleeps_not_watched > 0 {
            writeln!(
                out,
                "{} not watched: too many threads slept",
                several(self.stacks.sleeps_not_watched, "sleep that was", "sleeps that were")
            )?;
        }
        if missing > 0 {
            let missing = several(missing, "record", "records");
            writeln!(out, "{missing} between the kernel and the recorder: please report this")?;
        }
        if self.switches_not_reported > 0 {
            writeln!(
                out,
                "{} that the kernel did not report, marked in the trace",
                several(self.switches_not_reported, "switch", "switches")
            )?;
        }
        if self.processes_not_followed > 0 {
            let children = several(self.processes_not_followed, "child process", "child processes");
            writeln!(out, "{children}, since too many were recorded")?;
        }
        write!(out, "  recorder  {:.2} s of CPU time", self.recorder_cpu_seconds)?;
        // Loading the programs takes longer than a short recording.
        if self.seconds >= 1.0 {
            write!(out, " ({:.1} % of one CPU)", 100.0 * self.recorder_cpu_seconds / self.seconds)?;
        }
        write!(out, ", {} of memory", Bytes(self.recorder_peak_memory_bytes))?;
        if self.naming_cpu_seconds > 0.0 {
            let (seconds, memory) = (self.naming_cpu_seconds, Bytes(self.naming_peak_memory_bytes));
            write!(out, "; for names {seconds:.2} s and {memory}, mapped files included")?;
        }
        writeln!(out)
    }
}

/// What findings tell of that are not of the program's own doing. Their kinds follow, or places.
pub const OF_MACHINE: &str = "of the machine, since other threads had the CPUs meanwhile";

/// ` (file, database)`: what is known of two things, once if they are the same.
pub struct InBrackets<'a>(pub [Option<&'a str>; 2]);

impl fmt::Display for InBrackets<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            [Some(first), Some(second)] if first != second => write!(out, " ({first}, {second})"),
            [Some(one), _] | [None, Some(one)] => write!(out, " ({one})"),
            [None, None] => Ok(()),
        }
    }
}

/// In front of a function, the crate that it is of if nothing on the callstack is the program's own; else nothing.
pub struct MostlyIn<'a>(pub Option<&'a str>);

impl fmt::Display for MostlyIn<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(krate) => write!(out, "no code of the program's own; mostly in {krate}: "),
            None => Ok(()),
        }
    }
}

/// `written at src/main.rs:42`
pub struct WrittenAt(String);

impl WrittenAt {
    /// None where that is not known, or is the future's name already since nothing else is known of it.
    pub fn of(place: Option<&str>, future: &str) -> Option<WrittenAt> {
        let place = place.filter(|place| *place != future)?;
        Some(told_place(place)).filter(|told| told != future).map(WrittenAt)
    }
}

impl fmt::Display for WrittenAt {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "written at {}", self.0)
    }
}

/// ` (and 2 other lines)`: how many lines of a function are not told. Nothing if there are none.
pub struct OtherLines(pub usize);

impl fmt::Display for OtherLines {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => Ok(()),
            count => write!(out, " (and {})", several(count as u64, "other line", "other lines")),
        }
    }
}

/// For how much of a poll's time it slept in the place that it is told by: `asleep there for 36.1 of the 45.8 ms`.
pub struct SleptThere {
    slept_ns: u64,
    lasted_ns: u64,
}

impl SleptThere {
    /// None if it did so all the time, as far as one reads it.
    pub fn of(slept_ns: u64, lasted_ns: u64) -> Option<SleptThere> {
        /// Less is not told of times in milliseconds with one digit behind the point.
        const LEAST_NS: u64 = 100_000;
        (slept_ns + LEAST_NS <= lasted_ns).then_some(SleptThere { slept_ns, lasted_ns })
    }
}

impl fmt::Display for SleptThere {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [slept, lasted] = [self.slept_ns, self.lasted_ns].map(|nanoseconds| nanoseconds as f64 / 1e6);
        write!(out, "asleep there for {slept:.1} of the {lasted:.1} ms")
    }
}

/// That the end of the longest poll of several was not seen.
pub struct AtLeast;

impl AtLeast {
    /// None if it was, by the extent of that poll as a trace has it.
    pub fn of(extent: &str) -> Option<AtLeast> {
        (extent == Extent::AtLeast.name()).then_some(AtLeast)
    }
}

impl fmt::Display for AtLeast {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("the longest at least, since its end was not seen")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_long_a_poll_slept_in_its_place_is_told_unless_it_did_nothing_else() {
        let told = |slept_ns, lasted_ns| SleptThere::of(slept_ns, lasted_ns).map(|told| told.to_string());
        assert_eq!(told(36_100_000, 45_800_000).as_deref(), Some("asleep there for 36.1 of the 45.8 ms"));
        assert_eq!(told(45_750_000, 45_800_000), None);
    }
}
