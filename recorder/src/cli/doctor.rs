//! `polletto doctor`

use std::{
    io::{self, Write},
    process::ExitCode,
};

use super::tell;
use crate::preflight::{self, Needs, Report};

/// Prints whether this machine can record, and how to mend what hinders it. Fails if it cannot record.
pub fn run(json: bool) -> ExitCode {
    let report = preflight::run(&Needs::default());
    match print(&report, json, &mut io::stdout().lock()) {
        Ok(()) if report.is_ok() => ExitCode::SUCCESS,
        Ok(()) => ExitCode::FAILURE,
        Err(error) => {
            tell(format_args!("polletto: cannot print the report: {error}\n"));
            ExitCode::FAILURE
        }
    }
}

fn print(report: &Report, json: bool, out: &mut impl Write) -> io::Result<()> {
    match json {
        true => {
            serde_json::to_writer_pretty(&mut *out, report)?;
            writeln!(out)
        }
        false => write!(out, "{report}"),
    }
}
