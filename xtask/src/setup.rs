//! Installs what is missing on this machine, after saying what that is.
//!
//! Nothing is installed twice: each step first looks whether its result is there, which takes milliseconds and no
//! network. What is not a package of the distribution goes under `target/`, so that `cargo clean` takes it away.

mod components;
mod distribution;
mod kernel;
mod linker;
mod musl;
mod packages;
mod privilege;
mod python;
mod toolchain;

use anyhow::Result;

pub use self::privilege::Privilege;
use self::{distribution::Distribution, packages::Tool};

/// The crates that build C code (zstd), and the linker of the kernel programs, which is C++ in part.
const C_COMPILER: Tool =
    Tool { purpose: "compiles zstd and links programs", commands: &["cc", "c++"], packages: &["build-essential"] };

/// What benchmarks compare with.
const PERF: Tool =
    Tool { purpose: "records what benchmarks compare with", commands: &["perf"], packages: &["linux-perf"] };

const LLVM_SYMBOLIZER: Tool =
    Tool { purpose: "finds names beside polletto", commands: &["llvm-symbolizer"], packages: &["llvm"] };

/// What `--debuginfod` asks servers with.
const DEBUGINFOD_CLIENT: Tool = Tool {
    purpose: "fetches debug information from servers",
    commands: &["debuginfod-find"],
    packages: &["debuginfod"],
};

/// What building needs.
pub fn for_build() -> Result<()> {
    let distribution = Distribution::detect();
    C_COMPILER.ensure(&distribution)?;
    toolchain::ensure(&distribution)
}

/// What the tests and the demo's recording need. They load kernel programs, with the returned privilege.
pub fn for_recording() -> Result<Privilege> {
    let privilege = kernel::ensure_access()?;
    for_build()?;
    Ok(privilege)
}

/// What the tests need: they record, and an independent reader checks the traces.
pub fn for_tests() -> Result<Privilege> {
    let privilege = for_recording()?;
    let distribution = Distribution::detect();
    DEBUGINFOD_CLIENT.ensure(&distribution)?;
    musl::ensure()?;
    python::ensure(&distribution)?;
    Ok(privilege)
}

/// What benchmarks need: they compare recordings with those of perf.
pub fn for_bench() -> Result<Privilege> {
    let privilege = for_recording()?;
    let distribution = Distribution::detect();
    PERF.ensure(&distribution)?;
    LLVM_SYMBOLIZER.ensure(&distribution)?;
    Ok(privilege)
}

/// What the checks before the tests need.
pub fn for_ci() -> Result<()> {
    components::ensure()
}

/// Announces a step that changes this machine.
fn announce(step: &str) {
    eprintln!("set-up: {step}");
}
