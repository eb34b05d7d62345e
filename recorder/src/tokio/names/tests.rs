//! What is left of the futures that a vtable may be of, and how they are written.

use super::{
    FutureName, NameTier, ProgramFiles, by_futures,
    evidence::{FUNCTIONS, Tasks, choose, loses_names},
    name,
};
use crate::tokio::{Vtable, example};

const SCHEDULE: u64 = 0x9000;
const TRAILER: u64 = 0x80;

/// A vtable with these functions, in the order of [`FUNCTIONS`].
fn vtable(address: u64, functions: [u64; 6]) -> Vtable {
    let [poll, dealloc, try_read_output, drop_join_handle_slow, drop_abort_handle, shutdown] = functions;
    let whole = example::expected(address, 0, TRAILER, 0x20, 0x28);
    Vtable {
        poll,
        dealloc,
        try_read_output,
        drop_join_handle_slow,
        drop_abort_handle,
        shutdown,
        schedule: SCHEDULE,
        ..whole
    }
}

/// Tasks by their futures, the places of their functions (0 where they have none), and their trailers.
fn tasks(all: &[(&str, [u64; 6], Option<u64>)]) -> Tasks {
    let mut tasks = Tasks::default();
    tasks.add_schedule("Handle", SCHEDULE);
    tasks.add_schedule("Other", SCHEDULE + 1);
    for (future, functions, trailer) in all {
        let task = tasks.task(future, "Handle").unwrap();
        task.trailer_offsets.extend(trailer);
        for (function, &place) in functions.iter().enumerate().filter(|(_, place)| **place > 0) {
            task.add(function, place);
        }
    }
    tasks
}

fn left(tasks: &Tasks, functions: [u64; 6]) -> Vec<&str> {
    choose(&[vtable(0x1000, functions)], tasks)[0].futures()
}

#[test]
fn a_vtable_is_of_the_task_whose_functions_it_has() {
    let tasks = tasks(&[("A", [1, 2, 3, 4, 5, 6], None), ("B", [11, 12, 13, 14, 15, 16], None)]);
    assert_eq!(left(&tasks, [1, 2, 3, 4, 5, 6]), ["A"]);
    assert_eq!(left(&tasks, [11, 12, 13, 14, 15, 16]), ["B"]);
    assert_eq!(left(&tasks, [1, 12, 3, 4, 5, 6]), [""; 0]);
    assert_eq!(left(&tasks, [7, 2, 3, 4, 5, 6]), [""; 0]);
}

#[test]
fn a_function_that_was_made_one_with_anothers_does_not_misname() {
    // What frees B is what frees A, and what polls C is what polls A.
    let tasks = tasks(&[
        ("A", [1, 2, 3, 4, 5, 6], None),
        ("B", [11, 0, 13, 14, 15, 16], None),
        ("C", [0, 22, 23, 24, 25, 26], None),
    ]);
    assert_eq!(left(&tasks, [1, 2, 3, 4, 5, 6]), ["A"]);
    assert_eq!(left(&tasks, [11, 2, 13, 14, 15, 16]), ["B"]);
    assert_eq!(left(&tasks, [1, 22, 23, 24, 25, 26]), ["C"]);
}

#[test]
fn futures_that_are_the_same_code_are_all_named() {
    let several = tasks(&[("A", [1, 2, 3, 4, 5, 6], None), ("B", [1, 2, 3, 4, 5, 6], None)]);
    assert_eq!(left(&several, [1, 2, 3, 4, 5, 6]), ["A", "B"]);
    let gone = tasks(&[("A", [1, 2, 3, 4, 5, 6], Some(TRAILER)), ("B", [0; 6], Some(TRAILER))]);
    assert_eq!(left(&gone, [1, 2, 3, 4, 5, 6]), ["A", "B"]);
}

#[test]
fn a_task_of_another_size_is_not_it() {
    let tasks = tasks(&[("A", [1, 2, 3, 4, 5, 6], Some(TRAILER)), ("B", [0; 6], Some(TRAILER + 8))]);
    assert_eq!(left(&tasks, [1, 2, 3, 4, 5, 6]), ["A"]);
}

#[test]
fn a_task_of_another_scheduler_is_not_it() {
    let mut tasks = tasks(&[("A", [1, 2, 3, 4, 5, 6], None)]);
    tasks.task("B", "Other").unwrap().add(0, 1);
    assert_eq!(left(&tasks, [1, 2, 3, 4, 5, 6]), ["A"]);
}

#[test]
fn a_task_that_the_linker_left_out_is_it_only_where_linkers_make_functions_one() {
    let mut tasks = tasks(&[("A", [1, 2, 3, 4, 5, 6], None), ("B", [0; 6], None)]);
    tasks.task("B", "Handle").unwrap().dropped = [true; FUNCTIONS.len()];
    let functions = [1, 2, 3, 4, 5, 6];
    assert_eq!(left(&tasks, functions), ["A"]);
    let twins = [vtable(0x1000, functions), vtable(0x2000, functions)];
    assert!(choose(&twins, &tasks).iter().all(|choice| choice.futures() == ["A", "B"]));
}

#[test]
fn a_function_that_has_only_anothers_name_tells_that_names_are_lost() {
    let a = ("A", [1, 2, 3, 4, 5, 6], None);
    for (b, is_lost) in
        [([11, 12, 13, 14, 15, 16], false), ([11, 2, 13, 14, 15, 16], false), ([11, 0, 13, 14, 15, 16], true)]
    {
        let tasks = tasks(&[a, ("B", b, None)]);
        let choices = choose(&[vtable(0x1000, a.1), vtable(0x2000, [11, b[1].max(2), 13, 14, 15, 16])], &tasks);
        assert_eq!(choices.iter().map(|choice| choice.futures()).collect::<Vec<_>>(), [["A"], ["B"]]);
        assert_eq!(loses_names(&choices), is_lost, "{b:?}");
    }
}

#[test]
fn what_leaves_too_much_open_is_no_name() {
    let named = |futures: &[&str]| by_futures(futures, NameTier::Dwarf).map(|name| (name.full, name.ambiguous));
    assert_eq!(named(&[]), None);
    assert_eq!(named(&["a::A"]), Some(("a::A".to_owned(), false)));
    assert_eq!(named(&["a::A", "b::B", "c::C"]), Some(("a::A | b::B | c::C".to_owned(), true)));
    assert_eq!(named(&["A", "B", "C", "D"]), None);
}

/// A program with a vtable whose function that polls refers to what is behind the vtable.
fn with_location(path: &[u8], line: u32) -> (Vec<u8>, u64) {
    use example::{CODE, DATA, ExampleProgram, Word};
    const POLL: u64 = CODE + 0x100;
    let text = DATA + 0x100;
    let place = DATA + 80;
    let mut data = example::vtable(POLL, 0x100, 0x20, 0x28);
    data.extend([Word::Address(text), Word::Number(path.len() as u64), Word::Number(u64::from(line) | 5 << 32)]);
    data.resize(0x20, Word::Number(0));
    let words = path.chunks(8).map(|chunk| {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        Word::Number(u64::from_le_bytes(word))
    });
    data.extend(words);
    let mut code = vec![0xc3; 0x1000];
    // lea rdi, [rip + …]
    code[0x100..0x103].copy_from_slice(&[0x48, 0x8d, 0x3d]);
    code[0x103..0x107].copy_from_slice(&((place - (POLL + 7)) as u32).to_le_bytes());
    let functions = vec![0x100, 0x10, 0x10, 0x10, 0x10, 0x10, 0x10, 0x10];
    (ExampleProgram { code, functions, data, ..ExampleProgram::default() }.bytes(), POLL)
}

fn named(bytes: &[u8], poll: u64) -> FutureName {
    let vtables = [example::expected(example::DATA, poll, 0x100, 0x20, 0x28)];
    let names = name(&vtables, &ProgramFiles { binary: bytes, ..ProgramFiles::default() }).futures;
    names.into_iter().next().unwrap()
}

#[test]
fn a_stripped_program_tells_the_places_where_its_futures_panic() {
    let (bytes, poll) = with_location(b"src/main.rs", 7);
    let found = named(&bytes, poll);
    assert_eq!((found.tier, &*found.full), (NameTier::Location, "src/main.rs:7"));
    assert_eq!(found.place, Some(("src/main.rs".to_owned(), 7)));
}

#[test]
fn what_can_be_told_by_nothing_has_its_address() {
    for (path, line) in [
        (&b"src/main.c"[..], 7),
        (b"src/main.rs", 0),
        (b"src/\xff.rs", 7),
        (b"/rustc/1234567/library/core/src/a.rs", 7),
    ] {
        let (bytes, poll) = with_location(path, line);
        let found = named(&bytes, poll);
        assert_eq!((found.tier, &*found.full, found.ambiguous), (NameTier::Address, "vtable 0x80000", false));
    }
    assert_eq!(named(b"no program", 1).tier, NameTier::Address);
}

#[test]
fn a_program_that_is_cut_or_wrong_anywhere_ends_nothing() {
    let (bytes, poll) = with_location(b"src/main.rs", 7);
    for length in (0..bytes.len()).step_by(4093) {
        named(&bytes[..length], poll);
    }
    for at in (0..0x300).chain(0x1_0100..0x1_0110).chain(0x8_0000..0x8_0110) {
        let mut wrong = bytes.clone();
        wrong[at] ^= 0xff;
        named(&wrong, poll);
    }
}
