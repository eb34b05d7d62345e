//! What `polletto report` says of a trace.

use std::{
    path::Path,
    process::{Command, Output},
};

use serde_json::Value;

use crate::recorder::polletto;

/// Runs it.
pub fn report(trace: &Path, arguments: &[&str]) -> Output {
    Command::new(polletto()).arg("report").arg(trace).args(arguments).output().expect("polletto starts")
}

/// What it says in JSON, for which the arguments ask.
pub fn json(trace: &Path, arguments: &[&str]) -> Value {
    let output = report(trace, arguments);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON")
}
