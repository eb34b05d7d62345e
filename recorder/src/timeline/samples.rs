//! Where threads spent their time: samples of those that ran, and slices and samples of those that slept.

mod contexts;

use std::ops::Range;

use polletto_common::{
    id::{Tgid, Tid},
    limits::COMM_BYTES,
    polled::Polled,
    record::{self, flags},
};
use polletto_protos::stack_sample::Mode;
use rustc_hash::FxHashMap;

use super::{
    awake::Awake,
    blocked::Absence,
    convoys::{Convoys, Sleep, SleptIn},
    doings::Doing,
    findings::Findings,
    polls::{Polls, TaskKey},
    runtime_findings::RuntimeFindings,
    runtimes::WalkedProcess,
    seen::Seen,
    stacks::{Found, Origin, Stacks},
    task_state,
    task_waits::AwaitingProcess,
    tokio_tracks::Poller,
    vocabulary::Vocabulary,
    waits::{self, Wait},
};
use crate::trace::{InternTable, PacketBuffer, RecentTable, SliceBegin, SliceCallstack, StackSample, Weights};

/// Tasks that were sampled last and need not be told again when they are sampled again.
const RECENT_TASKS: usize = 1 << 16;

/// A thread as samples and slices refer to it. Once it has ended, another that gets its id is not the same.
#[derive(Clone, Copy, Debug)]
struct Thread {
    tgid: Tgid,
    /// Number of its `TaskContext` while it polls nothing; 0 before that is written.
    context: u64,
    /// `uuid` of its track, if it has one.
    track: Option<u64>,
    /// The task that it was found to poll last, and the number of its `TaskContext` with that.
    polling: Option<(u64, u64)>,
}

/// Writes samples and blocked stretches.
#[derive(Debug)]
pub struct Samples {
    threads: FxHashMap<Tid, Thread>,
    /// Task contexts written.
    contexts: u64,
    /// Tracks of threads written. Their uuids count up from 1, far below the recorder's own.
    tracks: u64,
    execution_contexts: InternTable<(u16, Mode)>,
    /// Tasks, and whether their futures were known when they were written.
    tasks: RecentTable<(TaskKey, bool)>,
    polls: Polls,
    convoys: Convoys,
    awake: Awake,
    runtimes: RuntimeFindings,
    words: Vocabulary,
}

impl Default for Samples {
    fn default() -> Samples {
        Samples {
            threads: FxHashMap::default(),
            contexts: 0,
            tracks: 0,
            execution_contexts: InternTable::default(),
            tasks: RecentTable::new(RECENT_TASKS),
            polls: Polls::default(),
            convoys: Convoys::default(),
            awake: Awake::default(),
            runtimes: RuntimeFindings::default(),
            words: Vocabulary::default(),
        }
    }
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
        self.awake.seen(time_ns, sample.tid);
        self.runtimes.works(time_ns, sample.tid, &sample.polled);
        if self.convoys.are_looked_for(sample.tgid) {
            let since_ns = time_ns.saturating_sub(sample.period_ns);
            self.polls.holders().found(sample.tid, (since_ns, time_ns), found.callstack);
        }
        let mode = if flags & flags::IN_KERNEL != 0 { Mode::Kernel } else { Mode::User };
        let body = found.body.as_ref();
        let task = self.polls.sample(sample, body, found.callstack, &mut self.words, seen, out);
        seen.samples_in_polls += u64::from(task.is_some());
        self.polls_one(sample.tid, task, &sample.polled);
        let task_context = self.task_context(sample.tgid, sample.tid, task, out);
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
        let Found { callstack, unwind_error, origin, body, wait } = stacks.find(blocked.stack, blocked.tgid, out);
        seen.blocked += 1;
        match origin {
            Origin::Unwound { ending, .. } => seen.blocked_by_ending.count(ending),
            Origin::Lost => seen.stacks_lost += 1,
            Origin::NotKept => seen.stacks_not_kept += 1,
        }
        let wait = match wait {
            // The kernel's own frames are mostly not recorded.
            Wait::Other => Wait::of_call(blocked.system_call, task_state::is_uninterruptible(blocked.prev_state)),
            told => told,
        };
        let absence = Absence::of(blocked);
        let weights = absence.weights();
        let task = self.polls.blocked(blocked, absence, body.as_ref(), (callstack, wait));
        if task.is_none() {
            self.runtimes.workers().was_itself(blocked.tid, blocked.polled.task);
        }
        let task_context = self.task_context(blocked.tgid, blocked.tid, task, out);
        let track = self.track(blocked, absence.left_ns, out);
        let words = &mut self.words;
        let mut arguments = vec![
            words.text("state", task_state::LETTERS[task_state::letter(blocked.prev_state)], out),
            words.number("sleep_ns", weights.off_cpu_ns, out),
            words.number("runqueue_ns", weights.run_queue_ns, out),
        ];
        let is_in_call = !task_state::is_uninterruptible(blocked.prev_state);
        let lock = waits::lock_of(blocked.system_call, blocked.argument).filter(|_| is_in_call);
        arguments.extend(lock.map(|lock| words.pointer("lock", lock, out)));
        if blocked.waker_tid != Tid::IDLE {
            arguments.push(words.number("waker_tid", u64::from(blocked.waker_tid.0), out));
        }
        let slice = SliceBegin {
            time_ns: absence.left_ns,
            track,
            category: words.category("blocked", out),
            name: words.event(wait.slice_name(), out),
            callstack: Some(SliceCallstack { callstack, weight_ns: weights.wall_ns() }),
            arguments: &arguments,
            flows: &[],
        };
        out.push_slice_begin(&slice);
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
        if self.convoys.are_looked_for(blocked.tgid) {
            self.polls.holders().found(blocked.tid, (absence.left_ns, absence.woken_ns), callstack);
        }
        if let Some(lock) = lock {
            self.stood(blocked, absence, lock, task.map(|task| (task, callstack)), out);
        }
    }

    /// A thread has slept at a lock, and may have done so while it polled a task.
    fn stood(
        &mut self,
        blocked: &record::Blocked,
        absence: Absence,
        lock: u64,
        polled: Option<(TaskKey, u64)>,
        out: &mut PacketBuffer,
    ) {
        let record::Blocked { tid, tgid, waker_tid: waker, .. } = *blocked;
        let poller = self.polls.poller(tgid, tid, &blocked.polled, false);
        // Who has given its worker away keeps none.
        let has_worker = blocked.polled.runtime == 0 || matches!(poller, Poller::Worker { .. });
        let kept = polled.filter(|(task, _)| has_worker && self.polls.is_kept(*task, &blocked.polled));
        let poll = kept.map(|(task, callstack)| SleptIn {
            poller,
            task: task.id,
            body: self.polls.future(task).cloned(),
            callstack,
        });
        if self.convoys.are_looked_for(tgid) {
            self.polls.holders().let_go(waker, absence.woken_ns);
        }
        let waker_since_ns = self.awake.since_ns(waker);
        for found in self.convoys.slept((tgid, lock), Sleep { tid, absence, waker, waker_since_ns, poll }) {
            self.polls.show_convoy(found, &mut self.words, out);
        }
    }

    /// A thread polls, if that is a task that awaits.
    fn polls_one(&mut self, tid: Tid, task: Option<TaskKey>, polled: &Polled) {
        if let Some(task) = task.filter(|task| self.polls.is_kept(*task, polled)) {
            self.runtimes.workers().polls(tid, task.tgid, polled);
        }
    }

    /// A thread left its CPU in the middle of a poll.
    pub fn poll_left(&mut self, left: &record::PollLeft, seen: &mut Seen, out: &mut PacketBuffer) {
        self.polls.left(left, &mut self.words, seen, out);
        self.convoys.polls(left.tgid);
        let record::PollLeft { header, tid, tgid, polled } = *left;
        self.runtimes.works(header.time_ns, tid, &polled);
        // Who has given its worker away, or had none, keeps none.
        if self.polls.may_be_in_poll(tid, &polled) && self.polls.has_worker(tgid, tid, &polled) {
            self.polls_one(tid, Some(TaskKey { tgid, id: polled.task }), &polled);
            self.runtimes.workers().leaves_poll(header.time_ns, tid, polled.task);
        }
    }

    /// A thread has polled a task from the poll's begin to its end.
    pub fn polled(&mut self, poll: &record::Poll, stacks: &mut Stacks, seen: &mut Seen, out: &mut PacketBuffer) {
        let body = stacks.polled_by(poll.tgid, poll.vtable);
        self.runtimes.works(poll.header.time_ns, poll.tid, &poll.polled);
        self.polls.polled(poll, body, &mut self.words, seen, out);
        self.polls_one(poll.tid, Some(TaskKey { tgid: poll.tgid, id: poll.polled.task }), &poll.polled);
    }

    /// A thread has woken a task.
    pub fn woken(&mut self, wake: &record::Wake, stacks: &mut Stacks, seen: &mut Seen, out: &mut PacketBuffer) {
        let body = stacks.polled_by(wake.tgid, wake.vtable);
        self.polls.woken(wake, body, &mut self.words, seen, out);
    }

    /// A thread has spawned a task.
    pub fn spawned(&mut self, spawn: &record::Spawn, stacks: &mut Stacks, seen: &mut Seen, out: &mut PacketBuffer) {
        let body = stacks.polled_by(spawn.tgid, spawn.vtable);
        self.polls.spawned(spawn, body, &mut self.words, seen, out);
    }

    /// See [`super::Timeline::name_workers`].
    pub fn name_workers(&mut self, prefixes: &[String]) {
        self.polls.name_workers(prefixes);
    }

    /// A thread has this name from now on.
    pub fn named(&mut self, tid: Tid, tgid: Tgid, comm: &[u8; COMM_BYTES]) {
        self.polls.named_workers().named(tid, tgid, comm);
    }

    /// A thread has ended, and its name with it.
    pub fn forget_name(&mut self, tid: Tid) {
        self.polls.named_workers().forget(tid);
    }

    /// See [`Seen::workers_by_name`].
    pub fn workers_by_name(&self) -> Option<u64> {
        self.polls.workers_by_name()
    }

    /// [`Seen::closures_run`] and [`Seen::without_worker`].
    pub fn shown(&self) -> (u64, u64) {
        self.polls.shown()
    }

    /// Polls may be missing from before this time.
    pub fn lost(&mut self, time_ns: u64) {
        self.polls.lost(time_ns);
    }

    /// See [`Polls::unobserved`].
    pub fn unobserved(&mut self, process: Tgid, gap: Range<u64>) {
        self.runtimes.observed(process);
        self.polls.unobserved(process, gap);
    }

    /// See [`Polls::await_something`].
    pub fn await_something(&mut self, read: &AwaitingProcess, seen: &mut Seen) {
        self.polls.await_something(read, seen);
    }

    /// See [`super::Timeline::polled_last`].
    pub fn polled_last(&self, tgid: Tgid, id: u64) -> Option<u64> {
        self.polls.polled_last(TaskKey { tgid, id })
    }

    /// A thread is found on its CPU, or begins.
    pub fn runs(&mut self, time_ns: u64, tid: Tid) {
        self.awake.seen(time_ns, tid);
    }

    /// A thread leaves its CPU.
    pub fn leaves(&mut self, time_ns: u64, tid: Tid, is_asleep: bool) {
        self.awake.seen(time_ns, tid);
        self.runtimes.workers().leaves(time_ns, tid, is_asleep);
        self.polls.doings().change(time_ns, tid, if is_asleep { Doing::Sleeps } else { Doing::NoCpu });
    }

    /// A thread has left its CPU by then, and nobody saw how.
    pub fn vanishes(&mut self, time_ns: u64, tid: Tid) {
        self.polls.doings().change(time_ns, tid, Doing::Unseen);
    }

    /// Switches are missing.
    pub fn switches_lost(&mut self) {
        self.polls.doings().lost();
    }

    /// A thread is woken.
    pub fn wakes(&mut self, time_ns: u64, tid: Tid) {
        self.awake.seen(time_ns, tid);
        self.runtimes.workers().is_back(time_ns, tid);
        self.polls.wakes(time_ns, tid);
    }

    /// A thread runs again.
    pub fn back(&mut self, time_ns: u64, tid: Tid) {
        self.awake.seen(time_ns, tid);
        self.runtimes.workers().is_back(time_ns, tid);
        self.polls.back(time_ns, tid);
    }

    /// See [`Polls::walked`].
    pub fn walked(&mut self, walked: &WalkedProcess, seen: &mut Seen, out: &mut PacketBuffer) {
        self.polls.walked(walked, &mut self.words, seen, out);
        self.runtimes.walked(walked, self.polls.tracks(), &mut self.words, out);
    }

    /// See [`Polls::take_learnt`].
    pub fn take_own_tasks(&mut self) -> Vec<(Tid, u64)> {
        self.polls.take_learnt()
    }

    /// The thread has ended, or its id is another's now.
    pub fn forget_thread(&mut self, tid: Tid, seen: &mut Seen, out: &mut PacketBuffer) {
        self.threads.remove(&tid);
        self.awake.forget_thread(tid);
        self.runtimes.forget_thread(tid);
        self.polls.forget_thread(tid, &mut self.words, seen, out);
    }

    /// The process has ended or runs another program.
    pub fn forget_process(&mut self, tgid: Tgid, time_ns: u64, seen: &mut Seen, out: &mut PacketBuffer) {
        for found in self.convoys.take_process(tgid) {
            self.polls.show_convoy(found, &mut self.words, out);
        }
        self.tasks.retain(|(task, _)| task.tgid != tgid);
        self.runtimes.forget_process(tgid, time_ns, self.polls.tracks(), &mut self.words, out);
        self.polls.forget_process(tgid, &mut self.words, seen, out);
    }

    /// Shows what is still going on at `now_ns`.
    pub fn finish(&mut self, now_ns: u64, seen: &mut Seen, out: &mut PacketBuffer) {
        for found in self.convoys.take_all() {
            self.polls.show_convoy(found, &mut self.words, out);
        }
        seen.convoys_cut_short += self.convoys.cut_short();
        self.polls.finish(now_ns, &mut self.words, seen, out);
        self.runtimes.finish(now_ns, self.polls.tracks(), &mut self.words, out);
        seen.runtimes_not_kept += self.runtimes.not_kept();
    }

    /// Looks for findings in a recording that began then; see [`Polls::find`].
    pub fn find(&mut self, threshold_ns: u64, began_ns: u64) {
        self.polls.find(threshold_ns);
        self.convoys.find(threshold_ns);
        if threshold_ns > 0 {
            self.runtimes.find(began_ns);
        }
    }

    /// See [`super::Timeline::has_several_runtimes`].
    pub fn has_several_runtimes(&self, tgid: Tgid) -> bool {
        self.polls.has_several_runtimes(tgid)
    }

    /// What is wrong with runtimes.
    pub fn runtime_findings(&self) -> &RuntimeFindings {
        &self.runtimes
    }

    /// See [`Polls::findings`].
    pub fn findings(&self) -> &Findings {
        self.polls.findings()
    }
}
