//! A thread that works at the bottom of a stack of known depth.
//!
//! `stack-burner [--cpu 0] [--depth 30] [--seconds 2] [--wait]`
//!
//! With `--wait` it prints `ready PID` and begins when a line comes on standard input. At the end it prints one line of
//! JSON: how much work it did, in how much time, and how much of that on the CPU.

use std::{
    hint::black_box,
    io, process,
    time::{Duration, Instant},
};

use polletto_tests::workload::{flag, line_came, option, pin_to, say};
use rustix::time::{ClockId, clock_gettime};

/// Work between two looks at the clock.
const BATCH: u64 = 10_000;

fn main() -> io::Result<()> {
    pin_to(option("--cpu", 0))?;
    let (depth, length) = (option("--depth", 30), Duration::from_secs_f64(option("--seconds", 2.0)));
    if flag("--wait") {
        say(format_args!("ready {}", process::id()));
        line_came();
    }
    let began = Instant::now();
    let work = descend(depth, began + length);
    let used = clock_gettime(ClockId::ProcessCPUTime);
    let used = Duration::new(used.tv_sec.unsigned_abs(), u32::try_from(used.tv_nsec).expect("a fraction of a second"));
    let (seconds, used) = (began.elapsed().as_secs_f64(), used.as_secs_f64());
    say(format_args!(r#"{{"work":{work},"seconds":{seconds},"cpu_seconds":{used}}}"#));
    Ok(())
}

/// Calls itself so often, then works until `end`.
#[inline(never)]
fn descend(depth: u32, end: Instant) -> u64 {
    // What is done with the outcome keeps the call from becoming a jump.
    if depth == 0 { work_until(end) } else { black_box(descend(black_box(depth - 1), end)) }
}

#[inline(never)]
fn work_until(end: Instant) -> u64 {
    let (mut work, mut state) = (0, 1_u64);
    while Instant::now() < end {
        for _ in 0..BATCH {
            state = black_box(state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1));
        }
        work += BATCH;
    }
    work
}
