//! The `polletto` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    polletto::cli::run()
}
