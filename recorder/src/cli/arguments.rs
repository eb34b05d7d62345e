//! The command line: each flag, its help, its default and what it excludes, in one place.

mod record;
mod sql;
mod tasks;

use std::{fmt, fs::File, io::Read, path::PathBuf, time::Duration};

use clap::{
    Args, Parser, Subcommand,
    builder::{PathBufValueParser, TypedValueParser},
};

pub use self::{record::RecordArguments, sql::SqlArguments, tasks::TasksArguments};
use crate::{
    symbols::{self, Categories},
    target::NAME_RULE,
    timeline::Fault,
    trace::Compression,
};

/// Records what a running program does as a Perfetto trace, from outside, with nothing changed in the program.
///
/// Open the trace in https://ui.perfetto.dev, or ask it SQL with trace_processor and the package that `polletto sql`
/// writes.
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
    Record(Box<RecordArguments>),
    Symbolize(SymbolizeArguments),
    Report(ReportArguments),
    Open(OpenArguments),
    Sql(SqlArguments),
    Tasks(TasksArguments),
    Doctor(DoctorArguments),
    /// Read symbols for the process that started this one
    #[command(name = symbols::WORKER, hide = true)]
    SymbolWorker,
}

/// Tell what blocks the runtime in a trace that is there
///
/// Polls that ran, slept or had to make room for others for longer than the threshold, and tasks that were woken and not
/// polled for as long: those that are alike together, by their kind, their future and the first line of the program's own code.
/// The trace has everything, whatever the threshold was when it was recorded.
///
/// Traces are read by Perfetto's trace_processor, which has to be there.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  polletto report x.perfetto-trace                         what took 5 ms or more
  polletto report x.perfetto-trace --threshold 1           ask the same trace again
  polletto report x.perfetto-trace --json                  each finding, for scripts
  polletto report x.perfetto-trace --fail-on long-poll=50  end with 3 if a poll ran for 50 ms, for CI
  polletto report --compare old.perfetto-trace new.perfetto-trace  what got better and worse

Exit status: 0 when the trace could be read; 3 when it has what --fail-on says; 2 when the command line can't be followed; \
1 when it failed, or --fail-on can't tell.")]
pub struct ReportArguments {
    /// Trace to read, with all that it has; with --compare, the one AFTER
    #[arg(value_name = "TRACE")]
    pub trace: PathBuf,

    /// What is told: what lasts as long or longer, milliseconds
    #[arg(long, value_name = "MS", default_value = "5", value_parser = milliseconds)]
    pub threshold: Duration,

    /// Tell what got better and worse since BEFORE, another trace; `--compare BEFORE AFTER`
    ///
    /// By place: kind, future, function and file, which builds have in common. Traces may differ in length: what counts is the
    /// time that a place takes of each second in which polls were observed. It is a change if that is 1.5 times as much, or as
    /// little, and the difference three times what chance makes of as many findings. In all else there is no clear
    /// change: `same` in --json.
    #[arg(long, value_name = "BEFORE")]
    pub compare: Option<PathBuf>,

    #[command(flatten)]
    pub demands: Demands,

    /// Say what code is about by the patterns in FILE too
    ///
    /// A line has a category and patterns of functions, crates and files, such as `templates crate:askama
    /// function:app::render*`. `tools/categories.txt` has those that are built in, and says more. Categories that are new come
    /// before those: of several that a callstack has, the first is told.
    #[arg(long, value_name = "FILE", value_parser = PathBufValueParser::new().try_map(categories))]
    pub categories: Option<Categories>,

    /// Print everything as JSON on standard output
    #[arg(long)]
    pub json: bool,

    /// Perfetto's trace_processor [default: trace_processor_shell or trace_processor on the PATH]
    #[arg(long, value_name = "FILE")]
    pub trace_processor: Option<PathBuf>,
}

/// Open a trace in ui.perfetto.dev, with the findings and the workers on top
///
/// The file stays on this machine: the browser fetches it from 127.0.0.1:9001, which answers that page alone, and only until
/// it has the trace. The UI itself comes from the network.
#[derive(Debug, Args)]
pub struct OpenArguments {
    /// Trace to open
    #[arg(value_name = "TRACE")]
    pub trace: PathBuf,

    /// Print the link, and start no browser; so it is as root, over ssh, and without a screen
    #[arg(long)]
    pub no_browser: bool,
}

/// What a trace must not have, and how well that must have been looked for.
#[derive(Debug, Default, Args)]
pub struct Demands {
    /// End with exit status 3 if there is any of that KIND that lasts as long; may be repeated
    ///
    /// KIND is long-poll, slept-in-poll, preempted-in-poll, starved-task or lock-convoy; MS are milliseconds, with or
    /// without `ms`. With --compare it is about AFTER alone; `--fail-on worse` is about what got worse.
    #[arg(long, value_name = "KIND=MS", value_parser = fail_on)]
    pub fail_on: Vec<FailOn>,

    /// End with exit status 1 if --fail-on finds nothing, but polls were observed for less of the recording
    ///
    /// In percent; with `--fail-on worse`, of both traces. A larger --budget, or --polls all, observes more.
    #[arg(long, value_name = "PERCENT", requires = "fail_on", value_parser = record::percent)]
    pub min_observed: Option<f64>,
}

/// What must not be in a trace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FailOn {
    /// A finding that lasts as long, or longer.
    Longer {
        /// One of [`Fault::KINDS`].
        kind: Fault,
        limit: Duration,
    },
    /// Something that got worse from one trace to the other.
    Worse,
}

impl FailOn {
    /// How long is too long, if that is what it is about.
    pub fn limit(&self) -> Option<Duration> {
        match self {
            FailOn::Longer { limit, .. } => Some(*limit),
            FailOn::Worse => None,
        }
    }
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

/// Name the functions in a trace that has only their addresses
///
/// For traces that were recorded without names, by polletto or by any recorder that writes Perfetto traces, and for those
/// whose debug information turned up later. Names, files and lines come from the files whose code ran, where they still
/// are, and from debug information in --debug-dir. A file is only believed if it is the very build that ran.
///
/// What is found is appended to the trace, which stays a trace at every moment. Where it has functions and lines already,
/// nothing is looked for.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  polletto symbolize x.perfetto-trace                      append names to the trace
  polletto symbolize x.perfetto-trace -o named             leave it, and write a copy with names
  polletto symbolize x.perfetto-trace --debug-dir ./debug  with debug files of your own
  polletto symbolize --json x.perfetto-trace               what was found for each file, for scripts

Ctrl-C keeps what was found until then; the next time, the rest is looked for.

Exit status: 0 when everything was looked for, whatever was found; 2 when the command line can't be followed; 1 when it \
failed or was interrupted.")]
pub struct SymbolizeArguments {
    /// Trace to name; with -o it is only read
    #[arg(value_name = "TRACE")]
    pub trace: PathBuf,

    /// Where names come from.
    #[command(flatten)]
    pub names: NameArguments,

    /// File to write, decompressed if TRACE is compressed as a whole [default: append to TRACE]
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,

    /// Overwrite FILE if it exists
    #[arg(long, requires = "output")]
    pub force: bool,

    /// How names are compressed; zstd and deflate can't stand in one trace [default: as the trace is, else zstd]
    #[arg(long, value_enum)]
    pub compression: Option<Compression>,

    /// Print the summary as JSON on standard output
    #[arg(long)]
    pub json: bool,

    /// Print nothing but errors
    #[arg(short, long)]
    pub quiet: bool,
}

/// Where names of functions come from, besides the programs themselves and the system's debug packages.
#[derive(Debug, Args)]
pub struct NameArguments {
    /// Look for debug information that was taken out of programs in this directory too; may be repeated
    ///
    /// As DIR/.build-id/ab/cdef….debug, or under the program's own name as DIR/my-server or DIR/my-server.debug. A file with
    /// another build id than the program's is refused.
    #[arg(long = "debug-dir", value_name = "DIR", value_parser = PathBufValueParser::new().try_map(directory))]
    pub debug_directories: Vec<PathBuf>,

    /// Fetch debug information that is nowhere on this machine from the servers in DEBUGINFOD_URLS
    ///
    /// Needs elfutils' debuginfod-find.
    #[arg(long)]
    pub debuginfod: bool,

    /// Memory that debug information may take, at least 16
    #[arg(long, value_name = "MIB", default_value_t = 512, value_parser = clap::value_parser!(u32).range(16..))]
    pub symbol_memory: u32,
}

impl NameArguments {
    /// What they ask for.
    pub fn options(&self) -> anyhow::Result<symbols::Options> {
        anyhow::ensure!(
            !self.debuginfod || std::env::var_os("DEBUGINFOD_URLS").is_some(),
            "--debuginfod asks the servers in DEBUGINFOD_URLS, which is not set (sudo hides it: `sudo -E` does not)"
        );
        Ok(symbols::Options {
            debug_directories: self.debug_directories.clone(),
            debuginfod: self.debuginfod,
            memory_bytes: u64::from(self.symbol_memory) << 20,
        })
    }
}

/// The help of a NAME of a process, of which this is done.
fn name_help(done: &str) -> String {
    format!("Process to {done}: {NAME_RULE}")
}

fn directory(path: PathBuf) -> Result<PathBuf, &'static str> {
    if path.is_dir() { Ok(path) } else { Err("there is no such directory") }
}

/// Bytes of a file of categories: a hundred times what is built in.
const CATEGORIES_BYTES: u64 = 1 << 20;

fn categories(path: PathBuf) -> Result<Categories, String> {
    let told = |error: &dyn fmt::Display| format!("{}: {error}", path.display());
    let mut text = String::new();
    let file = File::open(&path).map_err(|error| told(&error))?;
    file.take(CATEGORIES_BYTES + 1).read_to_string(&mut text).map_err(|error| told(&error))?;
    if text.len() as u64 > CATEGORIES_BYTES {
        return Err(told(&"is larger than 1 MiB"));
    }
    Categories::with(&text).map_err(|error| told(&error))
}

fn milliseconds(text: &str) -> Result<Duration, String> {
    let milliseconds: f64 = text.parse().map_err(|_| "not a number of milliseconds".to_owned())?;
    Duration::try_from_secs_f64(milliseconds / 1e3).map_err(|_| "must be 0 or more milliseconds".to_owned())
}

fn fail_on(text: &str) -> Result<FailOn, String> {
    if text == "worse" {
        return Ok(FailOn::Worse);
    }
    let (name, limit) = text.split_once('=').ok_or("must be KIND=MS, as long-poll=50, or worse")?;
    let names = Fault::KINDS.map(|kind| kind.name().replace(' ', "-"));
    let Some(at) = names.iter().position(|known| known == name) else {
        return Err(format!("`{name}` is no kind: those are {}", names.join(", ")));
    };
    let limit = milliseconds(limit.strip_suffix("ms").unwrap_or(limit))?;
    Ok(FailOn::Longer { kind: Fault::KINDS[at], limit })
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn a_name_means_the_same_wherever_one_is_taken() {
        let mut command = Arguments::command();
        for name in ["record", "tasks"] {
            let help = command.find_subcommand_mut(name).expect("it is there").render_help().to_string();
            let words: Vec<&str> = help.split_whitespace().collect();
            assert!(words.join(" ").contains(NAME_RULE), "{help}");
        }
    }

    #[test]
    fn what_must_not_be_has_a_kind_and_a_length() {
        let parse = |text: &str| Arguments::try_parse_from(["polletto", "report", "x", "--fail-on", text]);
        for text in ["starved-task=7.5", "starved-task=7.5ms"] {
            let Command::Report(arguments) = parse(text).unwrap().command else { panic!("{text}") };
            let expected = FailOn::Longer { kind: Fault::Starved, limit: Duration::from_micros(7_500) };
            assert_eq!(arguments.demands.fail_on, [expected], "{text}");
        }
        for text in ["long-poll", "long-poll=", "poll=5", "long-poll=5s", "=5"] {
            assert!(parse(text).is_err(), "{text}");
        }
        let alone = Arguments::try_parse_from(["polletto", "report", "x", "--min-observed", "50"]);
        assert!(alone.is_err(), "what must have been looked for, then?");
    }

    #[test]
    fn a_trace_is_only_overwritten_where_one_is_written() {
        let parse = |words: &str| Arguments::try_parse_from(words.split(' '));
        assert!(parse("polletto symbolize").is_err());
        assert!(parse("polletto symbolize x --force").is_err());
        assert!(parse("polletto symbolize x --debug-dir /nowhere").is_err());
        let Command::Symbolize(arguments) =
            parse("polletto symbolize x -o y --force --debug-dir / --debug-dir .").unwrap().command
        else {
            panic!("another command");
        };
        assert_eq!(arguments.names.debug_directories, [PathBuf::from("/"), PathBuf::from(".")]);
    }
}
