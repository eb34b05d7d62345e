//! Who runs on a CPU, and who is woken.

use aya_ebpf::{EbpfContext, Global, helpers::bpf_get_current_task_btf, programs::BtfTracePointContext};
use polletto_common::{
    id::Tid,
    record::{Current, Switch, Waking, flags},
};

use crate::{
    polled, ring, scope, sleep,
    stack::Unwinder,
    task::{DEAD, Task},
};

/// 1 when `sched_switch` passes the state of the thread that leaves: since Linux 5.18. Before, a waker on another CPU may
/// have changed it already.
#[unsafe(no_mangle)]
static SWITCH_TELLS_STATE: Global<u32> = Global::new(1);

/// 1 when threads' sleep is recorded with its stack.
#[unsafe(no_mangle)]
static WATCH_SLEEP: Global<u32> = Global::new(0);

/// `sched_switch(preempt, prev, next, prev_state)`
///
/// Of other programs' threads only the change between idle and busy is recorded: who they are stays private.
#[inline(always)]
pub fn switch<U: Unwinder>(context: &BtfTracePointContext) {
    let prev = Task::new(context.arg(1));
    let next = Task::new(context.arg(2));
    let (prev_recorded, next_recorded) = (scope::contains(prev), scope::contains(next));
    let (prev_tid, next_tid) = (prev.tid(), next.tid());
    let idle_changes = (prev_tid == Tid::IDLE) != (next_tid == Tid::IDLE);
    if !(prev_recorded || next_recorded || idle_changes) {
        return;
    }
    let preempted: u64 = context.arg(0);
    let mut bits = 0;
    if preempted as u8 != 0 {
        bits |= flags::PREEMPTED;
    }
    if prev_recorded {
        bits |= flags::PREV_RECORDED;
    }
    if next_recorded {
        bits |= flags::NEXT_RECORDED;
    }
    let time_ns = ring::now();
    let prev_state = if SWITCH_TELLS_STATE.load() != 0 { context.arg(3) } else { prev.state() };
    ring::stream(Switch {
        header: ring::header_at::<Switch>(time_ns, bits),
        prev_tid,
        next_tid,
        prev_state,
        prev_exit_state: prev.exit_state() as u16,
        next_prio: next.prio() as u16,
    });
    if next_recorded && WATCH_SLEEP.load() != 0 {
        sleep::back(next, time_ns);
    }
    if !prev_recorded {
        return;
    }
    if prev_state & DEAD != 0 {
        scope::thread_ended(prev);
    }
    // SAFETY: until the switch is done, the thread that leaves is the current one.
    let polled = unsafe { polled::by(prev) };
    let falls_asleep = preempted as u8 == 0 && prev_state != 0;
    polled::left(prev, polled, falls_asleep, time_ns);
    if WATCH_SLEEP.load() == 0 {
        return;
    }
    if falls_asleep {
        // SAFETY: this program's context. Until the switch is done, the thread that leaves is the current one.
        unsafe { sleep::leave::<U>(context.as_ptr(), prev, prev_state, polled, time_ns) };
    } else {
        sleep::ran(prev);
    }
}

/// `sched_waking(task)`
#[inline(always)]
pub fn waking(context: &BtfTracePointContext) {
    let task = Task::new(context.arg(0));
    if !scope::contains(task) {
        return;
    }
    let time_ns = ring::now();
    ring::stream(Waking {
        header: ring::header_at::<Waking>(time_ns, 0),
        tid: task.tid(),
        prio: task.prio() as u16,
        target_cpu: task.cpu() as u16,
    });
    if WATCH_SLEEP.load() != 0 {
        sleep::wake(task, time_ns);
    }
}

/// What this CPU runs now.
#[inline(always)]
pub fn current() {
    // SAFETY: a helper without arguments; it never returns null.
    let task = Task::new(unsafe { bpf_get_current_task_btf() }.cast_const());
    let bits = if scope::contains(task) { flags::NEXT_RECORDED } else { 0 };
    ring::emit_task(Current { header: ring::header::<Current>(bits), tid: task.tid(), prio: task.prio() });
}
