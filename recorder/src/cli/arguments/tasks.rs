//! The command line of `polletto tasks`.

use clap::{ArgGroup, Args};

/// List the tasks of a running program, and what each of them waits for
///
/// Every task of every Tokio runtime of the process that has not ended: its id, its future, what it is doing and, where the
/// program has debug information with types (`debug = true` in its profile), the `.await` that it has come to in each async
/// function, from the one that was spawned down to the timer, lock, channel or socket that it waits for. Tasks that are alike
/// are told together.
///
/// Nothing is attached to the program and it is not stopped: its memory is read while it runs. A task that is being polled at
/// that moment is listed without what it waits for.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("process").required(true), after_long_help = "\
Examples:
  polletto tasks my-server         what its tasks wait for, those that are alike together
  polletto tasks -p 4711 --each    each task for itself
  polletto tasks -p 4711 --json    each task, for scripts

Exit status: 0 when tasks were listed, or there are none; 2 when the command line can't be followed; 1 when it failed.")]
pub struct TasksArguments {
    // Its help is that of `record`.
    #[arg(value_name = "NAME", group = "process", help = super::name_help("list"))]
    pub name: Option<String>,

    /// Process to list, by id
    #[arg(short, long, value_name = "PID", group = "process")]
    pub pid: Option<u32>,

    /// List each task for itself
    #[arg(long)]
    pub each: bool,

    /// Don't look for what tasks wait for: faster with large debug information
    #[arg(long)]
    pub no_awaits: bool,

    /// Print each task as JSON on standard output
    #[arg(long)]
    pub json: bool,
}
