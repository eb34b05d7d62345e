//! Names of functions in a recording, as it is when it is over.
//!
//! These scenarios need root and a kernel that takes BPF programs. They fail where it does not.

use std::{fs, path::PathBuf, process::Command};

use polletto_tests::{
    named::{ARGUMENTS, Named},
    plugin::rustc,
    program,
    program::Program,
    recorder::Record,
    symbolize::symbolize,
    symbols::build_id,
    trace::Attribute,
    turn::Turn,
};
use tempfile::TempDir;

/// Copies `deep-stacks` into a directory of its own, by a tool that may change it.
fn copied(name: &str, tool: &str, options: &[&str]) -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().expect("a directory for the program");
    let path = directory.path().canonicalize().expect("it is there").join(name);
    let mut command = Command::new(tool);
    let status = command.args(options).arg(program!("deep-stacks")).arg(&path).status();
    assert!(status.is_ok_and(|status| status.success()), "{tool} fails");
    (directory, path)
}

#[test]
fn functions_have_the_names_and_lines_that_their_file_gives_them() {
    let _turn = Turn::with_others();
    let named = Named::here(program!("deep-stacks"), Record::new());
    named.assert_named(program!("deep-stacks"));
    named.assert_lines();
    let inlined = named.frames().iter().filter(|(_, lines)| lines.is_some_and(|lines| lines.len() > 1)).count();
    assert!(inlined >= 20, "{inlined} frames have functions that were inlined");
    let own = named.told();
    assert_eq!(own["addresses"], own["named"], "{own}");
    if let Some(rows) =
        named.outcome.sql("select count(*) from stack_profile_symbol where source_file glob '*deep-stacks/*.rs'")
    {
        assert_ne!(rows, [["0"]], "trace_processor has no lines");
    }
}

#[test]
fn a_program_that_was_removed_while_it_ran_is_named() {
    let _turn = Turn::with_others();
    let (directory, path) = copied("deep-removed", "cp", &[]);
    let (program, build_id) = (Program::start(&path, &ARGUMENTS), build_id(&path));
    let named = Named::recorded(program, &path, build_id, Record::new(), || drop(directory));
    assert!(!path.exists());
    named.assert_named(program!("deep-stacks"));
}

#[test]
fn a_stripped_program_is_named_by_debug_information_that_was_kept() {
    let _turn = Turn::with_others();
    let (_directory, path) = copied("deep-stripped", "objcopy", &["--strip-all"]);
    let named = Named::here(&path, Record::new());
    named.assert_nameless();
    named.assert_missing("it is stripped");

    let kept = tempfile::tempdir().expect("a directory for debug information");
    let (first, rest) = named.build_id.split_at(2);
    let by_build_id = kept.path().join(".build-id").join(first);
    fs::create_dir_all(&by_build_id).expect("it can be made");
    let debug = by_build_id.join(format!("{rest}.debug"));
    let mut objcopy = Command::new("objcopy");
    let status = objcopy.arg("--only-keep-debug").arg(program!("deep-stacks")).arg(&debug).status();
    assert!(status.is_ok_and(|status| status.success()), "objcopy fails");
    let directory = kept.path().to_str().expect("a plain path");
    let named = Named::here(&path, Record::new().arguments(["--debug-dir", directory]));
    named.assert_named(program!("deep-stacks"));
    named.assert_lines();
}

#[test]
fn debug_information_that_turns_up_later_is_found_then() {
    let _turn = Turn::with_others();
    let (_directory, path) = copied("deep-later", "objcopy", &["--strip-debug"]);
    let mut named = Named::here(&path, Record::new());
    named.assert_named(program!("deep-stacks"));
    named.assert_no_lines();

    fs::remove_file(&path).expect("it is there");
    fs::copy(program!("deep-stacks"), &path).expect("the directory is writable");
    symbolize(&named.outcome.output, [""; 0]).expect_success();
    named.trace = named.outcome.trace();
    named.assert_named(program!("deep-stacks"));
    named.assert_lines();
}

/// As `cargo install` does it: the package lies where those are that others depend on.
#[test]
fn a_program_that_was_made_of_a_package_among_dependencies_is_its_own_code() {
    const SOURCE: &str = "fn main() {
    let (began, mut value) = (std::time::Instant::now(), 1_u32);
    while began.elapsed().as_millis() < 500 {
        for _ in 0..10_000 {
            value = std::hint::black_box(value.rotate_left(1).wrapping_mul(3));
        }
    }
}";
    let _turn = Turn::with_others();
    let directory = tempfile::tempdir().expect("a directory for the program");
    let directory = directory.path().canonicalize().expect("it is there");
    let package = directory.join("registry/src/index.crates.io-1949cf8c6b5b557f/app-1.2.0/");
    let (source, path) = (package.join("src/main.rs"), directory.join("app"));
    fs::create_dir_all(package.join("src")).expect("the directory is writable");
    fs::write(&source, SOURCE).expect("the directory is writable");
    let mut compiler = Command::new(rustc());
    compiler.args(["--edition", "2024", "-C", "opt-level=2", "-g", "-o"]).arg(&path).arg(&source);
    assert!(compiler.status().is_ok_and(|status| status.success()), "{compiler:?} fails");

    let outcome = Record::new().arguments(["-F", "997", "--"]).arguments([&path]).run().expect_success();
    let trace = outcome.trace();
    let key = format!("polletto.frame_kind.path.{}", package.display());
    assert_eq!(trace.attributes.get(&key), Some(&Attribute::Text("user".into())), "{:?}", trace.attributes);
}
