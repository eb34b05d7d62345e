//! `awaiting`, built with all of its debug information, and what its tasks say that they wait for.

use std::{path::PathBuf, process::Command};

use serde_json::Value;

use crate::check::workspace;

/// What a task says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// Its id.
    pub id: u64,
    /// Its own functions and the line where each awaits, the outermost first.
    pub chain: Vec<(String, u64)>,
    /// The type of what it waits for in the end.
    pub waits_for: String,
}

/// Builds the program, unless that is done.
pub fn program() -> PathBuf {
    let (source, directory) = (workspace().join("tests/awaiting"), workspace().join("target/awaiting"));
    let mut cargo = Command::new(env!("CARGO"));
    cargo.current_dir(source).args(["build", "--quiet", "--locked", "--target-dir"]).arg(&directory);
    // Those that the tests themselves are built with say nothing about this program.
    for variable in ["CARGO_TARGET_DIR", "RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS"] {
        cargo.env_remove(variable);
    }
    let status = cargo.status().expect("cargo starts");
    assert!(status.success(), "the program does not build");
    directory.join("debug/awaiting")
}

impl Waiting {
    /// What a line of the program says.
    pub fn read(line: &Value) -> Waiting {
        let text = |value: &Value| value.as_str().unwrap_or_else(|| panic!("{line}: a text")).to_owned();
        let number = |value: &Value| value.as_u64().unwrap_or_else(|| panic!("{line}: a number"));
        let chain = line["chain"].as_array().expect("a list");
        Waiting {
            id: number(&line["id"]),
            chain: chain.iter().map(|step| (text(&step["function"]), number(&step["line"]))).collect(),
            waits_for: text(&line["waits_for"]),
        }
    }
}
