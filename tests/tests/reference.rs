//! Recorded stacks beside those of an unwinder that shares nothing with polletto's, of threads that are held.
//!
//! These scenarios need root and a kernel that takes BPF programs. They fail where it does not.

use std::{fs, ops::Range, thread, time::Duration};

use polletto_tests::{
    paths::{Path, leads_through},
    program,
    program::{DEADLINE, Program, until},
    recorder::Record,
    reference::{Place, Reference, ReferenceUnwinder},
    symbols::Symbols,
    trace::{Frame, Nanoseconds, StackSample, Tid, Trace},
    turn::Turn,
};

/// How long a thread is held in each place: dozens of samples, and far more than the shortest stretch recorded.
const HELD: Duration = Duration::from_millis(40);

/// What a held thread did, and the stack that framehop found meanwhile.
struct Held {
    section: String,
    burns: bool,
    tid: Tid,
    within: Range<Nanoseconds>,
    reference: Reference,
}

/// Lets a held `deep-stacks` take every path, and looks at its stack in each place.
fn look_everywhere(mut program: Program) -> (Vec<Held>, Vec<Path>) {
    program.begin();
    let (mut held, mut unwinder) = (Vec::new(), None);
    loop {
        let line = program.wait_for("");
        let ["holding", section, what, tid, at] = line.split(' ').collect::<Vec<_>>()[..] else {
            if line == "done" {
                break;
            }
            continue;
        };
        let tid = tid.parse().expect("an id");
        let burns = what == "burn";
        if !burns {
            until_asleep(tid);
        }
        // What is looked at must last: this is the length of the thing recorded.
        thread::sleep(HELD);
        let unwinder = unwinder
            .get_or_insert_with(|| ReferenceUnwinder::of_process(program.pid()).expect("its files are readable"));
        let reference = unwinder.look(tid).unwrap_or_else(|error| panic!("{section} {what}: {error}"));
        let within = at.parse().expect("a time")..reference.at;
        held.push(Held { section: section.to_owned(), burns, tid, within, reference });
        program.begin();
    }
    let (_, lines) = program.finish();
    (held, lines.iter().filter_map(|line| Path::read(line)).collect())
}

/// Waits until a thread sleeps.
fn until_asleep(tid: Tid) {
    until(DEADLINE, "a thread to sleep", || {
        let stat = fs::read_to_string(format!("/proc/{tid}/stat")).expect("it lives");
        stat.rsplit_once(") ").is_some_and(|(_, fields)| fields.starts_with('S')).then_some(())
    });
}

/// What was looked at is what the program says that it was.
fn assert_reference_is_right(held: &[Held], paths: &[Path]) {
    let ways = paths.iter().flat_map(|path| [&path.burning, &path.blocking]).filter(|way| !way.is_empty());
    assert_eq!(held.len(), ways.count() - 1, "all but what only computes");
    let mut symbols = Symbols::new();
    for Held { section, burns, reference, .. } in held {
        let path = paths.iter().find(|path| path.section == *section).expect("it says every section");
        let names: Vec<_> = reference
            .places
            .iter()
            .map(|place| symbols.function(&place.path, place.address).unwrap_or("?").to_owned())
            .collect();
        let way = if *burns { &path.burning } else { &path.blocking };
        assert!(leads_through(&names, way), "{section}: framehop finds {names:?}, it went through {way:?}");
        assert!(
            names.iter().any(|name| name == "thread_start"),
            "{section}: framehop does not reach the root: {names:?}"
        );
    }
}

#[test]
fn the_reference_itself_sees_what_the_program_says() {
    let _turn = Turn::with_others();
    let (held, paths) = look_everywhere(Program::start(program!("deep-stacks"), &["--hold"]));
    assert_reference_is_right(&held, &paths);
}

#[test]
fn held_threads_have_the_stacks_that_framehop_finds() {
    let _turn = Turn::with_others();
    let program = Program::start(program!("deep-stacks"), &["--hold"]);
    let recording = Record::new().process(program.pid()).arguments(["-F", "997"]).start();
    let (held, paths) = look_everywhere(program);
    let trace = recording.wait().expect_success().trace();
    assert_reference_is_right(&held, &paths);
    for held in &held {
        if held.burns { assert_spun_in(&trace, held) } else { assert_slept_in(&trace, held) }
    }
}

/// Every timer sample of a thread that spins in one function has the callers that framehop found.
fn assert_spun_in(trace: &Trace, held: &Held) {
    let during =
        |sample: &&StackSample| sample.tid == held.tid && held.within.contains(&sample.at) && !sample.is_blocked();
    let samples: Vec<_> = trace.samples.iter().filter(during).collect();
    let ran = trace.thread(held.tid).ran_within(&held.within);
    // A period is a millisecond; half of it is for what the machine had to do otherwise.
    assert!(samples.len() as u64 >= ran / 2_000_000, "{}: {} samples in {ran} ns", held.section, samples.len());
    // Announcing is done in functions that the spinning function called: until it spins, there are more frames.
    let spinning: Vec<_> =
        samples.iter().filter(|sample| sample.stack.frames().len() <= held.reference.places.len()).collect();
    assert!(spinning.len() * 10 >= samples.len() * 9, "{}: {} of {} spin", held.section, spinning.len(), samples.len());
    for sample in spinning {
        assert_same(held, sample.stack.frames(), 1);
    }
}

/// The stretch in which framehop looked, which ended by that, has the stack that framehop found.
fn assert_slept_in(trace: &Trace, held: &Held) {
    let at = held.reference.at;
    let during =
        |sample: &&StackSample| sample.tid == held.tid && sample.is_blocked() && sample.stretch().contains(&at);
    let samples: Vec<_> = trace.samples.iter().filter(during).collect();
    let [sample] = samples[..] else { panic!("{}: {} stretches around {at}", held.section, samples.len()) };
    assert_same(held, sample.stack.frames(), 0);
}

/// Compares all frames but the innermost `skipped`.
fn assert_same(held: &Held, recorded: &[Frame], skipped: usize) {
    let expected = &held.reference.places;
    let frames: Vec<_> = recorded
        .iter()
        .map(|frame| Place { path: frame.path().unwrap_or_default().to_owned(), address: frame.rel_pc })
        .collect();
    let section = &held.section;
    assert_eq!(frames.len(), expected.len(), "{section}: recorded {recorded:?}, framehop finds {expected:?}");
    for (index, (ours, theirs)) in frames.iter().zip(expected).enumerate().skip(skipped) {
        // The innermost one is behind a system call, which we look up at the call.
        let may_be_next = index == 0 || held.reference.trampoline == Some(index);
        let apart = ours.address.abs_diff(theirs.address);
        assert!(
            ours.path == theirs.path && apart <= u64::from(may_be_next),
            "{section}: frame {index} is {ours:x?}, framehop says {theirs:x?}; recorded {recorded:?}"
        );
    }
}
