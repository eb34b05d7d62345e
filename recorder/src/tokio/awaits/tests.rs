//! Futures of this very program, whose types the compiler describes as well.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, Waker},
};

use polletto_common::id::Tgid;

use super::{chain::Thing, *};
use crate::target::{CodeRange, ProcessMemory, code_of};

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
    let room = Arena::new();
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
