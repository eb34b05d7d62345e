//! A Python of our own under `target/python`, with the official protobuf definitions of traces.
//!
//! It runs the independent reader of traces, a script that lies beside this project where the project is developed and
//! in its CI. Elsewhere the tests check traces with the reader in this repository only, and need no Python.

use std::{fs, path::PathBuf, process::Command};

use anyhow::{Context, Result, bail};

use super::{announce, distribution::Distribution, packages};
use crate::{process, workspace};

/// Pinned, so that a trace is judged by the same definitions everywhere. pip's format.
const REQUIREMENTS: &str = "perfetto==0.59.1\nprotobuf==7.36.2\nzstandard==0.25.0\n";

/// The independent reader, from the workspace's root.
const TRACE_CHECKER: &str = "../shared/tools/check_trace.py";

/// Where the tests look for `bin/python3`.
fn folder() -> PathBuf {
    workspace::installed().join("python")
}

/// Installs the reader's Python unless it is there, or there is no reader.
pub fn ensure(distribution: &Distribution) -> Result<()> {
    if !workspace::root().join(TRACE_CHECKER).is_file() {
        announce(&format!("{TRACE_CHECKER} is not here: traces are checked by this repository's reader only"));
        return Ok(());
    }
    let interpreter = folder().join("bin/python3");
    // Written last, so it is there only when all of it was installed.
    let installed = folder().join("requirements.txt");
    if fs::read_to_string(&installed).is_ok_and(|text| text == REQUIREMENTS)
        && process::succeeds(Command::new(&interpreter).arg("--version"))
    {
        return Ok(());
    }
    let packages = REQUIREMENTS.split_whitespace().collect::<Vec<_>>();
    ensure_venv_works(distribution)?;
    announce(&format!("installing {} with pip into target/python", packages.join(" ")));
    process::run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(folder()))?;
    process::run(Command::new(&interpreter).args(["-m", "pip", "install", "--quiet"]).args(&packages))
        .context("pip did not install them; if the network is at fault, mend it and run this again")?;
    fs::write(&installed, REQUIREMENTS).with_context(|| installed.display().to_string())
}

/// Debian's Python comes without what makes environments.
fn ensure_venv_works(distribution: &Distribution) -> Result<()> {
    let works = || process::succeeds(Command::new("python3").args(["-c", "import ensurepip, venv"]));
    if works() {
        return Ok(());
    }
    if !distribution.debian {
        bail!(
            "a `python3` with the modules venv and ensurepip is missing on {}: install it by hand",
            distribution.name
        );
    }
    packages::install(&["python3", "python3-venv"])?;
    if works() {
        return Ok(());
    }
    bail!("the `python3` that comes first on PATH has no module venv or ensurepip: add them, or take it off PATH")
}
