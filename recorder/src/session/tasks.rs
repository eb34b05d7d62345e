//! The thread that finds out which programs are Tokio's, and tells the kernel and the timeline how to see their tasks.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        mpsc::{Receiver, Sender, SyncSender},
    },
};

use anyhow::Result;
use polletto_common::{id::Tgid, polled::RuntimeLayout};
use rustc_hash::{FxHashMap, FxHashSet};

use super::{
    changes::{Change, Code, Follower},
    governor::Budget,
    modules::ModuleFile,
    polls::ProbeSummary,
    probing::{self, Order},
    walking::{News, WalkedProgram},
};
use crate::{
    kernel::{PollProbes, RuntimeMap},
    timeline::{Future, Module, PollBody, PollNews, TaskCode},
    tokio::{self, FutureName, PollCode, Program, ProgramFiles, SchedulerKind, Seeing, Vtable, WakeCode, walk::Places},
};

/// Bytes of a program that are looked at for names: more than any honest one has.
const MAX_BYTES: u64 = 4 << 30;

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
    /// The versions of Tokio that it was built with, as far as it tells.
    pub tokio: Vec<String>,
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
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TaskSummary {
    /// Programs that poll tasks.
    pub programs: Vec<TaskProgram>,
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
    /// By which its tasks are walked, at the file's own addresses, or why they can't be.
    places: Result<Places, String>,
    code: Arc<TaskCode>,
    /// Its debug information may tell what tasks await.
    may_tell_awaits: bool,
    summary: TaskProgram,
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
        let mut programs: Vec<_> = self.examined.into_values().flatten().map(|examined| examined.summary).collect();
        programs.sort_by(|one, other| one.path.cmp(&other.path));
        TaskSummary { programs, probes: self.probing.and_then(Follower::finish).or(self.unprobed) }
    }

    fn apply(&mut self, change: Change, changed: &mut FxHashSet<Tgid>, waiting: &mut Vec<SyncSender<()>>) {
        match change {
            Change::Prepare(file) => self.examine(&file),
            Change::Mapped { process, code } => {
                self.add(process, &code);
                self.order(Order::Mapped { process, code });
                changed.insert(process);
            }
            Change::Scanned { process, exec_id, code } => {
                self.spaces.insert(process, Space { exec_id: Some(exec_id), files: Vec::new() });
                code.iter().for_each(|code| self.add(process, code));
                self.order(Order::Scanned { process, code });
                changed.insert(process);
            }
            Change::Copied { from, to } => {
                // The kernel programs have done the same.
                let copy = self.spaces.get(&from).cloned().unwrap_or_default();
                self.spaces.insert(to, copy);
                self.order(Order::Copied { from, to });
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

    /// Tells the kernel programs how the process's threads keep what they poll.
    fn tell(&mut self, process: Tgid) {
        let Some(Space { exec_id: Some(exec_id), files }) = self.spaces.get(&process) else { return };
        let layouts = files.iter().filter_map(|(file, _)| self.examined.get(file)?.as_ref()?.layout);
        // Where several files have a Tokio of their own, it is the program's that counts, which is mapped first.
        if let Some(layout) = layouts.into_iter().next() {
            // Without room its tasks are not seen, and shown as threads without.
            self.map.set(process, RuntimeLayout { exec_id: *exec_id, ..layout }).ok();
        }
        self.tell_walks(process);
    }

    /// Tells who walks tasks where the process keeps them.
    fn tell_walks(&self, process: Tgid) {
        let Some(Space { exec_id: Some(_), files }) = self.spaces.get(&process) else { return };
        let examined = |&(file, bias): &(usize, u64)| Some((self.examined.get(&file)?.as_ref()?, bias));
        let Some((program, bias)) = files.iter().find_map(examined) else { return };
        let program = WalkedProgram {
            path: program.summary.path.clone(),
            places: program.places.clone().map(|places| places.moved_by(bias)),
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
        let program = file.image.as_ref().and_then(|image| tokio::examine(image, &file.source));
        let examined = program.map(|program| {
            // What can't be read has names of a lower tier, and a layout by its version.
            let copy = file.source.read_whole(MAX_BYTES).ok();
            let bytes = copy.as_deref().unwrap_or_default();
            if let (Some(probing), Some(image)) = (&self.probing, &file.image) {
                let code = PollCode::read(&program, image, &file.source);
                let wakes = WakeCode::read(&program, image, &file.source, bytes);
                probing.tell(Order::Knows { file: Arc::clone(file), code, wakes });
            }
            let files = ProgramFiles { binary: bytes, ..ProgramFiles::default() };
            let names = tokio::name(&program.vtables, &files).futures;
            let may_tell_awaits = tokio::awaits_may_be_known(&files);
            let code = Arc::new(code_of(&program, &names));
            // Who drains the rings may have ended.
            self.found.send(Found { module: Arc::clone(&file.module), code: Arc::clone(&code) }).ok();
            let Seeing { layout, tasks_unseen, workers_unseen, layouts } = Seeing::of(&program, bytes);
            let places = if layouts.is_empty() {
                Err(tasks_unseen.clone().or(workers_unseen.clone()).unwrap_or_default())
            } else {
                Ok(Places::new(layouts, &program.vtables))
            };
            let mut tiers = BTreeMap::new();
            names.iter().for_each(|name| *tiers.entry(name.tier.name()).or_default() += 1);
            let summary = TaskProgram {
                path: file.module.path.clone(),
                tokio: program.origins.tokio.iter().map(ToString::to_string).collect(),
                futures: program.vtables.len() as u64,
                names: tiers,
                tasks_unseen,
                workers_unseen,
            };
            Examined { layout, places, code, may_tell_awaits, summary }
        });
        self.examined.insert(file.index, examined);
    }
}

/// Where a program's code polls tasks.
fn code_of(program: &Program, names: &[FutureName]) -> TaskCode {
    let vtables: FxHashMap<u64, (&FutureName, SchedulerKind)> =
        program.vtables.iter().zip(names).map(|(vtable, name)| (vtable.address, (name, vtable.kind()))).collect();
    let body = |body: &tokio::PollBody| {
        let polled: Vec<_> = body.vtables.iter().filter_map(|vtable| vtables.get(vtable)).collect();
        let may_block = polled.iter().all(|(_, kind)| *kind == SchedulerKind::Blocking);
        let future = future(polled.iter().map(|(name, _)| *name))?;
        Some(PollBody { addresses: body.addresses.clone(), future: Arc::new(future), may_block })
    };
    let of_vtable = |(vtable, name): (&Vtable, &FutureName)| {
        let may_block = vtable.kind() == SchedulerKind::Blocking;
        let future = future(std::iter::once(name))?;
        let addresses = vtable.poll..vtable.poll;
        Some((vtable.address, PollBody { addresses, future: Arc::new(future), may_block }))
    };
    TaskCode::new(program.poll_bodies.iter().filter_map(body).collect())
        .with_vtables(program.vtables.iter().zip(names).filter_map(of_vtable))
}

/// The future of which nothing more is known than that it is one of these.
fn future<'a>(names: impl Iterator<Item = &'a FutureName>) -> Option<Future> {
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
    Some(Future { name: joined(|name| &name.short), full_name: joined(|name| &name.full), tier, place })
}
