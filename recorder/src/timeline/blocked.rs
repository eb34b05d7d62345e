//! What a thread's absence from its CPU consists of.

use polletto_common::record::Blocked;

use crate::trace::Weights;

/// A waker on another CPU can come before the thread has left, since a thread says that it will sleep before it does. By
/// more than this, the wake-up belongs to an earlier sleep.
const EARLIEST_WAKING_NS: u64 = 1_000_000;

/// `left_ns ≤ woken_ns ≤ returned_ns`: first the thread sleeps, then it waits for a CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Absence {
    pub left_ns: u64,
    pub woken_ns: u64,
    pub returned_ns: u64,
}

impl Absence {
    /// All of it is sleep if nobody saw when it was woken.
    pub fn of(blocked: &Blocked) -> Absence {
        Absence::between(blocked.left_ns, blocked.woken_ns, blocked.header.time_ns)
    }

    /// As [`Absence::of`]; `woken_ns` is 0 if nobody saw that.
    pub fn between(left_ns: u64, woken_ns: u64, returned_ns: u64) -> Absence {
        let returned_ns = returned_ns.max(left_ns);
        let is_unknown = woken_ns == 0 || left_ns.saturating_sub(woken_ns) >= EARLIEST_WAKING_NS;
        let woken_ns = if is_unknown { returned_ns } else { woken_ns.clamp(left_ns, returned_ns) };
        Absence { left_ns, woken_ns, returned_ns }
    }

    /// The part of it that is before a moment.
    pub fn until(self, time_ns: u64) -> Absence {
        let Absence { left_ns, woken_ns, returned_ns } = self;
        Absence {
            left_ns: left_ns.min(time_ns),
            woken_ns: woken_ns.min(time_ns),
            returned_ns: returned_ns.min(time_ns),
        }
    }

    pub fn weights(self) -> Weights {
        Weights { cpu_ns: 0, off_cpu_ns: self.woken_ns - self.left_ns, run_queue_ns: self.returned_ns - self.woken_ns }
    }
}

#[cfg(test)]
mod tests {
    use polletto_common::{
        id::{Tgid, Tid},
        polled::Polled,
        record::{Header, Layout},
    };

    use super::*;

    #[test]
    fn sleep_ends_and_waiting_begins_when_the_thread_is_woken() {
        let second = 1_000_000_000;
        let cases = [
            ("woken in between", second + 300, (300, 200)),
            ("woken before it had left", second - 999_999, (0, 500)),
            ("woken from an earlier sleep", second - 1_000_000, (500, 0)),
            ("never seen", 0, (500, 0)),
            ("woken after it ran again, by another CPU's clock", second + 501, (500, 0)),
        ];
        for (what, woken_ns, expected) in cases {
            let blocked = Blocked {
                header: Header { time_ns: second + 500, kind: Blocked::KIND, cpu: 0, flags: 0 },
                stack: 1,
                left_ns: second,
                woken_ns,
                tid: Tid(1),
                tgid: Tgid(1),
                waker_tid: Tid(0),
                prev_state: 1,
                system_call: -1,
                reserved: 0,
                argument: 0,
                polled: Polled::default(),
            };
            let weights = Absence::of(&blocked).weights();
            assert_eq!((weights.off_cpu_ns, weights.run_queue_ns), expected, "{what}");
            assert_eq!(weights.wall_ns(), 500, "{what}");
        }
    }
}
