//! Polls, as far as they are known.
//!
//! Probes tell when each of them began and ended. Without, samples and switches tell of some:
//! A thread's own variables say which task it polls, and a worker's ticks say whether it is still the same poll. So a poll
//! that was found twice, or that left its CPU and came back, lasted at least from the first time to the last. Of one that
//! was found once it is only known that there was one.

mod deeds;
mod ending;
mod exact;
mod given_away;
mod judging;
mod keeping;
mod presence;
mod showing;
mod workers;

use std::{ops::Range, sync::Arc};

use polletto_common::{
    id::{Tgid, Tid},
    poll::MAX_NESTED,
    polled::Polled,
    record::{self, flags},
};
use rustc_hash::{FxHashMap, FxHashSet};

use self::{given_away::GivenWorkers, keeping::LongPolls, presence::Presence};
use super::{
    blocked::Absence,
    doings::{Doing, Doings},
    findings::Findings,
    holders::Holders,
    named_workers::NamedWorkers,
    runtimes::{RuntimeCounters, WalkedProcess},
    seen::Seen,
    task_code::{Future, PollBody},
    task_lives::Lives,
    task_waits::{AwaitingProcess, Gaps},
    tokio_tracks::TokioTracks,
    vocabulary::Vocabulary,
    waits::Wait,
    wakes::Wakes,
};
use crate::{families::FamilyName, trace::PacketBuffer};

/// Polls of one thread that wait to be shown until it is known which task that is itself. Mostly it is within milliseconds.
const MAX_UNDECIDED: usize = 1024;

/// A task of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TaskKey {
    pub tgid: Tgid,
    /// [`Polled::task`], never 0.
    pub id: u64,
}

/// A future of a vtable of which nothing else is known.
fn unknown(vtable: u64) -> Future {
    let name = format!("vtable {vtable:#x}");
    Future { full_name: name.clone(), name, tier: "vtable", place: None, family: FamilyName::Tokio }
}

fn future_of(vtable: u64, body: Option<Arc<PollBody>>) -> Arc<Future> {
    body.map_or_else(|| Arc::new(unknown(vtable)), |body| Arc::clone(&body.future))
}

/// What is known of polls.
#[derive(Debug, Default)]
pub struct Polls {
    lives: Lives,
    /// The task that a worker thread is itself.
    own: FxHashMap<Tid, u64>,
    /// Threads that were told to have polled tasks that await: none but a worker does that in a task that may block.
    pollers: FxHashSet<Tid>,
    learnt: Vec<(Tid, u64)>,
    /// Several of a thread where their ends will be told, the outermost first: it polls one in the middle of another.
    present: FxHashMap<Tid, Vec<Presence>>,
    /// By worker, the polls that it was found in before it was known which task it is itself: between a poll's last
    /// instructions and its end, a stack still shows that poll, and the thread's variables the worker.
    undecided: FxHashMap<Tid, Vec<Presence>>,
    /// By thread, [`Polled::tick`] of the last polls that are shown though their end was not told yet, the latest last: they
    /// are not shown again.
    unfinished: FxHashMap<Tid, Vec<u64>>,
    tracks: TokioTracks,
    named: NamedWorkers,
    given: GivenWorkers,
    counters: RuntimeCounters,
    wakes: Wakes,
    gaps: Gaps,
    holders: Holders,
    doings: Doings,
    long: LongPolls,
    closures_run: u64,
    without_worker: u64,
    /// What lasts as long is told as a finding, nanoseconds.
    threshold_ns: u64,
    findings: Findings,
}

impl Polls {
    /// Tells polls that last as long, and tasks that wait as long, as findings.
    pub fn find(&mut self, threshold_ns: u64) {
        self.threshold_ns = threshold_ns;
    }

    /// What was found.
    pub fn findings(&self) -> &Findings {
        &self.findings
    }

    /// [`Seen::closures_run`] and [`Seen::without_worker`].
    pub fn shown(&self) -> (u64, u64) {
        (self.closures_run, self.without_worker)
    }

    /// What threads did that may have held a lock.
    pub fn holders(&mut self) -> &mut Holders {
        &mut self.holders
    }

    /// What threads that poll do.
    pub fn doings(&mut self) -> &mut Doings {
        &mut self.doings
    }

    /// The timer found a thread running with `body` on its stack. Tells which task it polled, if any.
    pub fn sample(
        &mut self,
        sample: &record::Sample,
        body: Option<&Arc<PollBody>>,
        callstack: u64,
        words: &mut Vocabulary,
        seen: &mut Seen,
        out: &mut PacketBuffer,
    ) -> Option<TaskKey> {
        let record::Sample { header, tid, tgid, polled, period_ns, .. } = *sample;
        // It runs, even if nobody saw it come back.
        self.back(header.time_ns, tid);
        let task = self.task(header.time_ns, tid, tgid, polled, body);
        self.found(header.time_ns, tid, task, polled, words, seen, out);
        if let Some(presence) = self.innermost(tid)
            && task == Some(presence.task)
        {
            presence.callstacks.push(callstack, None, period_ns);
        }
        task
    }

    /// A thread left its CPU in the middle of a poll.
    pub fn left(&mut self, left: &record::PollLeft, words: &mut Vocabulary, seen: &mut Seen, out: &mut PacketBuffer) {
        let record::PollLeft { header, tid, tgid, polled } = *left;
        let task = self.task(header.time_ns, tid, tgid, polled, None);
        self.found(header.time_ns, tid, task, polled, words, seen, out);
        if let Some(presence) = self.innermost(tid) {
            presence.leave(header.time_ns, header.flags & flags::FELL_ASLEEP != 0);
            presence.has_given |= header.flags & flags::WORKER_GONE != 0;
        }
    }

    /// A thread is woken.
    pub fn wakes(&mut self, time_ns: u64, tid: Tid) {
        self.doings.wake(time_ns, tid);
        if let Some(presence) = self.innermost(tid) {
            presence.wake(time_ns);
        }
    }

    /// A thread runs again.
    pub fn back(&mut self, time_ns: u64, tid: Tid) {
        self.doings.change(time_ns, tid, Doing::Runs);
        if let Some(presence) = self.innermost(tid) {
            presence.come_back(time_ns);
        }
    }

    /// A thread that slept with `body` on its stack is back. Tells which task it polled meanwhile, if any.
    pub fn blocked(
        &mut self,
        blocked: &record::Blocked,
        absence: Absence,
        body: Option<&Arc<PollBody>>,
        (callstack, wait): (u64, Wait),
    ) -> Option<TaskKey> {
        let task = self.task(blocked.header.time_ns, blocked.tid, blocked.tgid, blocked.polled, body)?;
        if let Some(presence) = self.innermost(blocked.tid)
            && presence.task == task
        {
            presence.sleep(absence, callstack, wait);
            presence.callstacks.push(callstack, Some(wait), absence.weights().off_cpu_ns);
        }
        Some(task)
    }

    /// Polls may be missing from before this time.
    pub fn lost(&mut self, time_ns: u64) {
        self.wakes.lost();
        self.gaps.lost(time_ns);
    }

    /// Polls of a process were not told from then to then.
    pub fn unobserved(&mut self, process: Tgid, gap: Range<u64>) {
        // What was woken before led to polls that nobody saw.
        self.wakes.lost();
        self.gaps.unobserved(process, gap);
    }

    /// Takes what tasks of a process were found waiting for.
    pub fn await_something(&mut self, read: &AwaitingProcess, seen: &mut Seen) {
        for found in &read.tasks {
            let is_kept = self.lives.awaits(TaskKey { tgid: read.tgid, id: found.id }, found);
            seen.waits_not_kept += u64::from(!is_kept);
        }
    }

    /// See [`Lives::polled_last`].
    pub fn polled_last(&self, task: TaskKey) -> Option<u64> {
        self.lives.polled_last(task)
    }

    /// The task that spawned another, if that was told.
    pub fn parent(&self, task: TaskKey) -> Option<u64> {
        self.wakes.parent(task)
    }

    /// What a task is, once that is known.
    pub fn future(&self, task: TaskKey) -> Option<&Arc<PollBody>> {
        self.lives.body(task)
    }

    /// Worker threads, and the task that each is itself, since the last call.
    pub fn take_learnt(&mut self) -> Vec<(Tid, u64)> {
        std::mem::take(&mut self.learnt)
    }

    /// Takes what was read from a process's memory: its tasks' futures, and what its runtimes are like.
    pub fn walked(&mut self, walked: &WalkedProcess, words: &mut Vocabulary, seen: &mut Seen, out: &mut PacketBuffer) {
        seen.tasks_walked += walked.runtimes.iter().map(|runtime| runtime.tasks.len() as u64).sum::<u64>();
        let present: FxHashSet<TaskKey> = self.present.values().flatten().map(|presence| presence.task).collect();
        let over = self.lives.walked(walked, &present);
        seen.tasks_not_kept += self.lives.take_not_kept();
        self.show_lives(over, words, seen, out);
        self.counters.show(walked, &mut self.tracks, out);
    }

    /// The thread has ended, or its id is another's now.
    pub fn forget_thread(&mut self, tid: Tid, words: &mut Vocabulary, seen: &mut Seen, out: &mut PacketBuffer) {
        self.end(tid, words, seen, out);
        self.decide(tid, words, seen, out);
        self.own.remove(&tid);
        self.pollers.remove(&tid);
        self.unfinished.remove(&tid);
        self.given.forget_thread(tid);
        self.holders.forget_thread(tid);
        self.doings.forget_thread(tid);
    }

    /// The process has ended or runs another program.
    pub fn forget_process(&mut self, tgid: Tgid, words: &mut Vocabulary, seen: &mut Seen, out: &mut PacketBuffer) {
        let over = self.lives.take_process(tgid);
        self.show_lives(over, words, seen, out);
        self.wakes.forget_process(tgid);
        self.gaps.forget_process(tgid);
        self.given.forget_process(tgid);
        self.long.forget_process(tgid);
        self.tracks.forget_process(tgid);
        self.counters.forget_process(tgid);
    }

    /// Shows what is still being polled at `now_ns`, be it asleep.
    pub fn finish(&mut self, now_ns: u64, words: &mut Vocabulary, seen: &mut Seen, out: &mut PacketBuffer) {
        self.present
            .values_mut()
            .filter_map(|nested| nested.last_mut())
            .for_each(|presence| presence.come_back(now_ns));
        let mut threads: Vec<Tid> = self.present.keys().chain(self.undecided.keys()).copied().collect();
        threads.sort_unstable();
        threads.dedup();
        for tid in threads {
            self.end(tid, words, seen, out);
            self.decide(tid, words, seen, out);
        }
        let over = self.lives.take_all(now_ns);
        self.show_lives(over, words, seen, out);
    }

    /// Which task a thread polls. Learns from the stack, whose innermost poll is the one that counts.
    fn task(
        &mut self,
        time_ns: u64,
        tid: Tid,
        tgid: Tgid,
        polled: Polled,
        body: Option<&Arc<PollBody>>,
    ) -> Option<TaskKey> {
        if polled.is_nothing() || self.own.get(&tid) == Some(&polled.task) {
            return None;
        }
        self.given.seen(tgid, &polled);
        let task = TaskKey { tgid, id: polled.task };
        // Right at the begin and the end of a poll, the stack shows only what it is within.
        if let Some(body) = body.filter(|body| !(body.may_block && polled.awaits())) {
            let is_worker = polled.runtime != 0 || (self.pollers.contains(&tid) && polled.began_ns().is_none());
            if body.may_block && is_worker {
                self.own.insert(tid, polled.task);
                self.learnt.push((tid, polled.task));
                self.lives.forget(task);
                return None;
            }
            self.lives.found(task, body, polled.runtime, time_ns);
        }
        Some(task)
    }

    #[expect(clippy::too_many_arguments, reason = "where slices go and what they are made of")]
    fn found(
        &mut self,
        time_ns: u64,
        tid: Tid,
        task: Option<TaskKey>,
        polled: Polled,
        words: &mut Vocabulary,
        seen: &mut Seen,
        out: &mut PacketBuffer,
    ) {
        if let Some(presence) = self.innermost(tid) {
            let is_same_poll = polled.tick != 0 && presence.polled.tick == polled.tick;
            if task == Some(presence.task) && is_same_poll {
                presence.last_ns = presence.last_ns.max(time_ns);
                return;
            }
            // Until its end is told, a poll goes on, whatever else is polled within it.
            let is_within = presence.polled.began_ns().zip(polled.began_ns()).is_some_and(|(outer, own)| outer < own);
            if !is_within || self.present.get(&tid).is_some_and(|nested| nested.len() >= MAX_NESTED) {
                self.end(tid, words, seen, out);
            }
        }
        if let Some(task) = task
            && !self.is_unfinished(tid, &polled)
        {
            self.present.entry(tid).or_default().push(Presence::new(task, polled, time_ns));
        }
    }

    fn innermost(&mut self, tid: Tid) -> Option<&mut Presence> {
        self.present.get_mut(&tid)?.last_mut()
    }
}
