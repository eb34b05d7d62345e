//! Threads that burn CPU and block at the end of every kind of path that calls can take.
//!
//! `deep-stacks [--rounds 20] [--threads 2] [--hold]`
//!
//! Prints `ready PID` and begins when a line comes on standard input. Then the main thread and `--threads - 1` others
//! take every path `--rounds` times. Each time, one line of JSON says which functions must have been on the thread's stack
//! while it burnt or blocked, the innermost first, and when: see [`Section`]. At the end it prints `done`.
//!
//! With `--hold` one thread takes every path once, and stays where it burns or blocks until a line comes on standard
//! input: it prints `holding SECTION burn|block TID BOOTTIME` before.

mod bottom;
mod calls;
mod interruptions;
mod panics;
mod waits;

use std::{
    io, process,
    thread::{self, JoinHandle},
};

use polletto_tests::workload::{boottime, flag, line_came, option, own_tid, say};
use serde_json::json;

use waits::Waits;

/// A path, and the functions on it, from the one that burns or blocks outwards. Each is on the stack as often as it is
/// named here, and others may lie in between.
struct Section {
    name: &'static str,
    run: fn(&mut Waits) -> u64,
    /// Empty if the path only blocks.
    burning: Vec<&'static str>,
    /// Empty if the path only burns.
    blocking: Vec<&'static str>,
}

impl Section {
    /// A path that ends in [`bottom::bottom`].
    fn to_bottom(name: &'static str, run: fn(&mut Waits) -> u64, through: &[&'static str]) -> Section {
        let path = |leaf| [&[leaf, "bottom"], through].concat();
        Section { name, run, burning: path("burn"), blocking: path("rest") }
    }

    /// A path that ends in one of the standard library's ways to wait.
    fn to_wait(name: &'static str, run: fn(&mut Waits) -> u64, through: &[&'static str]) -> Section {
        Section { name, run, burning: Vec::new(), blocking: through.to_vec() }
    }

    /// A path that ends in others' code that computes.
    fn to_work(name: &'static str, run: fn(&mut Waits) -> u64, through: &[&'static str]) -> Section {
        Section { name, run, burning: through.to_vec(), blocking: Vec::new() }
    }
}

fn sections() -> Vec<Section> {
    let deep = |depth: usize| [&vec!["descend"; depth][..], &["through_recursion"]].concat();
    vec![
        Section::to_bottom("generics", |_| calls::through_generics(), &["layer", "layer", "layer", "through_generics"]),
        Section::to_bottom("closures", |_| calls::through_closures(), &["call_with", "call_with", "through_closures"]),
        Section::to_bottom("dyn", |_| calls::through_dyn(), &["pass", "pass", "pass", "through_dyn"]),
        // glibc's `qsort` is a jump to `qsort_r`.
        Section::to_bottom("qsort", |_| calls::through_qsort(), &["compare", "qsort_r", "through_qsort"]),
        Section::to_bottom("regex", |_| calls::through_regex(), &["replacement", "through_regex"]),
        Section::to_work("matching", |_| calls::through_matching(), &["through_matching"]),
        Section::to_bottom("recursion-200", |_| calls::through_recursion(200), &deep(200)),
        Section::to_bottom("recursion-300", |_| calls::through_recursion(300), &deep(300)),
        Section::to_bottom("unwinding", |_| panics::through_unwinding(), &["drop", "risky", "through_unwinding"]),
        Section::to_bottom("panic-hook", |_| panics::through_hook(), &["on_panic", "risky", "through_hook"]),
        Section::to_bottom("signal", |_| interruptions::through_signal(), &["on_signal", "through_signal"]),
        Section::to_bottom(
            "signal-stack",
            |_| interruptions::through_signal_stack(),
            &["on_signal", "through_signal_stack"],
        ),
        Section::to_bottom(
            "interruption",
            |_| interruptions::through_interruption(),
            &["on_signal", "interrupted", "through_interruption"],
        ),
        Section::to_wait("mutex", Waits::through_mutex, &["through_mutex"]),
        Section::to_wait("condvar", Waits::through_condvar, &["through_condvar"]),
        Section::to_wait("channel", Waits::through_channel, &["through_channel"]),
        Section::to_wait("park", Waits::through_park, &["through_park"]),
    ]
}

/// Takes every path so many times.
#[inline(never)]
fn take_all(sections: &[Section], rounds: usize) {
    interruptions::make_signal_stack();
    let mut waits = Waits::start();
    for _ in 0..rounds {
        for section in sections {
            bottom::enter(section.name);
            let begin = boottime();
            std::hint::black_box((section.run)(&mut waits));
            let end = boottime();
            let Section { name, burning, blocking, .. } = section;
            say(json!({
                "section": name, "tid": own_tid(), "begin": begin, "end": end, "burning": burning, "blocking": blocking,
            }));
        }
    }
}

fn main() -> io::Result<()> {
    panics::install_hook();
    interruptions::install_handlers()?;
    say(format_args!("ready {}", process::id()));
    if !line_came() {
        return Ok(());
    }
    if flag("--hold") {
        bottom::hold_from_now_on();
        start("deep-held", 1, true)?;
        while line_came() {
            bottom::release();
        }
        return Ok(());
    }
    let rounds = option("--rounds", 20);
    let threads: Vec<_> = (1..option("--threads", 2))
        .map(|index| start(&format!("deep-{index}"), rounds, false))
        .collect::<Result<_, _>>()?;
    take_all(&sections(), rounds);
    for thread in threads {
        thread.join().expect("no thread panics outside of what catches it");
    }
    say("done");
    Ok(())
}

fn start(name: &str, rounds: usize, is_last: bool) -> io::Result<JoinHandle<()>> {
    thread::Builder::new().name(name.to_owned()).spawn(move || {
        take_all(&sections(), rounds);
        if is_last {
            say("done");
        }
    })
}
