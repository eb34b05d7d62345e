//! Tasks in whose polls nothing of the program's own runs, but only what its crates have.
//!
//! `borrowed-code`
//!
//! Prints `ready PID`. When a line comes on standard input, tasks count random letters for some ten milliseconds, in one poll
//! each; then it prints `done`. Ends when standard input does.

use std::{io, process};

use polletto_tests::workload::{line_came, say, until_stdin_closes};
use smol::stream::{self, StreamExt};
use tokio::runtime::Builder;

const TASKS: usize = 40;

/// In each poll.
const LETTERS: usize = 4_000_000;

fn main() -> io::Result<()> {
    let runtime = Builder::new_multi_thread().worker_threads(2).build()?;
    say(format_args!("ready {}", process::id()));
    if !line_came() {
        return Ok(());
    }
    let counted = (0..TASKS).map(|_| runtime.spawn(stream::repeat_with(fastrand::alphabetic).take(LETTERS).count()));
    for count in counted.collect::<Vec<_>>() {
        assert_eq!(runtime.block_on(count).expect("tasks end well"), LETTERS);
    }
    say("done");
    until_stdin_closes();
    Ok(())
}
