//! Where threads spent their time: samples of those that ran, and slices and samples of those that slept.

use polletto_common::{
    id::{Tgid, Tid},
    record::{self, flags},
};
use polletto_protos::{
    DebugAnnotationName, EventCategory, EventName, InternedData, InternedString, ThreadDescriptor, TrackDescriptor,
    stack_sample::{ExecutionContext, Mode, TaskContext},
};
use rustc_hash::FxHashMap;

use super::{
    blocked::Absence,
    seen::Seen,
    stacks::{Found, Origin, Stacks},
    task_state,
};
use crate::trace::{Argument, InternTable, PacketBuffer, SliceBegin, StackSample, Weights};

/// The name and the category of a slice in which a thread slept, as `InternedData` numbers them.
const BLOCKED: u64 = 1;

/// Arguments of such a slice. People ask for them in SQL.
const ARGUMENTS: [&str; 4] = ["state", "sleep_ns", "runqueue_ns", "waker_tid"];
const STATE: u64 = 1;
const SLEEP_NS: u64 = 2;
const RUNQUEUE_NS: u64 = 3;
const WAKER_TID: u64 = 4;

/// A thread as samples and slices refer to it. Once it has ended, another that gets its id is not the same.
#[derive(Clone, Copy, Debug)]
struct Thread {
    tgid: Tgid,
    /// Number of its `TaskContext`; 0 before that is written.
    context: u64,
    /// `uuid` of its track, if it has one.
    track: Option<u64>,
}

/// Writes samples and blocked stretches.
#[derive(Debug, Default)]
pub struct Samples {
    threads: FxHashMap<Tid, Thread>,
    /// Task contexts written.
    contexts: u64,
    /// Tracks of threads written. Their uuids count up from 1, far below the recorder's own.
    tracks: u64,
    execution_contexts: InternTable<(u16, Mode)>,
    has_vocabulary: bool,
}

impl Samples {
    /// A thread was found running.
    pub fn sample(&mut self, sample: &record::Sample, stacks: &mut Stacks, seen: &mut Seen, out: &mut PacketBuffer) {
        let found = stacks.find(sample.stack, sample.tgid, out);
        seen.samples += 1;
        match found.origin {
            Origin::Unwound { ending, by_frame_pointers } => {
                seen.by_frame_pointers += u64::from(by_frame_pointers);
                seen.samples_by_ending.count(ending);
            }
            Origin::Lost => seen.stacks_lost += 1,
            Origin::NotKept => seen.stacks_not_kept += 1,
        }
        let record::Header { time_ns, cpu, flags, .. } = sample.header;
        let mode = if flags & flags::IN_KERNEL != 0 { Mode::Kernel } else { Mode::User };
        let task_context = self.thread(sample.tgid, sample.tid, out).context;
        let execution_context = self.execution_context(cpu, mode, out);
        out.push_stack_sample(&StackSample {
            time_ns,
            task_context,
            execution_context: Some(execution_context),
            callstack: found.callstack,
            unwind_error: found.unwind_error,
            weights: Weights { cpu_ns: sample.period_ns, ..Weights::default() },
        });
    }

    /// A thread that had slept runs again.
    pub fn blocked(&mut self, blocked: &record::Blocked, stacks: &mut Stacks, seen: &mut Seen, out: &mut PacketBuffer) {
        let Found { callstack, unwind_error, origin } = stacks.find(blocked.stack, blocked.tgid, out);
        seen.blocked += 1;
        match origin {
            Origin::Unwound { ending, .. } => seen.blocked_by_ending.count(ending),
            Origin::Lost => seen.stacks_lost += 1,
            Origin::NotKept => seen.stacks_not_kept += 1,
        }
        let absence = Absence::of(blocked);
        let weights = absence.weights();
        self.write_vocabulary(out);
        let task_context = self.thread(blocked.tgid, blocked.tid, out).context;
        let track = self.track(blocked, absence.left_ns, out);
        let arguments = [
            (STATE, Argument::Text(task_state::letter(blocked.prev_state) as u64 + 1)),
            (SLEEP_NS, Argument::Number(weights.off_cpu_ns)),
            (RUNQUEUE_NS, Argument::Number(weights.run_queue_ns)),
            (WAKER_TID, Argument::Number(u64::from(blocked.waker_tid.0))),
        ];
        let has_waker = blocked.waker_tid != Tid::IDLE;
        out.push_slice_begin(&SliceBegin {
            time_ns: absence.left_ns,
            track,
            category: BLOCKED,
            name: BLOCKED,
            callstack,
            weight_ns: weights.wall_ns(),
            arguments: &arguments[..arguments.len() - usize::from(!has_waker)],
        });
        // A slice without an end is one that outlasts the recording.
        if blocked.header.flags & flags::STILL_ASLEEP == 0 {
            out.push_slice_end(absence.returned_ns, track);
        }
        out.push_stack_sample(&StackSample {
            time_ns: absence.returned_ns,
            task_context,
            execution_context: None,
            callstack,
            unwind_error,
            weights,
        });
    }

    /// The thread has ended, or its id is another's now.
    pub fn forget_thread(&mut self, tid: Tid) {
        self.threads.remove(&tid);
    }

    fn thread(&mut self, tgid: Tgid, tid: Tid, out: &mut PacketBuffer) -> &mut Thread {
        let thread = self.threads.entry(tid).or_insert(Thread { tgid, context: 0, track: None });
        if thread.context == 0 || thread.tgid != tgid {
            self.contexts += 1;
            let context = TaskContext { iid: Some(self.contexts), pid: Some(tgid.0), tid: Some(tid.0) };
            out.push_interned(InternedData { stack_sample_task_contexts: vec![context], ..InternedData::default() });
            *thread = Thread { tgid, context: self.contexts, track: None };
        }
        thread
    }

    /// The thread's track, described when it is first needed.
    fn track(&mut self, blocked: &record::Blocked, since_ns: u64, out: &mut PacketBuffer) -> u64 {
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

    fn execution_context(&mut self, cpu: u16, mode: Mode, out: &mut PacketBuffer) -> u64 {
        self.execution_contexts.iid(&(cpu, mode), |iid| {
            let context = ExecutionContext { iid: Some(iid), cpu: Some(u32::from(cpu)), mode: Some(mode as i32) };
            let stack_sample_execution_contexts = vec![context];
            out.push_interned(InternedData { stack_sample_execution_contexts, ..InternedData::default() });
        })
    }

    /// Defines all that slices refer to by number.
    fn write_vocabulary(&mut self, out: &mut PacketBuffer) {
        if std::mem::replace(&mut self.has_vocabulary, true) {
            return;
        }
        let argument = |(iid, name): (u64, &str)| DebugAnnotationName { iid: Some(iid), name: Some(name.to_owned()) };
        let state = |(iid, letter): (u64, &str)| InternedString { iid: Some(iid), str: Some(letter.into()) };
        out.push_interned(InternedData {
            event_categories: vec![EventCategory { iid: Some(BLOCKED), name: Some("blocked".to_owned()) }],
            event_names: vec![EventName { iid: Some(BLOCKED), name: Some("blocked".to_owned()) }],
            debug_annotation_names: (1..).zip(ARGUMENTS).map(argument).collect(),
            debug_annotation_string_values: (1..).zip(task_state::LETTERS).map(state).collect(),
            ..InternedData::default()
        });
    }
}
