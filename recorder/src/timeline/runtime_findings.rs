//! What is wrong with runtimes as a whole.
//!
//! `tools/sql/polletto/runtimes.sql` finds the same in a trace: also in one whose recorder was killed, or did not look for
//! findings. What is told here is told as well to who has no `trace_processor`. A test holds the two against each other.

use std::fmt;

use polletto_common::{
    id::{Tgid, Tid},
    polled::Polled,
};
use rustc_hash::{FxHashMap, FxHashSet};

use super::{
    runtimes::{RuntimeCounter, WalkedProcess, WalkedRuntime},
    tokio_tracks::{Group, TokioTracks},
    vocabulary::Vocabulary,
    workers::{RuntimeKey, Work, Workers},
};
use crate::trace::{PacketBuffer, SliceBegin};

/// Nothing is told of what was recorded for less, or of pools that were full for less: their numbers are read twice a second.
const LEAST_NS: u64 = 1_000_000_000;

/// A worker that is busy for more than that never parks.
const NEVER_PARKS: f64 = 0.99;

/// One that is busy for more than that, while the others are for less than this, has all the work.
const BUSY: f64 = 0.9;
const IDLE: f64 = 0.2;

/// Findings that are kept, and runtimes that are watched.
const MAX_FINDINGS: usize = 4096;
const MAX_RUNTIMES: usize = 4096;

/// What is wrong.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum RuntimeFault {
    /// Closures that may block waited for a thread, so many at most, and none was idle.
    PoolFull {
        /// How many, at most.
        waiting: u64,
    },
    /// A worker always had work, or was kept by some.
    NeverParks {
        /// The share of the time, from 0 to 1, in which it was busy.
        share: f64,
    },
    /// One worker had all the work.
    OneBusyWorker {
        /// The share of the time in which it was busy.
        share: f64,
        /// The same of the others, on average.
        others: f64,
    },
}

impl RuntimeFault {
    /// What traces and summaries call it.
    pub fn name(self) -> &'static str {
        match self {
            RuntimeFault::PoolFull { .. } => "blocking pool full",
            RuntimeFault::NeverParks { .. } => "worker never parks",
            RuntimeFault::OneBusyWorker { .. } => "one busy worker",
        }
    }
}

/// In words, as `polletto_runtime_findings` has them.
impl fmt::Display for RuntimeFault {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RuntimeFault::PoolFull { waiting } => write!(out, "up to {waiting} waited for a thread"),
            RuntimeFault::NeverParks { share } => write!(out, "busy for {:.1} % of the time", 100.0 * share),
            RuntimeFault::OneBusyWorker { share, others } => {
                let (share, others) = (100.0 * share, 100.0 * others);
                write!(out, "busy for {share:.0} % of the time, the others for {others:.0} %")
            }
        }
    }
}

/// Something wrong with a runtime.
#[derive(Clone, Debug, PartialEq)]
pub struct RuntimeFinding {
    /// What it is.
    pub fault: RuntimeFault,
    /// The process.
    pub tgid: Tgid,
    /// The group of the workers' tracks, which stands for the runtime.
    pub runtime: String,
    /// Which worker, if it is one's.
    pub worker: Option<u64>,
    /// When it began, CLOCK_BOOTTIME nanoseconds; none if it was so all the time.
    pub since_ns: Option<u64>,
    /// How long it lasted, nanoseconds.
    pub duration_ns: u64,
}

impl RuntimeFinding {
    /// What its worker's track is called, if it is about one.
    pub fn worker_name(&self) -> Option<String> {
        self.worker.map(|worker| format!("worker {worker}"))
    }
}

/// A pool for blocking code that is full.
#[derive(Clone, Copy, Debug)]
struct FullPool {
    since_ns: u64,
    waiting: u64,
}

/// What was found to be wrong with runtimes.
#[derive(Debug, Default)]
pub struct RuntimeFindings {
    /// None if nothing is to be found.
    began_ns: Option<u64>,
    workers: Workers,
    full: FxHashMap<RuntimeKey, FullPool>,
    /// Processes of which it is known when their polls were told: as many as are recorded at the same time, at most. Of others,
    /// threads may poll without being found.
    observed: FxHashSet<Tgid>,
    /// Work of processes that have ended, until it is known how long the recording lasts.
    ended: Vec<(Tgid, Group, Work)>,
    found: Vec<RuntimeFinding>,
    /// Findings, runtimes and threads for which there was no room.
    not_kept: u64,
}

impl RuntimeFindings {
    /// Looks for them in a recording that began then.
    pub fn find(&mut self, began_ns: u64) {
        self.began_ns = Some(began_ns);
    }

    /// What was found.
    pub fn found(&self) -> &[RuntimeFinding] {
        &self.found
    }

    /// Findings, runtimes and threads of workers for which there was no room.
    pub fn not_kept(&self) -> u64 {
        self.not_kept + self.workers.not_kept()
    }

    /// A thread was found to be what that says, whatever it does.
    pub fn works(&mut self, time_ns: u64, tid: Tid, polled: &Polled) {
        if let Some(recorded_ns) = self.began_ns {
            // Since a poll began that was told to last, it has not slept outside of polls.
            let since_ns = polled.began_ns().map_or(time_ns, |began_ns| began_ns.clamp(recorded_ns, time_ns));
            self.workers.found(since_ns, time_ns, tid, polled);
        }
    }

    /// What its threads do.
    pub fn workers(&mut self) -> &mut Workers {
        &mut self.workers
    }

    /// It is known when polls of this process were not told.
    pub fn observed(&mut self, tgid: Tgid) {
        self.observed.insert(tgid);
    }

    /// Takes what was read of runtimes.
    pub fn walked(
        &mut self,
        walked: &WalkedProcess,
        tracks: &mut TokioTracks,
        words: &mut Vocabulary,
        out: &mut PacketBuffer,
    ) {
        if self.began_ns.is_none() {
            return;
        }
        for runtime in &walked.runtimes {
            let key = (walked.tgid, runtime.address);
            let workers = runtime.counters.iter().filter_map(|(counter, _)| match counter {
                RuntimeCounter::WorkerQueue(index) => Some(index.saturating_add(1)),
                _ => None,
            });
            if let Some(workers) = workers.max() {
                self.workers.count(key, workers.min(super::runtimes::MAX_WORKERS));
            }
            match waiting(runtime) {
                Some(waiting) if self.full.len() < MAX_RUNTIMES || self.full.contains_key(&key) => {
                    let full = self.full.entry(key).or_insert(FullPool { since_ns: walked.time_ns, waiting });
                    full.waiting = full.waiting.max(waiting);
                }
                Some(_) => self.not_kept += 1,
                None => self.has_room(key, walked.time_ns, tracks, words, out),
            }
        }
        for &ended in &walked.ended {
            self.has_room((walked.tgid, ended), walked.time_ns, tracks, words, out);
        }
    }

    /// The thread has ended, or its id is another's now.
    pub fn forget_thread(&mut self, tid: Tid) {
        self.workers.forget_thread(tid);
    }

    /// The process has ended or runs another program. Its tracks are still known.
    pub fn forget_process(
        &mut self,
        tgid: Tgid,
        time_ns: u64,
        tracks: &mut TokioTracks,
        words: &mut Vocabulary,
        out: &mut PacketBuffer,
    ) {
        let full: Vec<RuntimeKey> = self.full.keys().filter(|(of, _)| *of == tgid).copied().collect();
        full.into_iter().for_each(|key| self.has_room(key, time_ns, tracks, words, out));
        let is_observed = self.observed.remove(&tgid);
        for (key, work) in self.workers.take_process(tgid) {
            let Some(began_ns) = self.began_ns.filter(|_| is_observed) else { continue };
            // Shares only get smaller from now on.
            let may_be = work.shares(time_ns.saturating_sub(began_ns)).iter().any(|(_, share)| *share > BUSY);
            let Some(group) = tracks.group_of(key).filter(|_| may_be) else { continue };
            if self.ended.len() < MAX_RUNTIMES {
                self.ended.push((tgid, group, work));
            } else {
                self.not_kept += 1;
            }
        }
    }

    /// The recording ends.
    pub fn finish(&mut self, now_ns: u64, tracks: &mut TokioTracks, words: &mut Vocabulary, out: &mut PacketBuffer) {
        let Some(began_ns) = self.began_ns else { return };
        let mut full: Vec<RuntimeKey> = self.full.keys().copied().collect();
        // So that the same record makes the same trace.
        full.sort_unstable();
        full.into_iter().for_each(|key| self.has_room(key, now_ns, tracks, words, out));
        let mut all = std::mem::take(&mut self.ended);
        for (key, work) in self.workers.take_all(now_ns) {
            if self.observed.contains(&key.0)
                && let Some(group) = tracks.group_of(key)
            {
                all.push((key.0, group, work));
            }
        }
        all.sort_by_key(|(_, group, _)| group.track);
        let recorded_ns = now_ns.saturating_sub(began_ns);
        if recorded_ns < LEAST_NS {
            return;
        }
        for (tgid, group, work) in all {
            for (worker, fault) in judged(&work.shares(recorded_ns)) {
                let finding = RuntimeFinding {
                    fault,
                    tgid,
                    runtime: group.name.clone(),
                    worker: Some(worker),
                    since_ns: None,
                    duration_ns: recorded_ns,
                };
                self.push(finding, began_ns, group.track, tracks, words, out);
            }
        }
    }

    /// A pool is full no longer, or nothing more is known of it.
    fn has_room(
        &mut self,
        key: RuntimeKey,
        time_ns: u64,
        tracks: &mut TokioTracks,
        words: &mut Vocabulary,
        out: &mut PacketBuffer,
    ) {
        let Some(FullPool { since_ns, waiting }) = self.full.remove(&key) else { return };
        let duration_ns = time_ns.saturating_sub(since_ns);
        let Some(Group { track, name }) = tracks.group_of(key).filter(|_| duration_ns >= LEAST_NS) else { return };
        let finding = RuntimeFinding {
            fault: RuntimeFault::PoolFull { waiting },
            tgid: key.0,
            runtime: name,
            worker: None,
            since_ns: Some(since_ns),
            duration_ns,
        };
        self.push(finding, since_ns, track, tracks, words, out);
    }

    /// Shows a finding in the runtime's group, and keeps it.
    fn push(
        &mut self,
        finding: RuntimeFinding,
        since_ns: u64,
        group: u64,
        tracks: &mut TokioTracks,
        words: &mut Vocabulary,
        out: &mut PacketBuffer,
    ) {
        if self.found.len() >= MAX_FINDINGS {
            self.not_kept += 1;
            return;
        }
        let track = tracks.findings(group, (since_ns, since_ns + finding.duration_ns), out);
        let mut arguments = vec![
            words.number("duration_ns", finding.duration_ns, out),
            words.text("detail", &finding.fault.to_string(), out),
        ];
        arguments.extend(finding.worker_name().map(|worker| words.text("worker", &worker, out)));
        let slice = SliceBegin {
            time_ns: since_ns,
            track,
            category: words.category("finding", out),
            name: words.event(finding.fault.name(), out),
            callstack: None,
            arguments: &arguments,
            flows: &[],
        };
        out.push_slice_begin(&slice);
        out.push_slice_end(since_ns + finding.duration_ns, track);
        self.found.push(finding);
    }
}

/// How many closures wait for a thread while none is idle.
fn waiting(runtime: &WalkedRuntime) -> Option<u64> {
    let number = |of| runtime.counters.iter().find(|(counter, _)| *counter == of).map(|(_, number)| *number);
    let waiting = number(RuntimeCounter::BlockingQueue)?;
    (waiting > 0 && number(RuntimeCounter::IdleBlockingThreads)? == 0).then_some(waiting)
}

/// What is wrong with workers that were busy for such shares of the time.
fn judged(shares: &[(u64, f64)]) -> Vec<(u64, RuntimeFault)> {
    let all: f64 = shares.iter().map(|(_, share)| share).sum();
    let mut found = Vec::new();
    for &(worker, share) in shares {
        if share > NEVER_PARKS {
            found.push((worker, RuntimeFault::NeverParks { share }));
        }
        if share > BUSY && shares.len() > 1 {
            let others = (all - share) / (shares.len() - 1) as f64;
            if others < IDLE {
                found.push((worker, RuntimeFault::OneBusyWorker { share, others }));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_are_judged_by_the_share_of_the_time_in_which_they_are_busy() {
        type Shares<'a> = &'a [(u64, f64)];
        let cases: [(Shares, &[(u64, &str)]); 6] = [
            (&[(0, 0.5), (1, 0.6)], &[]),
            (&[(0, 0.995), (1, 0.6)], &[(0, "worker never parks")]),
            (&[(0, 0.991), (1, 0.999)], &[(0, "worker never parks"), (1, "worker never parks")]),
            (&[(0, 0.05), (1, 0.91), (2, 0.3)], &[(1, "one busy worker")]),
            (&[(0, 0.05), (1, 0.995)], &[(1, "worker never parks"), (1, "one busy worker")]),
            // There are no others that could be idle.
            (&[(0, 0.95)], &[]),
        ];
        for (shares, expected) in cases {
            let found: Vec<(u64, &str)> =
                judged(shares).iter().map(|(worker, fault)| (*worker, fault.name())).collect();
            assert_eq!(found, expected, "{shares:?}");
        }
    }

    #[test]
    fn findings_are_told_in_words() {
        for (fault, words) in [
            (RuntimeFault::PoolFull { waiting: 4 }, "up to 4 waited for a thread"),
            (RuntimeFault::NeverParks { share: 0.9987 }, "busy for 99.9 % of the time"),
            (
                RuntimeFault::OneBusyWorker { share: 0.997, others: 0.031 },
                "busy for 100 % of the time, the others for 3 %",
            ),
        ] {
            assert_eq!(fault.to_string(), words);
        }
    }
}
