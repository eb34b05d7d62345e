//! `compact_sched`: columns of switches and wake-ups, one bundle per CPU and flush.

use std::{fmt, sync::Arc};

use perfetto_protos::ftrace_event_bundle::FtraceEventBundle;

use super::{Nanoseconds, Tid};

/// `prev_state` as Linux ≥ 4.14 reports it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct EndState(pub u16);

impl EndState {
    /// Ready to run.
    pub const RUNNABLE: EndState = EndState(0);
    /// Sleeps, and signals wake it.
    pub const SLEEPING: EndState = EndState(1);
    /// Taken off its CPU while it could run.
    pub const PREEMPTED: EndState = EndState(0x100);

    const LETTERS: [(u16, &str); 8] =
        [(1, "S"), (2, "D"), (4, "T"), (8, "t"), (0x10, "X"), (0x20, "Z"), (0x40, "P"), (0x80, "I")];

    fn from_trace(bits: i64) -> EndState {
        EndState(u16::try_from(bits).unwrap_or_else(|_| panic!("{bits:#x} is no state of a thread")))
    }

    /// Wants a CPU.
    pub fn is_runnable(self) -> bool {
        self.0 & 0xff == 0
    }

    /// Will never run again.
    pub fn is_dead(self) -> bool {
        self.0 & 0x30 != 0
    }
}

impl fmt::Display for EndState {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_runnable() {
            out.write_str("R")?;
        }
        for (_, letter) in Self::LETTERS.iter().filter(|(bit, _)| self.0 & bit != 0) {
            out.write_str(letter)?;
        }
        if self.0 & Self::PREEMPTED.0 != 0 { out.write_str("+") } else { Ok(()) }
    }
}

impl fmt::Debug for EndState {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{self}")
    }
}

/// A CPU goes over to another thread.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Switch {
    /// When.
    pub at: Nanoseconds,
    /// Where.
    pub cpu: u32,
    /// What becomes of the thread that ran.
    pub prev_state: EndState,
    /// The thread that runs now.
    pub next: Tid,
    /// Its priority as the kernel counts: 120 is nice 0.
    pub priority: i32,
    /// Its name.
    pub name: Arc<str>,
}

/// A thread is told to wake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waking {
    /// When.
    pub at: Nanoseconds,
    /// Where the waker ran.
    pub cpu: u32,
    /// Who wakes.
    pub tid: Tid,
    /// Where it is to run.
    pub target_cpu: i32,
    /// Its name.
    pub name: Arc<str>,
}

/// One CPU's events of one packet.
#[derive(Debug)]
pub(super) struct Bundle {
    pub cpu: u32,
    pub switches: Vec<Switch>,
    pub wakings: Vec<Waking>,
}

impl Bundle {
    /// Panics where columns differ in length or name what the bundle does not.
    pub fn new(bundle: &FtraceEventBundle) -> Bundle {
        let cpu = bundle.cpu();
        let Some(sched) = bundle.compact_sched.as_ref() else {
            return Bundle { cpu, switches: Vec::new(), wakings: Vec::new() };
        };
        let names: Vec<Arc<str>> = sched.intern_table.iter().map(|name| name.as_str().into()).collect();
        let name = |index: u32| {
            let known = usize::try_from(index).ok().and_then(|index| names.get(index));
            Arc::clone(known.unwrap_or_else(|| panic!("cpu {cpu}: comm {index} of {}", names.len())))
        };
        let same = |column: &str, length: usize, events: usize| {
            assert_eq!(length, events, "cpu {cpu}: {column} and its timestamps differ in length");
        };
        let switches = sched.switch_timestamp.len();
        same("switch_prev_state", sched.switch_prev_state.len(), switches);
        same("switch_next_pid", sched.switch_next_pid.len(), switches);
        same("switch_next_prio", sched.switch_next_prio.len(), switches);
        same("switch_next_comm_index", sched.switch_next_comm_index.len(), switches);
        let wakings = sched.waking_timestamp.len();
        same("waking_pid", sched.waking_pid.len(), wakings);
        same("waking_target_cpu", sched.waking_target_cpu.len(), wakings);
        same("waking_prio", sched.waking_prio.len(), wakings);
        same("waking_comm_index", sched.waking_comm_index.len(), wakings);
        let switch = |(index, at): (usize, Nanoseconds)| Switch {
            at,
            cpu,
            prev_state: EndState::from_trace(sched.switch_prev_state[index]),
            next: sched.switch_next_pid[index],
            priority: sched.switch_next_prio[index],
            name: name(sched.switch_next_comm_index[index]),
        };
        let waking = |(index, at): (usize, Nanoseconds)| Waking {
            at,
            cpu,
            tid: sched.waking_pid[index],
            target_cpu: sched.waking_target_cpu[index],
            name: name(sched.waking_comm_index[index]),
        };
        Bundle {
            cpu,
            switches: moments(&sched.switch_timestamp).enumerate().map(switch).collect(),
            wakings: moments(&sched.waking_timestamp).enumerate().map(waking).collect(),
        }
    }
}

/// The first is a moment, every other one a step from the one before.
fn moments(steps: &[u64]) -> impl Iterator<Item = Nanoseconds> {
    steps.iter().scan(0, |at: &mut Nanoseconds, step| {
        *at = at.checked_add(*step).expect("time goes forward");
        Some(*at)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::synthetic::{bundle, switch};

    #[test]
    fn times_are_sums_of_steps() {
        let read =
            Bundle::new(&bundle(3, &[switch(1000, 0, 7, "a"), switch(1500, 1, 0, "swapper")], &[(1200, 9, "b")]));
        assert_eq!(read.switches.iter().map(|switch| switch.at).collect::<Vec<_>>(), [1000, 1500]);
        assert_eq!((read.wakings[0].at, read.wakings[0].tid, &*read.wakings[0].name), (1200, 9, "b"));
    }

    #[test]
    fn states_carry_the_kernels_letters() {
        let cases = [(0, "R"), (0x100, "R+"), (1, "S"), (2, "D"), (0x10, "X"), (0x20, "Z"), (0x80, "I"), (4, "T")];
        for (bits, letters) in cases {
            assert_eq!(EndState::from_trace(bits).to_string(), letters);
        }
    }

    #[test]
    #[should_panic(expected = "switch_next_pid and its timestamps differ in length")]
    fn columns_of_different_length_are_a_fault() {
        let mut damaged = bundle(0, &[switch(1, 0, 7, "a")], &[]);
        damaged.compact_sched.mut_or_insert_default().switch_next_pid.push(1);
        Bundle::new(&damaged);
    }

    #[test]
    #[should_panic(expected = "comm 5 of 1")]
    fn a_name_out_of_range_is_a_fault() {
        let mut damaged = bundle(0, &[switch(1, 0, 7, "a")], &[]);
        damaged.compact_sched.mut_or_insert_default().switch_next_comm_index[0] = 5;
        Bundle::new(&damaged);
    }
}
