//! `polletto doctor`

use std::process::ExitCode;

use super::{print, tell};
use crate::preflight::{self, Needs};

/// Prints whether this machine can record, and how to mend what hinders it. Fails if it cannot record.
pub fn run(json: bool) -> ExitCode {
    let report = preflight::run(&Needs::default());
    match print(&report, json) {
        Ok(()) if report.is_ok() => ExitCode::SUCCESS,
        Ok(()) => ExitCode::FAILURE,
        Err(error) => {
            tell(format_args!("polletto: cannot print the report: {error}\n"));
            ExitCode::FAILURE
        }
    }
}
