//! The command line: each flag, its help, its default and what it excludes, in one place.

use std::{ffi::OsString, path::PathBuf, time::Duration};

use clap::{ArgGroup, Args, Parser, Subcommand};

use crate::trace::Compression;

/// Records what a running program does as a Perfetto trace, from outside, with nothing changed in the program.
///
/// Open the trace in https://ui.perfetto.dev, or ask it SQL with trace_processor.
#[derive(Debug, Parser)]
#[command(name = "polletto", version, max_term_width = 100)]
pub struct Arguments {
    /// What to do
    #[command(subcommand)]
    pub command: Command,
}

/// What polletto can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    Record(RecordArguments),
    Doctor(DoctorArguments),
}

/// Check whether this machine can be recorded, and say what to do where it can't
///
/// The same checks run at the start of every recording, which ends with the first that is fatal.
#[derive(Debug, Args)]
#[command(after_long_help = "Exit status: 0 when recording works here, 1 when a check is fatal.")]
pub struct DoctorArguments {
    /// Print the checks as JSON
    #[arg(long)]
    pub json: bool,
}

/// Record a process, a command or the whole machine
///
/// Records scheduling: when each thread ran and on which CPU, when it slept, when it waited for a CPU, and who woke it.
/// A recording ends with the process or command that is recorded, with Ctrl-C, or after the time given by -d. The file can be opened even if
/// the recorder is killed.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  polletto record my-server             a running process, by name, until Ctrl-C
  polletto record -p 4711 -d 10         a running process, by id, for ten seconds
  polletto record -- ./my-server --x    a command, from its first instruction to its end
  polletto record --system -d 5         every thread of the machine

Exit status: 0 when the recording went well, or that of the launched COMMAND; 2 when the command line can't be followed, \
for instance because NAME is ambiguous; 1 when the recording failed.")]
#[command(group = ArgGroup::new("subject").required(true))]
pub struct RecordArguments {
    /// Process to record: its name, or its executable's name or path
    #[arg(group = "subject")]
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
    /// A launched command goes on, and its end is waited for.
    #[arg(short, long, value_name = "SECONDS", value_parser = seconds)]
    pub duration: Option<Duration>,

    /// File to write [default: NAME-PID.perfetto-trace]
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,

    /// Overwrite FILE if it exists
    #[arg(long)]
    pub force: bool,

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

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number of seconds".to_owned())?;
    match Duration::try_from_secs_f64(seconds) {
        Ok(duration) if !duration.is_zero() => Ok(duration),
        _ => Err("must be more than 0 seconds, and fewer than there will ever be".to_owned()),
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
    use clap::CommandFactory;

    use super::*;

    fn parse(words: &str) -> Result<RecordArguments, clap::Error> {
        match Arguments::try_parse_from(words.split(' '))?.command {
            Command::Record(arguments) => Ok(arguments),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
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
