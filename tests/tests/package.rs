//! The package of SQL: who has only the command has it too, and it answers for every trace.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use polletto_tests::{
    check::{sql, trace_processor, workspace},
    oracle::{Build, NEWEST},
    program,
    program::Program,
    recorder::{Outcome, Record, polletto},
    turn::Turn,
};
use serde_json::Value;

fn write_package(directory: &Path, arguments: &[&str]) -> Output {
    Command::new(polletto()).arg("sql").args(arguments).current_dir(directory).output().expect("polletto starts")
}

fn contents(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let entries = fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path());
    entries.map(|path| (path.file_name().expect("a name").into(), fs::read(&path).expect("a file"))).collect()
}

#[test]
fn the_package_that_is_written_is_that_of_the_repository() {
    let directory = tempfile::tempdir().expect("a directory");
    let output = write_package(directory.path(), &[]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let written = directory.path().join("polletto");
    assert_eq!(contents(&written), contents(&workspace().join("tools/sql/polletto")));
    fs::write(written.join("polls.sql"), "-- mine").expect("a file");
    let refused = write_package(directory.path(), &[]);
    let told = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(1), "{told}");
    assert!(told.contains("polls.sql") && told.contains("--force"), "{told}");
    assert!(write_package(directory.path(), &["--force"]).status.success());
}

/// One copies the program to where one works, and calls it from there.
#[test]
fn where_a_file_is_in_the_way_it_is_said_what_to_do() {
    let directory = tempfile::tempdir().expect("a directory");
    fs::write(directory.path().join("polletto"), "a program").expect("a file");
    for arguments in [&[][..], &["--force"]] {
        let refused = write_package(directory.path(), arguments);
        let told = String::from_utf8_lossy(&refused.stderr);
        assert_eq!(refused.status.code(), Some(1), "{told}");
        assert!(told.contains("./polletto is a file") && told.contains("polletto sql DIR"), "{told}");
    }
    assert!(write_package(directory.path(), &["elsewhere"]).status.success());
}

#[test]
fn the_line_that_is_told_answers_as_it_is() {
    let _turn = Turn::alone();
    let program = Program::start(program!("poll-mill"), &["--workers", "2", "--tasks", "3"]);
    let outcome = Record::new().process(program.pid()).arguments(["-d", "1", "--no-symbols"]).run().expect_success();
    drop(program);
    if trace_processor().is_none() {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let output = write_package(directory.path(), &["with room"]);
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(told.contains("polletto_polls ") && told.contains("polletto_findings(threshold_ns) "), "{told}");
    let (_, line) = told.split_once("ask a trace with\n").expect("a line");
    let line = line.replace("TRACE", outcome.output.to_str().expect("a path"));
    let answer = Command::new("sh").args(["-c", &line]).current_dir(directory.path()).output().expect("a shell");
    let rows = String::from_utf8_lossy(&answer.stdout);
    assert!(answer.status.success() && rows.contains("\"own_source\""), "{}", String::from_utf8_lossy(&answer.stderr));
}

fn recorded(arguments: &[&str]) -> Outcome {
    let program = Program::start(program!("many-tasks"), &[]);
    Record::new().process(program.pid()).arguments(["-d", "1"]).arguments(arguments).run().expect_success()
}

#[test]
fn every_module_answers_for_every_kind_of_trace() {
    let _turn = Turn::alone();
    let (oracle, _) = Build { profile: "release", tokio: NEWEST }.recorded_with_wakes(&["--polls", "all"]);
    let others: [&[&str]; 4] = [&[], &["--polls", "off", "--kernel-stacks"], &["--no-stacks"], &["--mode", "cpu"]];
    let mut outcomes: Vec<Outcome> = others.into_iter().map(recorded).collect();
    outcomes.push(Record::new().arguments(["--system", "-d", "1"]).run().expect_success());
    outcomes.push(Record::new().arguments(["--", "true"]).run().expect_success());
    outcomes.push(oracle);
    let Some(shell) = trace_processor() else { return };
    let traces: Vec<&Path> = outcomes.iter().map(|outcome| outcome.output.as_path()).collect();
    let checker = workspace().join("tools/sql/check.py");
    let output = Command::new("python3").arg(checker).arg(shell).args(&traces).output().expect("python starts");
    let told = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    println!("{told}");
    assert!(output.status.success(), "{told}");
    traces.iter().copied().for_each(the_queries_of_the_ui_answer);
    traces.into_iter().for_each(the_questions_of_the_package_are_answered);
}

/// Those of its start-up commands and macros.
fn the_queries_of_the_ui_answer(trace: &Path) {
    fn texts(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::String(text) => found.push(text.clone()),
            Value::Array(values) => values.iter().for_each(|value| texts(value, found)),
            Value::Object(values) => values.values().for_each(|value| texts(value, found)),
            _ => {}
        }
    }
    let mut found = Vec::new();
    for file in ["startup.json", "macros.json"] {
        let text = fs::read_to_string(workspace().join("tools/ui").join(file)).expect("it is there");
        texts(&serde_json::from_str(&text).expect("JSON"), &mut found);
    }
    found.retain(|text| text.starts_with("SELECT"));
    assert!(found.len() >= 5, "{found:?}");
    // One after another, so that the trace is read once.
    assert!(sql(trace, &found.join(";\n")).is_some());
}

/// Those of its README.
fn the_questions_of_the_package_are_answered(trace: &Path) {
    let text = fs::read_to_string(workspace().join("tools/sql/README.md")).expect("it is there");
    let blocks = text.split("```sql\n").skip(1).map(|block| block.split("```").next().expect("a block"));
    let found: Vec<&str> = blocks.collect();
    assert!(found.len() >= 10, "{found:?}");
    assert!(sql(trace, &found.join("\n")).is_some());
}
