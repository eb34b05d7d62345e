//! The command line of `polletto record`.

use std::{ffi::OsString, path::PathBuf, time::Duration};

use clap::{
    ArgGroup, Args, ValueEnum,
    builder::{NonEmptyStringValueParser, PathBufValueParser, TypedValueParser},
};

use super::{NameArguments, categories, milliseconds};
use crate::{
    kernel::{Polls, SamplingClock, Stacks, UserFrames},
    session::AwaitStacks,
    symbols::Categories,
    trace::Compression,
};

/// Record a process, a command or the whole machine
///
/// Records scheduling: when each thread ran and on which CPU, when it slept, when it waited for a CPU, and who woke it.
/// And callstacks: what threads do, by a timer, and what they wait for, by the stack with which each went to sleep. Programs
/// need neither frame pointers nor debug information for that.
///
/// A recording ends with the process or command that is recorded, with Ctrl-C, or after the time given by -d. The file can
/// be opened even if the recorder is killed.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  polletto record my-server             a running process, by name, until Ctrl-C
  polletto record -p 4711 -d 10         a running process, by id, for ten seconds
  polletto record -- ./my-server --x    a command, from its first instruction to its end
  polletto record --system -d 5         every thread of the machine
  polletto record -F 999 my-server      with 999 samples a second instead of 99
  polletto record --mode offcpu --min-block 0 my-server    every sleep with its stack, and no timer

Exit status: 0 when the recording went well, or that of the launched COMMAND; 2 when the command line can't be followed, \
for instance because NAME is ambiguous; 1 when the recording failed.")]
#[command(group = ArgGroup::new("subject").required(true))]
pub struct RecordArguments {
    // Its help is that of `tasks`.
    #[arg(group = "subject", help = super::name_help("record"))]
    pub name: Option<String>,

    /// Process to record, by id; may be repeated
    #[arg(short, long = "pid", value_name = "PID", group = "subject")]
    pub pids: Vec<u32>,

    /// Thread to record, by id; may be repeated
    #[arg(short, long = "tid", value_name = "TID", group = "subject")]
    pub tids: Vec<u32>,

    /// Record every thread of the machine, by name
    ///
    /// Otherwise threads of other programs are only shown as `other`, and their names stay private.
    #[arg(long, group = "subject")]
    pub system: bool,

    /// Command to launch and record from its first instruction to its end; its exit status is passed on
    #[arg(last = true, value_name = "COMMAND", group = "subject")]
    pub launch: Vec<OsString>,

    /// Record the children of recorded processes too, and end when the last of them has
    ///
    /// Those that run already, and from their first instruction on those that start later.
    #[arg(long, conflicts_with = "system")]
    pub follow: bool,

    /// Of what is recorded, show only what happens on this CPU; may be repeated [default: all CPUs]
    #[arg(long = "cpu", value_name = "N")]
    pub cpus: Vec<u32>,

    /// End the recording after this many seconds; fractions are allowed
    ///
    /// They begin when all is set up, for which a busy machine may take a second: what happens meanwhile is recorded as well.
    /// A launched command goes on, and its end is waited for.
    #[arg(short, long, value_name = "SECONDS", value_parser = seconds)]
    pub duration: Option<Duration>,

    /// File to write [default: NAME-PID.perfetto-trace]
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,

    /// Overwrite FILE if it exists
    #[arg(long)]
    pub force: bool,

    /// Which stacks are recorded
    #[arg(long, value_enum, default_value_t)]
    pub mode: Mode,

    /// How often each CPU is asked what it runs, times a second, 1 to 9999
    #[arg(short = 'F', long, value_name = "HZ", default_value_t = 99, value_parser = clap::value_parser!(u32).range(1..=9999))]
    pub frequency: u32,

    /// What counts for --frequency
    #[arg(long, value_enum, default_value_t)]
    pub clock: SamplingClock,

    /// The shortest stretch off the CPU whose stack is told, in milliseconds; 0 tells all, which costs more
    #[arg(long, value_name = "MS", default_value = "1", value_parser = milliseconds)]
    pub min_block: Duration,

    /// Record the kernel's part of stacks too, by name; costs about 2 µs for each stack
    #[arg(long, overrides_with_all = ["user_only", "kernel_only"])]
    pub kernel_stacks: bool,

    /// Record the program's part of stacks alone, which is the default
    #[arg(long, overrides_with_all = ["kernel_stacks", "kernel_only"])]
    pub user_only: bool,

    /// Record the kernel's part of stacks alone
    #[arg(long, overrides_with_all = ["kernel_stacks", "user_only"])]
    pub kernel_only: bool,

    /// How callers are found
    #[arg(long, value_enum, default_value_t)]
    pub unwind: Unwind,

    /// Take threads whose names begin with PREFIX for workers, where their runtime does not tell; may be repeated
    ///
    /// Of Tokio programs whose version or build is not known, and of those on smol or async-std, threads can't be told apart as
    /// workers, and their polls are shown by thread. With this they are shown as workers of their process, by the number that a
    /// thread's name ends with, else in the order of their ids. A process's first thread, which is named as the program, is one
    /// only if none of the others has such a name. The kernel keeps 15 bytes of a name; what a runtime tells itself comes first.
    #[arg(long, value_name = "PREFIX", value_parser = NonEmptyStringValueParser::new())]
    pub workers: Vec<String>,

    /// How often runtimes are asked for their tasks and queues, times a second, 0 to 100; 0 never does
    ///
    /// Of Tokio programs: live tasks, how deep the queues are, idle workers, threads for blocking code. They are read from the
    /// program's memory, which goes on meanwhile and does not notice. 1000 tasks take about 2 ms of CPU time; programs with very
    /// many are asked for their numbers as often, and for the tasks themselves so rarely that it takes 1 % of a CPU.
    #[arg(long, value_name = "HZ", default_value_t = 2, value_parser = clap::value_parser!(u32).range(0..=100))]
    pub task_walk: u32,

    /// When it is read what tasks wait for, if the program has debug information: so often a second, 1 to 100; `end` or `never`
    ///
    /// What each task awaits that is not being polled, from its own future down to the timer, lock, channel or socket, with
    /// the lines. It is read from the program's memory, which goes on meanwhile and does not notice; at the end, when nothing
    /// is recorded any more. What would take more than a tenth of a CPU is left out, but for the end. Debug information is
    /// read once, which takes a second and some hundred MB where it is large. Not with --task-walk 0.
    #[arg(long, value_name = "HZ", default_value = "end", value_parser = await_stacks)]
    pub await_stacks: AwaitStacks,

    /// What is told as a finding: polls that last as long, and tasks that wait as long for one; milliseconds, 0 for nothing
    ///
    /// Of Tokio programs: polls that ran, slept or had to make room for others, and tasks that were woken and not polled. They
    /// are marked on the workers' tracks, and the summary tells the longest. All else is recorded just the same.
    #[arg(long, value_name = "MS", default_value = "5", value_parser = milliseconds)]
    pub threshold: Duration,

    /// Say what findings are about by the patterns in FILE too
    ///
    /// A line has a category and patterns of functions, crates and files; `tools/categories.txt` has those that are built in.
    #[arg(long, value_name = "FILE", value_parser = PathBufValueParser::new().try_map(categories))]
    pub categories: Option<Categories>,

    /// Record scheduling alone, at the least cost
    #[arg(long, conflicts_with_all = ["mode", "frequency", "min_block", "kernel_stacks", "kernel_only", "unwind", "clock", "categories"])]
    pub no_stacks: bool,

    /// Which polls of Tokio's tasks are told exactly, by probes in the program's code
    ///
    /// The probes are gone when the recording is over, however it ends. They need Linux 6.10, or most from 6.6 on; where
    /// there are none, samples and switches tell of polls, and how long they lasted at least. [default: budget; off with
    /// --no-stacks]
    #[arg(long, value_enum)]
    pub polls: Option<Polls>,

    /// What telling polls exactly may take of each process's time, in percent of one CPU
    ///
    /// A poll takes some microseconds more when it is told. A process that polls too often for its budget is observed in
    /// windows; the trace shows where it was not.
    #[arg(long, value_name = "PERCENT", default_value_t = 2.0, value_parser = percent)]
    pub budget: f64,

    /// Leave functions without names: the recording ends sooner, and `polletto symbolize` names most of them later
    ///
    /// What only the running program can tell stays without: code that it compiled itself, files that are gone or have no
    /// build id, and those in containers.
    #[arg(long, conflicts_with_all = ["symbol_memory", "debug_directories", "categories", "debuginfod", "no_stacks"])]
    pub no_symbols: bool,

    #[command(flatten)]
    pub names: NameArguments,

    /// How the trace is compressed
    #[arg(long, value_enum, default_value_t)]
    pub compression: Compression,

    /// Kernel memory for each CPU's records, a power of two in KiB [default: 8192, less on more than 32 CPUs]
    ///
    /// Raise it when the summary tells of lost records.
    #[arg(long, value_name = "KIB", value_parser = ring_kib)]
    pub ring_kib: Option<u32>,

    /// Print the summary as JSON on standard output, after what a launched command prints there
    #[arg(long)]
    pub json: bool,

    /// Print nothing but errors
    #[arg(short, long, conflicts_with = "verbose")]
    pub quiet: bool,

    /// Print the configuration and what is checked before recording
    #[arg(short, long)]
    pub verbose: bool,
}

/// Which stacks are recorded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// What threads do and what they wait for
    #[default]
    Wall,
    /// What threads do: samples by a timer
    Cpu,
    /// What threads wait for: the stack with which a thread left its CPU to sleep
    Offcpu,
}

/// How callers are found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Unwind {
    /// By unwind information, and by frame pointers where there is none
    #[default]
    Tables,
    /// By frame pointers alone: for programs that are compiled with them
    FramePointers,
}

fn await_stacks(text: &str) -> Result<AwaitStacks, &'static str> {
    match (text, text.parse()) {
        ("end", _) => Ok(AwaitStacks::AtTheEnd),
        ("never", _) => Ok(AwaitStacks::Never),
        (_, Ok(hz @ 1..=100)) => Ok(AwaitStacks::Every(Duration::from_secs(1) / hz)),
        _ => Err("must be `end`, `never` or 1 to 100 times a second"),
    }
}

impl RecordArguments {
    /// How often tasks are to be walked, if they are.
    pub fn task_walk(&self) -> Option<Duration> {
        Duration::from_secs(1).checked_div(self.task_walk)
    }

    /// What is to be told as a finding.
    pub fn threshold(&self) -> Option<Duration> {
        Some(self.threshold).filter(|threshold| !self.no_stacks && !threshold.is_zero())
    }

    /// Which polls they ask for.
    pub fn polls(&self) -> Polls {
        self.polls.unwrap_or(if self.no_stacks { Polls::Off } else { Polls::default() })
    }

    /// Which stacks they ask for.
    pub fn stacks(&self) -> Stacks {
        let is_wanted = |mode| !self.no_stacks && (self.mode == mode || self.mode == Mode::Wall);
        let user = match self.unwind {
            _ if self.kernel_only => UserFrames::None,
            Unwind::Tables => UserFrames::ByTables,
            Unwind::FramePointers => UserFrames::ByFramePointers,
        };
        Stacks {
            timer_hz: is_wanted(Mode::Cpu).then_some(self.frequency),
            clock: self.clock,
            min_block: is_wanted(Mode::Offcpu).then_some(self.min_block),
            user,
            kernel: self.kernel_stacks || self.kernel_only,
        }
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number of seconds".to_owned())?;
    match Duration::try_from_secs_f64(seconds) {
        Ok(duration) if !duration.is_zero() => Ok(duration),
        _ => Err("must be more than 0 seconds, and fewer than there will ever be".to_owned()),
    }
}

/// More than nothing, and no more than all.
pub(super) fn percent(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(percent) if percent > 0.0 && percent <= 100.0 => Ok(percent),
        _ => Err("must be more than 0 percent, and at most 100".to_owned()),
    }
}

fn ring_kib(text: &str) -> Result<u32, String> {
    match text.parse::<u32>() {
        Ok(kib) if kib.is_power_of_two() && (4..=1 << 20).contains(&kib) => Ok(kib),
        _ => Err("must be a power of two from 4 to 1048576".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::{
        super::{Arguments, Command},
        *,
    };

    fn parse(words: &str) -> Result<RecordArguments, clap::Error> {
        match Arguments::try_parse_from(words.split(' '))?.command {
            Command::Record(arguments) => Ok(*arguments),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_recording_is_about_one_subject() {
        for words in
            ["polletto record", "polletto record x -p 1", "polletto record --system -- ls", "polletto record x y"]
        {
            assert!(parse(words).is_err(), "{words}");
        }
        assert_eq!(parse("polletto record -p 1 -p 2").unwrap().pids, [1, 2]);
        assert_eq!(parse("polletto record -- ls -l -p 3").unwrap().launch, ["ls", "-l", "-p", "3"]);
    }

    #[test]
    fn stacks_are_what_was_asked_for_last() {
        let stacks = |words: &str| parse(&format!("polletto record x {words}")).unwrap().stacks();
        let default = Stacks {
            timer_hz: Some(99),
            clock: SamplingClock::Software,
            min_block: Some(Duration::from_millis(1)),
            user: UserFrames::ByTables,
            kernel: false,
        };
        assert_eq!(parse("polletto record x").unwrap().stacks(), default);
        assert_eq!(stacks("--mode cpu -F 999"), Stacks { timer_hz: Some(999), min_block: None, ..default });
        let all = Some(Duration::ZERO);
        assert_eq!(stacks("--mode offcpu --min-block 0"), Stacks { timer_hz: None, min_block: all, ..default });
        assert_eq!(stacks("--kernel-stacks"), Stacks { kernel: true, ..default });
        assert_eq!(stacks("--kernel-only"), Stacks { kernel: true, user: UserFrames::None, ..default });
        assert_eq!(stacks("--kernel-only --user-only"), default);
        assert_eq!(stacks("--no-stacks"), Stacks { timer_hz: None, min_block: None, ..default });
        for words in ["-F 0", "-F 10000", "--min-block -1", "--min-block nan", "--no-stacks -F 9"] {
            assert!(parse(&format!("polletto record x {words}")).is_err(), "{words}");
        }
    }

    #[test]
    fn workers_may_have_several_names_but_none_that_all_threads_have() {
        assert_eq!(parse("polletto record x --workers web --workers db").unwrap().workers, ["web", "db"]);
        assert!(parse("polletto record x --workers ").is_err());
    }

    #[test]
    fn polls_are_told_exactly_within_a_budget_unless_it_is_said_otherwise() {
        let polls = |words: &str| parse(&format!("polletto record x{words}")).unwrap().polls();
        assert_eq!(polls(""), Polls::Budget);
        assert_eq!(polls(" --no-stacks"), Polls::Off);
        assert_eq!(polls(" --no-stacks --polls all"), Polls::All);
        assert_eq!(polls(" --polls off"), Polls::Off);
        assert_eq!(parse("polletto record x --budget 0.5").unwrap().budget, 0.5);
        for budget in ["0", "-1", "101", "nan", "x"] {
            assert!(parse(&format!("polletto record x --budget {budget}")).is_err(), "{budget}");
        }
    }

    #[test]
    fn a_duration_is_a_positive_number_of_seconds() {
        assert_eq!(parse("polletto record x -d 0.5").unwrap().duration, Some(Duration::from_millis(500)));
        for words in [
            "polletto record x -d 0",
            "polletto record x -d=-1",
            "polletto record x -d nan",
            "polletto record x -d 1e30",
        ] {
            assert!(parse(words).is_err(), "{words}");
        }
    }
}
