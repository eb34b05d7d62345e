//! Programs from the registry, as their authors published them.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::{Mutex, PoisonError},
};

use crate::check::workspace;

/// A program that nobody here wrote, in a version that was seen to build.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Published {
    /// Of the crate, and of its program.
    pub name: &'static str,
    /// Of the crate.
    pub version: &'static str,
}

/// Held while one is built: two scenarios may want the same.
static BUILDING: Mutex<()> = Mutex::new(());

/// Serves a directory: axum, on workers.
pub const FILE_SERVER: Published = Published { name: "simple-http-server", version: "0.8.1" };

/// Passes connections on, on workers.
pub const PROXY: Published = Published { name: "tcpproxy", version: "0.4.1" };

impl Published {
    /// Builds it with the dependencies that its authors built it with, unless that is done.
    pub fn program(&self) -> PathBuf {
        let directory = workspace().join("target/published");
        let root = directory.join(format!("{}-{}", self.name, self.version));
        let program = root.join("bin").join(self.name);
        let _building = BUILDING.lock().unwrap_or_else(PoisonError::into_inner);
        if !program.is_file() {
            self.install(&root, &directory.join("build"));
        }
        program
    }

    fn install(&self, root: &Path, build: &Path) {
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["install", "--quiet", "--locked", "--no-track", self.name, "--version", self.version]);
        cargo.arg("--root").arg(root).arg("--target-dir").arg(build);
        // Those that the tests themselves are built with say nothing about this program.
        for variable in ["CARGO_TARGET_DIR", "RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "CARGO_PROFILE_RELEASE_DEBUG"] {
            cargo.env_remove(variable);
        }
        let status = cargo.status().expect("cargo starts");
        assert!(status.success(), "{self:?} does not build");
    }
}
