//! What recorded threads do on a CPU: samples by a timer.

use aya_ebpf::{EbpfContext, Global, helpers::bpf_get_current_task_btf, programs::PerfEventContext};
use polletto_common::record::{Sample, flags};

use crate::{
    polled,
    registers::{Cpu, Native},
    ring, scope,
    stack::{self, Unwinder, User},
    task::Task,
};

/// What a sample stands for, nanoseconds of running time.
#[unsafe(no_mangle)]
static SAMPLE_PERIOD_NS: Global<u64> = Global::new(0);

/// The timer of this CPU.
#[inline(always)]
pub fn timer<U: Unwinder>(context: &PerfEventContext) {
    // SAFETY: a helper without arguments; it never returns null.
    let task = Task::new(unsafe { bpf_get_current_task_btf() }.cast_const());
    if task.is_idle() || !scope::contains(task) {
        return;
    }
    let time_ns = ring::now();
    let context = context.as_ptr();
    // SAFETY: a perf event's context, and the current thread.
    let (interrupted, stack) = unsafe {
        let interrupted = Native::interrupted(context);
        (interrupted, stack::capture::<U>(context, User::Timer, task, interrupted, time_ns))
    };
    // SAFETY: the current thread.
    let polled = unsafe { polled::by(task) };
    let bits = if interrupted.is_none() { flags::IN_KERNEL } else { 0 };
    ring::emit_sample(Sample {
        header: ring::header_at::<Sample>(time_ns, bits),
        stack,
        tid: task.tid(),
        tgid: task.tgid(),
        period_ns: SAMPLE_PERIOD_NS.load(),
        polled,
    });
}
