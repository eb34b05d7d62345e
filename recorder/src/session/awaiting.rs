//! The threads that read what the tasks of recorded processes await: again and again if that is wanted, and once when the
//! recording is over and nothing is attached any more.
//!
//! A process has one of its own, since reading what its program's debug information says takes long, and much memory.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError, Sender, TryRecvError, channel},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow};
use polletto_common::{id::Tgid, record::Record};
use rustc_hash::{FxHashMap, FxHashSet};

use super::{
    config::AwaitStacks,
    inspecting::{Inspected, Inspection, LiveTask, Look},
    modules::Unreadable,
    own_use::thread_cpu_ns,
    precedence::GivingWay,
};
use crate::{
    symbols::short_file,
    target,
    timeline::{Awaited, AwaitingProcess, AwaitingTask, Unpolled},
    tokio::{AWAITS_NOT_DESCRIBED, Waits},
};

/// How long all processes together are waited for when a recording is over.
const PATIENCE: Duration = Duration::from_secs(10);

/// Of a CPU, what reading a process's tasks may take while it is recorded: one part in so many. What would take more is
/// left out.
const SHARE: u32 = 10;

/// Processes that are read while they are recorded.
const MAX_PROCESSES: usize = 64;

/// Chains of a process whose words are kept to be used again.
const MAX_CHAINS: usize = 1 << 16;

/// Chains that are told of in a summary.
const TOLD: usize = 10;

/// How long what was read waits for the records of what happened before: as long as they wait in rings, and some more.
const DELAY: Duration = Duration::from_millis(100);

/// What became of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AwaitSummary {
    /// How often processes were read.
    pub looks: u64,
    /// Tasks of which it was found what they wait for when they were read last.
    pub tasks: u64,
    /// How often a process was not read though it was time: it would have taken more than a tenth of a CPU.
    pub left_out: u64,
    /// What they wait for, those first that were not polled for longest.
    pub longest: Vec<AwaitedBy>,
    /// In how many ways more.
    pub more: u64,
    /// Processes that can't be read, and why.
    pub refused: Vec<Unreadable>,
}

/// What tasks wait for.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct AwaitedBy {
    /// How many of them.
    pub tasks: u64,
    /// For how long one of them was not polled when the recording ended, of the time in which polls were observed: the one that
    /// waits longest. At least, if it never was. None if polls never were observed.
    pub since_poll_ns: Option<u64>,
    /// From their own future on.
    pub awaits: String,
}

/// What a thread tells.
enum Told {
    /// What was read, and the CPU time that it took.
    Read(AwaitingProcess, Duration),
    /// The program does not tell what its tasks await, as most don't.
    Undescribed(&'static str),
    /// It can't be read.
    Failed(String),
}

/// A process's thread.
struct Watcher {
    ask: Sender<()>,
    told: Receiver<Told>,
    is_asked: bool,
    rests_until: Option<Instant>,
}

/// All of them.
#[derive(Default)]
pub struct Awaiting {
    /// Whether processes are read while they are recorded.
    is_continuous: bool,
    watchers: FxHashMap<Tgid, Watcher>,
    /// Processes that have tasks.
    known: FxHashSet<Tgid>,
    /// What was read, and when it may be passed on.
    waiting: Vec<(Instant, AwaitingProcess)>,
    refused: BTreeSet<Unreadable>,
    looks: u64,
    left_out: u64,
}

impl Awaiting {
    /// None where nothing is to be read.
    pub fn new(when: AwaitStacks) -> Option<Awaiting> {
        let is_continuous = matches!(when, AwaitStacks::Every(_));
        (when != AwaitStacks::Never).then(|| Awaiting { is_continuous, ..Awaiting::default() })
    }

    /// Takes a record that may be about a program's beginning.
    pub fn record(&mut self, record: &Record) {
        if let Record::Exec(exec) = record {
            self.forget(Tgid(exec.tid.0));
        }
    }

    /// A process has tasks, and its program may tell what they await, or does not.
    pub fn has_tasks(&mut self, process: Tgid, may_tell: bool) -> Result<()> {
        match (may_tell, self.is_continuous) {
            (false, false) => {}
            (false, true) => self.refused.extend([unreadable(process, AWAITS_NOT_DESCRIBED)]),
            (true, _) => {
                let is_new = self.known.insert(process);
                if is_new && self.is_continuous && self.watchers.len() < MAX_PROCESSES {
                    self.watchers.insert(process, Watcher::start(process)?);
                }
            }
        }
        Ok(())
    }

    /// A process has ended, or runs another program.
    pub fn forget(&mut self, process: Tgid) {
        self.known.remove(&process);
        self.watchers.remove(&process);
    }

    /// It is time to read them.
    pub fn look(&mut self) {
        for watcher in self.watchers.values_mut() {
            let rests = watcher.rests_until.is_some_and(|until| Instant::now() < until);
            if watcher.is_asked || rests {
                self.left_out += 1;
            } else {
                watcher.ask();
            }
        }
    }

    /// What was read, once all is known that happened before.
    pub fn found(&mut self) -> Vec<AwaitingProcess> {
        let mut gone = Vec::new();
        for (&process, watcher) in &mut self.watchers {
            match watcher.told.try_recv() {
                Ok(told) => {
                    watcher.is_asked = false;
                    match told {
                        Told::Read(read, took) => {
                            self.looks += 1;
                            watcher.rests_until = Some(Instant::now() + took * SHARE);
                            self.waiting.push((Instant::now() + DELAY, read));
                        }
                        Told::Undescribed(reason) => self.refused.extend([unreadable(process, reason)]),
                        Told::Failed(reason) => self.refused.extend([unreadable(process, &reason)]),
                    }
                }
                Err(TryRecvError::Empty) => {}
                Err(TryRecvError::Disconnected) => gone.push(process),
            }
        }
        gone.iter().for_each(|process| drop(self.watchers.remove(process)));
        let now = Instant::now();
        self.waiting.extract_if(.., |(until, _)| *until <= now).map(|(_, read)| read).collect()
    }

    /// Reads all processes that live, once more. Nothing is attached to them any more, and no record is to come.
    pub fn finish(mut self) -> LastLook {
        let read: Vec<AwaitingProcess> = self.waiting.drain(..).map(|(_, read)| read).collect();
        let deadline = Instant::now() + PATIENCE;
        let mut processes: Vec<Tgid> = self.known.iter().copied().collect();
        processes.sort_unstable();
        let mut last_read = Vec::new();
        for process in processes {
            // One after another: their debug information need not be in memory at the same time.
            let watcher = self.watchers.remove(&process).map_or_else(|| Watcher::start(process), Ok);
            let told = watcher.and_then(|watcher| watcher.last(deadline));
            match told.unwrap_or_else(|error| Told::Failed(format!("{error:#}"))) {
                Told::Read(last, _) => {
                    self.looks += 1;
                    last_read.push(last);
                }
                Told::Undescribed(reason) if self.is_continuous => {
                    self.refused.extend([unreadable(process, reason)]);
                }
                Told::Undescribed(_) => {}
                // It may have ended at the same time.
                Told::Failed(reason) if target::Process::read(process).is_ok() => {
                    self.refused.extend([unreadable(process, &reason)]);
                }
                Told::Failed(_) => {}
            }
        }
        let refused = self.refused.into_iter().collect();
        LastLook {
            read,
            last_read,
            summary: AwaitSummary { looks: self.looks, left_out: self.left_out, refused, ..AwaitSummary::default() },
        }
    }
}

/// What is read when a recording is over.
pub struct LastLook {
    /// What was read before, and not passed on.
    pub read: Vec<AwaitingProcess>,
    /// All there is.
    pub last_read: Vec<AwaitingProcess>,
    summary: AwaitSummary,
}

impl LastLook {
    /// What became of all. `unpolled` tells of a task for how long it was not polled when the recording ended, and none of
    /// one that came later.
    pub fn summary(self, unpolled: impl Fn(Tgid, u64) -> Option<Unpolled>) -> AwaitSummary {
        let mut alike = FxHashMap::<Arc<Awaited>, (u64, Option<u64>)>::default();
        let mut tasks = 0;
        for process in &self.last_read {
            for task in &process.tasks {
                let (Some(awaited), Some(unpolled)) = (&task.awaited, unpolled(process.tgid, task.id)) else {
                    continue;
                };
                let since_ns = match unpolled {
                    Unpolled::For(ns) => Some(ns),
                    Unpolled::NotObserved => None,
                };
                let (count, longest_ns) = alike.entry(Arc::clone(awaited)).or_default();
                tasks += 1;
                *count += 1;
                *longest_ns = since_ns.max(*longest_ns);
            }
        }
        let told = |(awaited, (tasks, since_poll_ns)): (Arc<Awaited>, (u64, Option<u64>))| AwaitedBy {
            tasks,
            since_poll_ns,
            awaits: awaited.short.clone(),
        };
        let mut longest: Vec<AwaitedBy> = alike.into_iter().map(told).collect();
        // Of what lasts about as long, what many do is rarely what one looks for.
        longest.sort_by(|one, other| {
            let about = |ns: u64| ns.max(1).ilog2();
            let key = |of: &AwaitedBy| (std::cmp::Reverse(of.since_poll_ns.map(about)), of.tasks);
            key(one).cmp(&key(other)).then_with(|| one.awaits.cmp(&other.awaits))
        });
        let more = longest.len().saturating_sub(TOLD) as u64;
        longest.truncate(TOLD);
        AwaitSummary { tasks, longest, more, ..self.summary }
    }
}

fn unreadable(process: Tgid, reason: &str) -> Unreadable {
    Unreadable { path: format!("process {process}"), reason: reason.to_owned() }
}

impl Watcher {
    fn start(process: Tgid) -> Result<Watcher> {
        let (ask, asked) = channel();
        let (tell, told) = channel();
        std::thread::Builder::new()
            .name("polletto-awaits".into())
            .spawn(move || {
                let way = GivingWay::begin();
                let inspected = Inspected::find(process);
                let watched = inspected.and_then(|it| {
                    it.look(true, |look| {
                        drop(way);
                        watch(process, look, &asked, &tell)
                    })?
                });
                if let Err(error) = watched {
                    // Who asked may have given up.
                    tell.send(Told::Failed(format!("{error:#}"))).ok();
                }
            })
            .context("could not start a thread that reads what tasks await")?;
        Ok(Watcher { ask, told, is_asked: false, rests_until: None })
    }

    fn ask(&mut self) {
        self.is_asked = true;
        // A thread that has ended has said why.
        self.ask.send(()).ok();
    }

    /// What is read from now on, not what was asked for before.
    fn last(mut self, deadline: Instant) -> Result<Told> {
        if self.is_asked {
            match self.receive(deadline)? {
                Told::Read(..) => {}
                other => return Ok(other),
            }
        }
        self.ask();
        self.receive(deadline)
    }

    fn receive(&self, deadline: Instant) -> Result<Told> {
        let patience = deadline.saturating_duration_since(Instant::now());
        self.told.recv_timeout(patience).map_err(|error| match error {
            RecvTimeoutError::Timeout => anyhow!("to read what its tasks await takes too long"),
            RecvTimeoutError::Disconnected => anyhow!("to read what its tasks await has failed"),
        })
    }
}

/// Reads a process whenever that is asked for.
fn watch(process: Tgid, look: &mut Look<'_, '_, '_>, asked: &Receiver<()>, tell: &Sender<Told>) -> Result<()> {
    if let Some(reason) = look.no_awaits() {
        tell.send(Told::Undescribed(reason)).ok();
        return Ok(());
    }
    let mut words = Words::default();
    while asked.recv().is_ok() {
        let (before_ns, _way) = (thread_cpu_ns(), GivingWay::begin());
        let read = words.process(process, &look.now()?);
        if tell.send(Told::Read(read, Duration::from_nanos(thread_cpu_ns() - before_ns))).is_err() {
            break;
        }
    }
    Ok(())
}

/// Chains of awaits in words, each once.
#[derive(Default)]
struct Words(FxHashMap<Waits, Arc<Awaited>>);

impl Words {
    fn process(&mut self, tgid: Tgid, read: &Inspection) -> AwaitingProcess {
        AwaitingProcess { tgid, tasks: read.tasks.iter().map(|task| self.task(task)).collect() }
    }

    fn task(&mut self, task: &LiveTask) -> AwaitingTask {
        let spawned_at = task.spawned_at.as_ref().map(|(file, line)| format!("{}:{line}", short_file(file)));
        AwaitingTask { id: task.id, time_ns: task.time_ns, awaited: self.awaited(&task.waits), spawned_at }
    }

    fn awaited(&mut self, waits: &Waits) -> Option<Arc<Awaited>> {
        if let Some(known) = self.0.get(waits) {
            return Some(Arc::clone(known));
        }
        let waits_for = waits.awaits.last()?.what.clone();
        let awaited = Arc::new(Awaited { waits_for, chain: waits.to_string(), short: waits.in_short() });
        if self.0.len() < MAX_CHAINS {
            self.0.insert(waits.clone(), Arc::clone(&awaited));
        }
        Some(awaited)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_that_wait_longest_are_told_first_and_of_these_the_few_before_the_many() {
        let awaited = |name: &str| Arc::new(Awaited { waits_for: name.into(), chain: name.into(), short: name.into() });
        let task =
            |id, awaits: Option<&str>| AwaitingTask { id, time_ns: 0, awaited: awaits.map(awaited), spawned_at: None };
        let tasks = [Some("many"), Some("many"), Some("late"), Some("few"), None, Some("unknown")];
        let tasks = (1..).zip(tasks).map(|(id, awaits)| task(id, awaits)).collect();
        let last_read = vec![AwaitingProcess { tgid: Tgid(7), tasks }];
        let look = LastLook { read: Vec::new(), last_read, summary: AwaitSummary::default() };
        // Milliseconds, by the tasks' ids; the timeline does not know the last one.
        let unpolled_ms = [2_010, 500, 1_000, 2_050, 9_000];
        let told = |look: LastLook, unpolled: &dyn Fn(u64) -> Unpolled| {
            let summary = look.summary(|_, id| unpolled_ms.get(id as usize - 1).map(|&ms| unpolled(ms)));
            assert_eq!((summary.tasks, summary.more), (4, 0));
            let told = summary.longest.into_iter();
            told.map(|of| (of.awaits, of.tasks, of.since_poll_ns.map(|ns| ns / 1_000_000))).collect::<Vec<_>>()
        };
        let of = |name: &str, tasks, ms| (name.to_owned(), tasks, ms);
        let alike = LastLook { read: Vec::new(), last_read: look.last_read.clone(), summary: AwaitSummary::default() };
        let expected = [of("few", 1, Some(2_050)), of("many", 2, Some(2_010)), of("late", 1, Some(1_000))];
        assert_eq!(told(look, &|ms| Unpolled::For(ms * 1_000_000)), expected);
        let expected = [of("few", 1, None), of("late", 1, None), of("many", 2, None)];
        assert_eq!(told(alike, &|_| Unpolled::NotObserved), expected);
    }
}
