//! Perfetto's `trace_processor`, which reads traces for us, with our package of SQL.

use std::{
    env,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::mpsc::{RecvTimeoutError, channel},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use serde::de::DeserializeOwned;
use tempfile::TempDir;

use super::{
    super::{package, tell},
    ended,
    ended::Endings,
};
use crate::symbols::Categories;

/// What it may be called.
const PROGRAMS: [&str; 2] = ["trace_processor_shell", "trace_processor"];

/// After how long people are told what they wait for.
const PATIENCE: Duration = Duration::from_secs(5);

/// Why there may be no package.
const NO_ROOM: &str = "there is no room for the package of SQL";

/// What reads traces.
#[derive(Debug)]
pub struct Processor {
    program: PathBuf,
    /// With the package in it.
    directory: TempDir,
}

impl Processor {
    /// The program at `asked`, or the one on the PATH, with a package that goes by these categories.
    pub fn new(asked: Option<&Path>, categories: &Categories) -> Result<Processor> {
        let program = find(asked)?;
        // What ends the program waits until it is known what there is to remove.
        let endings = Endings::hold().context("signals can't be caught")?;
        let processor = Processor { program, directory: tempfile::tempdir().context(NO_ROOM)? };
        fs::create_dir(processor.package()).context(NO_ROOM)?;
        for module in package::modules(categories) {
            module.write(&processor.package()).context(NO_ROOM)?;
        }
        endings.remove(processor.directory.path()).context("no thread can be started")?;
        Ok(processor)
    }

    /// Where it is.
    fn package(&self) -> PathBuf {
        self.directory.path().join(package::NAME)
    }

    /// The rows of a query whose only column is `hex(json_object(…))`.
    pub fn ask<T: DeserializeOwned>(&self, trace: &Path, query: &str) -> Result<Vec<T>> {
        ensure_readable(trace).with_context(|| format!("{} can't be read", trace.display()))?;
        let mut command = Command::new(&self.program);
        command.arg("query").arg("--add-sql-package").arg(self.package()).arg(trace).arg(query).stdin(Stdio::null());
        ended::end_with_us(&mut command);
        let program = self.program.display();
        let output = output(&mut command, trace).with_context(|| format!("{program} does not start"))?;
        if !output.status.success() {
            let told = String::from_utf8_lossy(&output.stderr);
            let told: Vec<&str> = told.lines().filter(|line| !line.contains("Loading trace")).collect();
            let told = if told.is_empty() { "it is no trace".to_owned() } else { told.join("\n") };
            bail!("{program} can't read {} ({}): {told}", trace.display(), output.status);
        }
        let text = String::from_utf8_lossy(&output.stdout);
        let rows = text.lines().filter(|line| !line.is_empty()).skip(1);
        rows.map(row).collect::<Option<Vec<T>>>().context("trace_processor's answer is not what was asked for")
    }
}

/// What is wrong with a trace, before somebody else says it in words of their own.
fn ensure_readable(trace: &Path) -> io::Result<()> {
    let there = fs::metadata(trace)?;
    let kind = there.file_type();
    if kind.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    // Opening a pipe takes what is in it from who is to read it.
    if !kind.is_file() {
        return Ok(());
    }
    if there.len() == 0 {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it is empty"));
    }
    File::open(trace).map(drop)
}

/// What a command answers about a trace. Says so if it takes long.
fn output(command: &mut Command, trace: &Path) -> io::Result<Output> {
    let (answered, answer) = channel::<()>();
    thread::scope(|scope| {
        scope.spawn(move || {
            if answer.recv_timeout(PATIENCE) == Err(RecvTimeoutError::Timeout) {
                tell(format_args!(
                    "polletto: {} is large, or a low threshold finds much in it: trace_processor still reads it\n",
                    trace.display()
                ));
            }
        });
        let output = command.output();
        drop(answered);
        output
    })
}

/// The program to ask.
fn find(asked: Option<&Path>) -> Result<PathBuf> {
    if let Some(path) = asked {
        ensure!(path.is_file(), "{} is no program", path.display());
        return Ok(path.to_owned());
    }
    let directories: Vec<PathBuf> =
        env::var_os("PATH").map(|path| env::split_paths(&path).collect()).unwrap_or_default();
    let candidates = PROGRAMS.iter().flat_map(|name| directories.iter().map(move |directory| directory.join(name)));
    match candidates.into_iter().find(|path| path.is_file()) {
        Some(path) => Ok(path),
        None => bail!(
            "Perfetto's trace_processor is not on the PATH, and it is what reads traces. Get it with\n  \
             curl -LO https://get.perfetto.dev/trace_processor && chmod +x trace_processor\n\
             and say where it is with --trace-processor ./trace_processor"
        ),
    }
}

/// A line of the answer: the digits of an object's bytes, so that nothing in a name can be taken for the end of it.
fn row<T: DeserializeOwned>(line: &str) -> Option<T> {
    let digits = line.trim().trim_matches('"').as_bytes();
    let digit = |letter: u8| (letter as char).to_digit(16);
    let bytes = digits.chunks(2).map(|pair| match *pair {
        [high, low] => u8::try_from(16 * digit(high)? + digit(low)?).ok(),
        _ => None,
    });
    serde_json::from_slice(&bytes.collect::<Option<Vec<u8>>>()?).ok()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn a_row_is_read_whatever_stands_in_it() {
        let found = json!({ "future": "extern \"C\", ü\n", "dur": 9, "function": null });
        let digits: String = found.to_string().bytes().map(|byte| format!("{byte:02X}")).collect();
        assert_eq!(row(&format!("\"{digits}\"")), Some(found));
        for line in ["", "\"7\"", "\"7G\"", "\"7B7D7D\"", "error: no such table"] {
            assert_eq!(row::<Value>(line), None, "{line}");
        }
    }
}
