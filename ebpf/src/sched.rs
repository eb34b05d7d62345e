//! Who runs on a CPU, and who is woken.

use aya_ebpf::{helpers::bpf_get_current_task_btf, programs::BtfTracePointContext};
use polletto_common::{
    id::Tid,
    record::{Current, Switch, Waking, flags},
};

use crate::{ring, scope, task::Task};

/// `sched_switch(preempt, prev, next, prev_state)`
///
/// Of other programs' threads only the change between idle and busy is recorded: who they are stays private.
#[inline(always)]
pub fn switch(context: &BtfTracePointContext) {
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
    ring::stream(Switch {
        header: ring::header::<Switch>(bits),
        prev_tid,
        next_tid,
        prev_state: context.arg(3),
        prev_exit_state: prev.exit_state() as u16,
        next_prio: next.prio() as u16,
    });
}

/// `sched_waking(task)`
#[inline(always)]
pub fn waking(context: &BtfTracePointContext) {
    let task = Task::new(context.arg(0));
    if scope::contains(task) {
        ring::stream(Waking {
            header: ring::header::<Waking>(0),
            tid: task.tid(),
            prio: task.prio() as u16,
            target_cpu: task.cpu() as u16,
        });
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
