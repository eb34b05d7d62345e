//! From records to what happened.
//!
//! A [`Timeline`] takes records in the order of time and writes packets. It knows what each CPU runs, which threads and
//! processes there are and what they are called, which code stands where in their memory, and where records are missing.
//! It is pure: no clock, no files, no threads, so that a recorded stream of records replays to the same packets.

mod awake;
mod blocked;
mod convoys;
mod doings;
mod extent;
mod findings;
mod frames;
mod holders;
mod lane;
mod lives;
mod mappings;
mod named_workers;
mod observed;
mod poll_news;
mod polls;
mod process_tree;
mod pseudo;
mod recorder_track;
mod running;
mod runtime_findings;
mod runtimes;
mod samples;
mod seen;
mod stacks;
mod task_code;
mod task_lives;
mod task_state;
mod task_waits;
mod threads;
mod tokio_tracks;
mod vocabulary;
mod waits;
mod wakes;
mod workers;

use std::{sync::Arc, time::Duration};

use polletto_common::{
    id::{Tgid, Tid},
    record::{self, Record, flags},
};
use rustc_hash::{FxHashMap, FxHashSet};

use self::{
    lane::Lane, observed::Observed, process_tree::ProcessTreeWriter, recorder_track::RecorderTrack, samples::Samples,
    stacks::Stacks, threads::Threads,
};
use crate::trace::PacketBuffer;

pub use self::{
    convoys::{Convoy, Turn},
    doings::Doing,
    extent::Extent,
    findings::{Cause, ConvoyHeld, Counted, Fault, Finding, Findings, Group, Keeper, Meanwhile},
    frames::{KernelSymbol, KernelSymbols, path_in_trace, path_of},
    holders::Held,
    mappings::{Code, Mapped, Module},
    observed::Unpolled,
    poll_news::{PollNews, Unobserved},
    process_tree::{ProcessDescription, Undescribed},
    recorder_track::RecorderCounters,
    runtime_findings::{RuntimeFault, RuntimeFinding},
    runtimes::{RuntimeCounter, WalkedProcess, WalkedRuntime},
    seen::{Endings, Seen},
    task_code::{Future, PollBody, TaskCode},
    task_waits::{Awaited, AwaitingProcess, AwaitingTask},
    tokio_tracks::Poller,
    waits::Wait,
};

/// How much of the machine a trace shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum View {
    /// The recorded threads; what else ran is only shown as `other`, so that it stays private.
    Recorded,
    /// Every thread by its name.
    System,
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
    stacks: Stacks,
    samples: Samples,
    observed: Observed,
    seen: Seen,
    ended: Vec<Tgid>,
    undescribed: Vec<Undescribed>,
    listing_wanted: bool,
    scan_wanted: bool,
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
            stacks: Stacks::new(stacks::MAX_STACKS),
            samples: Samples::default(),
            observed: Observed::default(),
            seen: Seen::default(),
            ended: Vec::new(),
            undescribed: Vec::new(),
            listing_wanted: false,
            scan_wanted: false,
        }
    }

    /// Polls that last as long, and tasks that wait as long to be polled, are told as findings. None are before this.
    pub fn find(&mut self, threshold: Duration) {
        self.samples.find(threshold.as_nanos() as u64, self.began_ns);
    }

    /// Threads whose names begin like this are workers, where their runtimes don't tell.
    pub fn name_workers(&mut self, prefixes: &[String]) {
        self.samples.name_workers(prefixes);
    }

    /// What was found.
    pub fn findings(&self) -> &Findings {
        self.samples.findings()
    }

    /// What was found to be wrong with runtimes as a whole. What lasts to the end of the recording is found then.
    pub fn runtime_findings(&self) -> &[RuntimeFinding] {
        self.samples.runtime_findings().found()
    }

    /// Whether it is to be said of which runtime a worker of this process is.
    pub fn has_several_runtimes(&self, tgid: Tgid) -> bool {
        self.samples.has_several_runtimes(tgid)
    }

    /// The program's code that callstacks of findings lead through, the innermost first, with the addresses as the files'
    /// own symbols have them.
    pub fn code_of(&self, callstacks: &FxHashSet<u64>) -> FxHashMap<u64, Vec<(Code, u64)>> {
        self.stacks.code_of(callstacks)
    }

    /// Takes one record. Records of one CPU come in the order in which they were written, those of several CPUs nearly so.
    pub fn push(&mut self, record: &Record, out: &mut PacketBuffer) {
        match record {
            Record::Switch(switch) => self.switch(switch, out),
            Record::Waking(waking) => self.waking(waking),
            Record::Fork(fork) => self.fork(fork, out),
            Record::Exec(exec) => self.exec(exec, out),
            Record::Exit(exit) => self.exit(exit),
            Record::Rename(rename) => self.rename(rename, out),
            Record::Current(current) => self.current(current, out),
            Record::Lost(lost) => self.lost(lost, out),
            Record::Task(task) => self.task(task, task.header.time_ns, out),
            Record::Sample(sample) => self.sample(sample, out),
            Record::PollLeft(left) => return self.samples.poll_left(left, &mut self.seen, out),
            Record::Poll(poll) => return self.samples.polled(poll, &mut self.stacks, &mut self.seen, out),
            Record::Wake(wake) => return self.samples.woken(wake, &mut self.stacks, &mut self.seen, out),
            Record::Spawn(spawn) => return self.samples.spawned(spawn, &mut self.stacks, &mut self.seen, out),
            Record::Blocked(blocked) => return self.samples.blocked(blocked, &mut self.stacks, &mut self.seen, out),
        }
        let lane = self.lane(record.header().cpu);
        if lane.is_full() {
            lane.write(out);
        }
    }

    /// Takes a stack, to which later samples and blocked stretches refer. Its frames are [`record::Stack::frames`]
    /// addresses, the innermost first; they are looked up among the mappings that the process has by now.
    pub fn push_stack(&mut self, stack: &record::Stack, frames: &[u64], out: &mut PacketBuffer) {
        self.stacks.define(stack, frames, &mut self.seen, out);
    }

    /// A process has mapped code, in place of what stood at these addresses before. A process that is forked from it later
    /// begins with the same mappings.
    pub fn map(&mut self, mapping: Mapped) {
        self.stacks.map(mapping);
    }

    /// From now on, it is known where the code of this file polls tasks. Stacks refer to the very same [`Module`].
    pub fn knows_task_code(&mut self, module: Arc<Module>, code: Arc<TaskCode>) {
        self.stacks.knows_task_code(module, code);
    }

    /// Worker threads, and the ids of the tasks that they are themselves, which were learnt since the last call: what they
    /// show while they poll nothing.
    pub fn take_own_tasks(&mut self) -> Vec<(Tid, u64)> {
        self.samples.take_own_tasks()
    }

    /// Takes what was read from a process's memory.
    pub fn walked(&mut self, walked: &WalkedProcess, out: &mut PacketBuffer) {
        // It may have ended meanwhile.
        if !self.threads.has_process(walked.tgid) {
            return;
        }
        if walked.is_cut_short {
            self.seen.walks_cut_short += 1;
            self.recorder.walk_cut_short(walked, out);
        }
        self.samples.walked(walked, &mut self.seen, out);
    }

    /// Takes what is known of polls besides what the kernel tells.
    pub fn poll_news(&mut self, news: &PollNews, out: &mut PacketBuffer) {
        match news {
            PollNews::Unobserved { process, since_ns, until_ns, why } => {
                self.samples.unobserved(*process, *since_ns..*until_ns);
                self.recorder.polls_unobserved(*process, *since_ns..*until_ns, *why, out);
            }
            PollNews::ObservedFrom { process, time_ns } => {
                self.observed.begin(*process, *time_ns);
                self.recorder.polls_observed_from(*process, *time_ns, out);
            }
            PollNews::ObservedUntil { process, time_ns } => {
                self.observed.end(*process, *time_ns);
                self.recorder.polls_observed_until(*process, *time_ns, out);
            }
            PollNews::StillPolling(polls) => polls.iter().for_each(|poll| self.push(&Record::Poll(*poll), out)),
        }
    }

    /// Takes what tasks of a process were found waiting for.
    pub fn await_something(&mut self, read: &AwaitingProcess) {
        self.samples.await_something(read, &mut self.seen);
    }

    /// When a task's last poll ended that was told, or else since when it is known. None if it is not known.
    pub fn polled_last(&self, process: Tgid, task: u64) -> Option<u64> {
        self.samples.polled_last(process, task)
    }

    /// For how long a task was not polled until then. None of one that is not known.
    pub fn unpolled(&self, process: Tgid, task: u64, until_ns: u64) -> Option<Unpolled> {
        let polled_ns = self.polled_last(process, task)?;
        Some(self.observed.within_ns(process, (polled_ns, until_ns)).map_or(Unpolled::NotObserved, Unpolled::For))
    }

    /// This is all that a process has mapped.
    pub fn remap(&mut self, tgid: Tgid, mappings: Vec<Mapped>) {
        self.stacks.remap(tgid, mappings);
    }

    /// A process has nothing mapped any more: it is about to run another program.
    pub fn unmap_all(&mut self, tgid: Tgid) {
        self.stacks.process_cleared(tgid);
    }

    /// Whether the process is recorded and has not ended.
    pub fn has_process(&self, tgid: Tgid) -> bool {
        self.threads.has_process(tgid)
    }

    /// The addresses of all code in stacks, sorted. In files they are those that the file's own symbols have.
    pub fn addresses(&self) -> FxHashMap<Code, Vec<u64>> {
        self.stacks.addresses()
    }

    /// From now on, frames of the kernel are named by these.
    pub fn name_kernel_frames(&mut self, symbols: Arc<dyn KernelSymbols>) {
        self.stacks.name_kernel_frames(symbols);
    }

    /// Takes the threads that exist at `now_ns`.
    pub fn list(&mut self, tasks: &[record::Task], now_ns: u64, out: &mut PacketBuffer) {
        // Those that have ended tell of it only once. Of others nobody hears any more.
        let living = || tasks.iter().filter(|task| task.header.flags & flags::ENDED == 0);
        // After a loss, some that are known may have ended unseen.
        let listed: FxHashSet<Tid> = living().map(|task| task.tid).collect();
        for gone in self.threads.all_but(&listed) {
            // On which CPU, nobody knows.
            self.thread_ended(now_ns, 0, gone, out);
        }
        for task in living() {
            self.task(task, now_ns, out);
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

    /// Whether records of threads and processes were lost since the last call: one may have begun, or begun another program,
    /// unseen, so the caller should say anew what all of them have mapped.
    pub fn take_scan_wanted(&mut self) -> bool {
        std::mem::take(&mut self.scan_wanted)
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
        self.recorder.count(now_ns, counters, self.seen.lost + self.seen.samples_lost, out);
    }

    /// Writes everything and ends what is still open.
    pub fn finish(&mut self, now_ns: u64, out: &mut PacketBuffer) {
        self.samples.finish(now_ns, &mut self.seen, out);
        self.flush(out);
        self.recorder.finish(now_ns, out);
    }

    /// Recorded threads that have not ended.
    pub fn live_threads(&self) -> usize {
        self.threads.len()
    }

    /// What was seen so far.
    pub fn seen(&self) -> Seen {
        let (closures_run, without_worker) = self.samples.shown();
        Seen { workers_by_name: self.samples.workers_by_name(), closures_run, without_worker, ..self.seen }
    }

    fn lost(&mut self, lost: &record::Lost, out: &mut PacketBuffer) {
        self.recorder.lost(lost, out);
        let record::Header { time_ns, cpu, flags, .. } = lost.header;
        if flags & flags::SAMPLES_LOST != 0 {
            self.seen.samples_lost += lost.count;
            self.samples.lost(time_ns);
            return;
        }
        self.seen.lost += lost.count;
        self.listing_wanted = true;
        if flags & flags::TASKS_LOST != 0 {
            self.scan_wanted = true;
            return;
        }
        self.samples.switches_lost();
        let at = self.lane_index(cpu);
        if self.lanes[at].lose(time_ns, &self.threads) == lane::Loss::First {
            self.tree.pseudo_thread(pseudo::unobserved(cpu), time_ns);
        }
    }
}

#[cfg(test)]
mod tests;
