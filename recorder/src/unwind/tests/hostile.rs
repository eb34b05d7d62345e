//! Unwind information that lies.

use std::time::{Duration, Instant};

use polletto_common::unwind::{Cfa, Rule};

use super::written::*;
use crate::{
    target::image::{
        Image,
        example::{ExampleElf, Numbers},
    },
    unwind::{Error, MAX_PAGES, Omissions, Table},
};

fn build(example: &ExampleElf) -> Result<Table, Error> {
    let bytes = example.bytes();
    Table::build(&Image::read(&bytes[..]).unwrap(), &bytes[..])
}

fn is_known(table: &Table, address: u64) -> bool {
    table.rule(address).is_some_and(|rule| rule.cfa != Cfa::UNKNOWN)
}

/// A table of a good function, then what `write` adds, then another good one.
fn between_good_ones(write: impl FnOnce(&mut Written, u64, usize)) -> Table {
    let table = table_of(ExampleElf::default(), |written, code| {
        let common = written.common_x86_64();
        written.function(common, code..code + 0x10, &cfa_offset(16));
        write(written, code, common);
        let common = written.common_x86_64();
        written.function(common, code + 0xff0..code + 0x1000, &cfa_offset(24));
    });
    assert!(is_known(&table, 0x1000) && is_known(&table, 0x1fff), "the good ones are lost: {table:?}");
    table
}

fn omitted(change: impl FnOnce(&mut Omissions)) -> Omissions {
    let mut omissions = Omissions::default();
    change(&mut omissions);
    omissions
}

#[test]
fn a_broken_function_loses_itself_and_no_other() {
    for (claim, instructions) in [
        ("an unknown instruction", vec![0x3f]),
        ("an instruction that is cut", vec![0x0c, 7]),
        ("a broken instruction behind good ones", [cfa_offset(32), advance(4), vec![0x3f]].concat()),
        ("more is restored than was remembered", vec![RESTORE]),
        ("more is remembered than anybody needs", vec![REMEMBER; 100]),
        ("an expression that is cut", vec![0x0f, 100]),
        ("more registers than there are", (0..100).flat_map(undefined).collect()),
    ] {
        let table = between_good_ones(|written, code, common| {
            written.function(common, code + 0x100..code + 0x200, &instructions);
        });
        assert_eq!(table.omissions, omitted(|omissions| omissions.broken = 1), "{claim}");
        assert!(!is_known(&table, 0x1100), "{claim}");
    }
}

#[test]
fn functions_of_nowhere_are_left_out_and_counted() {
    for (start, length, expected) in [
        (0x1100, 0, omitted(|omissions| omissions.empty = 1)),
        (0, 0x10, omitted(|omissions| omissions.outside = 1)),
        (0x2000, 0x10, omitted(|omissions| omissions.outside = 1)),
        (0xff0, 0x20, omitted(|omissions| omissions.outside = 1)),
        (1 << 63, 5, omitted(|omissions| omissions.outside = 1)),
        (u64::MAX - 5, 10, omitted(|omissions| omissions.outside = 1)),
        (0x1100, u64::MAX, omitted(|omissions| omissions.outside = 1)),
    ] {
        let table = between_good_ones(|written, _, _| {
            let common = written.common("zR", ABSOLUTE, 16, &[cfa(7, 8), saved(16, 1)].concat());
            written.function(common, start..u64::wrapping_add(start, length), &[]);
        });
        assert_eq!(table.omissions, expected, "{start:x} {length:x}");
        assert_eq!(table.pages.len(), 16, "{start:x} {length:x}");
    }
}

#[test]
fn a_function_of_half_of_all_addresses_ends_with_the_code_and_hides_no_other() {
    let table = between_good_ones(|written, code, _| {
        let common = written.common("zR", ABSOLUTE, 16, &[cfa(7, 8), saved(16, 1)].concat());
        written.function(common, code + 0x100..code + (1 << 63), &[]);
    });
    assert_eq!((table.omissions, table.pages.len()), (Omissions::default(), 16));
    assert!(is_known(&table, 0x1100));
    assert_eq!(table.rule(0x1ff0).unwrap().cfa_offset, 24);
}

#[test]
fn entries_that_point_at_each_other_are_broken() {
    let table = between_good_ones(|written, code, common| {
        let first = written.function(common, code + 0x100..code + 0x110, &[]);
        let second = written.function(first, code + 0x200..code + 0x210, &[]);
        let own = written.bytes.len() + 4;
        let third = written.function(own, code + 0x300..code + 0x310, &[]);
        // Each of the last two has the other as its common entry, or itself.
        for (of, to) in [(second, third), (third, third)] {
            let distance = ((of + 4) as u32).wrapping_sub(to as u32);
            written.bytes[of + 4..of + 8].copy_from_slice(&distance.max(1).to_le_bytes());
        }
    });
    assert_eq!(table.omissions, omitted(|omissions| omissions.broken = 2));
}

#[test]
fn a_pointer_to_what_is_no_common_entry_loses_one_function() {
    let table = between_good_ones(|written, code, common| {
        // What looks like an entry of two gigabytes, in the midst of instructions that do nothing.
        written.function(common, code + 0x100..code + 0x110, &[0, 0xf0, 0xff, 0xff, 0x7f, 0, 0, 0, 0]);
        let huge = written.bytes.len() - 8;
        written.function(huge, code + 0x200..code + 0x210, &[]);
    });
    assert_eq!(table.omissions, omitted(|omissions| omissions.broken = 1));
    assert!(is_known(&table, 0x1100) && !is_known(&table, 0x1200));
}

#[test]
fn an_entry_that_reaches_behind_the_end_loses_what_follows() {
    for length in [0x1000_u32, 0xffff_fff0, u32::MAX] {
        let table = table_of(ExampleElf::default(), |written, code| {
            let common = written.common_x86_64();
            written.function(common, code..code + 0x10, &[]);
            let cut = written.function(common, code + 0x100..code + 0x110, &[]);
            written.function(common, code + 0x200..code + 0x210, &[]);
            written.bytes[cut..cut + 4].copy_from_slice(&length.to_le_bytes());
        });
        assert_eq!(table.omissions, omitted(|omissions| omissions.broken = 1));
        assert_eq!([0x1000, 0x1100, 0x1200].map(|address| is_known(&table, address)), [true, false, false]);
    }
}

#[test]
fn unwind_information_cut_anywhere_is_understood_up_to_there() {
    let whole = with_eh_frame(ExampleElf::default(), |written, code| {
        let common = written.common_x86_64();
        for at in (0..0x1000).step_by(0x40) {
            written.function(common, code + at..code + at + 0x40, &cfa_offset(at as u8 & 63));
        }
    });
    let mut known = 0;
    for length in (0..whole.eh_frame.len()).step_by(64) {
        let cut = ExampleElf { eh_frame: whole.eh_frame[..length].to_vec(), ..whole.clone() };
        let pages = build(&cut).unwrap().pages.len();
        assert!(pages >= known);
        known = pages;
    }
    assert!(known >= 15);
}

#[test]
fn code_that_lies_too_far_apart_is_an_error() {
    let example = ExampleElf::default();
    let bytes = example.bytes();
    let mut image = Image::read(&bytes[..]).unwrap();
    for (address, fits) in
        [((MAX_PAGES << 8) - 0x1000 + 0x1000, true), (MAX_PAGES << 8 | 0x1000, false), (1 << 60, false)]
    {
        let mut far = image.segments[1];
        far.address = address;
        image.segments.push(far);
        let built = Table::build(&image, &bytes[..]);
        assert_eq!(built.is_ok(), fits, "{address:#x}");
        if let Err(error) = built {
            assert!(matches!(error, Error::TooFarApart(_)) && error.to_string().contains("reaches over"));
        }
        image.segments.pop();
    }
}

#[test]
fn code_at_the_very_last_addresses_has_a_table() {
    let bytes = ExampleElf::default().bytes();
    let mut image = Image::read(&bytes[..]).unwrap();
    let last = u64::MAX - 1;
    image.segments[1].address = u64::MAX - 0xfff;
    for end in [last, u64::MAX] {
        image.linkage_tables.clear();
        image.linkage_tables.push(u64::MAX - 0x10..end);
        let table = Table::build(&image, &bytes[..]).unwrap();
        assert_eq!(table.addresses(), u64::MAX - 0xff..u64::MAX);
        assert_eq!([u64::MAX - 0x20, u64::MAX - 0x10].map(|at| is_known(&table, at)), [false, true]);
    }
}

#[test]
fn a_common_entry_that_costs_more_than_all_functions_is_an_error() {
    let example = with_eh_frame(ExampleElf::default(), |written, code| {
        let common = written.common("zR", RELATIVE, 16, &vec![0; 50_000]);
        for _ in 0..1000 {
            written.function(common, code..code + 1, &[]);
        }
    });
    assert!(matches!(build(&example), Err(Error::TooMuchWork)));
}

#[test]
fn a_quarter_of_a_million_tiny_functions_take_no_time() {
    let started = Instant::now();
    let example = ExampleElf { code: 1 << 18, ..ExampleElf::default() };
    let table = table_of(example, |written, code| {
        let common = written.common_x86_64();
        for at in 0..1 << 18 {
            // Out of order, and of two rules in turns.
            let at = code + (at ^ 0x15555);
            written.function(common, at..at + 1, if at % 2 == 0 { &[0x0e, 16] } else { &[] });
        }
    });
    assert_eq!(table.omissions, omitted(|omissions| omissions.crowded_pages = 1024));
    assert_eq!((table.pages.len(), table.rows.len(), table.rules.len()), (1024, 1024, 3));
    assert!(started.elapsed() < Duration::from_secs(30), "{:?}", started.elapsed());
}

#[test]
fn a_function_of_countless_rows_has_as_many_as_it_has_addresses() {
    let table = between_good_ones(|written, code, common| {
        let rows: Vec<u8> =
            (0..200_000).flat_map(|row| [0x02, (row % 4096 == 0).into(), 0x0e, row as u8 & 63]).collect();
        written.function(common, code + 0x100..code + 0x200, &rows);
    });
    assert_eq!(table.omissions, Omissions::default());
    assert!(table.rows.len() < 0x200);
}

#[test]
fn a_page_where_every_address_differs_is_unknown_alone() {
    let table = between_good_ones(|written, code, common| {
        let rows: Vec<u8> = (0..256).flat_map(|row| [0x02, 1, 0x0e, 8 + row as u8 % 2]).collect();
        written.function(common, code + 0x0ff..code + 0x210, &rows);
    });
    assert_eq!(table.omissions, omitted(|omissions| omissions.crowded_pages = 1));
    assert_eq!([0x10ff, 0x1100, 0x11ff, 0x1200].map(|at| is_known(&table, at)), [true, false, false, true]);
}

#[test]
fn a_file_with_a_rule_for_every_address_gets_no_more_than_its_share() {
    let table = table_of(ExampleElf { code: 0x40000, ..ExampleElf::default() }, |written, code| {
        let common = written.common_x86_64();
        for at in 0..10_000 {
            written.function(common, code + at * 16..code + at * 16 + 16, &cfa_far(7, 8 * at));
        }
    });
    assert_eq!(table.rules.len(), 8192);
    assert_eq!(table.omissions, omitted(|omissions| omissions.excess = 10_000 - 8191));
}

#[test]
fn no_change_of_unwind_information_makes_it_panic_or_grow() {
    let started = Instant::now();
    let mut numbers = Numbers(0x2545_f491_4f6c_dd1d);
    let real = [&include_bytes!("../testdata/frames.x86_64")[..], include_bytes!("../testdata/frames.aarch64")];
    let mut understood = 0;
    for round in 0..8000 {
        let original = real[round % 2];
        let place = Image::read(original).unwrap().eh_frame.unwrap();
        let mut bytes = original.to_vec();
        for _ in 0..=numbers.below(6) {
            // Headers, and mostly `.eh_frame`.
            let at = match numbers.below(8) {
                0 => numbers.below(64 + 12 * 56),
                1 => original.len() as u64 - 1 - numbers.below(64 * 16),
                _ => place.file_offset + numbers.below(place.size),
            };
            bytes[at as usize] = match numbers.below(4) {
                0 => [0, 1, 0x7f, 0x80, 0xff, 0x0a, 0x0b, 0x0f][numbers.below(8) as usize],
                1 => bytes[at as usize] ^ 1 << numbers.below(8),
                _ => numbers.next() as u8,
            };
        }
        let Ok(image) = Image::read(&bytes[..]) else { continue };
        let Ok(table) = Table::build(&image, &bytes[..]) else { continue };
        understood += 1;
        assert!(table.rows.len() < MAX_PAGES as usize + bytes.len());
        for _ in 0..10 {
            let address = table.addresses().start.wrapping_add(numbers.below(1 << 14));
            assert_eq!(table.rule(address).is_some(), table.addresses().contains(&address));
        }
        for page in &table.pages {
            assert_eq!(table.rows[page.first_row() as usize].address(), 0);
        }
        assert_eq!(table.rules[0], Rule::default());
    }
    assert!(understood > 1000, "{understood}");
    assert!(started.elapsed() < Duration::from_secs(60), "{:?}", started.elapsed());
}
