//! What the tasks of a running process are and wait for, at one moment. Nothing is attached, stopped or recorded.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use polletto_common::id::Tgid;
use rustc_hash::FxHashMap;

use super::{
    modules::{ModuleFile, Modules},
    preamble::boottime_ns,
};
use crate::{
    async_task,
    families::{CodeFile, FutureName, ProgramFiles},
    kernel,
    target::{self, Memory, ProcessMemory, image::FileCopy},
    tokio::{
        self, Awaits, Names, Program, Seeing, Vtable, Waits,
        walk::{Allowance, FoundTask, Lists, Places, RuntimeAt, RuntimeKind, TaskState, Walk, Walker},
    },
};

/// Bytes of a program that are looked at: more than any honest one has.
const MAX_BYTES: u64 = 4 << 30;

/// How long lists of tasks are followed at most. They may lead nowhere.
const PATIENCE: Duration = Duration::from_secs(10);

/// How often lists are walked that change meanwhile, and tasks read that are polled meanwhile.
const TRIES: usize = 4;

/// Bytes of the path of a source file that are read.
const MAX_PATH: usize = 4096;

/// How long the threads are known that were listed. Listing them takes longer than reading a few tasks, and runtimes that
/// were found are found again without.
const THREADS_LAST: Duration = Duration::from_secs(10);

/// What tells in the word of a task's state that it is being polled.
const RUNNING: u64 = 1;

/// A process's tasks.
#[derive(Debug)]
pub struct Inspection {
    /// Of the file that has them.
    pub program: String,
    /// The versions of Tokio that it was built with, as far as it tells.
    pub tokio: Vec<String>,
    /// How many runtimes it has.
    pub runtimes: usize,
    /// In the order of their runtimes and ids.
    pub tasks: Vec<LiveTask>,
    /// Why it is not known what tasks wait for; none where it is.
    pub no_awaits: Option<&'static str>,
    /// Lists that were given up, since they changed whenever they were walked.
    pub given_up: u64,
    /// Lists were longer than could be followed in time.
    pub is_cut_short: bool,
    /// How long the process's memory was read.
    pub took: Duration,
}

/// A task that has not ended.
#[derive(Clone, Debug)]
pub struct LiveTask {
    /// Its id.
    pub id: u64,
    /// What its runtime is.
    pub runtime: RuntimeKind,
    /// Counts the process's runtimes.
    pub runtime_index: usize,
    /// What it does.
    pub state: TaskState,
    /// What it is called.
    pub future: Arc<FutureName>,
    /// Where it was spawned, in builds with `tokio_unstable`.
    pub spawned_at: Option<(String, u32)>,
    /// What it waits for.
    pub waits: Waits,
    /// When that was read, CLOCK_BOOTTIME nanoseconds.
    pub time_ns: u64,
}

/// The program of a process that has tasks.
struct Found {
    file: Arc<ModuleFile>,
    program: Program,
    /// What to subtract (wrapping) from its addresses to get the file's own.
    bias: u64,
}

/// Looks at a process once, with the chains of what its tasks await if `awaits` are wanted.
pub fn inspect(process: Tgid, awaits: bool) -> Result<Inspection> {
    Inspected::find(process)?.look(awaits, |look| look.now())?
}

/// A process that has tasks.
pub(super) struct Inspected {
    process: Tgid,
    found: Found,
    bytes: FileCopy,
}

impl Inspected {
    /// Finds the program that has them.
    pub(super) fn find(process: Tgid) -> Result<Inspected> {
        let found = program_of(process)?;
        let path = &found.file.module.path;
        let bytes = found.file.source.read_whole(MAX_BYTES).with_context(|| format!("could not read {path}"))?;
        Ok(Inspected { process, found, bytes })
    }

    /// Finds out how its tasks are read, and lets them be read as long as `use_it` lasts.
    pub(super) fn look<T>(&self, awaits: bool, use_it: impl FnOnce(&mut Look<'_, '_, '_>) -> T) -> Result<T> {
        let Found { program, file, bias } = &self.found;
        let vtables = &program.vtables;
        let Seeing { layouts, tasks_unseen, workers_unseen, .. } = Seeing::of(program, &self.bytes);
        if layouts.is_empty() {
            let reason = tasks_unseen.or(workers_unseen).unwrap_or_default();
            bail!("the tasks of {} can't be listed: {reason}", file.module.path);
        }
        let Names { futures, tasks } = tokio::name(vtables, &self.files());
        let futures = futures.into_iter().map(Arc::new);
        let names: FxHashMap<u64, (&Vtable, Arc<FutureName>)> =
            vtables.iter().zip(futures).map(|(vtable, name)| (vtable.address, (vtable, name))).collect();
        let places = Places::new(layouts, vtables).moved_by(*bias);
        let how = How { process: self.process, found: &self.found, places: &places, names: &names };
        if !awaits {
            return Ok(use_it(&mut Look::new(how, Err("not asked for"))));
        }
        let types = vtables.iter().zip(&tasks);
        Ok(tokio::with_awaits(types, &self.files(), |awaits| use_it(&mut Look::new(how, awaits))))
    }

    fn files(&self) -> ProgramFiles<'_> {
        ProgramFiles { binary: &self.bytes, ..ProgramFiles::default() }
    }
}

/// The first of a process's files that has tasks, which is mostly its program.
fn program_of(process: Tgid) -> Result<Found> {
    let code = target::code_of(process).with_context(|| format!("could not read what process {process} runs"))?;
    let Some(code) = code else { bail!("process {process} has ended, or is the kernel's own") };
    let mut modules = Modules::default();
    let (mut unreadable, mut others) = (Vec::new(), Vec::new());
    for range in code {
        let file = match modules.read(process, &range) {
            Some(Ok(file)) => file,
            Some(Err(reason)) => {
                unreadable.push(format!("{}: {reason}", range.name().display()));
                continue;
            }
            None => continue,
        };
        let program = file.image.as_ref().and_then(|image| tokio::examine(image, &file.source));
        if let Some(program) = program {
            let bias = file.bias(&range);
            return Ok(Found { file, program, bias });
        }
        others.push(file);
    }
    let spawns = |file: &&Arc<ModuleFile>| {
        file.image.as_ref().is_some_and(|image| async_task::has_tasks(&CodeFile::new(image, &file.source)))
    };
    if let Some(file) = others.iter().find(spawns) {
        let path = &file.module.path;
        bail!(
            "the tasks of {path} can't be listed: they are async-task's, as on smol and async-std, and nothing lists \
             those; their polls can be recorded"
        );
    }
    match &unreadable[..] {
        [] => bail!("process {process} has no tasks of Tokio's in its code"),
        [first, ..] => bail!("process {process} has no tasks of Tokio's in the code that could be read ({first})"),
    }
}

/// How a process's tasks are found.
#[derive(Clone, Copy)]
struct How<'l> {
    process: Tgid,
    found: &'l Found,
    places: &'l Places,
    names: &'l FxHashMap<u64, (&'l Vtable, Arc<FutureName>)>,
}

/// Reads a process's tasks as often as wanted.
pub(super) struct Look<'l, 'd, 'a> {
    how: How<'l>,
    /// The thread pointers of its threads, and since when these are known.
    threads: Option<(Instant, Vec<u64>)>,
    /// Runtimes that were found.
    runtimes: Vec<RuntimeAt>,
    /// What tells what they wait for, or why nothing does.
    awaits: Result<&'l mut Awaits<'d, 'a>, &'static str>,
}

impl<'l, 'd, 'a> Look<'l, 'd, 'a> {
    fn new(how: How<'l>, awaits: Result<&'l mut Awaits<'d, 'a>, &'static str>) -> Look<'l, 'd, 'a> {
        Look { how, threads: None, runtimes: Vec::new(), awaits }
    }

    /// The thread pointers of the process's threads.
    fn threads(&mut self) -> Result<Vec<u64>> {
        match &self.threads {
            Some((since, threads)) if since.elapsed() < THREADS_LAST => Ok(threads.clone()),
            _ => {
                let threads = kernel::threads()?.into_iter().filter(|thread| thread.tgid == self.how.process);
                let pointers = threads.map(|thread| thread.thread_pointer).filter(|&pointer| pointer != 0);
                let (_, threads) = self.threads.insert((Instant::now(), pointers.collect()));
                Ok(threads.clone())
            }
        }
    }

    /// Why it is not known what tasks wait for; none where it is.
    pub(super) fn no_awaits(&self) -> Option<&'static str> {
        self.awaits.as_ref().err().copied()
    }

    /// Walks until all lists were followed to their ends, and reads each task as it is found.
    pub(super) fn now(&mut self) -> Result<Inspection> {
        let threads = self.threads()?;
        let memory = ProcessMemory(self.how.process);
        if let Some(&thread) = threads.first() {
            memory.check(thread).context("the process's memory can't be read (it takes CAP_SYS_PTRACE)")?;
        }
        let mut inspection = Inspection {
            program: self.how.found.file.module.path.clone(),
            tokio: self.how.found.program.origins.tokio.iter().map(ToString::to_string).collect(),
            runtimes: 0,
            tasks: Vec::new(),
            no_awaits: self.no_awaits(),
            given_up: 0,
            is_cut_short: false,
            took: Duration::ZERO,
        };
        let began = Instant::now();
        let mut walker = Walker::new(self.how.places.clone());
        let mut runtimes = Vec::new();
        for attempt in 1.. {
            let goes_on = || began.elapsed() < PATIENCE;
            let mut allowance = Allowance { tasks: usize::MAX, goes_on: &goes_on };
            let walk = walker.walk(&memory, &threads, &self.runtimes, &mut allowance);
            self.runtimes = walk.runtimes.iter().map(|runtime| runtime.at).collect();
            if let (Some(doubt), true) = (walk.doubt, walk.runtimes.is_empty() && runtimes.is_empty()) {
                bail!("no runtime was found: {doubt}");
            }
            self.take(&memory, &walk, &mut runtimes, &walker, &mut inspection);
            let is_over = inspection.given_up == 0 || attempt >= TRIES;
            if !goes_on() || (!inspection.is_cut_short && is_over) {
                break;
            }
        }
        inspection.runtimes = runtimes.len();
        inspection.tasks.sort_by_key(|task| (task.runtime_index, task.id));
        inspection.took = began.elapsed();
        Ok(inspection)
    }

    /// Takes what one walk found, and how far it came.
    fn take(
        &mut self,
        memory: &ProcessMemory,
        walk: &Walk,
        runtimes: &mut Vec<u64>,
        walker: &Walker,
        inspection: &mut Inspection,
    ) {
        (inspection.given_up, inspection.is_cut_short) = (0, false);
        for runtime in &walk.runtimes {
            let known = runtimes.iter().position(|&address| address == runtime.at.address);
            let runtime_index = known.unwrap_or_else(|| {
                runtimes.push(runtime.at.address);
                runtimes.len() - 1
            });
            for found in &runtime.tasks {
                let task = self.task(memory, found, (runtime.at.kind, runtime_index), walker);
                inspection.tasks.extend(task);
            }
            match runtime.lists {
                Lists::Walked { given_up, .. } => inspection.given_up += given_up,
                Lists::NotWalked | Lists::CutShort => inspection.is_cut_short = true,
            }
        }
    }

    /// None if it has ended.
    fn task(
        &mut self,
        memory: &ProcessMemory,
        found: &FoundTask,
        (runtime, runtime_index): (RuntimeKind, usize),
        walker: &Walker,
    ) -> Option<LiveTask> {
        let bias = self.how.found.bias;
        let (vtable, future) = self.how.names.get(&found.vtable.wrapping_sub(bias))?;
        let state_word = || walker.state_word(memory, found.address);
        let (waits, state) = match self.awaits.as_deref_mut() {
            Ok(awaits) => unchanged(state_word, || awaits.of_task(memory, found.address, vtable.address, bias)),
            Err(_) => (Ok(Waits::default()), None),
        };
        // What it waits for and its state are of the same moment.
        let state = state.unwrap_or(found.state);
        if state == TaskState::Complete {
            return None;
        }
        let spawned_at = vtable.spawn_location_offset.and_then(|offset| location(memory, found.address, offset));
        let future = Arc::clone(future);
        let waits = waits.unwrap_or_else(Waits::unknown);
        let (id, time_ns) = (found.id, boottime_ns());
        Some(LiveTask { id, runtime, runtime_index, state, future, spawned_at, waits, time_ns })
    }
}

/// What is read of a task, if it awaits all the while, and the state that it had then, or else that keeps it from being read.
fn unchanged<T>(
    mut state_word: impl FnMut() -> Option<u64>,
    mut read: impl FnMut() -> T,
) -> (Result<T, &'static str>, Option<TaskState>) {
    for _ in 0..TRIES {
        let Some(before) = state_word() else { return (Err("its memory can't be read"), None) };
        let state = TaskState::of(before);
        if before & RUNNING != 0 {
            return (Err("it is being polled"), Some(state));
        }
        let found = read();
        if state_word() == Some(before) {
            return (Ok(found), Some(state));
        }
    }
    (Err("it was polled whenever it was read"), None)
}

/// Where a task was spawned: the address of a `Location` stands in it.
fn location(memory: &ProcessMemory, task: u64, offset: u64) -> Option<(String, u32)> {
    let at = memory.read(task.wrapping_add(offset), 8).word(0)?;
    let location = memory.read(at, 24);
    let (file, length) = (location.word(0)?, usize::try_from(location.word(8)?).ok()?);
    let bytes = memory.read(file, Some(length).filter(|length| (1..=MAX_PATH).contains(length))?);
    let line = location.number(16, 4)?;
    let file = bytes.is_read.then(|| String::from_utf8_lossy(&bytes.bytes).trim_end_matches('\0').to_owned())?;
    Some((file, u32::try_from(line).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDLE: u64 = 0xc0;
    const WOKEN: u64 = 0x84;
    const POLLED: u64 = 0xc1;

    #[test]
    fn what_a_task_waits_for_is_told_with_the_state_that_it_had_all_the_while() {
        for (words, expected) in [
            (&[Some(IDLE); 2][..], (Ok(1), Some(TaskState::Idle))),
            (&[Some(IDLE), Some(WOKEN), Some(WOKEN), Some(WOKEN)], (Ok(2), Some(TaskState::Notified))),
            (&[Some(IDLE), Some(WOKEN), Some(POLLED)], (Err("it is being polled"), Some(TaskState::Running))),
            (&[Some(IDLE), Some(WOKEN), None], (Err("its memory can't be read"), None)),
            (&[Some(IDLE), Some(WOKEN)].repeat(TRIES), (Err("it was polled whenever it was read"), None)),
        ] {
            let (mut words, mut reads) = (words.iter(), 0);
            let read = || {
                reads += 1;
                reads
            };
            assert_eq!(unchanged(|| *words.next().expect("a word"), read), expected);
            assert!(words.next().is_none());
        }
    }
}
