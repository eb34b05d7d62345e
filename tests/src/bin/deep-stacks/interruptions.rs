//! Paths through signal handlers, on the stack of what was interrupted and on one of their own.

use std::{cell::Cell, hint::black_box, io, mem::MaybeUninit, ptr::null_mut};

use polletto_tests::workload::own_tid;

use crate::bottom::bottom;

const ON_SAME_STACK: i32 = libc::SIGUSR1;
const ON_OWN_STACK: i32 = libc::SIGUSR2;
const SIGNAL_STACK_BYTES: usize = 256 * 1024;

thread_local! {
    static HANDLED: Cell<bool> = const { Cell::new(false) };
}

#[inline(never)]
extern "C" fn on_signal(_: i32) {
    black_box(bottom());
    HANDLED.set(true);
}

/// Handlers for both signals. System calls that they interrupt go on afterwards.
pub fn install_handlers() -> io::Result<()> {
    for (signal, flags) in [(ON_SAME_STACK, 0), (ON_OWN_STACK, libc::SA_ONSTACK)] {
        // SAFETY: a `sigaction` of zeros is a valid one.
        let mut action: libc::sigaction = unsafe { MaybeUninit::zeroed().assume_init() };
        action.sa_sigaction = on_signal as extern "C" fn(i32) as usize;
        action.sa_flags = flags | libc::SA_RESTART;
        // SAFETY: the action is valid. Its handler allocates and prints, which is sound here since the signals are only
        // raised where nothing of that kind can be interrupted.
        if unsafe { libc::sigaction(signal, &raw const action, null_mut()) } != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// Gives the calling thread a stack for signals, for as long as it lives.
pub fn make_signal_stack() {
    let memory = Box::leak(vec![0_u8; SIGNAL_STACK_BYTES].into_boxed_slice());
    let stack = libc::stack_t { ss_sp: memory.as_mut_ptr().cast(), ss_flags: 0, ss_size: memory.len() };
    // SAFETY: the memory is never freed nor used for anything else.
    assert_eq!(unsafe { libc::sigaltstack(&raw const stack, null_mut()) }, 0, "a signal stack can be set");
}

#[inline(never)]
pub fn through_signal() -> u64 {
    // SAFETY: there is a handler, and nothing else is interrupted than this call.
    black_box(u64::from(unsafe { libc::raise(ON_SAME_STACK) } == 0))
}

#[inline(never)]
pub fn through_signal_stack() -> u64 {
    // SAFETY: as above.
    black_box(u64::from(unsafe { libc::raise(ON_OWN_STACK) } == 0))
}

/// A timer that goes off once, after the calling thread has used the CPU for so long, and interrupts just that thread.
struct OnceInThread(libc::timer_t);

impl OnceInThread {
    fn start(signal: i32, nanoseconds: i64) -> OnceInThread {
        // SAFETY: a `sigevent` of zeros is a valid one.
        let mut event: libc::sigevent = unsafe { MaybeUninit::zeroed().assume_init() };
        event.sigev_notify = libc::SIGEV_THREAD_ID;
        event.sigev_signo = signal;
        event.sigev_notify_thread_id = own_tid();
        let mut timer = null_mut();
        // SAFETY: both pointers are to live values.
        let made = unsafe { libc::timer_create(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut event, &raw mut timer) };
        assert_eq!(made, 0, "a timer can be made: {}", io::Error::last_os_error());
        let never = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        let once =
            libc::itimerspec { it_interval: never, it_value: libc::timespec { tv_sec: 0, tv_nsec: nanoseconds } };
        // SAFETY: the timer was just made, and the setting lives.
        let set = unsafe { libc::timer_settime(timer, 0, &raw const once, null_mut()) };
        assert_eq!(set, 0, "a timer can be set: {}", io::Error::last_os_error());
        OnceInThread(timer)
    }
}

impl Drop for OnceInThread {
    fn drop(&mut self) {
        // SAFETY: it is this value's own timer, deleted once.
        unsafe { libc::timer_delete(self.0) };
    }
}

/// With a frame that comes and goes, so that the signal may come in between.
#[inline(never)]
fn breathe(depth: u64) -> u64 {
    let kept = black_box([depth; 4]);
    if depth == 0 { kept[0] } else { black_box(breathe(depth - 1)) + kept[3] }
}

#[inline(never)]
fn interrupted() -> u64 {
    let mut sum = 0_u64;
    while !HANDLED.get() {
        sum = sum.wrapping_add(breathe(3));
    }
    black_box(sum)
}

/// The signal comes at any instruction.
#[inline(never)]
pub fn through_interruption() -> u64 {
    HANDLED.set(false);
    let timer = OnceInThread::start(ON_SAME_STACK, 300_000);
    let sum = interrupted();
    drop(timer);
    black_box(sum)
}
