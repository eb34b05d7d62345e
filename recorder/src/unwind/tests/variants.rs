//! The same code, linked and stripped in different ways.

use polletto_common::unwind::Rule;

use super::written::*;
use crate::{
    target::image::{
        Image,
        example::{ExampleElf, SECTION_COUNT, SECTION_NAMES, SECTIONS_AT},
    },
    unwind::Table,
};

fn functions(written: &mut Written, code: u64) {
    let common = written.common_x86_64();
    written.function(common, code + 0x10..code + 0x80, &[advance(1), cfa_offset(16), saved(6, 2)].concat());
    written.function(common, code + 0x80..code + 0x280, &[advance(7), cfa_offset(40)].concat());
    written.function(common, code + 0x800..code + 0xa00, &[advance(200), cfa(6, 16), saved(6, 2)].concat());
}

/// What the table says of the code, from its first byte on.
fn rules(example: &ExampleElf, bytes: &[u8]) -> Vec<Option<Rule>> {
    let table = Table::build(&Image::read(bytes).unwrap(), bytes).unwrap();
    (0..example.code as u64).map(|at| table.rule(example.code_address() + at)).collect()
}

/// As `sstrip` leaves a file: everything of its section headers but the headers themselves is gone.
fn without_section_headers(bytes: &[u8]) -> Vec<u8> {
    let mut stripped = bytes.to_vec();
    stripped[SECTIONS_AT..SECTIONS_AT + 8].fill(0);
    stripped[SECTION_COUNT..SECTION_NAMES + 2].fill(0);
    stripped
}

#[test]
fn the_same_code_has_the_same_rules_wherever_it_is_linked_to() {
    let mut all = Vec::new();
    for (base, shift) in [(0, 0), (0, 0x1000), (0x40_0000, 0), (0x40_0000, 0x20_0000), (0x7fff_ffff_0000, 0x1000)] {
        for section_headers in [true, false] {
            let example = ExampleElf { base, shift, section_headers, ..ExampleElf::default() };
            let example = with_eh_frame(example, functions);
            all.push(rules(&example, &example.bytes()));
        }
    }
    assert!(all[0][0x10].is_some() && all[0][0xf00].is_none());
    assert!(all.iter().all(|rules| *rules == all[0]));
}

#[test]
fn a_stripped_file_has_the_same_table() {
    for path in ["/proc/self/exe", "/bin/bash", "/bin/cat"] {
        let whole = std::fs::read(path).unwrap();
        let stripped = without_section_headers(&whole);
        let [whole, stripped] = [whole, stripped].map(|bytes| {
            let mut image = Image::read(&bytes[..]).unwrap();
            // Only section headers tell where they are.
            image.linkage_tables.clear();
            (image.build_id.clone(), Table::build(&image, &bytes[..]).unwrap())
        });
        assert!(whole == stripped, "{path}");
        assert!(!whole.1.pages.is_empty());
    }
}

#[test]
fn pointers_are_understood_however_they_are_written() {
    let [relative, absolute] = [RELATIVE, ABSOLUTE].map(|pointers| {
        table_of(ExampleElf::default(), |written, code| {
            let common = written.common("zR", pointers, 16, &[cfa(7, 8), saved(16, 1)].concat());
            written.function(common, code..code + 0x80, &[advance(1), cfa_offset(16)].concat());
        })
    });
    assert_eq!(relative, absolute);
}

#[test]
fn what_stands_behind_a_terminator_counts_if_the_section_goes_on() {
    let example = |section_headers| ExampleElf { section_headers, ..ExampleElf::default() };
    for (section_headers, known) in [(true, true), (false, false)] {
        let table = table_of(example(section_headers), |written, code| {
            functions(written, code);
            written.bytes.extend([0; 4]);
            let common = written.common_x86_64();
            written.function(common, code + 0x400..code + 0x500, &[]);
        });
        let of = |at: u64| table.rule(0x1000 + at).is_some_and(|rule| rule != Rule::default());
        assert_eq!((of(0x10), of(0x400)), (true, known));
    }
}
