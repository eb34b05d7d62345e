//! The standard library for programs that bring musl with them, of which tests record one.

use std::{path::Path, process::Command};

use anyhow::{Context, Result, bail};

use super::announce;
use crate::process;

const TARGET: &str = "x86_64-unknown-linux-musl";

/// Adds it to the Rust toolchain, unless it is there.
pub fn ensure() -> Result<()> {
    if is_there() {
        return Ok(());
    }
    if which::which("rustup").is_err() {
        bail!("this Rust toolchain has no standard library for {TARGET}, and there is no rustup to add it");
    }
    announce(&format!("adding the standard library for {TARGET} with rustup"));
    process::run(Command::new("rustup").args(["target", "add", TARGET]))
        .with_context(|| format!("rustup did not add {TARGET}; if the network is at fault, mend it and run this again"))
}

fn is_there() -> bool {
    let output = Command::new("rustc").args(["--print", "target-libdir", "--target", TARGET]).output();
    output.is_ok_and(|output| Path::new(String::from_utf8_lossy(&output.stdout).trim()).exists())
}
