//! Where paths end: the thread burns CPU, then it blocks.

use std::{
    cell::Cell,
    hint::black_box,
    sync::atomic::{
        AtomicBool, AtomicU32,
        Ordering::{Acquire, Relaxed, Release},
    },
    thread,
    time::Duration,
};

use polletto_tests::workload::{boottime, own_tid, say, spin};
use rustix::thread::futex;

/// More than the shortest stretch that is recorded by default.
pub const SHORT: Duration = Duration::from_millis(2);

static HOLD: AtomicBool = AtomicBool::new(false);
/// How often a held thread was let go.
static RELEASES: AtomicU32 = AtomicU32::new(0);

thread_local! {
    static SECTION: Cell<&str> = const { Cell::new("") };
}

/// Says which path is taken next.
pub fn enter(section: &'static str) {
    SECTION.set(section);
}

/// Threads stay where they burn or block until [`release`].
pub fn hold_from_now_on() {
    HOLD.store(true, Release);
}

/// Lets the thread go on that is held.
pub fn release() {
    RELEASES.fetch_add(1, Release);
    futex::wake(&RELEASES, futex::Flags::PRIVATE, u32::MAX >> 1).expect("a futex of our own can be woken");
}

/// What holds a thread: gone with the next [`release`].
pub struct Hold(u32);

impl Hold {
    /// None where threads are not held.
    pub fn next() -> Option<Hold> {
        HOLD.load(Acquire).then(|| Hold(RELEASES.load(Acquire)))
    }

    /// Says what the thread does until it is released.
    pub fn announce(&self, what: &str) {
        say(format_args!("holding {} {what} {} {}", SECTION.get(), own_tid(), boottime()));
    }

    /// Blocks until the release, in a system call of its own.
    pub fn wait(&self) {
        while RELEASES.load(Acquire) == self.0 {
            // Interrupted, or too late to sleep: the loop sees to both.
            futex::wait(&RELEASES, futex::Flags::PRIVATE, self.0, None).ok();
        }
    }
}

/// Burns, then blocks.
#[inline(never)]
pub fn bottom() -> u64 {
    let burnt = burn();
    black_box(burnt ^ rest())
}

#[inline(never)]
fn burn() -> u64 {
    match Hold::next() {
        None => spin(SHORT),
        Some(hold) => {
            hold.announce("burn");
            // Nothing is called, so that the callers stay the same to the byte.
            while RELEASES.load(Relaxed) == hold.0 {
                std::hint::spin_loop();
            }
        }
    }
    black_box(1)
}

#[inline(never)]
fn rest() -> u64 {
    match Hold::next() {
        None => thread::sleep(SHORT),
        Some(hold) => {
            hold.announce("block");
            hold.wait();
        }
    }
    black_box(2)
}
