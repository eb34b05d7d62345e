//! From records to what happened.
//!
//! A [`Timeline`] takes records in the order of time and writes packets. It knows what each CPU runs, which threads and
//! processes there are and what they are called, and where records are missing. It is pure: no clock, no files, no
//! threads, so that a recorded stream of records replays to the same packets.

mod lane;
mod process_tree;
mod pseudo;
mod recorder_track;
mod task_state;
mod threads;

use polletto_common::{
    id::{Tgid, Tid},
    record::{self, Record, flags},
};
use polletto_protos::{
    SchedProcessExecFtraceEvent, SchedProcessExitFtraceEvent, SchedProcessFreeFtraceEvent, TaskNewtaskFtraceEvent,
    TaskRenameFtraceEvent, ftrace_event::Event,
};

use rustc_hash::FxHashSet;

use self::{lane::Lane, process_tree::ProcessTreeWriter, recorder_track::RecorderTrack, threads::Threads};
use crate::trace::PacketBuffer;

pub use self::{process_tree::ProcessDescription, recorder_track::RecorderCounters};

/// `CLONE_THREAD`: what was created is a thread of its parent's process.
const CLONE_THREAD: u64 = 0x0001_0000;

/// How much of the machine a trace shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum View {
    /// The recorded threads; what else ran is only shown as `other`, so that it stays private.
    Recorded,
    /// Every thread by its name.
    System,
}

/// What was seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Switches from or to a recorded thread.
    pub switches: u64,
    /// Switches between idle and programs that are not recorded.
    pub switches_of_others: u64,
    /// Wake-ups.
    pub wakings: u64,
    /// Threads that existed at the beginning or started later.
    pub threads: u64,
    /// Processes that existed at the beginning or started later.
    pub processes: u64,
    /// Records that the kernel programs had no room for.
    pub lost: u64,
    /// Switches from or to a recorded thread that the kernel did not report: by the next record, the CPU ran something else
    /// than by the one before it.
    pub unreported: u64,
}

/// A process of which only the id is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Undescribed {
    /// Its id.
    pub tgid: Tgid,
    /// When it became what it is, CLOCK_BOOTTIME nanoseconds.
    pub since_ns: u64,
    /// When it started, if that was before the recording; else the trace tells it already.
    pub started_ns: Option<u64>,
}

/// The state machine of a recording.
#[derive(Debug)]
pub struct Timeline {
    view: View,
    began_ns: u64,
    lanes: Vec<Lane>,
    threads: Threads,
    tree: ProcessTreeWriter,
    recorder: RecorderTrack,
    seen: Seen,
    ended: Vec<Tgid>,
    undescribed: Vec<Undescribed>,
    listing_wanted: bool,
}

impl Timeline {
    /// A timeline that has seen nothing yet, beginning at `began_ns`.
    pub fn new(view: View, began_ns: u64, out: &mut PacketBuffer) -> Timeline {
        Timeline {
            view,
            began_ns,
            lanes: Vec::new(),
            threads: Threads::default(),
            tree: ProcessTreeWriter::default(),
            recorder: RecorderTrack::new(began_ns, out),
            seen: Seen::default(),
            ended: Vec::new(),
            undescribed: Vec::new(),
            listing_wanted: false,
        }
    }

    /// Takes one record. Records of one CPU come in the order in which they were written, those of several CPUs nearly so.
    pub fn push(&mut self, record: &Record, out: &mut PacketBuffer) {
        match record {
            Record::Switch(switch) => self.switch(switch, out),
            Record::Waking(waking) => self.waking(waking),
            Record::Fork(fork) => self.fork(fork),
            Record::Exec(exec) => self.exec(exec),
            Record::Exit(exit) => self.exit(exit),
            Record::Rename(rename) => self.rename(rename),
            Record::Current(current) => self.current(current, out),
            Record::Lost(lost) => self.lost(lost, out),
            Record::Task(task) => self.task(task, task.header.time_ns),
            Record::Sample(_) | Record::Blocked(_) => {}
        }
        let lane = self.lane(record.header().cpu);
        if lane.is_full() {
            lane.write(out);
        }
    }

    /// Takes the threads that exist at `now_ns`.
    pub fn list(&mut self, tasks: &[record::Task], now_ns: u64) {
        // After a loss, some that are known may have ended unseen.
        let listed: FxHashSet<Tid> = tasks.iter().map(|task| task.tid).collect();
        for gone in self.threads.all_but(&listed) {
            // On which CPU, nobody knows.
            self.thread_ended(now_ns, 0, gone);
        }
        for task in tasks {
            self.task(task, now_ns);
        }
    }

    /// Says what a process is, for which [`Timeline::take_undescribed`] asked.
    pub fn describe(&mut self, mut process: ProcessDescription) {
        if !self.threads.has_process(process.parent) {
            // A reader would show it as a process without a name.
            process.parent = Tgid(0);
        }
        self.tree.process(process);
    }

    /// Processes that started, or replaced their program, since the last call.
    pub fn take_undescribed(&mut self) -> Vec<Undescribed> {
        std::mem::take(&mut self.undescribed)
    }

    /// Processes whose last thread has ended since the last call.
    pub fn take_ended(&mut self) -> Vec<Tgid> {
        std::mem::take(&mut self.ended)
    }

    /// Whether records were lost since the last call: threads may have started or changed names unseen, so the caller
    /// should list them again.
    pub fn take_listing_wanted(&mut self) -> bool {
        std::mem::take(&mut self.listing_wanted)
    }

    /// Writes everything so far.
    pub fn flush(&mut self, out: &mut PacketBuffer) {
        self.tree.write(out);
        for lane in &mut self.lanes {
            lane.write(out);
        }
    }

    /// Shows what the recorder itself used until `now_ns`.
    pub fn show_recorder(&mut self, now_ns: u64, counters: RecorderCounters, out: &mut PacketBuffer) {
        self.recorder.count(now_ns, counters, self.seen.lost, out);
    }

    /// Writes everything and ends what is still open.
    pub fn finish(&mut self, now_ns: u64, out: &mut PacketBuffer) {
        self.flush(out);
        self.recorder.finish(now_ns, out);
    }

    /// Recorded threads that have not ended.
    pub fn live_threads(&self) -> usize {
        self.threads.len()
    }

    /// What was seen so far.
    pub fn seen(&self) -> Seen {
        self.seen
    }

    fn switch(&mut self, switch: &record::Switch, out: &mut PacketBuffer) {
        let record::Header { time_ns, cpu, flags, .. } = switch.header;
        if flags & (flags::PREV_RECORDED | flags::NEXT_RECORDED) == 0 {
            self.seen.switches_of_others += 1;
        } else {
            self.seen.switches += 1;
        }
        let prev = self.shown(switch.prev_tid, flags & flags::PREV_RECORDED != 0, cpu);
        let next = self.shown(switch.next_tid, flags & flags::NEXT_RECORDED != 0, cpu);
        self.settle(time_ns, cpu, prev, out);
        let at = self.lane_index(cpu);
        let state = if pseudo::is_other(prev) { task_state::ASLEEP } else { task_state::of_switch(switch) };
        self.lanes[at].switch(time_ns, state, next, switch.next_prio, &self.threads);
        if task_state::is_dead(switch) && flags & flags::PREV_RECORDED != 0 {
            self.thread_ended(time_ns, cpu, switch.prev_tid);
        }
    }

    fn current(&mut self, current: &record::Current, out: &mut PacketBuffer) {
        let record::Header { time_ns, cpu, flags, .. } = current.header;
        let running = self.shown(current.tid, flags & flags::NEXT_RECORDED != 0, cpu);
        self.settle(time_ns, cpu, running, out);
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
            task_state::after_unobserved(shown)
        };
        lane.switch(time_ns, state, running, lane::ORDINARY_PRIO, &self.threads);
    }

    fn waking(&mut self, waking: &record::Waking) {
        self.seen.wakings += 1;
        let at = self.lane_index(waking.header.cpu);
        self.lanes[at].waking(waking, &self.threads);
    }

    fn lost(&mut self, lost: &record::Lost, out: &mut PacketBuffer) {
        self.seen.lost += lost.count;
        self.listing_wanted = true;
        self.recorder.lost(lost, out);
        let record::Header { time_ns, cpu, flags, .. } = lost.header;
        if flags & flags::TASKS_LOST != 0 {
            return;
        }
        let at = self.lane_index(cpu);
        if self.lanes[at].lose(time_ns, &self.threads) == lane::Loss::First {
            self.tree.pseudo_thread(pseudo::unobserved(cpu), time_ns);
        }
    }

    fn task(&mut self, task: &record::Task, now_ns: u64) {
        if self.view == View::Recorded && task.header.flags & flags::RECORDED == 0 {
            return;
        }
        let is_new_process = !self.threads.has_process(task.tgid);
        if self.threads.insert(task.tid, task.tgid, task.comm) {
            self.seen.threads += 1;
            self.tree.thread(task.tid, task.tgid, threads::name(&task.comm), now_ns);
        }
        if is_new_process {
            // The leader may be older than the thread, if that is the only one that is recorded.
            let started_ns = (task.tid == task.tgid.leader()).then_some(task.started_ns);
            self.process_began(Undescribed { tgid: task.tgid, since_ns: now_ns, started_ns });
        }
    }

    fn fork(&mut self, fork: &record::Fork) {
        let is_new_process = !self.threads.has_process(fork.tgid);
        let is_new = self.threads.insert(fork.tid, fork.tgid, fork.comm);
        let is_thread = fork.tgid == fork.parent_tgid;
        if is_new {
            self.seen.threads += 1;
        }
        if is_new_process {
            // After the fork: a reader that came to the description first would make two processes of it.
            let since_ns = fork.header.time_ns + 1;
            self.process_began(Undescribed { tgid: fork.tgid, since_ns, started_ns: None });
        }
        self.forget_name(fork.tid);
        let event = TaskNewtaskFtraceEvent {
            pid: Some(fork.tid.0 as i32),
            comm: Some(threads::name(&fork.comm)),
            clone_flags: Some(if is_thread { CLONE_THREAD } else { 0 }),
        };
        self.event(&fork.header, fork.parent_tid, Event::TaskNewtask(event));
    }

    fn process_began(&mut self, process: Undescribed) {
        self.seen.processes += 1;
        self.undescribed.push(process);
    }

    fn exec(&mut self, exec: &record::Exec) {
        let record::Exec { header, tid, old_tid, .. } = *exec;
        let event =
            SchedProcessExecFtraceEvent { filename: None, pid: Some(tid.0 as i32), old_pid: Some(old_tid.0 as i32) };
        self.event(&header, tid, Event::SchedProcessExec(event));
        let tgid = Tgid(tid.0);
        let lane = self.lane_index(header.cpu);
        if old_tid != tid && self.lanes[lane].running() == Some(old_tid) {
            self.lanes[lane].switch(header.time_ns, task_state::GONE, tid, lane::ORDINARY_PRIO, &self.threads);
        }
        for gone in self.threads.keep_only_leader(tgid) {
            self.free(header.time_ns, header.cpu, gone);
        }
        self.undescribed.push(Undescribed { tgid, since_ns: header.time_ns, started_ns: None });
    }

    fn exit(&mut self, exit: &record::Exit) {
        let event = SchedProcessExitFtraceEvent {
            comm: self.threads.name(exit.tid),
            pid: Some(exit.tid.0 as i32),
            tgid: Some(exit.tgid.0 as i32),
        };
        self.event(&exit.header, exit.tid, Event::SchedProcessExit(event));
    }

    fn rename(&mut self, rename: &record::Rename) {
        let record::Rename { header, tid, tgid, comm } = *rename;
        let newcomm = threads::name(&comm);
        let event = TaskRenameFtraceEvent {
            pid: Some(tid.0 as i32),
            oldcomm: self.threads.name(tid),
            newcomm: Some(newcomm.clone()),
        };
        self.event(&header, tid, Event::TaskRename(event));
        self.threads.insert(tid, tgid, comm);
        self.forget_name(tid);
        self.tree.thread(tid, tgid, newcomm, header.time_ns);
    }

    fn thread_ended(&mut self, time_ns: u64, cpu: u16, tid: Tid) {
        let end = self.threads.end(tid);
        for gone in end.gone {
            self.free(time_ns, cpu, gone);
        }
        self.ended.extend(end.process);
    }

    /// The id may be used again.
    fn free(&mut self, time_ns: u64, cpu: u16, tid: Tid) {
        self.forget_name(tid);
        let event = SchedProcessFreeFtraceEvent { pid: Some(tid.0 as i32), ..SchedProcessFreeFtraceEvent::default() };
        self.lane(cpu).event(time_ns, tid, Event::SchedProcessFree(event));
    }

    fn event(&mut self, header: &record::Header, by: Tid, event: Event) {
        self.lane(header.cpu).event(header.time_ns, by, event);
    }

    fn forget_name(&mut self, tid: Tid) {
        for lane in &mut self.lanes {
            lane.forget_name(tid);
        }
    }

    /// The id under which the trace shows a thread.
    fn shown(&self, tid: Tid, recorded: bool, cpu: u16) -> Tid {
        if tid == Tid::IDLE || recorded || self.view == View::System { tid } else { pseudo::other(cpu) }
    }

    fn lane(&mut self, cpu: u16) -> &mut Lane {
        let at = self.lane_index(cpu);
        &mut self.lanes[at]
    }

    /// Where the CPU's lane stands. Makes it if this is the CPU's first record.
    fn lane_index(&mut self, cpu: u16) -> usize {
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

#[cfg(test)]
mod tests;
