//! The state in which a thread leaves a CPU.
//!
//! The kernel keeps a thread's state in bits that no tracer ever prints; its `sched_switch` tracepoint folds them into
//! the few that it reports, and that is what readers of a trace know.

use polletto_common::{
    id::Tid,
    record::{Switch, flags},
};

use super::pseudo;

/// Bits that the tracepoint reports as they are: running (none), sleeping interruptibly and not, stopped, traced, dead,
/// zombie, parked.
const REPORTED: u32 = 0x7f;
const UNINTERRUPTIBLE: u32 = 0x02;
const PARKED: u32 = 0x40;
/// Sleeping on an `rt_mutex` that stands for a lock; reported as uninterruptible.
const RTLOCK_WAIT: u32 = 0x1000;
/// Stopped by the freezer; reported as uninterruptible.
const FROZEN: u32 = 0x8000;
/// `TASK_UNINTERRUPTIBLE | TASK_NOLOAD`: a kernel thread that waits for work.
const IDLE: u32 = 0x402;
/// The thread ends with this switch.
const DEAD: u32 = 0x80;

const REPORT_IDLE: i64 = 0x80;
const REPORT_PREEMPTED: i64 = 0x100;

/// Ready to go on. Also what the idle thread leaves in.
pub const RUNNABLE: i64 = 0;

/// The thread does not exist any more.
pub const GONE: i64 = 0x10;

/// Asleep, as far as anyone knows: how threads that stand for others leave.
pub const ASLEEP: i64 = 1;

/// Not known, because records were lost. Readers show `P`: parked, a state that only threads of the kernel are in.
const UNKNOWN: i64 = PARKED as i64;

/// How a thread left that was running when records began to miss.
pub fn after_unobserved(tid: Tid) -> i64 {
    if tid == Tid::IDLE {
        RUNNABLE
    } else if pseudo::name(tid).is_some() {
        ASLEEP
    } else {
        UNKNOWN
    }
}

/// What the tracepoint would have printed for the thread that leaves.
pub fn of_switch(switch: &Switch) -> i64 {
    if switch.header.flags & flags::PREEMPTED != 0 {
        return REPORT_PREEMPTED;
    }
    reported(switch.prev_state, u32::from(switch.prev_exit_state))
}

fn reported(state: u32, exit_state: u32) -> i64 {
    if state & IDLE == IDLE {
        return REPORT_IDLE;
    }
    let waits_uninterruptibly = if state & (RTLOCK_WAIT | FROZEN) != 0 { UNINTERRUPTIBLE } else { 0 };
    let reported = (state | waits_uninterruptibly | exit_state) & REPORTED;
    reported.checked_ilog2().map_or(RUNNABLE, |highest| 1 << highest)
}

/// Whether readers show a thread as asleep that left in this state, as [`of_switch`] tells it.
pub fn is_sleep(state: i64) -> bool {
    state == ASLEEP || state == i64::from(UNINTERRUPTIBLE)
}

/// The letters that readers show for states, by the bit that the tracepoint reports.
pub const LETTERS: [&str; 9] = ["R", "S", "D", "T", "t", "X", "Z", "P", "I"];

/// Which of [`LETTERS`] stands for a thread that left in `state`, a `__state` of the kernel, and came back.
pub fn letter(state: u32) -> usize {
    reported(state, 0).checked_ilog2().map_or(0, |bit| bit as usize + 1)
}

/// Whether no signal wakes a thread that left in `state`, a `__state` of the kernel.
pub fn is_uninterruptible(state: u32) -> bool {
    reported(state, 0) == i64::from(UNINTERRUPTIBLE)
}

/// Whether the thread that leaves never comes back.
pub fn is_dead(switch: &Switch) -> bool {
    switch.prev_state & DEAD != 0
}

#[cfg(test)]
mod tests {
    use polletto_common::record::{Header, Layout};

    use super::*;

    fn switch(prev_state: u32, prev_exit_state: u16, flags: u32) -> Switch {
        let header = Header { time_ns: 0, kind: Switch::KIND, cpu: 0, flags };
        Switch { header, prev_tid: Tid(1), next_tid: Tid(2), prev_state, prev_exit_state, next_prio: 120 }
    }

    #[test]
    fn states_are_folded_as_the_kernel_s_tracepoint_does() {
        let cases = [
            ("running", switch(0, 0, 0), 0),
            ("interruptible", switch(0x1, 0, 0), 0x1),
            ("interruptible and freezable", switch(0x2001, 0, 0), 0x1),
            ("uninterruptible", switch(0x2, 0, 0), 0x2),
            ("killable", switch(0x102, 0, 0), 0x2),
            ("idle kernel thread", switch(0x402, 0, 0), 0x80),
            ("waits for an rtlock", switch(0x1000, 0, 0), 0x2),
            ("stopped", switch(0x104, 0, 0), 0x4),
            ("zombie", switch(0x80, 0x20, 0), 0x20),
            ("gone", switch(0x80, 0x10, 0), 0x10),
            ("preempted while going to sleep", switch(0x1, 0, flags::PREEMPTED), 0x100),
        ];
        for (what, switch, expected) in cases {
            assert_eq!(of_switch(&switch), expected, "{what}");
        }
    }

    #[test]
    fn a_state_has_the_letter_that_readers_show() {
        for (state, expected) in
            [(0, "R"), (0x1, "S"), (0x2001, "S"), (0x102, "D"), (0x8000, "D"), (0x40, "P"), (0x402, "I")]
        {
            assert_eq!(LETTERS[letter(state)], expected, "{state:#x}");
        }
    }

    #[test]
    fn a_thread_is_dead_with_its_last_switch_only() {
        assert!(is_dead(&switch(0x80, 0x20, 0)));
        assert!(!is_dead(&switch(0x1, 0x20, 0)));
    }
}
