//! Which thread runs on which CPU, and since when those wait that don't.

use polletto_common::{
    id::Tid,
    record::{self, flags},
};

use super::{
    Timeline, View,
    lane::{self, Lane},
    pseudo, task_state,
};
use crate::trace::PacketBuffer;

impl Timeline {
    pub(super) fn switch(&mut self, switch: &record::Switch, out: &mut PacketBuffer) {
        let record::Header { time_ns, cpu, flags, .. } = switch.header;
        if flags & (flags::PREV_RECORDED | flags::NEXT_RECORDED) == 0 {
            self.seen.switches_of_others += 1;
        } else {
            self.seen.switches += 1;
        }
        let prev_tid = self.leaver(switch);
        let prev = self.shown(prev_tid, flags & flags::PREV_RECORDED != 0, cpu);
        let next = self.shown(switch.next_tid, flags & flags::NEXT_RECORDED != 0, cpu);
        self.settle(time_ns, cpu, prev, out);
        let at = self.lane_index(cpu);
        let state = if pseudo::is_other(prev) { task_state::ASLEEP } else { task_state::of_switch(switch) };
        self.lanes[at].switch(time_ns, state, next, switch.next_prio, &self.threads);
        if flags & flags::PREV_RECORDED != 0 {
            self.samples.leaves(time_ns, prev_tid, task_state::is_sleep(state));
        }
        if flags & flags::NEXT_RECORDED != 0 {
            self.samples.back(time_ns, switch.next_tid);
        }
        if task_state::is_dead(switch) && flags & flags::PREV_RECORDED != 0 {
            self.thread_ended(time_ns, cpu, prev_tid, out);
        }
    }

    /// The thread that leaves its CPU.
    ///
    /// One that executes another program takes its leader's id, and gives it its own, while it runs. The leader may leave
    /// for ever only after that.
    fn leaver(&mut self, switch: &record::Switch) -> Tid {
        let record::Switch { header, prev_tid, .. } = *switch;
        if !task_state::is_dead(switch) {
            return prev_tid;
        }
        let own = self.lane_index(header.cpu);
        let runs_elsewhere = |(at, lane): (usize, &Lane)| at != own && lane.running() == Some(prev_tid);
        let leader = self.lanes[own].running().filter(|&shown| self.threads.is_leader_of(shown, prev_tid));
        leader.filter(|_| self.lanes.iter().enumerate().any(runs_elsewhere)).unwrap_or(prev_tid)
    }

    pub(super) fn current(&mut self, current: &record::Current, out: &mut PacketBuffer) {
        let record::Header { time_ns, cpu, flags, .. } = current.header;
        let running = self.shown(current.tid, flags & flags::NEXT_RECORDED != 0, cpu);
        self.settle(time_ns, cpu, running, out);
        if flags & flags::NEXT_RECORDED != 0 {
            self.samples.runs(time_ns, current.tid);
        }
    }

    pub(super) fn sample(&mut self, sample: &record::Sample, out: &mut PacketBuffer) {
        // Whatever the switches say, this is what ran.
        self.settle(sample.header.time_ns, sample.header.cpu, sample.tid, out);
        self.samples.sample(sample, &mut self.stacks, &mut self.seen, out);
    }

    /// Makes the lane show what a record says that it runs.
    fn settle(&mut self, time_ns: u64, cpu: u16, running: Tid, out: &mut PacketBuffer) {
        let at = self.lane_index(cpu);
        let lane = &mut self.lanes[at];
        let Some(shown) = lane.running() else { return lane.begin(time_ns, running, &self.threads) };
        if shown == running {
            return;
        }
        let state = if self.threads.has_ended(running) {
            // Only an exec brings an id back: it gave the thread its leader's, while it ran.
            task_state::GONE
        } else {
            let is_ours = |tid| pseudo::name(tid).is_none();
            if !lane.is_unobserved() && (is_ours(shown) || is_ours(running)) {
                self.seen.unreported += 1;
                self.recorder.unreported(time_ns, cpu, out);
            }
            self.samples.vanishes(time_ns, shown);
            task_state::after_unobserved(shown)
        };
        lane.switch(time_ns, state, running, lane::ORDINARY_PRIO, &self.threads);
    }

    pub(super) fn waking(&mut self, waking: &record::Waking) {
        self.seen.wakings += 1;
        let at = self.lane_index(waking.header.cpu);
        self.lanes[at].waking(waking, &self.threads);
        self.samples.wakes(waking.header.time_ns, waking.tid);
    }

    /// The id under which the trace shows a thread.
    fn shown(&self, tid: Tid, recorded: bool, cpu: u16) -> Tid {
        if tid == Tid::IDLE || recorded || self.view == View::System { tid } else { pseudo::other(cpu) }
    }

    pub(super) fn lane(&mut self, cpu: u16) -> &mut Lane {
        let at = self.lane_index(cpu);
        &mut self.lanes[at]
    }

    /// Where the CPU's lane stands. Makes it if this is the CPU's first record.
    pub(super) fn lane_index(&mut self, cpu: u16) -> usize {
        let at = usize::from(cpu);
        while self.lanes.len() <= at {
            let cpu = self.lanes.len() as u16;
            self.lanes.push(Lane::new(cpu));
            if self.view == View::Recorded {
                self.tree.pseudo_thread(pseudo::other(cpu), self.began_ns);
            }
        }
        at
    }
}
