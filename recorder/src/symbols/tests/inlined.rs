//! What is said of addresses of a library whose source is known.

use std::{fs, os::unix::fs::symlink};

use super::*;
use crate::symbols::Missing;

const OUTERMOST: u64 = 0x360;
/// Where `innermost` multiplies.
const MULTIPLIED: u64 = 0x38a;
/// The last byte of the call that ends `never_returns`, and what that would return to.
const LAST_CALL: u64 = 0x3be;
const BEHIND: u64 = 0x3c0;
const UNSIZED: u64 = 0x350;
const SIZED: u64 = 0x353;
/// Between `sized` and `outermost`.
const PADDING: u64 = 0x355;
/// In front of the first function.
const LINKAGE: u64 = 0x330;

fn lines(bytes: &[u8], address: u64) -> Vec<(String, Option<u32>)> {
    let found = functions(bytes, &[address]);
    found.into_iter().flat_map(|(_, functions)| functions).map(|function| (function.name, function.line)).collect()
}

fn line(name: &str, line: u32) -> (String, Option<u32>) {
    (name.to_owned(), Some(line))
}

fn only_name(name: &str) -> Vec<(String, Option<u32>)> {
    vec![(name.to_owned(), None)]
}

#[test]
fn inlined_functions_come_before_those_that_they_are_inlined_into() {
    let expected = [line("innermost", 9), line("between", 14), line("outermost", 19)];
    assert_eq!(lines(INLINED, MULTIPLIED), expected);
    let found = functions(INLINED, &[MULTIPLIED]);
    assert!(found[0].1.iter().all(|function| function.file.as_deref() == Some("/source/inlined.c")), "{found:?}");
}

#[test]
fn a_call_that_does_not_return_is_of_its_function_and_not_of_the_next() {
    assert_eq!(lines(INLINED, LAST_CALL), [line("never_returns", 29)]);
    assert_eq!(lines(INLINED, BEHIND), [line("behind", 32)]);
}

#[test]
fn code_written_in_assembly_has_its_labels() {
    for (address, name) in [(UNSIZED, "unsized"), (UNSIZED + 2, "unsized"), (SIZED + 1, "sized")] {
        assert_eq!(lines(INLINED, address), only_name(name), "{address:#x}");
    }
}

#[test]
fn what_lies_between_functions_has_no_name() {
    for address in [0, LINKAGE, OUTERMOST + 0x32, BEHIND + 0x11, u64::MAX] {
        assert_eq!(lines(INLINED, address), [], "{address:#x}");
    }
}

#[test]
fn a_label_without_a_size_does_not_reach_beyond_one_that_has_one() {
    assert_eq!(lines(INLINED, PADDING), []);
}

#[test]
fn each_address_is_answered_once_whatever_their_order() {
    let found = functions(INLINED, &[MULTIPLIED, OUTERMOST, MULTIPLIED]);
    assert_eq!(found.iter().map(|(address, _)| *address).collect::<Vec<_>>(), [OUTERMOST, MULTIPLIED]);
}

#[test]
fn without_debug_information_there_are_names_and_the_report_says_so() {
    let directory = Directory::new("without");
    let path = directory.0.join("inlined");
    fs::write(&path, INLINED).unwrap();
    let without = Means { debug_information: false, ..means() };
    let build_id = Some(build_id(INLINED));
    let in_file = Request { build_id, names_in: NamesIn::Path, ..request(path.to_str().unwrap(), &[], &[MULTIPLIED]) };
    let (found, report) = answer(&in_file, &without);
    assert_eq!((found[0].functions[0].name.as_str(), found[0].functions[0].line), ("outermost", None));
    assert_eq!((report.named, report.with_lines, report.missing), (1, 0, Some(Missing::DebugInformation)));
}

#[test]
fn a_file_that_ran_is_not_mistaken_for_another_build() {
    let directory = Directory::new("builds");
    let path = directory.0.join("inlined");
    fs::write(&path, INLINED).unwrap();
    let of = |id: BuildId| {
        let request = Request {
            build_id: Some(id),
            names_in: NamesIn::Path,
            ..request(path.to_str().unwrap(), &[], &[OUTERMOST])
        };
        answer(&request, &means()).1
    };
    assert_eq!(of(build_id(INLINED)).with_lines, 1);
    let other = of(BuildId::new(&[7; 20]).unwrap());
    assert!(matches!(&other.missing, Some(Missing::File(reason)) if reason.contains("build id")), "{other:?}");
}

#[test]
fn a_debug_file_is_found_by_build_id_even_if_the_file_that_ran_is_gone() {
    let directory = Directory::new("debug");
    let id = build_id(INLINED).to_string();
    let place = directory.0.join(".build-id").join(&id[..2]);
    fs::create_dir_all(&place).unwrap();
    fs::write(place.join(format!("{}.debug", &id[2..])), INLINED).unwrap();
    let gone =
        Request { build_id: Some(build_id(INLINED)), names_in: NamesIn::Path, ..request("/gone", &[], &[MULTIPLIED]) };
    let means = Means { debug_directories: vec![directory.0.clone()], ..means() };
    let (found, report) = answer(&gone, &means);
    assert_eq!((found[0].functions.len(), report.missing), (3, None));
}

#[test]
fn what_is_no_file_is_passed_over_where_debug_information_may_be() {
    let directory = Directory::new("devices");
    let id = build_id(INLINED).to_string();
    let place = directory.0.join(".build-id").join(&id[..2]);
    fs::create_dir_all(&place).unwrap();
    let debug = place.join(format!("{}.debug", &id[2..]));
    let named = directory.0.join("inlined");
    let pipe = directory.0.join("inlined.debug");
    symlink("/dev/zero", &debug).unwrap();
    fs::create_dir(&named).unwrap();
    let mode = rustix::fs::Mode::RUSR;
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    let gone = Request {
        build_id: Some(build_id(INLINED)),
        names_in: NamesIn::Path,
        ..request("/gone/inlined", &[], &[OUTERMOST])
    };
    let means = Means { debug_directories: vec![directory.0.clone()], ..means() };
    let (found, report) = answer(&gone, &means);
    assert!(found.is_empty() && matches!(report.missing, Some(Missing::File(_))), "{report:?}");
}
