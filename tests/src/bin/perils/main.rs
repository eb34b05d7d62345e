//! A program on Tokio that does to its tasks, runtimes and processes what is hard to be probed in.
//!
//! | act | what happens |
//! | --- | --- |
//! | `panics` | tasks panic on all kinds of threads, and Tokio catches it |
//! | `aborts` | tasks are aborted while they wait, while they are polled, and by themselves |
//! | `blocks` | tasks block in place, and run others meanwhile |
//! | `shuts-down` | runtimes end while their tasks live |
//! | `forks` | tasks fork, and start other programs; their children poll on and end |
//! | `executes TIMES` | a task executes the program again, so many times |
//! | `abort`, `panic-twice`, `overflow`, `exit` | a task ends the process |
//! | `polls` | tasks are polled for a moment |
//! | `endless` | tasks are polled until the process is killed |
//!
//! Prints `ready PID`, begins when a line comes on standard input, prints what it did and `done`, and ends with status
//! 7 when standard input closes. What it prints is the same each time, but for the ids of processes and threads.

mod endings;
mod panics;
mod processes;
mod tasks;

use std::{env, process, process::ExitCode};

use polletto_tests::workload::{line_came, say, until_stdin_closes};

/// The status that it ends with: one that nothing else gives it.
const OWN_STATUS: u8 = 7;

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    // Those that a task starts are ready at once.
    if let ["now", act @ ..] = arguments.as_slice() {
        take(act);
    } else {
        say(format_args!("ready {}", process::id()));
        if line_came() {
            take(&arguments);
        }
    }
    say("done");
    until_stdin_closes();
    ExitCode::from(OWN_STATUS)
}

fn take(act: &[&str]) {
    match act {
        ["panics"] => panics::act(),
        ["aborts"] => tasks::aborts(),
        ["blocks"] => tasks::blocks(),
        ["shuts-down"] => tasks::shuts_down(),
        ["forks"] => processes::forks(),
        ["executes", times] => processes::executes(times.parse().expect("a number")),
        ["polls"] => processes::polls(),
        ["endless"] => endings::endless(),
        [ending] => endings::ends_in_a_poll(ending),
        _ => panic!("no act {act:?}"),
    }
}
