//! `cargo xtask ci`: what must hold before a change lands.

use std::process::Command;

use anyhow::Result;

use crate::{process, setup, test, workspace};

pub fn run() -> Result<()> {
    setup::for_ci()?;
    let kernel = setup::for_tests()?;
    formatting()?;
    lints()?;
    kernel_programs_for_aarch64()?;
    fuzz_targets()?;
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

/// Compiles the kernel programs for a CPU that this machine does not have. The recorder embeds those for its own.
fn kernel_programs_for_aarch64() -> Result<()> {
    const TARGET: &str = "bpfel-unknown-none";
    let toolchain = workspace::installed().join("ebpf-toolchain");
    // Not the cargo that started this program: rustup is to choose another one.
    let mut cargo = Command::new("cargo");
    cargo.current_dir(workspace::root().join("ebpf")).arg("build").env("AYA_BPF_TARGET_ARCH", "aarch64");
    for of_another in ["CARGO", "RUSTC", "RUSTDOC", "RUSTUP_TOOLCHAIN"] {
        cargo.env_remove(of_another);
    }
    if let Ok(name) = std::fs::read_to_string(toolchain.join("toolchain")) {
        cargo.env("RUSTUP_TOOLCHAIN", name.trim());
    }
    cargo.args(["--release", "--locked", "--target", TARGET, "--config"]).arg(toolchain.join("config.toml"));
    process::run(cargo.arg("--target-dir").arg(workspace::installed().join("ebpf-aarch64")))
}

/// Fuzz targets are run by hand. Here they only must not rot. They share what the lints have compiled.
fn fuzz_targets() -> Result<()> {
    let mut cargo = workspace::cargo("check");
    cargo.current_dir(workspace::root().join("fuzz")).args(["--locked", "--target-dir"]);
    process::run(cargo.arg(workspace::installed()))
}

/// The kernel programs are no member of the workspace.
fn of_kernel_programs(subcommand: &str) -> Command {
    let mut cargo = workspace::cargo(subcommand);
    cargo.current_dir(workspace::root().join("ebpf"));
    cargo
}
