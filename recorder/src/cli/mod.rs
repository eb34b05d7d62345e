//! What people type and see.

mod arguments;
mod doctor;
mod open;
mod record;
mod report;
mod status;
mod summary;
mod symbolize;
mod tasks;

use std::{
    fmt,
    io::{self, Write},
    process::ExitCode,
};

use clap::Parser;

use self::arguments::{Arguments, Command};
pub use self::open::{Answer, ORIGIN, Request};
use crate::symbols;

/// Does what the command line says. 0 is success, 2 a command line that can't be followed, 1 any other failure, 3 that a
/// report has what it must not.
pub fn run() -> ExitCode {
    match Arguments::parse().command {
        Command::Record(arguments) => record::run(&arguments),
        Command::Symbolize(arguments) => symbolize::run(&arguments),
        Command::Open(arguments) => open::run(&arguments),
        Command::Report(arguments) => report::run(&arguments),
        Command::Tasks(arguments) => tasks::run(&arguments),
        Command::Doctor(arguments) => doctor::run(arguments.json),
        // Nobody reads why it failed: whoever started it sees that it did.
        Command::SymbolWorker => ExitCode::from(u8::from(symbols::work().is_err())),
    }
}

/// Tells the user. A terminal that is gone is no reason to stop recording, or to end as if the recording had failed.
fn tell(text: impl fmt::Display) {
    write!(io::stderr(), "{text}").ok();
}
