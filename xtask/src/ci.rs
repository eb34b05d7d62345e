//! `cargo xtask ci`: what must hold before a change lands.

use std::process::Command;

use anyhow::Result;

use crate::{process, setup, test, workspace};

pub fn run() -> Result<()> {
    setup::for_ci()?;
    let kernel = setup::for_tests()?;
    formatting()?;
    lints()?;
    test::run_prepared(kernel)
}

fn formatting() -> Result<()> {
    process::run(workspace::cargo("fmt").args(["--all", "--check"]))?;
    process::run(of_kernel_programs("fmt").arg("--check"))
}

/// Clippy sees the kernel programs as if they were compiled for this machine: of the two toolchains that compile for
/// the kernel one has no clippy, while checking, which generates no code, needs neither.
fn lints() -> Result<()> {
    const DENY_WARNINGS: [&str; 3] = ["--", "-D", "warnings"];
    process::run(workspace::cargo("clippy").args(["--workspace", "--all-targets", "--locked"]).args(DENY_WARNINGS))?;
    process::run(of_kernel_programs("clippy").arg("--locked").args(DENY_WARNINGS))
}

/// The kernel programs are no member of the workspace.
fn of_kernel_programs(subcommand: &str) -> Command {
    let mut cargo = workspace::cargo(subcommand);
    cargo.current_dir(workspace::root().join("ebpf"));
    cargo
}
