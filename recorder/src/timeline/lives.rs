//! Threads and processes that come and go.

use polletto_common::{
    id::{Tgid, Tid},
    limits::COMM_BYTES,
    record::{self, flags},
};
use polletto_protos::{
    SchedProcessExecFtraceEvent, SchedProcessExitFtraceEvent, SchedProcessFreeFtraceEvent, TaskNewtaskFtraceEvent,
    TaskRenameFtraceEvent, ftrace_event::Event,
};

use super::{
    Timeline, Undescribed, View, lane, task_state,
    threads::{self, End, Insert},
};
use crate::trace::PacketBuffer;

/// `CLONE_THREAD`: what was created is a thread of its parent's process.
const CLONE_THREAD: u64 = 0x0001_0000;

impl Timeline {
    pub(super) fn task(&mut self, task: &record::Task, now_ns: u64, out: &mut PacketBuffer) {
        if self.view == View::Recorded && task.header.flags & flags::RECORDED == 0 {
            return;
        }
        let is_new_process = !self.threads.has_process(task.tgid);
        let is_new = self.heard_of(now_ns, task.header.cpu, (task.tid, task.tgid), task.comm, out);
        self.samples.named(task.tid, task.tgid, &task.comm);
        if is_new {
            self.seen.threads += 1;
            self.tree.thread(task.tid, task.tgid, threads::name(&task.comm), now_ns);
        }
        if is_new_process {
            // The leader may be older than the thread, if that is the only one that is recorded.
            let started_ns = (task.tid == task.tgid.leader()).then_some(task.started_ns);
            self.process_began(Undescribed { tgid: task.tgid, since_ns: now_ns, started_ns });
        }
    }

    pub(super) fn fork(&mut self, fork: &record::Fork, out: &mut PacketBuffer) {
        let is_new_process = !self.threads.has_process(fork.tgid);
        let is_new = self.heard_of(fork.header.time_ns, fork.header.cpu, (fork.tid, fork.tgid), fork.comm, out);
        let is_thread = fork.tgid == fork.parent_tgid;
        if is_new {
            self.seen.threads += 1;
        }
        self.samples.forget_thread(fork.tid, &mut self.seen, out);
        self.samples.runs(fork.header.time_ns, fork.tid);
        self.samples.named(fork.tid, fork.tgid, &fork.comm);
        if is_new_process {
            self.stacks.process_forked(fork.parent_tgid, fork.tgid);
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

    pub(super) fn exec(&mut self, exec: &record::Exec, out: &mut PacketBuffer) {
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
            self.free(header.time_ns, header.cpu, gone, out);
        }
        // The thread that goes on polled something of the program that is gone.
        self.samples.forget_thread(tid, &mut self.seen, out);
        self.samples.forget_process(tgid, header.time_ns, &mut self.seen, out);
        self.undescribed.push(Undescribed { tgid, since_ns: header.time_ns, started_ns: None });
    }

    pub(super) fn exit(&mut self, exit: &record::Exit) {
        let event = SchedProcessExitFtraceEvent {
            comm: self.threads.name(exit.tid),
            pid: Some(exit.tid.0 as i32),
            tgid: Some(exit.tgid.0 as i32),
        };
        self.event(&exit.header, exit.tid, Event::SchedProcessExit(event));
    }

    pub(super) fn rename(&mut self, rename: &record::Rename, out: &mut PacketBuffer) {
        let record::Rename { header, tid, tgid, comm } = *rename;
        let newcomm = threads::name(&comm);
        let event = TaskRenameFtraceEvent {
            pid: Some(tid.0 as i32),
            oldcomm: self.threads.name(tid),
            newcomm: Some(newcomm.clone()),
        };
        self.event(&header, tid, Event::TaskRename(event));
        self.heard_of(header.time_ns, header.cpu, (tid, tgid), comm, out);
        self.samples.named(tid, tgid, &comm);
        self.forget_name(tid);
        self.tree.thread(tid, tgid, newcomm, header.time_ns);
    }

    /// A thread has this name. True if it was not known; what had its id before has ended then.
    fn heard_of(
        &mut self,
        time_ns: u64,
        cpu: u16,
        (tid, tgid): (Tid, Tgid),
        comm: [u8; COMM_BYTES],
        out: &mut PacketBuffer,
    ) -> bool {
        let Insert { is_new, end } = self.threads.insert(tid, tgid, comm);
        self.forget(time_ns, cpu, end, out);
        is_new
    }

    pub(super) fn thread_ended(&mut self, time_ns: u64, cpu: u16, tid: Tid, out: &mut PacketBuffer) {
        let end = self.threads.end(tid);
        self.forget(time_ns, cpu, end, out);
    }

    fn forget(&mut self, time_ns: u64, cpu: u16, end: End, out: &mut PacketBuffer) {
        for gone in end.gone {
            self.free(time_ns, cpu, gone, out);
        }
        if let Some(process) = end.process {
            self.stacks.process_gone(process);
            self.observed.forget(process);
            self.samples.forget_process(process, time_ns, &mut self.seen, out);
            self.ended.push(process);
        }
    }

    /// The id may be used again.
    fn free(&mut self, time_ns: u64, cpu: u16, tid: Tid, out: &mut PacketBuffer) {
        self.forget_name(tid);
        self.samples.forget_thread(tid, &mut self.seen, out);
        self.samples.forget_name(tid);
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
}
