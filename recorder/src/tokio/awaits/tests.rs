//! Futures of this very program, whose types the compiler describes as well.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, Waker},
};

use polletto_common::id::Tgid;

use super::{chain::Thing, *};
use crate::{
    symbols::file::Slice,
    target::{CodeRange, ProcessMemory, code_of},
};

/// What is waited for in the end.
struct Forever;

impl Future for Forever {
    type Output = ();

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        Poll::Pending
    }
}

/// The line in which it awaits the other.
const OUTER_LINE: u32 = line!() + 3;

async fn outer(depth: u32) {
    inner(depth).await;
}

/// The line in which it awaits the other, and two lines before it awaits what is there for ever.
const INNER_LINE: u32 = line!() + 5;

fn inner(depth: u32) -> Pin<Box<dyn Future<Output = ()>>> {
    Box::pin(async move {
        if depth > 0 {
            outer(depth - 1).await;
        } else {
            Forever.await;
        }
    })
}

/// Where this program's file has its addresses, from those in memory.
fn own_bias(address: u64) -> u64 {
    let own = std::env::current_exe().unwrap();
    let code = code_of(Tgid(std::process::id())).unwrap().unwrap();
    let is_own = |range: &&CodeRange| range.path == own;
    let first = code.iter().find(is_own).expect("this program's code is mapped");
    let image = crate::target::image::Image::read(&std::fs::read(&own).unwrap()[..]).unwrap();
    assert!(address > first.start - first.file_offset, "{address:x}");
    first.start.wrapping_sub(image.address_of(first.file_offset).unwrap())
}

/// What a future waits for that was polled, or not.
fn waits_of(future: &Pin<Box<dyn Future<Output = ()>>>) -> Waits {
    // SAFETY: a pointer to a trait object is two words: the object's address, and that of its methods.
    let [data, methods]: [u64; 2] = unsafe { std::mem::transmute_copy(future) };
    let bias = own_bias(methods);
    let file = std::fs::read(std::env::current_exe().unwrap()).unwrap();
    let object = ElfObject::parse(&file).unwrap();
    let room = Decompressed::default();
    let dwarf = described::load(&object, &room).unwrap();
    let units = described::units(&dwarf).unwrap();
    let types = Types::new(&dwarf, &units);
    let index = Index::read(&types);
    let mut awaits = Awaits { types, index, cells: FxHashMap::default(), files: FxHashMap::default() };
    let table = awaits.index.tables[&methods.wrapping_sub(bias)];
    let type_at = awaits.types.get(table).unwrap().methods_of.unwrap();
    let memory = ProcessMemory(Tgid(std::process::id()));
    Chain::new(&mut awaits, &memory, bias).of_future(Thing { address: data, type_at })
}

#[test]
fn a_future_is_followed_through_blocks_and_boxes_to_what_it_waits_for() {
    let mut future = inner(1);
    assert_eq!(waits_of(&future).ends_for, Some("it was never polled"));
    assert!(future.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    let waits = waits_of(&future);
    assert_eq!(waits.ends_for, None);
    let place = |what: &str, line: Option<u32>| Await {
        what: format!("polletto::tokio::awaits::tests::{what}"),
        file: line.map(|_| format!("{}/src/tokio/awaits/tests.rs", env!("CARGO_MANIFEST_DIR"))),
        line,
    };
    let expected = [
        place("inner::{async}", Some(INNER_LINE)),
        place("outer", Some(OUTER_LINE)),
        place("inner::{async}", Some(INNER_LINE + 2)),
        place("Forever", None),
    ];
    assert_eq!(waits.awaits, expected);
}

/// What tells of a task whose stage has this many bytes in the number that tells its variants apart.
fn task_with_tag_of(size: u64) -> [Vec<u8>; 2] {
    let form = |attribute: gimli::DwAt, form: gimli::DwForm| [attribute.0 as u8, form.0 as u8];
    let name = form(gimli::DW_AT_name, gimli::DW_FORM_string);
    let abbreviation = |code: u8, tag: gimli::DwTag, has_children: bool, attributes: &[[u8; 2]]| {
        [&[code, tag.0 as u8, u8::from(has_children)], attributes.as_flattened(), &[0, 0]].concat()
    };
    let type_at = form(gimli::DW_AT_type, gimli::DW_FORM_ref1);
    let abbreviations = [
        abbreviation(1, gimli::DW_TAG_compile_unit, true, &[]),
        abbreviation(2, gimli::DW_TAG_structure_type, true, &[name]),
        abbreviation(3, gimli::DW_TAG_member, false, &[name, type_at]),
        abbreviation(4, gimli::DW_TAG_variant_part, true, &[]),
        abbreviation(5, gimli::DW_TAG_variant, true, &[form(gimli::DW_AT_discr_value, gimli::DW_FORM_data1)]),
        abbreviation(6, gimli::DW_TAG_base_type, false, &[form(gimli::DW_AT_byte_size, gimli::DW_FORM_data8)]),
        vec![0],
    ]
    .concat();
    const BEFORE: usize = 12;
    let mut entries: Vec<u8> = Vec::new();
    let mut add = |entry: &[&[u8]]| {
        let at = (BEFORE + entries.len()) as u8;
        entries.extend(entry.concat());
        at
    };
    let number = add(&[&[6], &size.to_le_bytes()]);
    let running = add(&[&[2], b"Running\0", &[3], b"__0\0", &[number, 0]]);
    let variant = |value: u8, name: &[u8]| [&[5, value, 3], name, &[0, running, 0]].concat();
    let variants = [variant(0, b"Running"), variant(1, b"Finished")].concat();
    let stage = add(&[&[2], b"Stage\0", &[4, 3, 0, number], &variants, &[0, 0]]);
    let core = add(&[&[2], b"Core\0", &[3], b"stage\0", &[stage, 0]]);
    add(&[&[2], b"Cell\0", &[3], b"core\0", &[core, 0]]);
    let unit = [&[4, 0, 0, 0, 0, 0, 8, 1], &entries[..], &[0]].concat();
    [[&u32::try_from(unit.len()).unwrap().to_le_bytes(), &unit[..]].concat(), abbreviations]
}

#[test]
fn a_number_of_a_size_that_no_number_has_takes_no_memory() {
    // A task whose future runs, which is a number: all of it is zero.
    let task = [0_u64; 8];
    let waits = |size: u64| {
        let [info, abbreviations] = task_with_tag_of(size);
        let section = |id| match id {
            gimli::SectionId::DebugInfo => &info[..],
            gimli::SectionId::DebugAbbrev => &abbreviations,
            _ => &[],
        };
        let slice = |id| Ok::<_, gimli::Error>(Slice::new(section(id), gimli::LittleEndian));
        let dwarf = gimli::Dwarf::load(slice).unwrap();
        let units = described::units(&dwarf).unwrap();
        let types = Types::new(&dwarf, &units);
        let cell = info.windows(6).position(|bytes| bytes == b"\x02Cell\0").unwrap();
        let cell = TypeAt { unit: 0, offset: gimli::UnitOffset(cell) };
        let index = Index::read(&types);
        let mut awaits = Awaits { types, index, cells: FxHashMap::default(), files: FxHashMap::default() };
        let memory = ProcessMemory(Tgid(std::process::id()));
        Chain::new(&mut awaits, &memory, 0).of_task(cell, (&raw const task).addr() as u64).ends_for
    };
    assert_eq!(waits(8), None);
    for size in [0, 9, 1 << 46, u64::MAX] {
        assert_eq!(waits(size), Some("it has ended, or can't be read"), "{size}");
    }
}

#[test]
fn without_debug_information_nothing_is_told() {
    let library = include_bytes!("../../symbols/testdata/inlined.x86_64");
    let files = ProgramFiles { binary: library, ..ProgramFiles::default() };
    assert!(with(std::iter::empty(), &files, |awaits| awaits.is_err()));
    assert!(with(std::iter::empty(), &ProgramFiles { binary: b"not an ELF file", ..files }, |awaits| awaits.is_err()));
}

#[test]
fn in_short_a_chain_leaves_out_what_dependencies_await_within_themselves() {
    let own = |what: &str, line| Await {
        what: what.into(),
        file: Some("/home/user/app/src/main.rs".into()),
        line: Some(line),
    };
    let file = "/home/a/.cargo/registry/src/index.crates.io-1949cf8c6b5b557f/tokio-1.54.1/src/sync/mutex.rs";
    let of_tokio = |what: &str| Await { what: what.into(), file: Some(file.into()), line: Some(9) };
    let leaf = Await { what: "Acquire".into(), file: None, line: None };
    let awaits =
        vec![own("serve", 3), own("locks", 7), of_tokio("lock"), of_tokio("lock::{async}"), of_tokio("acquire"), leaf];
    let waits = Waits { awaits, ends_for: None };
    assert_eq!(waits.in_short(), "serve (src/main.rs:3) → locks (src/main.rs:7) → lock → … → Acquire");
    let timer =
        Waits { awaits: vec![own("naps", 3), Await { what: "Sleep".into(), file: None, line: None }], ends_for: None };
    assert_eq!(timer.in_short(), "naps (src/main.rs:3) → Sleep");
}
