//! Claims about programs that are made by hand.

use super::{names, *};
use crate::{
    families::NameTier,
    target::image::{Contents, Image, ImageError, Pointers, Source},
    tokio::example::{CODE, DATA, ExampleProgram, Relocations, Word, assert_broken_is_no_harm},
};

const SCHEDULE: u64 = CODE + 0x100;
const RUN: u64 = SCHEDULE + 0x50;

/// Where [`vtable`] says that its layout is: behind as many words.
const LAYOUT: usize = 8;

/// The words of a vtable whose functions follow one another, and of the layout that it refers to.
fn vtable(at: u64, layout: [u64; 5]) -> Vec<Word> {
    let functions = (0..7).map(|index| Word::Address(SCHEDULE + 0x10 * index));
    functions.chain([Word::Address(at + 8 * LAYOUT as u64)]).chain(layout.map(Word::Number)).collect()
}

fn scanned(example: &ExampleProgram) -> Vec<TaskVtable> {
    let bytes = example.bytes();
    scanned_in(&Image::read(&bytes).unwrap(), &bytes).unwrap()
}

fn scanned_in<S: Source + ?Sized>(image: &Image, source: &S) -> Result<Vec<TaskVtable>, ImageError> {
    let contents = Contents::new(image, source);
    scan(&contents, &Pointers::read(image, source, &contents)?)
}

#[test]
fn a_vtable_is_found_however_its_file_is_relocated() {
    for (relocations, base) in [
        (Relocations::Explicit, 0),
        (Relocations::Packed, 0),
        (Relocations::Explicit, 0x40_0000),
        (Relocations::None, 0x40_0000),
    ] {
        // A waker's functions stand right before it.
        let data = [&[Word::Address(CODE); 4][..], &vtable(DATA + 32, [8, 0x90, 0x28, 0x30, 0x30])].concat();
        let found = scanned(&ExampleProgram { base, relocations, data, ..ExampleProgram::default() });
        let expected = TaskVtable {
            address: base + DATA + 32,
            schedule: base + SCHEDULE,
            drop_future: base + SCHEDULE + 0x10,
            run: base + RUN,
            schedule_size: 8,
        };
        assert_eq!(found, [expected]);
    }
}

#[test]
fn what_no_task_can_have_is_no_vtable() {
    for (claim, layout, count) in [
        ("as compilers make it", [8, 0x90, 0x28, 0x30, 0x30], 1),
        ("the size before the alignment", [0x90, 8, 0x28, 0x30, 0x30], 1),
        ("a future without a size", [8, 0x28, 0x28, 0x28, 0x28], 1),
        ("an alignment that is none", [0x18, 0x90, 0x28, 0x30, 0x30], 0),
        ("a size that does not fit the alignment", [16, 0x98, 0x28, 0x30, 0x30], 0),
        ("a huge task", [8, 1 << 40, 0x28, 0x30, 0x30], 0),
        ("a schedule function in the header", [8, 0x90, 0x18, 0x30, 0x30], 0),
        ("a future before the schedule function", [8, 0x90, 0x30, 0x28, 0x28], 0),
        ("an output elsewhere", [8, 0x90, 0x28, 0x30, 0x38], 0),
        ("a future behind the task", [8, 0x90, 0x28, 0x98, 0x98], 0),
    ] {
        let data = vtable(DATA, layout);
        assert_eq!(scanned(&ExampleProgram { data, ..ExampleProgram::default() }).len(), count, "{claim}");
    }
    for (claim, index, word) in [
        ("a function that isn't relocated", 3, Word::Number(CODE)),
        ("code for a layout", 7, Word::Address(CODE)),
        ("a number for a layout", 7, Word::Number(0x90)),
        ("an address in the layout", 10, Word::Address(0x28)),
    ] {
        let mut data = vtable(DATA, [8, 0x90, 0x28, 0x30, 0x30]);
        data[index] = word;
        assert_eq!(scanned(&ExampleProgram { data, ..ExampleProgram::default() }), [], "{claim}");
    }
}

#[test]
fn a_file_that_is_cut_or_lies_is_no_harm() {
    let whole = ExampleProgram { data: vtable(DATA, [8, 0x90, 0x28, 0x30, 0x30]), ..ExampleProgram::default() }.bytes();
    assert_broken_is_no_harm(&whole, scanned_in);
}

#[test]
fn functions_that_poll_are_named_once_and_by_their_vtables_where_nothing_is_known() {
    let of = |address: u64, run: u64, schedule_size: u64| TaskVtable {
        address,
        schedule: SCHEDULE,
        drop_future: SCHEDULE,
        run,
        schedule_size,
    };
    let futures = names::futures(&[of(0x10, RUN, 8), of(0x90, RUN, 8), of(0x50, CODE, 0)], b"no program");
    let told: Vec<_> = futures.iter().map(|future| (future.key, &*future.name.full, future.may_block)).collect();
    assert_eq!(told, [(RUN, "vtable 0x10", false), (CODE, "vtable 0x50", true)]);
    assert!(futures.iter().all(|future| future.name.tier == NameTier::Address));
}

#[test]
fn where_functions_were_made_one_and_have_lost_a_name_that_is_told() {
    let task = |future: &str| names::Task { future: future.to_owned(), schedule: String::new() };
    let all = [task("app::run::{{closure}}"), task("app::walk::{{closure}}")];
    for (tasks, vtables, expected) in [
        (&all[..1], 1, Some(("run::{async}", false))),
        (&all[..1], 2, Some(("run::{async} | …", true))),
        (&all[..], 2, Some(("run::{async} | walk::{async}", true))),
        (&all[..0], 1, None),
    ] {
        let name = names::by_tasks(tasks, NameTier::DropGlue, vtables);
        assert_eq!(name.as_ref().map(|name| (&*name.short, name.ambiguous)), expected);
    }
}

#[test]
fn what_executors_put_around_a_future_is_left_out() {
    for (future, expected) in [
        ("app::run::{{closure}}", "app::run::{{closure}}"),
        ("async_executor::Executor::spawn_inner<(),app::run::{{closure}}>::{{closure}}", "app::run::{{closure}}"),
        ("<async_executor::LocalExecutor>::spawn_inner::<u8, app::A<B, C>>::{closure#0}", "app::A<B, C>"),
        ("blocking::unblock<(),app::read::{{closure}}>::{{closure}}", "blocking::unblock<app::read::{{closure}}>"),
        ("blocking::unblock::<u8, app::read::{closure#0}>::{closure#0}", "blocking::unblock<app::read::{closure#0}>"),
        (
            "async_executor::AsyncCallOnDrop<async_std::task::builder::SupportTaskLocals<app::run::{{closure}}>,async_\
             executor::Executor::spawn_inner<(),app::run::{{closure}}>::{{closure}}>",
            "app::run::{{closure}}",
        ),
        ("async_executor::AsyncCallOnDrop", "async_executor::AsyncCallOnDrop"),
        ("async_executor::Executor::spawn_inner", "async_executor::Executor::spawn_inner"),
        ("async_executor::Executor::spawn_inner<(", "async_executor::Executor::spawn_inner<("),
        ("", ""),
    ] {
        assert_eq!(names::inside(future), expected, "{future}");
    }
}

#[test]
fn symbols_tell_futures_and_who_blocks() {
    let dropped = "drop_in_place$LT$async_task..raw..RawTask$LT$F$C$T$C$S$C$M$GT$..run..Guard$LT$app..run..$u7b$$u7b$\
                   closure$u7d$$u7d$$C$$LP$$RP$$C$blocking..Executor..spawn..$u7b$$u7b$closure$u7d$$u7d$$C$$LP$$RP$$GT$\
                   $GT$";
    let mut symbols = names::Symbols::default();
    symbols.add(&format!("_ZN4core3ptr{}{dropped}17h0123456789abcdefE", dropped.len()), 1);
    symbols.add("_ZN10async_task3raw28RawTask$LT$F$C$T$C$S$C$M$GT$3run17h0123456789abcdefE", 2);
    symbols.add(
        "_RNvMs1_NtCs9CJ7XemqXFR_10async_task3rawINtB5_7RawTaskINtCsds8kEhjaoNG_14async_executor15AsyncCallOnDropNCNvCsd9\
         Ri3rSE5sj_5smolt7ticking0NCINvMs3_BS_NtBS_8Executor11spawn_inneruB1D_E0EuNCNvB2f_8schedule0uE3runB1H_",
        3,
    );
    let told = |tasks: &[names::Task]| -> Vec<(String, String)> {
        tasks.iter().map(|task| (task.future.clone(), task.schedule.clone())).collect()
    };
    assert_eq!(symbols.guards.keys().collect::<Vec<_>>(), [&1]);
    assert_eq!(
        told(&symbols.guards[&1]),
        [("app::run::{{closure}}".to_owned(), "blocking::Executor::spawn::{{closure}}".to_owned())]
    );
    assert_eq!(symbols.runs.keys().collect::<Vec<_>>(), [&3]);
    let [(future, schedule)] = &told(&symbols.runs[&3])[..] else { panic!("one task") };
    assert!(future.starts_with("async_executor::AsyncCallOnDrop<smolt::ticking::{closure#0}, "), "{future}");
    assert_eq!(schedule, "<async_executor::Executor>::schedule::{closure#0}");
}
