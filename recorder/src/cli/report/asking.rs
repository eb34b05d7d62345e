//! Perfetto's `trace_processor`, asked for what our package of SQL finds in a trace.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};

/// What it may be called.
const PROGRAMS: [&str; 2] = ["trace_processor_shell", "trace_processor"];

/// The modules of our package, by the names of their files.
macro_rules! modules {
    ($($name:literal),* $(,)?) => {
        [$(($name, include_str!(concat!("../../../../tools/sql/polletto/", $name, ".sql")))),*]
    };
}

/// `tools/sql/polletto`, so that the command finds it wherever it is.
const PACKAGE: [(&str, &str); 11] = modules![
    "arguments",
    "blocking",
    "code",
    "findings",
    "hotspots",
    "overhead",
    "polls",
    "samples",
    "tasks",
    "wakeups",
    "workers",
];

/// Something that took too long.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Found {
    /// `long poll`, `slept in poll`, `preempted in poll` or `starved task`.
    pub kind: String,
    /// What a sleep was for, or whose fault it is that a poll was preempted or a task starved.
    pub detail: Option<String>,
    /// When it began, as in the trace, nanoseconds.
    pub ts: i64,
    /// How long it lasted, nanoseconds.
    pub dur: u64,
    pub pid: Option<i64>,
    pub tid: Option<i64>,
    pub task_id: i64,
    pub future: String,
    pub worker: Option<String>,
    /// Of a starved task there are none.
    pub cpu_ns: Option<u64>,
    pub off_cpu_ns: Option<u64>,
    pub runqueue_ns: Option<u64>,
    /// What its thread was in, for most of the time.
    pub function: Option<String>,
    /// The first of its callers, or itself, that is the program's own.
    pub own_function: Option<String>,
    /// `file:line`
    pub own_source: Option<String>,
}

/// The program to ask.
fn program(asked: Option<&Path>) -> Result<PathBuf> {
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

/// Everything in a trace that took as long, the longest first.
pub fn findings(trace: &Path, threshold_ns: u64, asked: Option<&Path>) -> Result<Vec<Found>> {
    fs::metadata(trace).with_context(|| format!("{} can't be read", trace.display()))?;
    let program = program(asked)?;
    let directory = tempfile::tempdir().context("there is no room for the package of SQL")?;
    let package = directory.path().join("polletto");
    fs::create_dir(&package)?;
    for (name, text) in PACKAGE {
        fs::write(package.join(name).with_extension("sql"), text).context("there is no room for the package of SQL")?;
    }
    // As the digits of its bytes, so that nothing in a name can be taken for the end of it.
    let query = format!(
        "INCLUDE PERFETTO MODULE polletto.findings; \
         SELECT hex(json_object('kind', found.kind, 'detail', found.detail, 'ts', found.ts, 'dur', found.dur, \
         'pid', process.pid, 'tid', thread.tid, 'task_id', found.task_id, 'future', found.future, \
         'worker', found.worker, 'cpu_ns', found.cpu_ns, 'off_cpu_ns', found.off_cpu_ns, \
         'runqueue_ns', found.runqueue_ns, 'function', found.function, 'own_function', found.own_function, \
         'own_source', found.own_source)) AS found \
         FROM polletto_findings({threshold_ns}) AS found \
         LEFT JOIN process USING (upid) LEFT JOIN thread ON found.utid = thread.utid \
         ORDER BY found.dur DESC"
    );
    let mut command = Command::new(&program);
    command.arg("query").arg("--add-sql-package").arg(&package).arg(trace).arg(&query).stdin(Stdio::null());
    let output = command.output().with_context(|| format!("{} does not start", program.display()))?;
    if !output.status.success() {
        let told = String::from_utf8_lossy(&output.stderr);
        let told: Vec<&str> = told.lines().filter(|line| !line.contains("Loading trace")).collect();
        bail!("{} can't read {} ({}): {}", program.display(), trace.display(), output.status, told.join("\n"));
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let rows = text.lines().filter(|line| !line.is_empty()).skip(1);
    rows.map(row).collect::<Option<Vec<Found>>>().context("trace_processor's answer is not what was asked for")
}

/// A line of the answer.
fn row(line: &str) -> Option<Found> {
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
    use super::*;

    #[test]
    fn a_row_is_read_whatever_stands_in_it() {
        let found = r#"{"kind":"long poll","detail":null,"ts":7,"dur":9,"pid":1,"tid":2,"task_id":3,"future":"extern \"C\", ü","worker":"worker 0","cpu_ns":9,"off_cpu_ns":0,"runqueue_ns":0,"function":null,"own_function":null,"own_source":null}"#;
        let digits: String = found.bytes().map(|byte| format!("{byte:02X}")).collect();
        let read = row(&format!("\"{digits}\"")).expect("a row");
        assert_eq!((read.future.as_str(), read.dur), ("extern \"C\", ü", 9));
        for line in ["", "\"7\"", "\"7G\"", "\"7B7D\"", "error: no such table"] {
            assert!(row(line).is_none(), "{line}");
        }
    }
}
