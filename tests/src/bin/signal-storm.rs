//! A thread that sends itself signals, one after another, and does little else.
//!
//! Prints `ready PID`, begins when a line comes on standard input, prints `done` two seconds later, and ends when standard
//! input closes.

use std::{
    io, process, ptr,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use polletto_tests::workload::{line_came, say, until_stdin_closes};

static CAUGHT: AtomicU64 = AtomicU64::new(0);

/// Begins with an instruction that no other function's end could be taken for.
#[unsafe(no_mangle)]
extern "C" fn storm_handler(_: libc::c_int) {
    CAUGHT.fetch_add(1, Ordering::Relaxed);
}

fn main() -> io::Result<()> {
    // SAFETY: all zeros is a valid `sigaction`, and the handler does nothing that a handler may not.
    let caught = unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = storm_handler as extern "C" fn(libc::c_int) as usize;
        libc::sigaction(libc::SIGUSR1, &raw const action, ptr::null_mut())
    };
    if caught != 0 {
        return Err(io::Error::last_os_error());
    }
    say(format_args!("ready {}", process::id()));
    if !line_came() {
        return Ok(());
    }
    let end = Instant::now() + Duration::from_secs(2);
    while Instant::now() < end {
        // SAFETY: it goes to this very thread, which has a handler for it.
        unsafe { libc::raise(libc::SIGUSR1) };
    }
    say("done");
    until_stdin_closes();
    Ok(())
}
