//! `cargo xtask test`.

use std::{env, process::Command};

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
    say_what_is_not_tried();
    let mut unit = workspace::cargo("test");
    unit.args(["--workspace", "--exclude", "polletto-tests", "--locked"]);
    for tests in [&mut unit, &mut end_to_end()] {
        run_with(kernel, tests)?;
    }
    Ok(())
}

/// Programs that tests use where they are on the PATH, and what is not tried without them. Tests that pass are silent.
const ASKED: [(&str, &str); 2] = [
    (
        "trace_processor_shell",
        "no trace is loaded into Perfetto, and neither `polletto report` nor the package of SQL is tried",
    ),
    ("chromium", "no browser fetches a trace from `polletto open`"),
];

fn say_what_is_not_tried() {
    let path = env::var_os("PATH").unwrap_or_default();
    for (program, not_tried) in ASKED {
        if !env::split_paths(&path).any(|folder| folder.join(program).is_file()) {
            println!("test: {program} is not on the PATH: {not_tried}");
        }
    }
}

/// Runs a scenario that takes too long for every run of the tests, and shows what it prints.
pub fn run_long(kernel: Privilege, file: &str, name: &str) -> Result<()> {
    run_with(kernel, end_to_end().args(["--test", file, "--", "--ignored", "--exact", "--nocapture", name]))
}

fn end_to_end() -> Command {
    let mut tests = workspace::cargo("test");
    tests.args(["--package", "polletto-tests", "--release", "--locked"]);
    tests.env("POLLETTO_BIN", workspace::release_programs().join("polletto"));
    tests
}

fn run_with(kernel: Privilege, tests: &mut Command) -> Result<()> {
    if kernel == Privilege::Sudo {
        tests.env(runner_variable()?, "sudo -E");
    }
    process::run(tests)
}

/// The variable by which cargo is told to start test programs through another one. Cargo itself keeps running as the
/// user, so that nothing that it builds belongs to root.
fn runner_variable() -> Result<String> {
    let version = process::output(Command::new("rustc").arg("-vV")).context("`rustc -vV` failed")?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: ")).context("`rustc -vV` names no host")?;
    Ok(format!("CARGO_TARGET_{}_RUNNER", host.to_uppercase().replace('-', "_")))
}
