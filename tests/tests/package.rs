//! `polletto sql`: who has only the command has the package of SQL too.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use polletto_tests::{
    check::{trace_processor, workspace},
    program,
    program::Program,
    recorder::{Record, polletto},
    turn::Turn,
};

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
