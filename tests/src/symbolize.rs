//! Runs `polletto symbolize` as people do.

use std::{
    ffi::OsStr,
    path::Path,
    process::{Command, Output},
};

use serde_json::Value;

use crate::recorder::polletto;

/// What a `polletto symbolize` said.
#[derive(Debug)]
pub struct Symbolized {
    /// Whether it ended well.
    pub is_success: bool,
    /// What it printed.
    pub stdout: String,
    /// What it printed for people.
    pub stderr: String,
}

/// Runs it on a trace.
pub fn symbolize<A: AsRef<OsStr>>(trace: &Path, arguments: impl IntoIterator<Item = A>) -> Symbolized {
    let mut command = command(trace);
    let output = command.args(arguments).output().unwrap_or_else(|error| panic!("{command:?} does not start: {error}"));
    Symbolized::of(&output)
}

/// The command that names a trace.
pub fn command(trace: &Path) -> Command {
    let mut command = Command::new(polletto());
    command.arg("symbolize").arg(trace);
    command
}

impl Symbolized {
    /// What it said.
    pub fn of(output: &Output) -> Symbolized {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Symbolized { is_success: output.status.success(), stdout: text(&output.stdout), stderr: text(&output.stderr) }
    }

    /// Panics unless it ended well.
    pub fn expect_success(self) -> Symbolized {
        assert!(self.is_success, "polletto symbolize failed: {}", self.stderr);
        self
    }

    /// Panics unless it failed, with a message that says this.
    pub fn expect_refusal(self, reason: &str) {
        assert!(!self.is_success && self.stderr.contains(reason), "{self:?}");
    }

    /// The summary that `--json` prints.
    pub fn summary(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// A number of the summary.
    pub fn count(&self, name: &str) -> u64 {
        self.summary()[name].as_u64().unwrap_or_else(|| panic!("{name}: {self:?}"))
    }
}
