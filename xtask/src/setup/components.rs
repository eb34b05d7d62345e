//! rustfmt and clippy.

use std::process::Command;

use anyhow::{Context, Result, bail};

use super::announce;
use crate::{process, workspace};

/// Adds the components of the Rust toolchain that `cargo xtask ci` uses, unless they are there.
pub fn ensure() -> Result<()> {
    let is_missing = |component: &&str| {
        let subcommand = if *component == "rustfmt" { "fmt" } else { component };
        !process::succeeds(workspace::cargo(subcommand).arg("--version"))
    };
    let missing: Vec<_> = ["rustfmt", "clippy"].into_iter().filter(is_missing).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let missing = missing.join(" ");
    if which::which("rustup").is_err() {
        bail!("this Rust toolchain has no {missing}, and there is no rustup to add it: install it by hand");
    }
    announce(&format!("adding {missing} with rustup"));
    process::run(Command::new("rustup").args(["component", "add"]).args(missing.split(' '))).with_context(|| {
        format!("rustup did not add {missing}; if the network is at fault, mend it and run this again")
    })
}
