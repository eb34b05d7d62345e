//! Whose samples and slices they are: the thread, the task that it polls, and the CPU.

use std::sync::Arc;

use polletto_common::{
    id::{Tgid, Tid},
    record,
};
use polletto_protos::{
    InternedData, ThreadDescriptor, TrackDescriptor,
    stack_sample::{AsyncContextDescriptor, ExecutionContext, Mode, TaskContext},
};

use super::{Samples, TaskKey, Thread};
use crate::{families::FamilyName, trace::PacketBuffer};

/// Tasks of which each has spawned the next that are told of a task that is polled.
const MAX_LINE: usize = 16;

impl Samples {
    /// The number of the thread's `TaskContext` while it polls `task`.
    pub(super) fn task_context(&mut self, tgid: Tgid, tid: Tid, task: Option<TaskKey>, out: &mut PacketBuffer) -> u64 {
        let thread = *self.thread(tgid, tid, out);
        let Some(task) = task else { return thread.context };
        let async_id = self.async_context(task, out);
        if let Some((id, context)) = thread.polling
            && id == async_id
        {
            return context;
        }
        self.contexts += 1;
        let (iid, async_id) = (Some(self.contexts), Some(async_id));
        let context = TaskContext { iid, pid: Some(tgid.0), tid: Some(tid.0), async_id };
        out.push_interned(InternedData { stack_sample_task_contexts: vec![context], ..InternedData::default() });
        self.thread(tgid, tid, out).polling = async_id.zip(iid);
        self.contexts
    }

    /// The number of a task's `AsyncContextDescriptor`, behind those of the tasks that it descends from.
    fn async_context(&mut self, task: TaskKey, out: &mut PacketBuffer) -> u64 {
        let mut line = vec![task];
        while let Some(id) = self.polls.parent(line[line.len() - 1]) {
            let parent = TaskKey { id, ..task };
            // A program's memory may say anything.
            if line.len() == MAX_LINE || line.contains(&parent) {
                break;
            }
            line.push(parent);
        }
        let mut context = None;
        while let Some(task) = line.pop() {
            context = Some(self.own_async_context(task, context, out));
        }
        context.unwrap_or_default()
    }

    /// Another once the task's future is known.
    fn own_async_context(&mut self, task: TaskKey, parent_iid: Option<u64>, out: &mut PacketBuffer) -> u64 {
        let body = self.polls.future(task);
        let family = body.map_or(FamilyName::Tokio, |body| body.future.family);
        let id = match body {
            // Tasks can't be told from one another, but their futures can.
            Some(body) if !family.has_ids() => Arc::as_ptr(&body.future).addr() as u64,
            _ => task.id,
        };
        self.tasks.iid((TaskKey { id, ..task }, body.is_some()), |iid| {
            let future = body.map_or("task", |body| &body.future.name);
            let may_block = body.is_some_and(|body| body.may_block);
            let (name, kind) = match (family, may_block) {
                (FamilyName::Tokio, true) => (format!("{future} #{id}"), "tokio blocking task"),
                (FamilyName::Tokio, false) => (format!("{future} #{id}"), "tokio task"),
                (FamilyName::AsyncTask, _) => (future.to_owned(), "async-task"),
            };
            let context =
                AsyncContextDescriptor { iid: Some(iid), name: Some(name), kind: Some(kind.to_owned()), parent_iid };
            let stack_sample_async_context_descriptors = vec![context];
            out.push_interned(InternedData { stack_sample_async_context_descriptors, ..InternedData::default() });
        })
    }

    fn thread(&mut self, tgid: Tgid, tid: Tid, out: &mut PacketBuffer) -> &mut Thread {
        let thread = self.threads.entry(tid).or_insert(Thread { tgid, context: 0, track: None, polling: None });
        if thread.context == 0 || thread.tgid != tgid {
            self.contexts += 1;
            let context = TaskContext { iid: Some(self.contexts), pid: Some(tgid.0), tid: Some(tid.0), async_id: None };
            out.push_interned(InternedData { stack_sample_task_contexts: vec![context], ..InternedData::default() });
            *thread = Thread { tgid, context: self.contexts, track: None, polling: None };
        }
        thread
    }

    /// The thread's track, described when it is first needed.
    pub(super) fn track(&mut self, blocked: &record::Blocked, since_ns: u64, out: &mut PacketBuffer) -> u64 {
        let next = self.tracks + 1;
        let record::Blocked { tgid, tid, .. } = *blocked;
        let thread = self.thread(tgid, tid, out);
        if let Some(track) = thread.track {
            return track;
        }
        thread.track = Some(next);
        self.tracks = next;
        let descriptor = ThreadDescriptor { pid: Some(tgid.0 as i32), tid: Some(i64::from(tid.0)) };
        let track = TrackDescriptor { uuid: Some(next), thread: Some(descriptor), ..TrackDescriptor::default() };
        out.push_thread_track(since_ns, track);
        next
    }

    pub(super) fn execution_context(&mut self, cpu: u16, mode: Mode, out: &mut PacketBuffer) -> u64 {
        self.execution_contexts.iid(&(cpu, mode), |iid| {
            let context = ExecutionContext { iid: Some(iid), cpu: Some(u32::from(cpu)), mode: Some(mode as i32) };
            let stack_sample_execution_contexts = vec![context];
            out.push_interned(InternedData { stack_sample_execution_contexts, ..InternedData::default() });
        })
    }
}
