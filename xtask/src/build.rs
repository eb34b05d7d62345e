//! `cargo xtask build`.

use anyhow::Result;

use crate::{process, setup, workspace};

pub fn run() -> Result<()> {
    setup::for_build()?;
    release()
}

/// Builds every program as its users run it. The kernel programs are compiled along: `recorder/build.rs` embeds them.
pub fn release() -> Result<()> {
    process::run(workspace::cargo("build").args(["--release", "--workspace", "--locked"]))
}
