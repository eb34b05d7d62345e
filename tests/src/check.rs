//! Other programs' opinion of a trace: the shared checker, and `trace_processor_shell`.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::OnceLock,
};

/// Whether the recorder said that it lost records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// Nothing is missing.
    None,
    /// Something is, and trace_processor must say so too.
    Announced,
}

/// How trace_processor counts bundles that say that something is missing before them.
const ANNOUNCED_LOSS: &str = "ftrace_cpu_has_data_loss";

/// Fails unless the shared checker finds the trace without fault. Says so where the checker isn't there.
pub fn check(trace: &Path, loss: Loss) {
    let checker = workspace().join("../shared/tools/check_trace.py");
    if !checker.is_file() {
        println!("not checked: {} is not there", checker.display());
    } else {
        let bundled = workspace().join("target/python/bin/python3");
        let python = if bundled.is_file() { bundled } else { PathBuf::from("python3") };
        let output = run(Command::new(python).arg(checker).arg(trace));
        assert!(output.status.success(), "{}: {}", trace.display(), both_streams(&output));
    }
    check_stats(trace, loss);
}

/// Fails if trace_processor found errors in the trace, or missing data that nobody told of.
pub fn check_stats(trace: &Path, loss: Loss) {
    let query = "select name, severity, value from stats where severity in ('error', 'data_loss') and value > 0";
    let Some(rows) = sql(trace, query) else { return };
    let (announced, faults): (Vec<_>, Vec<_>) = rows.iter().partition(|row| row[0] == ANNOUNCED_LOSS);
    assert!(faults.is_empty(), "{}: trace_processor counts {faults:?}", trace.display());
    assert_eq!(!announced.is_empty(), loss == Loss::Announced, "{}: {announced:?}", trace.display());
}

/// Where trace_processor is. None, and a line that says so, where it is not on the PATH.
pub fn trace_processor() -> Option<&'static Path> {
    static SHELL: OnceLock<Option<PathBuf>> = OnceLock::new();
    let shell = SHELL.get_or_init(|| {
        let found = on_path("trace_processor_shell");
        if found.is_none() {
            println!("not asked: trace_processor_shell is not on the PATH");
        }
        found
    });
    shell.as_deref()
}

/// Asks trace_processor, which has our package of SQL. None where it is not on the PATH.
pub fn sql(trace: &Path, query: &str) -> Option<Vec<Vec<String>>> {
    let shell = trace_processor()?;
    let directory = tempfile::tempdir().expect("a directory for the query");
    let file = directory.path().join("query.sql");
    fs::write(&file, format!("{query};\n")).expect("the query can be written");
    let package = workspace().join("tools/sql/polletto");
    let output = run(Command::new(shell).arg("--add-sql-package").arg(package).arg("-q").arg(&file).arg(trace));
    assert!(output.status.success(), "{query}: {}", both_streams(&output));
    Some(rows(&String::from_utf8_lossy(&output.stdout)))
}

/// The rows of trace_processor's output behind its line of names. Texts stand in quotes.
fn rows(output: &str) -> Vec<Vec<String>> {
    output.lines().filter(|line| !line.is_empty()).skip(1).map(fields).collect()
}

fn fields(line: &str) -> Vec<String> {
    let mut fields = vec![String::new()];
    let mut quoted = false;
    for character in line.chars() {
        match character {
            '"' => quoted = !quoted,
            ',' if !quoted => fields.push(String::new()),
            other => fields.last_mut().expect("there is a first field").push(other),
        }
    }
    fields
}

/// The directory that holds all crates.
pub fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Where a program is, if it is anywhere on the PATH.
pub(crate) fn on_path(program: &str) -> Option<PathBuf> {
    let directories = env::var_os("PATH")?;
    env::split_paths(&directories).map(|directory| directory.join(program)).find(|path| path.is_file())
}

fn run(command: &mut Command) -> Output {
    command.output().unwrap_or_else(|error| panic!("{command:?} does not start: {error}"))
}

fn both_streams(output: &Output) -> String {
    format!("{}\n{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commas_in_texts_do_not_separate() {
        let output = "\"name\",\"dur\"\n\"a, b\",12\n\"[NULL]\",-1\n\n";
        assert_eq!(rows(output), [["a, b", "12"], ["[NULL]", "-1"]]);
    }
}
