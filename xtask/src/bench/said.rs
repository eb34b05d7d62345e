//! Programs under load, which tell what they did.

use std::{
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{ChildStdout, Command, Stdio},
};

use anyhow::{Context, Result, ensure};

use crate::process::Running;

/// A program that says something on each line on its standard input.
pub struct Said {
    process: Running,
    output: BufReader<ChildStdout>,
}

impl Said {
    /// Starts it, and returns what follows its process id when it is ready, whatever it says before.
    pub fn start(program: &Path, arguments: &[&str]) -> Result<(Said, String)> {
        let mut command = Command::new(program);
        let mut process = Running::start(command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()))?;
        let output = BufReader::new(process.child().stdout.take().context("it has no output")?);
        let mut said = Said { process, output };
        loop {
            let line = said.line()?;
            ensure!(!line.is_empty(), "{} ended before it was ready", program.display());
            if let Some(ready) = line.strip_prefix("ready ") {
                let rest = ready.split_once(' ').map(|(_, rest)| rest.trim().to_owned()).unwrap_or_default();
                return Ok((said, rest));
            }
        }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        Ok(line)
    }

    /// What it says to that.
    pub fn ask(&mut self) -> Result<String> {
        self.process.child().stdin.as_mut().context("it has no input")?.write_all(b"?\n")?;
        self.line()
    }
}
