//! The file that a recording leaves: whose it is, who may read it, what it is never to destroy, how it is packed.
//!
//! These scenarios need root and a kernel that takes BPF programs. They fail where it does not.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::Path,
};

use polletto_tests::{
    program,
    program::Program,
    recorder::{Outcome, Record},
    trace::{Attribute, Compression},
    turn::Turn,
    workload::boottime,
};

/// A short ring, recorded as a whole.
fn recorded(record: Record) -> Outcome {
    let mut ring = Program::start(program!("token-ring"), &["--threads", "2", "--rounds", "50"]);
    let recording = record.process(ring.pid()).start();
    ring.begin();
    ring.wait_for("done");
    recording.stop().expect_success()
}

#[test]
fn only_its_owner_may_read_it_and_that_is_the_user_behind_sudo() {
    let _turn = Turn::with_others();
    let outcome = recorded(Record::new().environment("SUDO_UID", "12345").environment("SUDO_GID", "23456"));
    let metadata = fs::metadata(&outcome.output).expect("there is a file");
    assert_eq!(metadata.permissions().mode() & 0o7777, 0o600);
    assert_eq!((metadata.uid(), metadata.gid()), (12345, 23456));
}

#[test]
fn a_file_that_exists_is_only_replaced_by_force() {
    let _turn = Turn::with_others();
    let directory = tempfile::tempdir().expect("a directory");
    let output = directory.path().join("precious");
    fs::write(&output, "something else").expect("the directory is writable");
    let ring = Program::start(program!("token-ring"), &[]);
    let refused = Record::to(output.clone(), directory).process(ring.pid()).run();
    assert!(!refused.status.success());
    assert!(refused.stderr.contains("precious") && refused.stderr.contains("--force"), "{}", refused.stderr);
    assert_eq!(fs::read(&output).expect("it is still there"), b"something else");

    let directory = tempfile::tempdir().expect("a directory");
    let output = directory.path().join("precious");
    fs::write(&output, "something else").expect("the directory is writable");
    fs::set_permissions(&output, fs::Permissions::from_mode(0o644)).expect("it is ours");
    let outcome = recorded(Record::to(output.clone(), directory).arguments(["--force"]));
    assert!(!outcome.trace().switches.is_empty());
    let mode = fs::metadata(&output).expect("there is a file").permissions().mode();
    assert_eq!(mode & 0o7777, 0o600, "others may read the trace that took the file's place");
}

#[test]
fn a_path_that_cannot_be_written_is_a_clear_failure() {
    let _turn = Turn::with_others();
    let ring = Program::start(program!("token-ring"), &[]);
    for name in ["missing/directory/trace", "."] {
        let directory = tempfile::tempdir().expect("a directory");
        let output = directory.path().join(name);
        let outcome = Record::to(output.clone(), directory).process(ring.pid()).arguments(["-d", "1"]).run();
        assert!(!outcome.status.success(), "{name}");
        let named = outcome.stderr.contains(output.to_str().expect("a plain path"));
        assert!(named, "{name}: the message does not say which path: {}", outcome.stderr);
    }
}

#[test]
fn every_compression_holds_the_same_kind_of_trace() {
    let _turn = Turn::with_others();
    for name in ["zstd", "deflate", "none"] {
        let outcome = recorded(Record::new().arguments(["--compression", name]));
        let trace = outcome.trace();
        let Compression { zstd, deflate, none } = trace.compression;
        let as_asked = match name {
            "zstd" => zstd > 0 && deflate == 0,
            "deflate" => deflate > 0 && zstd == 0,
            _ => none > 0 && zstd + deflate == 0,
        };
        assert!(as_asked, "{name}: {:?}", trace.compression);
        // 2 threads × 50 rounds, each with a sleep and a wait for the token.
        let ring = |name: &str| {
            let tid = trace.tasks.named(name)[0];
            trace.slices.iter().filter(|slice| slice.tid == tid).count()
        };
        for thread in ["ring-0", "ring-1"] {
            assert!((100..160).contains(&ring(thread)), "{name}: {thread} has {} slices", ring(thread));
        }
    }
}

#[test]
fn it_says_what_it_is() {
    let _turn = Turn::with_others();
    let outcome = recorded(Record::new());
    let trace = outcome.trace();
    assert!(trace.synchronization_markers > 0);
    let version =
        |value: &Attribute| matches!(value, Attribute::Text(text) if text.contains(env!("CARGO_PKG_VERSION")));
    assert!(trace.attributes.values().any(version), "no attribute holds the version: {:?}", trace.attributes);
    let clocks = trace.clock_snapshots.first().expect("clocks are read at the start");
    for (id, name) in [(6, "BOOTTIME"), (3, "MONOTONIC"), (1, "REALTIME")] {
        assert!(clocks.contains_key(&id), "{name} is missing");
    }
    assert!(clocks[&6].abs_diff(boottime()) < 60_000_000_000, "boot time is another than ours");
}

#[test]
fn without_a_path_it_is_named_after_what_it_records() {
    let _turn = Turn::with_others();
    let directory = tempfile::tempdir().expect("a directory");
    let ring = Program::start(program!("token-ring"), &[]);
    let status = std::process::Command::new(polletto_tests::recorder::polletto())
        .args(["record", "-q", "-d", "0.3", "-p", &ring.pid().to_string()])
        .current_dir(directory.path())
        .status()
        .expect("polletto starts");
    assert!(status.success());
    let path = directory.path().join(format!("token-ring-{}.perfetto-trace", ring.pid()));
    assert!(path.is_file(), "{} is not there", path.display());
}

/// Those of `tools/queries/`, which are files of one statement.
#[test]
fn every_query_that_comes_along_runs() {
    let _turn = Turn::with_others();
    let outcome = recorded(Record::new().arguments(["--min-block", "0", "-F", "999"]));
    let queries = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tools/queries");
    for entry in fs::read_dir(queries).expect("there are queries") {
        let path = entry.expect("the directory can be read").path();
        let query = fs::read_to_string(&path).expect("it can be read");
        let rows = outcome.sql(query.trim_end().trim_end_matches(';'));
        // This one is about what should not be.
        if rows.is_some_and(|rows| rows.is_empty()) && !path.ends_with("not_observed.sql") {
            panic!("{} has no answer", path.display());
        }
    }
}
