//! Sets up, builds, demonstrates, tests and measures polletto: `cargo xtask <command>`.
//!
//! Every command begins with [`setup`], which installs what is missing and is a matter of milliseconds when nothing is.
//! A command is a module with a `run`; [`Task`] lists them.

mod bench;
mod build;
mod ci;
mod demo;
mod layouts;
mod process;
mod setup;
mod test;
mod workspace;

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;

/// Sets up, builds, demonstrates, tests and measures polletto.
///
/// Each command first installs what it needs and is missing, after saying what that is. Where that takes root, it uses
/// sudo.
#[derive(Parser)]
#[command(bin_name = "cargo xtask")]
enum Task {
    /// Builds everything, in release.
    Build,
    /// Records the demo server under load for ten seconds, finds each of its faults, and says how to look at it.
    Demo,
    /// Runs every test, those that need the kernel included.
    Test,
    /// Measures what recording costs, beside what perf costs, what names cost, beside others that find them, and what a
    /// server notices when its tasks are listed; and attaches a thousand times to a server under load.
    Bench {
        /// What is measured: everything, unless told.
        parts: Vec<bench::Part>,
    },
    /// Writes the table of where each version of Tokio keeps what polletto reads.
    Layouts,
    /// What must hold before a change lands: formatting, lints, tests.
    Ci,
}

impl Task {
    fn run(self) -> Result<()> {
        match self {
            Self::Build => build::run(),
            Self::Demo => demo::run(),
            Self::Test => test::run(),
            Self::Bench { parts } => bench::run(&parts),
            Self::Layouts => layouts::run(),
            Self::Ci => ci::run(),
        }
    }
}

fn main() -> ExitCode {
    match Task::parse().run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("xtask: {problem:#}");
            ExitCode::FAILURE
        }
    }
}
