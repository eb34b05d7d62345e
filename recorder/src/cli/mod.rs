//! What people type and see.

mod arguments;
mod counts;
mod doctor;
mod open;
mod package;
mod record;
mod report;
mod sql;
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
use serde::Serialize;

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
        Command::Sql(arguments) => sql::run(&arguments),
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

/// Prints on standard output what was asked for: for scripts, or for people. Who reads no further, as `head` does, has seen
/// enough: that is no failure.
fn print(told: &(impl Serialize + fmt::Display), as_json: bool) -> io::Result<()> {
    let mut out = io::stdout().lock();
    if as_json { print_json(told, &mut out) } else { unless_nobody_reads(write!(out, "{told}")) }
}

/// As [`print()`], for scripts.
fn print_json(told: &impl Serialize, out: &mut impl Write) -> io::Result<()> {
    let written = serde_json::to_writer_pretty(&mut *out, told).map_err(io::Error::from);
    unless_nobody_reads(written.and_then(|()| writeln!(out)))
}

fn unless_nobody_reads(written: io::Result<()>) -> io::Result<()> {
    match written {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of a pipe whose other end is closed, or of a disk that is full.
    struct Closed(io::ErrorKind);

    impl Write for Closed {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(self.0.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn who_reads_no_further_is_no_failure_and_a_full_disk_is() {
        for (kind, is_well) in [(io::ErrorKind::BrokenPipe, true), (io::ErrorKind::StorageFull, false)] {
            assert_eq!(print_json(&[1, 2], &mut Closed(kind)).is_ok(), is_well, "{kind}");
            assert_eq!(unless_nobody_reads(write!(Closed(kind), "told")).is_ok(), is_well, "{kind}");
        }
    }
}
