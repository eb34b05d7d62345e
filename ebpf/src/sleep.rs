//! What recorded threads wait for: the stack with which one leaves its CPU to sleep, told when it is back.

use core::ffi::c_void;

use aya_ebpf::{
    Global,
    btf_maps::{Array, HashMap},
    helpers::bpf_get_current_task_btf,
    macros::btf_map,
};
use polletto_common::{
    id::Tid,
    limits::MAX_SLEEPERS,
    polled::Polled,
    record::{Blocked, Sleeper},
};

use crate::{
    parked, ring, scope,
    stack::{self, Unwinder, User},
    task::{DEAD, Task},
};

/// Stretches shorter than this are not told, nanoseconds; but see [`Sleeper::tells`].
#[unsafe(no_mangle)]
static MIN_BLOCK_NS: Global<u64> = Global::new(0);

/// 1 once the recorder has told what it knows of the processes' memory.
#[btf_map]
static SLEEPERS_WANTED: Array<u32, 1> = Array::new();

/// Keyed by thread. All elements exist from the beginning: nothing may be allocated inside a context switch.
#[btf_map]
static SLEEPERS: HashMap<u32, Sleeper, MAX_SLEEPERS> = HashMap::new();

/// The current thread leaves its CPU without going to sleep. If it was taken to sleep, it came back unseen.
#[inline(always)]
pub fn ran(prev: Task) {
    if let Some(sleeper) = SLEEPERS.get_ptr_mut(prev.tid().0) {
        // SAFETY: a thread leaves on one CPU at a time, and nobody wakes one that runs.
        unsafe { (*sleeper).left_ns = 0 };
    }
}

/// The current thread leaves its CPU to sleep or to end, in `prev_state`.
///
/// # Safety
/// `context` is a `sched_switch` program's, and `prev` the thread that leaves.
#[inline(always)]
pub unsafe fn leave<U: Unwinder>(context: *mut c_void, prev: Task, prev_state: u32, polled: Polled, time_ns: u64) {
    if !is_wanted() {
        return;
    }
    let tid = prev.tid();
    if prev_state & DEAD != 0 {
        // Most have never slept.
        SLEEPERS.remove(tid.0).ok();
        return;
    }
    // SAFETY: as the caller says.
    let stack = unsafe { stack::capture::<U>(context, User::Switch, prev, None, time_ns) };
    // SAFETY: the current thread.
    let system_call = unsafe { U::system_call(prev) };
    // SAFETY: the current thread.
    let argument = unsafe { parked::argument(prev, system_call) };
    match SLEEPERS.get_ptr_mut(tid.0) {
        // SAFETY: a thread leaves on one CPU at a time, and is not woken before.
        Some(sleeper) => unsafe {
            (*sleeper).stack = stack;
            (*sleeper).left_ns = time_ns;
            (*sleeper).prev_state = prev_state;
            (*sleeper).tgid = prev.tgid();
            (*sleeper).system_call = system_call.number;
            (*sleeper).argument = argument;
            (*sleeper).polled = polled;
        },
        None => {
            let tgid = prev.tgid();
            let sleeper = Sleeper {
                stack,
                left_ns: time_ns,
                woken_ns: 0,
                waker_tid: Tid::IDLE,
                prev_state,
                tgid,
                system_call: system_call.number,
                argument,
                polled,
                untold_ns: 0,
            };
            if SLEEPERS.insert(tid.0, sleeper, 0).is_err()
                && let Some(stats) = ring::stats()
            {
                stats.untracked_sleeps += 1;
            }
        }
    }
}

/// Someone wakes `task`.
#[inline(always)]
pub fn wake(task: Task, time_ns: u64) {
    if let Some(sleeper) = SLEEPERS.get_ptr_mut(task.tid().0) {
        // SAFETY: a helper without arguments; it never returns null.
        let waker = Task::new(unsafe { bpf_get_current_task_btf() }.cast_const());
        // Who others are stays private.
        let waker_tid = if scope::contains(waker) { waker.tid() } else { Tid::IDLE };
        // SAFETY: wakers of one thread take turns, and the thread itself, which sleeps, touches what they do only when it is
        // back.
        unsafe {
            // Only who sleeps is woken. One that was woken and not seen since came back unseen, and it is unknown for how
            // long it has been asleep this time.
            if (*sleeper).woken_ns > (*sleeper).left_ns {
                (*sleeper).left_ns = 0;
            }
            (*sleeper).woken_ns = time_ns;
            (*sleeper).waker_tid = waker_tid;
        }
    }
}

/// `next` runs again.
#[inline(always)]
pub fn back(next: Task, time_ns: u64) {
    let tid = next.tid();
    let Some(sleeper) = SLEEPERS.get_ptr_mut(tid.0) else { return };
    // SAFETY: the thread runs nowhere else, and nobody wakes one that runs.
    let sleeper = unsafe { &mut *sleeper };
    let slept = *sleeper;
    if slept.left_ns == 0 {
        return;
    }
    sleeper.left_ns = 0;
    if !sleeper.tells(time_ns.wrapping_sub(slept.left_ns), MIN_BLOCK_NS.load()) || !ring::is_wanted() {
        return;
    }
    ring::emit_sample(Blocked {
        header: ring::header_at::<Blocked>(time_ns, 0),
        stack: slept.stack,
        left_ns: slept.left_ns,
        woken_ns: slept.woken_ns,
        tid,
        tgid: next.tgid(),
        waker_tid: slept.waker_tid,
        prev_state: slept.prev_state,
        system_call: slept.system_call,
        reserved: 0,
        argument: slept.argument,
        polled: slept.polled,
    });
}

#[inline(always)]
fn is_wanted() -> bool {
    // SAFETY: a map's value, which the recorder sets once.
    SLEEPERS_WANTED.get_ptr(0).is_some_and(|wanted| unsafe { wanted.read_volatile() } != 0)
}
