//! Prints how programs that have debug information lay out what Tokio knows: `cargo run --example tokio-layout -- FILE`.
//!
//! `cargo xtask layouts` runs this to write the table of layouts.

use std::{env, fs, process::ExitCode};

use polletto::tokio::layout::Layout;

fn main() -> ExitCode {
    for path in env::args_os().skip(1) {
        let layout = fs::read(&path).map_err(|error| error.to_string()).and_then(|file| Layout::described_in(&file));
        match layout {
            Ok(Some(layout)) => print(&layout),
            Ok(None) => {
                eprintln!("{}: no debug information of Tokio", path.display());
                return ExitCode::FAILURE;
            }
            Err(problem) => {
                eprintln!("{}: {problem}", path.display());
                return ExitCode::FAILURE;
            }
        }
    }
    ExitCode::SUCCESS
}

/// A field a line, with `-` where it is not known.
fn print(layout: &Layout) {
    for (name, number) in layout.fields() {
        match number {
            Some(number) => println!("{name} {number}"),
            None => println!("{name} -"),
        }
    }
}
