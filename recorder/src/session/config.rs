//! What a user can set about a recording.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    time::Duration,
};

use polletto_common::id::{Tgid, Tid};

use super::governor::Budget;
use crate::{
    kernel::{self, Polls, SamplingClock, Stacks, UserFrames},
    symbols,
    target::{self, Held, Process},
    timeline::View,
    trace::{Attribute, AttributeValue, Compression},
};

/// What a recording is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// Every thread of the machine.
    System,
    /// Processes that run.
    Processes(Vec<Tgid>),
    /// Threads that run.
    Threads(Vec<Tid>),
    /// A command that is launched for it.
    Command(Vec<OsString>),
}

/// A recording as the user asked for it.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// What is recorded.
    pub subject: Subject,
    /// Children of recorded processes are recorded too. Default: no.
    pub follow_children: bool,
    /// The CPUs whose records are wanted. Default: all that are online.
    pub cpus: Vec<u32>,
    /// When the recording ends by itself. Default: with the target's end.
    pub duration: Option<Duration>,
    /// The trace. Default: named after what is recorded, in the current directory.
    pub file: Option<PathBuf>,
    /// An existing file may be replaced. Default: no.
    pub overwrite: bool,
    /// How the trace is compressed. Default: zstd.
    pub compression: Compression,
    /// Bytes of each CPU's ring. Default: [`default_ring_bytes`].
    pub ring_bytes: u32,
    /// Which stacks are recorded.
    pub stacks: Stacks,
    /// Which polls are told exactly. Default: as many as the budget allows.
    pub polls: Polls,
    /// What that may take of each process's time, in percent of a CPU. Default: 2.
    pub budget_percent: f64,
    /// Threads whose names begin like this are workers, where their runtimes don't tell. Default: none.
    pub workers: Vec<String>,
    /// How often the tasks of programs are walked that poll any. Default: twice a second. None: never.
    pub task_walk: Option<Duration>,
    /// When it is read what tasks await. Default: when the recording is over.
    pub await_stacks: AwaitStacks,
    /// What lasts as long is told as a finding. Default: 5 ms. None: nothing is.
    pub threshold: Option<Duration>,
    /// By what findings are said to be about something. Default: what is built in.
    pub categories: symbols::Categories,
    /// How functions are named when the recording is over; not at all if `None`.
    pub symbols: Option<symbols::Options>,
}

/// When it is read what tasks await, of programs with debug information.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AwaitStacks {
    /// Not at all.
    Never,
    /// When the recording is over.
    #[default]
    AtTheEnd,
    /// As often, and when the recording is over.
    Every(Duration),
}

/// What all rings together may take of the kernel's memory by default.
const ALL_RINGS_BYTES: u64 = 256 << 20;

/// A ring holds 8 MiB, which is what a CPU writes in about 400 ms of switching at full speed; less on machines with
/// many CPUs, so that all of them together stay within 256 MiB, but never less than 256 KiB.
pub fn default_ring_bytes(cpus: usize) -> u32 {
    let share = ALL_RINGS_BYTES / cpus.max(1) as u64;
    (1 << share.ilog2()).clamp(256 << 10, 8 << 20)
}

impl Subject {
    /// The processes whose end is the recording's end.
    pub fn processes(&self, launched: Option<&Held>) -> Result<Vec<Tgid>, target::Error> {
        match self {
            Subject::System => Ok(Vec::new()),
            Subject::Processes(processes) => Ok(processes.clone()),
            Subject::Threads(threads) => {
                let mut processes =
                    threads.iter().map(|&thread| target::thread_process(thread)).collect::<Result<Vec<_>, _>>()?;
                processes.sort_unstable();
                processes.dedup();
                Ok(processes)
            }
            Subject::Command(_) => Ok(launched.map(Held::tgid).into_iter().collect()),
        }
    }

    /// What the trace shows.
    pub fn view(&self) -> View {
        if *self == Subject::System { View::System } else { View::Recorded }
    }
}

impl Config {
    /// The file to write.
    pub fn file_for(&self, processes: &[Tgid]) -> PathBuf {
        self.file.clone().unwrap_or_else(|| default_file(&self.subject, processes))
    }

    /// Whether the recording ends with the last recorded thread, not with the processes that the user named: their
    /// children may live longer, and the threads of one may end before it.
    pub fn ends_with_threads(&self) -> bool {
        // Threads that end on a CPU that is not recorded would be waited for in vain.
        if !kernel::online_cpus().is_ok_and(|online| online.len() == self.cpus.len()) {
            return false;
        }
        match self.subject {
            Subject::System => false,
            Subject::Threads(_) => true,
            Subject::Processes(_) | Subject::Command(_) => self.follow_children,
        }
    }

    /// Whether it must be known what the processes have mapped.
    pub fn needs_mappings(&self) -> bool {
        self.stacks.need_mappings() || self.polls != Polls::Off
    }

    /// What probes may take.
    pub(super) fn budget(&self) -> Budget {
        if self.polls == Polls::All { Budget::Unlimited } else { Budget::Percent(self.budget_percent) }
    }

    /// The configuration as the trace keeps it.
    pub fn attributes(&self) -> Vec<Attribute> {
        let text = |key: &'static str, value: String| Attribute { key: key.into(), value: AttributeValue::Text(value) };
        let number =
            |key: &'static str, value: u64| Attribute { key: key.into(), value: AttributeValue::Number(value as i64) };
        let (subject, list) = match &self.subject {
            Subject::System => ("system", String::new()),
            Subject::Processes(processes) => ("processes", join(processes)),
            Subject::Threads(threads) => ("threads", join(threads)),
            Subject::Command(command) => ("command", join(command.iter().map(|word| word.to_string_lossy()))),
        };
        let mut attributes = vec![
            text("polletto.version", env!("CARGO_PKG_VERSION").to_owned()),
            text("polletto.subject", subject.to_owned()),
            text("polletto.subject.list", list),
            number("polletto.follow_children", u64::from(self.follow_children)),
            text("polletto.cpus", join(&self.cpus)),
            number("polletto.ring_bytes", u64::from(self.ring_bytes)),
        ];
        let Stacks { timer_hz, clock, min_block, user, kernel } = self.stacks;
        if let Some(hz) = timer_hz {
            attributes.push(number("polletto.frequency_hz", u64::from(hz)));
            let clock = if clock == SamplingClock::Cycles { "cycles" } else { "cpu-clock" };
            attributes.push(text("polletto.clock", clock.to_owned()));
        }
        attributes.extend(min_block.map(|min| number("polletto.min_block_ns", min.as_nanos() as u64)));
        let frames = match (user, kernel) {
            _ if !self.stacks.are_recorded() => "none",
            (UserFrames::None, _) => "kernel",
            (_, false) => "user",
            (_, true) => "user and kernel",
        };
        attributes.push(text("polletto.stacks", frames.to_owned()));
        let polls = match self.polls {
            Polls::Off => "off".to_owned(),
            Polls::Budget => format!("budget of {} %", self.budget_percent),
            Polls::All => "all".to_owned(),
        };
        attributes.push(text("polletto.polls", polls));
        if !self.workers.is_empty() {
            attributes.push(text("polletto.workers", join(&self.workers)));
        }
        attributes
            .extend(self.task_walk.map(|period| number("polletto.task_walk_period_ms", period.as_millis() as u64)));
        let await_stacks = match self.await_stacks {
            AwaitStacks::Never => "never".to_owned(),
            AwaitStacks::AtTheEnd => "at the end".to_owned(),
            AwaitStacks::Every(period) => format!("every {} ms", period.as_millis()),
        };
        attributes.push(text("polletto.await_stacks", await_stacks));
        attributes.extend(self.threshold.map(|threshold| number("polletto.threshold_ns", threshold.as_nanos() as u64)));
        if let Some(duration) = self.duration {
            attributes.push(number("polletto.duration_ms", duration.as_millis() as u64));
        }
        attributes
    }
}

fn join(items: impl IntoIterator<Item: ToString>) -> String {
    items.into_iter().map(|item| item.to_string()).collect::<Vec<_>>().join(" ")
}

fn default_file(subject: &Subject, processes: &[Tgid]) -> PathBuf {
    let read = |process: &Tgid| Process::read(*process).ok();
    let name_of = |process: &Tgid| read(process).map(|process| process.whole_name().into_owned()).unwrap_or_default();
    let name = match subject {
        Subject::System => return "system.perfetto-trace".into(),
        Subject::Command(command) => {
            let program = command.first().map(Path::new).and_then(Path::file_name).unwrap_or_default();
            program.to_string_lossy().into_owned()
        }
        Subject::Processes(_) | Subject::Threads(_) => processes.first().map(name_of).unwrap_or_default(),
    };
    let id = match subject {
        Subject::Threads(threads) => threads.first().map(|thread| thread.0),
        _ => processes.first().map(|process| process.0),
    };
    format!("{}-{}.perfetto-trace", harmless(&name), id.unwrap_or_default()).into()
}

/// A file name made of a process's name, which may hold anything.
fn harmless(name: &str) -> String {
    let keep = |letter: char| if letter.is_alphanumeric() || "-_.+".contains(letter) { letter } else { '_' };
    let name: String = name.chars().map(keep).collect();
    name.trim_start_matches(['.', '-']).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rings_are_powers_of_two_within_a_total() {
        for (cpus, bytes) in [(1, 8 << 20), (2, 8 << 20), (64, 4 << 20), (96, 2 << 20), (1024, 256 << 10)] {
            assert_eq!(default_ring_bytes(cpus), bytes, "{cpus} CPUs");
        }
    }

    #[test]
    fn a_process_s_name_never_leads_out_of_the_directory() {
        for (name, file) in [("../../etc/x", "_.._etc_x"), ("a b\n", "a_b_"), ("-rf", "rf"), ("naïve", "naïve")] {
            assert_eq!(harmless(name), file);
        }
    }

    #[test]
    fn a_trace_has_the_whole_name_of_its_program() {
        let own = std::env::current_exe().unwrap().file_name().unwrap().to_string_lossy().into_owned();
        let process = Tgid(std::process::id());
        assert!(own.len() > 15, "{own} is one that the kernel cuts off");
        let expected = format!("{own}-{process}.perfetto-trace");
        assert_eq!(default_file(&Subject::Processes(vec![process]), &[process]), Path::new(&expected));
    }

    #[test]
    fn a_launched_command_names_its_trace() {
        let subject = Subject::Command(vec!["/usr/bin/sleep".into(), "1".into()]);
        assert_eq!(default_file(&subject, &[Tgid(42)]), Path::new("sleep-42.perfetto-trace"));
    }
}
