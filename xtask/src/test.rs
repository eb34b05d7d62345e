//! `cargo xtask test`.

use std::process::Command;

use anyhow::{Context, Result};

use crate::{
    build, process,
    setup::{self, Privilege},
    workspace,
};

pub fn run() -> Result<()> {
    let kernel = setup::for_tests()?;
    run_prepared(kernel)
}

/// Runs every test on a machine that set-up has prepared.
///
/// Unit tests run with debug assertions and overflow checks. The end-to-end scenarios run what users run, the release
/// build. They are told where it is: left to find it they would build it, which behind sudo would be as root.
pub fn run_prepared(kernel: Privilege) -> Result<()> {
    build::release()?;
    let mut unit = workspace::cargo("test");
    unit.args(["--workspace", "--exclude", "polletto-tests", "--locked"]);
    let mut end_to_end = workspace::cargo("test");
    end_to_end.args(["--package", "polletto-tests", "--release", "--locked"]);
    end_to_end.env("POLLETTO_BIN", workspace::release_programs().join("polletto"));
    for tests in [&mut unit, &mut end_to_end] {
        if kernel == Privilege::Sudo {
            tests.env(runner_variable()?, "sudo -E");
        }
        process::run(tests)?;
    }
    Ok(())
}

/// The variable by which cargo is told to start test programs through another one. Cargo itself keeps running as the
/// user, so that nothing that it builds belongs to root.
fn runner_variable() -> Result<String> {
    let version = process::output(Command::new("rustc").arg("-vV")).context("`rustc -vV` failed")?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: ")).context("`rustc -vV` names no host")?;
    Ok(format!("CARGO_TARGET_{}_RUNNER", host.to_uppercase().replace('-', "_")))
}
