//! Types of this very program, whose layouts the compiler tells as well.

use std::{cell::Cell, fs, mem, num::NonZeroU64, ptr::NonNull, sync::Arc};

use super::*;

/// Everything that the walk from one type to another can meet.
struct Sample {
    tagged: Cell<Option<u64>>,
    niche: Cell<Option<NonZeroU64>>,
    entered: Cell<Entered>,
    shared: Option<Arc<Inner>>,
    slice: Box<[Inner]>,
    pointer: Option<NonNull<Inner>>,
}

#[derive(Clone, Copy)]
enum Entered {
    Entered { may_block: bool },
    NotEntered,
}

struct Inner {
    first: u8,
    second: u64,
}

const NAME: Name = &["polletto", "tokio", "layout", "dwarf", "tests", "Sample"];

/// Without it the compiler has no reason to describe the types.
fn sample() -> Sample {
    let entered = Cell::new(Entered::NotEntered);
    entered.set(Entered::Entered { may_block: true });
    Sample {
        tagged: Cell::new(Some(1)),
        niche: Cell::new(None),
        entered,
        shared: Some(Arc::new(Inner { first: 1, second: 2 })),
        slice: Box::new([]),
        pointer: None,
    }
}

/// What is said of the sample, by facts about it.
fn facts(asked: &[Fact]) -> Vec<Option<u64>> {
    let sample = std::hint::black_box(sample());
    assert!(sample.tagged.get().is_some() && sample.niche.get().is_none() && sample.pointer.is_none());
    assert!(sample.slice.is_empty() && matches!(sample.entered.get(), Entered::Entered { may_block: true }));
    assert_eq!(sample.shared.map(|inner| u64::from(inner.first) + inner.second), Some(3));
    let file = fs::read(std::env::current_exe().unwrap()).unwrap();
    let object = ElfObject::parse(&file).unwrap();
    let room = Decompressed::default();
    let dwarf = load(&object, &room).unwrap();
    let units = units(&dwarf).unwrap();
    let find = |index| Roots::find(UnitRef::new(&dwarf, &units[index]), index, &[NAME]).get(NAME);
    let own = |unit: &usize| units[*unit].name.is_some_and(|name| name.to_string_lossy().contains("recorder/src"));
    let type_at = (0..units.len()).filter(own).find_map(find).expect("this program's debug information has the sample");
    let mut types = Types::new(&dwarf, &units);
    asked.iter().map(|fact| find_fact(&mut types, Place { offset: 0, type_at }, *fact)).collect()
}

#[test]
fn what_debug_information_says_of_a_type_is_what_the_compiler_did() {
    let none_of_entered = {
        // SAFETY: it is as large as a byte, and has no others.
        let byte: u8 = unsafe { mem::transmute(Entered::NotEntered) };
        u64::from(byte)
    };
    let at = |offset: usize| Some(offset as u64);
    let expected = [
        (Fact::Size(&[""]), at(size_of::<Sample>())),
        (Fact::Tag(&["tagged"]), at(mem::offset_of!(Sample, tagged))),
        (Fact::TagSize(&["tagged"]), Some(8)),
        (Fact::Offset(&["tagged.Some"]), at(mem::offset_of!(Sample, tagged) + 8)),
        (Fact::Value(&["tagged.Some"]), Some(1)),
        (Fact::Tag(&["niche"]), at(mem::offset_of!(Sample, niche))),
        (Fact::Offset(&["niche.Some"]), at(mem::offset_of!(Sample, niche))),
        (Fact::Value(&["niche.None"]), Some(0)),
        (Fact::Value(&["niche.Some"]), None),
        (Fact::Value(&["entered.NotEntered"]), Some(none_of_entered)),
        (Fact::Value(&["entered.Entered"]), None),
        (Fact::Offset(&["nowhere", "shared.Some"]), at(mem::offset_of!(Sample, shared))),
        (Fact::Offset(&["slice.length"]), at(mem::offset_of!(Sample, slice) + 8)),
        (Fact::Offset(&["pointer"]), at(mem::offset_of!(Sample, pointer))),
        (Fact::Offset(&["nowhere"]), None),
        (Fact::Offset(&["shared.second"]), None),
    ];
    let (asked, expected): (Vec<_>, Vec<_>) = expected.into_iter().unzip();
    assert_eq!(facts(&asked), expected, "{asked:#?}");
}

#[test]
fn what_has_no_tokio_has_no_layout() {
    let library = include_bytes!("../../../symbols/testdata/inlined.x86_64");
    assert_eq!(read(library), Ok(None));
    assert!(read(b"not an ELF file").is_err());
}
