//! The thread that walks the tasks of recorded processes, and what it is told and tells.
//!
//! It walks when the thread that drains the rings says so, and never twice for one word: a process whose memory is slow to
//! read makes walks rarer, and nothing else.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        mpsc::{Receiver, Sender, channel},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use polletto_common::{
    id::{Tgid, Tid},
    polled::Polled,
    record::{self, Record, flags},
};
use rustc_hash::{FxHashMap, FxHashSet};
use rustix::time::{ClockId, clock_gettime};

use super::{changes::PATIENCE, modules::Unreadable, preamble::boottime_ns};
use crate::{
    target::ProcessMemory,
    timeline::{RuntimeCounter, TaskCode, WalkedProcess, WalkedRuntime},
    tokio::walk::{Allowance, Doubt, Lists, Places, RuntimeAt, RuntimeKind, RuntimeWalk, Walk, Walker},
};

/// Tasks that are read at most on one walk, of all processes.
const MAX_TASKS: usize = 100_000;

/// CPU time that one walk of all processes may take, but for what is begun.
const MAX_LENGTH: Duration = Duration::from_millis(20);

/// How long a walk is waited for when the recording ends.
const LAST_PATIENCE: Duration = Duration::from_millis(200);

/// Of a CPU, what reading tasks may take: one part in so many. Walks that would take more leave the lists of tasks out,
/// until those before are made up for.
const SHARE: u32 = 100;

/// How often threads are asked for whose own variables are not known. A program that has just begun has none yet.
const MAX_ASKED: u32 = 8;

/// Runtimes that are told of between two walks.
const MAX_TOLD: usize = 4096;

/// A program that polls tasks, in a process.
pub struct WalkedProgram {
    /// Its file.
    pub path: String,
    /// Where its Tokio has what it knows, or why that is unknown.
    pub places: Result<Places, String>,
    /// What to subtract (wrapping) from its addresses to get the file's own.
    pub bias: u64,
    pub code: Arc<TaskCode>,
    /// Its debug information may tell what tasks await.
    pub may_tell_awaits: bool,
}

/// What the thread is told.
pub enum News {
    /// A process runs this.
    Runs { process: Tgid, program: Box<WalkedProgram> },
    /// A process has ended, or runs nothing any more of what it did.
    Forget { process: Tgid },
    /// A thread has its own variables there.
    Thread { process: Tgid, thread: Tid, pointer: u64 },
    /// A thread has ended.
    ThreadEnded { process: Tgid, thread: Tid },
    /// It is time. These runtimes have polled something.
    Walk { polled: Vec<(Tgid, RuntimeAt)> },
    /// There will be no more.
    End,
}

/// What a walk came to.
struct Walked {
    processes: Vec<WalkedProcess>,
    /// Threads are not known of which something could be learnt.
    wants_threads: bool,
}

/// What became of all walks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WalkSummary {
    /// How often processes were walked.
    pub walks: u64,
    /// CPU time that it took.
    pub cpu: Duration,
    /// Processes without numbers, and why.
    pub refused: Vec<Unreadable>,
}

/// The thread, for those that talk to it.
pub struct Walks {
    news: Sender<News>,
    walked: Receiver<Walked>,
    summary: Receiver<WalkSummary>,
    is_walking: bool,
    polled: FxHashSet<(Tgid, RuntimeAt)>,
    wants_threads: bool,
}

impl Walks {
    /// Starts it.
    pub fn start() -> Result<Walks> {
        let (news, coming) = channel();
        let (tell, walked) = channel();
        let (sum_up, summary) = channel();
        std::thread::Builder::new()
            .name("polletto-walk".into())
            .spawn(move || {
                // Who waits for it may have given up.
                sum_up.send(Follower::default().run(&coming, &tell)).ok();
            })
            .context("could not start the thread that walks tasks")?;
        Ok(Walks { news, walked, summary, is_walking: false, polled: FxHashSet::default(), wants_threads: false })
    }

    /// Where programs are told.
    pub fn news(&self) -> Sender<News> {
        self.news.clone()
    }

    /// Takes a record that may be about a thread's beginning or end, or tells of a runtime.
    pub fn record(&mut self, record: &Record) {
        match *record {
            Record::Fork(record::Fork { tid: thread, tgid: process, thread_pointer: pointer, .. }) => {
                self.tell(News::Thread { process, thread, pointer });
            }
            Record::Exit(record::Exit { tid: thread, tgid: process, .. }) => {
                self.tell(News::ThreadEnded { process, thread });
            }
            Record::Exec(record::Exec { tid, .. }) => self.tell(News::Forget { process: Tgid(tid.0) }),
            Record::Sample(record::Sample { tgid, polled, .. })
            | Record::PollLeft(record::PollLeft { tgid, polled, .. })
            | Record::Blocked(record::Blocked { tgid, polled, .. }) => self.polled(tgid, &polled),
            _ => {}
        }
    }

    /// Takes the threads that there are.
    pub fn list(&self, tasks: &[record::Task]) {
        let recorded = tasks.iter().filter(|task| task.header.flags & flags::RECORDED != 0);
        for &record::Task { tid: thread, tgid: process, thread_pointer: pointer, .. } in recorded {
            self.tell(News::Thread { process, thread, pointer });
        }
    }

    /// It is time for a walk. There is none while the last one lasts.
    pub fn walk(&mut self) {
        if !self.is_walking {
            self.is_walking = true;
            let polled = self.polled.drain().collect();
            self.tell(News::Walk { polled });
        }
    }

    /// What was found since the last call.
    pub fn found(&mut self) -> Vec<WalkedProcess> {
        let Ok(Walked { processes, wants_threads }) = self.walked.try_recv() else { return Vec::new() };
        self.is_walking = false;
        self.wants_threads |= wants_threads;
        processes
    }

    /// What one more walk finds, unless it takes too long: memory that a file system provides may never be there.
    pub fn last(&mut self) -> Vec<WalkedProcess> {
        let mut found = self.awaited();
        self.walk();
        found.extend(self.awaited());
        found
    }

    /// What the walk finds that is under way, if one is.
    fn awaited(&mut self) -> Vec<WalkedProcess> {
        if !self.is_walking {
            return Vec::new();
        }
        let Ok(Walked { processes, .. }) = self.walked.recv_timeout(LAST_PATIENCE) else { return Vec::new() };
        self.is_walking = false;
        processes
    }

    /// Whether the threads should be listed, since the last call.
    pub fn take_threads_wanted(&mut self) -> bool {
        std::mem::take(&mut self.wants_threads)
    }

    /// Ends the thread, if it comes to an end: memory that a file system provides may never be there.
    pub fn finish(self) -> WalkSummary {
        self.tell(News::End);
        self.summary.recv_timeout(PATIENCE).unwrap_or_default()
    }

    fn polled(&mut self, process: Tgid, polled: &Polled) {
        if polled.runtime != 0 && self.polled.len() < MAX_TOLD {
            let is_only = polled.worker == Polled::ONLY_WORKER;
            let kind = if is_only { RuntimeKind::CurrentThread } else { RuntimeKind::MultiThread };
            self.polled.insert((process, RuntimeAt { address: polled.runtime, kind }));
        }
    }

    fn tell(&self, news: News) {
        // If the thread has panicked, there is nothing more to tell.
        self.news.send(news).ok();
    }
}

/// A process of which something is known.
#[derive(Default)]
struct Process {
    /// Where threads have their own variables. 0 where they had not said so.
    threads: FxHashMap<Tid, u64>,
    program: Option<(Box<WalkedProgram>, Walker)>,
    asked: u32,
    /// A runtime was believed at some time.
    has_walked: bool,
    /// Whether a pool for blocking code was told at some time, and why not, if a runtime was.
    pools: Option<Result<(), Doubt>>,
}

#[derive(Default)]
struct Follower {
    processes: FxHashMap<Tgid, Process>,
    /// Walks so far.
    walks: u64,
    refused: BTreeSet<Unreadable>,
    /// No tasks are read before.
    rests_until: Option<Instant>,
}

impl Follower {
    fn run(mut self, coming: &Receiver<News>, tell: &Sender<Walked>) -> WalkSummary {
        while let Ok(news) = coming.recv() {
            match news {
                News::Runs { process, program } => self.runs(process, program),
                News::Forget { process } => self.forget(process),
                News::Thread { process, thread, pointer } => {
                    self.processes.entry(process).or_default().threads.insert(thread, pointer);
                }
                News::ThreadEnded { process, thread } => self.thread_ended(process, thread),
                News::Walk { polled } => {
                    let walked = self.walk(&polled);
                    tell.send(walked).ok();
                }
                News::End => break,
            }
        }
        let left: Vec<Tgid> = self.processes.keys().copied().collect();
        left.into_iter().for_each(|process| self.forget(process));
        let refused = self.refused.into_iter().collect();
        WalkSummary { walks: self.walks, cpu: own_cpu_time(), refused }
    }

    fn runs(&mut self, process: Tgid, program: Box<WalkedProgram>) {
        let places = match &program.places {
            Ok(places) => places.clone(),
            Err(reason) => {
                self.refused.insert(Unreadable { path: program.path.clone(), reason: reason.clone() });
                return;
            }
        };
        let process = self.processes.entry(process).or_default();
        // It is told whenever more is mapped.
        if process.program.as_ref().is_none_or(|(known, _)| known.path != program.path || known.bias != program.bias) {
            process.program = Some((program, Walker::new(places)));
        }
    }

    fn thread_ended(&mut self, tgid: Tgid, thread: Tid) {
        let Some(process) = self.processes.get_mut(&tgid) else { return };
        process.threads.remove(&thread);
        if process.threads.is_empty() {
            self.forget(tgid);
        }
    }

    fn forget(&mut self, tgid: Tgid) {
        let Some(Process { program: Some((program, _)), pools: Some(Err(doubt)), .. }) = self.processes.remove(&tgid)
        else {
            return;
        };
        self.refused.insert(unreadable(tgid, &program.path, doubt.to_string()));
    }

    fn walk(&mut self, polled: &[(Tgid, RuntimeAt)]) -> Walked {
        let cpu_before = own_cpu_time();
        let is_rested = self.rests_until.is_none_or(|until| Instant::now() >= until);
        let goes_on = || own_cpu_time().saturating_sub(cpu_before) < MAX_LENGTH;
        let mut allowance = Allowance { tasks: if is_rested { MAX_TASKS } else { 0 }, goes_on: &goes_on };
        let mut walked = Walked { processes: Vec::new(), wants_threads: false };
        let mut order: Vec<Tgid> = self.processes.keys().copied().collect();
        order.sort_unstable();
        // Another one is the first each time, since the last ones may be left out.
        let first = self.walks as usize % order.len().max(1);
        order.rotate_left(first);
        for tgid in order {
            let Some(process) = self.processes.get_mut(&tgid) else { continue };
            let told: Vec<RuntimeAt> = polled.iter().filter(|told| told.0 == tgid).map(|told| told.1).collect();
            match process.walk(tgid, &told, &mut allowance) {
                Some(Ok(process)) => walked.processes.push(process),
                Some(Err(reason)) => drop(self.refused.insert(reason)),
                None => {}
            }
            walked.wants_threads |= process.wants_threads(tgid);
        }
        self.walks += 1;
        if is_rested {
            self.rests_until = Some(Instant::now() + own_cpu_time().saturating_sub(cpu_before) * SHARE);
        }
        walked
    }
}

impl Process {
    /// None where there is nothing to walk.
    fn walk(
        &mut self,
        tgid: Tgid,
        told: &[RuntimeAt],
        allowance: &mut Allowance<'_>,
    ) -> Option<Result<WalkedProcess, Unreadable>> {
        let (program, walker) = self.program.as_mut()?;
        let memory = ProcessMemory(tgid);
        let refuse = |reason: String| Some(Err(unreadable(tgid, &program.path, reason)));
        let pointers: Vec<u64> = self.threads.values().copied().filter(|&pointer| pointer != 0).collect();
        if !self.has_walked
            && let Some(&pointer) = pointers.first()
            && let Err(error) = memory.check(pointer)
            && error.kind() == std::io::ErrorKind::PermissionDenied
        {
            return refuse(format!("its memory can't be read: {error} (it takes CAP_SYS_PTRACE)"));
        }
        let began_ns = boottime_ns();
        let walk = walker.walk(&memory, &pointers, told, allowance);
        self.has_walked |= !walk.runtimes.is_empty();
        for runtime in &walk.runtimes {
            let told = runtime.state.blocking.map(drop);
            self.pools = Some(self.pools.map_or(told, |before| before.or(told)));
        }
        match walk.doubt {
            Some(doubt) if !self.has_walked => refuse(doubt.to_string()),
            _ => Some(Ok(walked_process(tgid, walk, began_ns, program))),
        }
    }

    /// Whether threads should be listed: the first one's variables are not known, as after an exec.
    fn wants_threads(&mut self, tgid: Tgid) -> bool {
        let is_known = |pointer: &u64| *pointer != 0;
        let wants =
            self.program.is_some() && !self.threads.get(&tgid.leader()).is_some_and(is_known) && self.asked < MAX_ASKED;
        self.asked += u32::from(wants);
        wants
    }
}

fn unreadable(tgid: Tgid, path: &str, reason: String) -> Unreadable {
    Unreadable { path: format!("process {tgid} ({path})"), reason }
}

fn walked_process(tgid: Tgid, walk: Walk, began_ns: u64, program: &WalkedProgram) -> WalkedProcess {
    let is_cut_short = walk.runtimes.iter().any(|runtime| runtime.lists == Lists::CutShort);
    let gone_with_it = walk.ended.iter().flat_map(|(_, tasks)| tasks);
    let gone = walk.runtimes.iter().flat_map(|runtime| &runtime.gone).chain(gone_with_it).copied().collect();
    WalkedProcess {
        tgid,
        time_ns: boottime_ns(),
        ended: walk.ended.iter().map(|(at, _)| at.address).collect(),
        gone,
        is_cut_short,
        may_tell_awaits: program.may_tell_awaits,
        runtimes: walk.runtimes.into_iter().map(|runtime| walked_runtime(runtime, began_ns, program)).collect(),
    }
}

fn walked_runtime(walk: RuntimeWalk, began_ns: u64, program: &WalkedProgram) -> WalkedRuntime {
    let mut counters = vec![
        (RuntimeCounter::LiveTasks, walk.state.live_tasks),
        (RuntimeCounter::SpawnedTasks, walk.state.spawned_tasks),
        (RuntimeCounter::InjectionQueue, walk.state.injected),
    ];
    if let Ok(pool) = walk.state.blocking {
        counters.push((RuntimeCounter::BlockingThreads, pool.threads));
        counters.push((RuntimeCounter::IdleBlockingThreads, pool.idle));
        counters.push((RuntimeCounter::BlockingQueue, pool.queued));
    }
    if let Some(workers) = walk.state.workers {
        counters.push((RuntimeCounter::IdleWorkers, workers.parked));
        counters.push((RuntimeCounter::SearchingWorkers, workers.searching));
        counters.extend((0..).zip(workers.queues).map(|(index, tasks)| (RuntimeCounter::WorkerQueue(index), tasks)));
    }
    let mut listed_since_ns = None;
    // Of lists that were read at several times, tasks may have been counted twice or never.
    if let Lists::Walked { states, given_up: 0, at_once: true } = walk.lists {
        counters.push((RuntimeCounter::NotifiedTasks, states.notified));
        listed_since_ns = Some(began_ns);
    }
    let named = |task: &crate::tokio::walk::FoundTask| {
        let body = program.code.of_vtable(task.vtable.wrapping_sub(program.bias))?;
        Some((task.id, Arc::clone(body)))
    };
    let tasks = walk.tasks.iter().filter_map(named).collect();
    WalkedRuntime { address: walk.at.address, counters, tasks, listed_since_ns }
}

/// CPU time of the calling thread.
fn own_cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec as u32)
}
