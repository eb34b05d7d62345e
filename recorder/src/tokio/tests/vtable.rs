use super::*;
use crate::target::image::{Image, ImageError};

fn scanned(program: &ExampleProgram) -> Result<Vec<Vtable>, ImageError> {
    let bytes = program.bytes();
    scan(&Image::read(&bytes).unwrap(), &bytes)
}

const POLL: u64 = CODE + 0x100;

#[test]
fn a_vtable_is_found_however_its_file_is_relocated() {
    for (relocations, base) in [
        (Relocations::Explicit, 0),
        (Relocations::Packed, 0),
        (Relocations::Explicit, 0x40_0000),
        (Relocations::None, 0x40_0000),
    ] {
        let dyn_vtable = [Word::Address(CODE), Word::Number(8), Word::Number(8), Word::Address(CODE + 8)];
        let data = [&dyn_vtable[..], &vtable(POLL, 0x100, 0x20, 0x28), &vtable(POLL + 0x80, 0x80, 0x20, 0x30)].concat();
        let found = scanned(&ExampleProgram { base, relocations, data, ..ExampleProgram::default() }).unwrap();
        let expected = [
            expected(base + DATA + 32, base + POLL, 0x100, 0x20, 0x28),
            expected(base + DATA + 32 + 80, base + POLL + 0x80, 0x80, 0x20, 0x30),
        ];
        assert_eq!(found, expected);
        assert_eq!(found.iter().map(Vtable::kind).collect::<Vec<_>>(), [SchedulerKind::Async, SchedulerKind::Blocking]);
    }
}

#[test]
fn functions_that_stand_before_a_vtable_are_not_its_own() {
    let data = [&[Word::Address(CODE); 3][..], &vtable(POLL, 0x100, 0x20, 0x28)].concat();
    let found = scanned(&ExampleProgram { data, ..ExampleProgram::default() }).unwrap();
    assert_eq!(found, [expected(DATA + 24, POLL, 0x100, 0x20, 0x28)]);
}

#[test]
fn what_no_task_can_have_is_no_vtable() {
    let good = vtable(POLL, 0x100, 0x20, 0x28);
    let with = |index: usize, word: Word| {
        let mut data = good.clone();
        data[index] = word;
        scanned(&ExampleProgram { data, ..ExampleProgram::default() }).unwrap().len()
    };
    for (claim, index, word, count) in [
        ("it is one as it is", 7, Word::Number(0x100), 1),
        ("a function outside of the code", 0, Word::Address(DATA), 0),
        ("a function that isn't relocated", 3, Word::Number(CODE), 0),
        ("an address for an offset", 7, Word::Address(0x100), 0),
        ("an address of data for an offset", 8, Word::Address(0x20), 0),
        ("an address for the id's offset", 9, Word::Address(0x28), 0),
        ("a crooked trailer", 7, Word::Number(0x101), 0),
        ("a trailer in the header", 7, Word::Number(0x28), 0),
        ("a huge task", 7, Word::Number(1 << 40), 0),
        ("a scheduler in the header", 8, Word::Number(8), 0),
        ("a scheduler behind the id", 8, Word::Number(0x30), 0),
        ("an id far away", 9, Word::Number(0xf8), 0),
    ] {
        assert_eq!(with(index, word), count, "{claim}");
    }
}

#[test]
fn the_place_of_a_spawn_is_known_where_all_vtables_tell_it() {
    let told = [vtable(POLL, 0x100, 0x20, 0x28), vec![Word::Number(0x30)]].concat();
    let places = |data: Vec<Word>| {
        let found = scanned(&ExampleProgram { data, ..ExampleProgram::default() }).unwrap();
        found.iter().map(|vtable| vtable.spawn_location_offset).collect::<Vec<_>>()
    };
    assert_eq!(places([told.clone(), told.clone()].concat()), [Some(0x30); 2]);
    assert_eq!(places([told, vtable(POLL, 0x100, 0x20, 0x28)].concat()), [None; 2]);
}

#[test]
fn the_schedulers_size_tells_who_polls() {
    for (claim, id, kind) in [
        ("an Arc", 0x28, SchedulerKind::Async),
        ("nothing", 0x20, SchedulerKind::Blocking),
        ("a hook", 0x30, SchedulerKind::Blocking),
        ("a handle and a hook", 0x40, SchedulerKind::Blocking),
    ] {
        assert_eq!(expected(0, 0, 0x100, 0x20, id).kind(), kind, "{claim}");
    }
}

#[test]
fn a_file_that_is_cut_or_lies_is_no_harm() {
    let data = vtable(POLL, 0x100, 0x20, 0x28);
    let whole = ExampleProgram { data, ..ExampleProgram::default() }.bytes();
    assert_broken_is_no_harm(&whole, scan);
}
