//! The thread that finds out which programs poll tasks, and tells the kernel and the timeline how to see their tasks.

use std::{
    collections::BTreeMap,
    ops::Range,
    sync::{
        Arc,
        mpsc::{Receiver, Sender, SyncSender},
    },
};

use anyhow::Result;
use polletto_common::{id::Tgid, parked::ThreadLocals, polled::RuntimeLayout};
use rustc_hash::{FxHashMap, FxHashSet};

use super::{
    changes::{Change, Code, Follower, Unfinished},
    governor::Budget,
    modules::ModuleFile,
    polls::ProbeSummary,
    probing::{self, Order},
    walking::{News, WalkedProgram},
};
use crate::{
    families::{self, CodeFile, FamilyName, FutureName, TaskFile},
    kernel::{PollProbes, RuntimeMap},
    parking_lot,
    timeline::{Future, Module, PollBody, PollNews, TaskCode},
    tokio::walk::Places,
};

/// Names that a future is given of which it is unknown which is its own.
const MAX_NAMES: usize = 3;

/// A program that polls tasks.
pub struct Found {
    /// Its file.
    pub module: Arc<Module>,
    /// Where its code polls them.
    pub code: Arc<TaskCode>,
}

/// What is known of a program's tasks, for people to read.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct TaskProgram {
    /// Its file.
    pub path: String,
    /// Whose tasks they are: a file may have several families'.
    pub family: FamilyName,
    /// The versions of that which it was built with, as far as it tells.
    pub versions: Vec<String>,
    /// Different futures that it spawns, one for each kind of scheduler.
    pub futures: u64,
    /// How many of them have a name, by how that was found.
    pub names: BTreeMap<&'static str, u64>,
    /// Why it can't be seen which task a thread polls; none where it can.
    pub tasks_unseen: Option<String>,
    /// Why workers are not told apart; none where they are.
    pub workers_unseen: Option<String>,
}

/// What there is to tell of tasks when a recording is over.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TaskSummary {
    /// Programs that poll tasks.
    pub programs: Vec<TaskProgram>,
    /// Why there may be more; none where these are all.
    pub unfinished: Option<Unfinished>,
    /// None where polls were not to be told exactly.
    pub probes: Option<ProbeSummary>,
}

/// Probes for processes that poll tasks.
pub struct WantedProbes {
    /// Or why there can't be any.
    pub probes: Result<PollProbes, String>,
    /// What they may take.
    pub budget: Budget,
}

/// Who is told what the thread finds.
pub struct Listeners {
    pub found: Sender<Found>,
    pub polls: Sender<PollNews>,
    /// None where tasks are not walked.
    pub walks: Option<Sender<News>>,
}

/// Starts the thread, and one that attaches `probes` to every process that polls tasks, if any are wanted.
pub fn follow(map: RuntimeMap, probes: Option<WantedProbes>, listeners: Listeners) -> Result<Follower<TaskSummary>> {
    let Listeners { found, polls, walks } = listeners;
    let (mut probing, mut unprobed) = (None, None);
    match probes {
        Some(WantedProbes { probes: Ok(probes), budget }) => probing = Some(probing::follow(probes, budget, polls)?),
        Some(WantedProbes { probes: Err(reason), .. }) => unprobed = Some(ProbeSummary::refused(reason)),
        None => {}
    }
    let (examined, spaces) = (FxHashMap::default(), FxHashMap::default());
    let worker = Worker { map, probing, unprobed, found, walks, examined, spaces };
    Follower::start("polletto-tasks", move |coming| worker.run(&coming))
}

/// A file of which it is known what it polls.
struct Examined {
    /// None where threads don't tell what they poll.
    layout: Option<RuntimeLayout>,
    /// Where `parking_lot` has words on which threads sleep, from the thread pointer; none where it has none.
    parked: Option<Range<i64>>,
    /// Its path.
    path: String,
    /// By which its tasks are walked, at the file's own addresses, or why they can't be. None where nothing lists them.
    places: Option<Result<Places, String>>,
    code: Arc<TaskCode>,
    /// Its debug information may tell what tasks await.
    may_tell_awaits: bool,
    /// By family.
    summaries: Vec<TaskProgram>,
}

/// A process.
#[derive(Clone, Default)]
struct Space {
    exec_id: Option<u64>,
    /// By [`ModuleFile::index`], in the order in which they were mapped: files that poll tasks, with their [`Code::bias`].
    files: Vec<(usize, u64)>,
}

struct Worker {
    map: RuntimeMap,
    /// None where polls are not told exactly.
    probing: Option<Follower<ProbeSummary, Order>>,
    /// Why there are no probes though they were wanted.
    unprobed: Option<ProbeSummary>,
    found: Sender<Found>,
    walks: Option<Sender<News>>,
    /// By [`ModuleFile::index`]; none where a file polls nothing.
    examined: FxHashMap<usize, Option<Examined>>,
    spaces: FxHashMap<Tgid, Space>,
}

impl Worker {
    fn run(mut self, coming: &Receiver<Change>) -> TaskSummary {
        while let Ok(first) = coming.recv() {
            let (mut changed, mut waiting) = (FxHashSet::default(), Vec::new());
            for change in std::iter::once(first).chain(coming.try_iter()) {
                self.apply(change, &mut changed, &mut waiting);
            }
            changed.iter().for_each(|&process| self.tell(process));
            if !waiting.is_empty() {
                self.probing.iter().for_each(Follower::wait);
            }
            for done in waiting {
                // Who waits may have given up.
                done.send(()).ok();
            }
        }
        let mut programs: Vec<TaskProgram> =
            self.examined.into_values().flatten().flat_map(|examined| examined.summaries).collect();
        programs.sort_by(|one, other| (&one.path, one.family).cmp(&(&other.path, other.family)));
        let unfinished = |unfinished: Unfinished| {
            ProbeSummary::refused(format!("what became of them was not found out: {unfinished}"))
        };
        let probes = self.probing.map(|probing| probing.finish().unwrap_or_else(unfinished));
        TaskSummary { programs, unfinished: None, probes: probes.or(self.unprobed) }
    }

    fn apply(&mut self, change: Change, changed: &mut FxHashSet<Tgid>, waiting: &mut Vec<SyncSender<()>>) {
        match change {
            Change::Prepare(file) => self.examine(&file),
            Change::Mapped { process, time_ns, code } => {
                self.add(process, &code);
                self.order(Order::Mapped { process, time_ns, code });
                changed.insert(process);
            }
            Change::Scanned { process, time_ns, exec_id, code } => {
                self.spaces.insert(process, Space { exec_id: Some(exec_id), files: Vec::new() });
                code.iter().for_each(|code| self.add(process, code));
                self.order(Order::Scanned { process, time_ns, code });
                changed.insert(process);
            }
            Change::Copied { from, to, time_ns } => {
                // The kernel programs have done the same.
                let copy = self.spaces.get(&from).cloned().unwrap_or_default();
                self.spaces.insert(to, copy);
                self.order(Order::Copied { from, to, time_ns });
                self.tell_walks(to);
            }
            Change::Cleared { process } => {
                self.spaces.insert(process, Space::default());
                self.order(Order::Forget { process });
            }
            Change::Runs { process, exec_id } => {
                self.spaces.entry(process).or_default().exec_id = Some(exec_id);
                changed.insert(process);
            }
            Change::Ended { process } => {
                self.spaces.remove(&process);
                changed.remove(&process);
                self.map.remove(process);
                self.order(Order::Forget { process });
                self.tell_of_walks(News::Forget { process });
            }
            Change::Unprobe => self.order(Order::Stop),
            Change::Done(done) => waiting.push(done),
        }
    }

    /// A process has mapped a file's code.
    fn add(&mut self, process: Tgid, code: &Code) {
        let Some(file) = &code.file else { return };
        self.examine(file);
        let polls = self.examined.get(&file.index).is_some_and(Option::is_some);
        let files = &mut self.spaces.entry(process).or_default().files;
        if polls && files.iter().all(|known| known.0 != file.index) {
            files.push((file.index, code.bias));
        }
    }

    /// Tells who attaches probes.
    fn order(&self, order: Order) {
        if let Some(probing) = &self.probing {
            probing.tell(order);
        }
    }

    /// Tells the kernel programs how the process's threads keep what they poll, and at what they are parked.
    fn tell(&mut self, process: Tgid) {
        let Some(Space { exec_id: Some(exec_id), files }) = self.spaces.get(&process) else { return };
        let layouts = files.iter().filter_map(|(file, _)| self.examined.get(file)?.as_ref()?.layout);
        // Where several files have a Tokio of their own, it is the program's that counts, which is mapped first.
        if let Some(layout) = layouts.into_iter().next() {
            // Without room its tasks are not seen, and shown as threads without.
            self.map.set(process, RuntimeLayout { exec_id: *exec_id, ..layout }).ok();
        }
        let mut parked = files.iter().filter_map(|(file, _)| self.examined.get(file)?.as_ref()?.parked.clone());
        if let Some(Range { start, end }) = parked.next() {
            // Without room it is not seen at which locks its threads stand.
            self.map.set_thread_locals(process, ThreadLocals { exec_id: *exec_id, start, end }).ok();
        }
        self.tell_walks(process);
    }

    /// Tells who walks tasks where the process keeps them.
    fn tell_walks(&self, process: Tgid) {
        let Some(Space { exec_id: Some(_), files }) = self.spaces.get(&process) else { return };
        let listed = |&(file, bias): &(usize, u64)| {
            let examined = self.examined.get(&file)?.as_ref()?;
            Some((examined, examined.places.clone()?, bias))
        };
        let Some((program, places, bias)) = files.iter().find_map(listed) else { return };
        let program = WalkedProgram {
            path: program.path.clone(),
            places: places.map(|places| places.moved_by(bias)),
            bias,
            code: Arc::clone(&program.code),
            may_tell_awaits: program.may_tell_awaits,
        };
        self.tell_of_walks(News::Runs { process, program: Box::new(program) });
    }

    fn tell_of_walks(&self, news: News) {
        if let Some(walks) = &self.walks {
            // Who walks may have ended.
            walks.send(news).ok();
        }
    }

    /// Looks into a file, once.
    fn examine(&mut self, file: &Arc<ModuleFile>) {
        if self.examined.contains_key(&file.index) {
            return;
        }
        let wanted = families::Wanted { probes: self.probing.is_some() };
        let examined = file.image.as_ref().and_then(|image| {
            let code = CodeFile::new(image, &file.source);
            let found: Vec<_> = families::ALL.iter().filter_map(|family| family.examine(&code, wanted)).collect();
            if found.is_empty() {
                return None;
            }
            Some(self.learn(file, found, parking_lot::words_of_parked_threads(&code)))
        });
        self.examined.insert(file.index, examined);
    }

    /// Tells everybody what was found in a file.
    fn learn(&self, file: &Arc<ModuleFile>, mut found: Vec<TaskFile>, parked: Option<Range<i64>>) -> Examined {
        if let Some(probing) = &self.probing {
            let code = found.iter_mut().filter_map(|tasks| tasks.probed.take()).collect();
            probing.tell(Order::Knows { file: Arc::clone(file), code });
        }
        let code = Arc::new(code_of(&found));
        // Who drains the rings may have ended.
        self.found.send(Found { module: Arc::clone(&file.module), code: Arc::clone(&code) }).ok();
        let summaries = found.iter().map(|tasks| summary(file.module.path.clone(), tasks)).collect();
        let may_tell_awaits = found.iter().any(|tasks| tasks.may_tell_awaits);
        let layout = found.iter().find_map(|tasks| tasks.seeing.layout);
        let places = found.into_iter().filter_map(|tasks| tasks.places).reduce(|one, other| one.or(other));
        let path = file.module.path.clone();
        Examined { layout, parked, path, places, code, may_tell_awaits, summaries }
    }
}

fn summary(path: String, tasks: &TaskFile) -> TaskProgram {
    let mut names = BTreeMap::new();
    tasks.futures.iter().for_each(|future| *names.entry(future.name.tier.name()).or_default() += 1);
    TaskProgram {
        path,
        family: tasks.family,
        versions: tasks.versions.clone(),
        futures: tasks.futures.len() as u64,
        names,
        tasks_unseen: tasks.seeing.tasks_unseen.clone(),
        workers_unseen: tasks.seeing.workers_unseen.clone(),
    }
}

/// Where a program's code polls tasks.
fn code_of(found: &[TaskFile]) -> TaskCode {
    let (mut bodies, mut by_key) = (Vec::new(), Vec::new());
    for tasks in found {
        let body = |(addresses, polled): &(Range<u64>, Vec<usize>)| {
            let polled: Vec<_> = polled.iter().filter_map(|&index| tasks.futures.get(index)).collect();
            let may_block = polled.iter().all(|polled| polled.may_block);
            let future = future(polled.iter().map(|polled| &polled.name), tasks.family)?;
            Some(PollBody { addresses: addresses.clone(), future: Arc::new(future), may_block })
        };
        bodies.extend(tasks.bodies.iter().filter_map(body));
        by_key.extend(tasks.futures.iter().filter_map(|polled| {
            let future = future(std::iter::once(&polled.name), tasks.family)?;
            let addresses = polled.key..polled.key;
            Some((polled.key, PollBody { addresses, future: Arc::new(future), may_block: polled.may_block }))
        }));
    }
    TaskCode::new(bodies).with_vtables(by_key)
}

/// The future of which nothing more is known than that it is one of these.
fn future<'a>(names: impl Iterator<Item = &'a FutureName>, family: FamilyName) -> Option<Future> {
    let mut names: Vec<&FutureName> = names.collect();
    names.sort_by(|one, other| one.full.cmp(&other.full));
    names.dedup_by(|one, other| one.full == other.full);
    // One that is known less well makes all of them so.
    let tier = names.iter().map(|name| name.tier).max()?.name();
    let joined = |part: fn(&FutureName) -> &str| {
        let mut parts: Vec<&str> = names.iter().map(|name| part(name)).collect();
        parts.dedup();
        if parts.len() > MAX_NAMES { format!("{} | {} others", parts[0], parts.len() - 1) } else { parts.join(" | ") }
    };
    let place = match names[..] {
        [FutureName { place: Some((file, line)), .. }] => Some(format!("{file}:{line}")),
        _ => None,
    };
    Some(Future { name: joined(|name| &name.short), full_name: joined(|name| &name.full), tier, place, family })
}
