//! Where things are.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

/// The workspace's root. This program is only ever run from where it was built.
pub fn root() -> &'static Path {
    let manifest_dir = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest_dir.parent().unwrap_or(manifest_dir)
}

/// What set-up installs for this workspace lies here, whatever `CARGO_TARGET_DIR` says: `recorder/build.rs` and the
/// tests look for it here.
pub fn installed() -> PathBuf {
    root().join("target")
}

/// Where cargo puts the programs of a release build.
pub fn release_programs() -> PathBuf {
    programs().join("release")
}

/// Where cargo puts the programs of a build that is not optimised.
pub fn debug_programs() -> PathBuf {
    programs().join("debug")
}

fn programs() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(installed, |dir| root().join(dir))
}

/// A command of the cargo that started this program, in the workspace's root.
pub fn cargo(subcommand: &str) -> Command {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(root()).arg(subcommand);
    cargo
}
