//! The entry points of polletto's kernel programs. What they do stands in the modules.

#![no_std]
#![no_main]

mod parked;
mod poll;
mod polled;
mod registers;
mod ring;
mod sample;
mod sched;
mod scope;
mod sleep;
mod stack;
mod task;
mod unwind;
mod wake;

use aya_ebpf::{
    macros::{btf_tracepoint, perf_event, raw_tracepoint, uprobe},
    programs::{BtfTracePointContext, PerfEventContext, ProbeContext, RawTracePointContext},
};

use self::stack::{ByFramePointers, ByTables};

#[btf_tracepoint(function = "sched_switch")]
pub fn sched_switch(context: BtfTracePointContext) -> i32 {
    sched::switch::<ByTables>(&context);
    0
}

/// Instead of `sched_switch` where unwinding by tables can't be had.
#[btf_tracepoint(function = "sched_switch")]
pub fn sched_switch_by_fp(context: BtfTracePointContext) -> i32 {
    sched::switch::<ByFramePointers>(&context);
    0
}

#[perf_event]
pub fn timer(context: PerfEventContext) -> u32 {
    sample::timer::<ByTables>(&context);
    0
}

/// Instead of `timer` where unwinding by tables can't be had.
#[perf_event]
pub fn timer_by_fp(context: PerfEventContext) -> u32 {
    sample::timer::<ByFramePointers>(&context);
    0
}

#[btf_tracepoint(function = "sched_waking")]
pub fn sched_waking(context: BtfTracePointContext) -> i32 {
    sched::waking(&context);
    0
}

#[btf_tracepoint(function = "sched_process_fork")]
pub fn sched_process_fork(context: BtfTracePointContext) -> i32 {
    task::fork(&context);
    0
}

#[btf_tracepoint(function = "sched_process_exec")]
pub fn sched_process_exec(context: BtfTracePointContext) -> i32 {
    task::exec(&context);
    0
}

#[btf_tracepoint(function = "sched_process_exit")]
pub fn sched_process_exit(context: BtfTracePointContext) -> i32 {
    task::exit(&context);
    0
}

#[btf_tracepoint(function = "task_rename")]
pub fn task_rename(context: BtfTracePointContext) -> i32 {
    task::rename(&context);
    0
}

/// Attached to code of recorded programs: where polls begin and have ended, where tasks are woken, and where they are
/// spawned. Its cookie says which.
#[uprobe]
pub fn poll_probe(context: ProbeContext) -> u32 {
    poll::probe(&context);
    0
}

/// Attached to nothing: the recorder runs it once on each CPU to learn what runs there.
#[raw_tracepoint(tracepoint = "sched_switch")]
pub fn current(_context: RawTracePointContext) -> i32 {
    sched::current();
    0
}

/// Writes one `Task` record for every thread of the machine into the iterator's file.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/task")]
pub extern "C" fn tasks(context: *mut task::IteratorContext) -> i32 {
    task::list(context);
    0
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 4] = *b"GPL\0";
