//! One CPU: what runs on it.

use polletto_common::{id::Tid, record};
use polletto_protos::ftrace_event::Event;

use super::{pseudo, task_state, threads::Threads};
use crate::trace::{PacketBuffer, SchedBundle};

/// What a CPU runs, and the columns that say so.
#[derive(Debug)]
pub struct Lane {
    cpu: u16,
    /// The thread that the trace shows as running; none before the first record.
    running: Option<Tid>,
    bundle: SchedBundle,
    losses: u64,
}

/// Whether a CPU lost records before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    First,
    Another,
}

/// The priority that the trace gives to threads whose real one is not known: the kernel's nice 0.
pub const ORDINARY_PRIO: u16 = 120;

impl Lane {
    pub fn new(cpu: u16) -> Lane {
        Lane { cpu, running: None, bundle: SchedBundle::new(u32::from(cpu)), losses: 0 }
    }

    pub fn running(&self) -> Option<Tid> {
        self.running
    }

    /// Whether records are missing between the last one and the next, and that has been said.
    pub fn is_unobserved(&self) -> bool {
        self.running == Some(pseudo::unobserved(self.cpu))
    }

    /// The first record says that `tid` runs.
    pub fn begin(&mut self, time_ns: u64, tid: Tid, threads: &Threads) {
        // A reader takes the first switch of a CPU only as what ran before the second.
        self.switch(time_ns, task_state::RUNNABLE, Tid::IDLE, ORDINARY_PRIO, threads);
        self.switch(time_ns, task_state::RUNNABLE, tid, ORDINARY_PRIO, threads);
    }

    /// The running thread leaves in `state`, and `next` runs.
    pub fn switch(&mut self, time_ns: u64, state: i64, next: Tid, prio: u16, threads: &Threads) {
        self.bundle.switch(time_ns, state, next, prio, || threads.shown_name(next));
        self.running = Some(next);
    }

    /// From `time_ns` on, until the next record, nobody knows what ran.
    pub fn lose(&mut self, time_ns: u64, threads: &Threads) -> Loss {
        self.bundle.mark_lost();
        let unobserved = pseudo::unobserved(self.cpu);
        match self.running {
            None => self.begin(time_ns, unobserved, threads),
            Some(running) if running == unobserved => {}
            Some(running) => {
                self.switch(time_ns, task_state::after_unobserved(running), unobserved, ORDINARY_PRIO, threads);
            }
        }
        self.losses += 1;
        if self.losses == 1 { Loss::First } else { Loss::Another }
    }

    pub fn waking(&mut self, waking: &record::Waking, threads: &Threads) {
        if self.running.is_none() {
            // A reader takes the waker from what runs on this CPU, and drops a waking without one.
            return;
        }
        let record::Waking { header, tid, prio, target_cpu } = *waking;
        self.bundle.waking(header.time_ns, tid, target_cpu, prio, || threads.shown_name(tid));
    }

    pub fn event(&mut self, time_ns: u64, by: Tid, event: Event) {
        self.bundle.event(time_ns, by, event);
    }

    pub fn forget_name(&mut self, tid: Tid) {
        self.bundle.forget_name(tid);
    }

    pub fn is_full(&self) -> bool {
        self.bundle.is_full()
    }

    pub fn write(&mut self, out: &mut PacketBuffer) {
        self.bundle.write(out);
    }
}
