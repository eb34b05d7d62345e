//! The task walk: what the runtimes of a running process are like, read from its memory.
//!
//! The process is not stopped, and does not notice. So everything may change while it is read, and all of it may be wrong:
//! nothing is believed of a runtime that contradicts itself, and no list is followed further than is allowed.

mod contexts;
mod lists;
mod runtimes;
#[cfg(test)]
mod tests;
mod trials;

use std::fmt;

use rustc_hash::{FxHashMap, FxHashSet};

use self::{
    lists::Round,
    runtimes::Handle,
    trials::{Found, Trials},
};
pub use self::{
    lists::{FoundTask, Lists, TaskState, TaskStates},
    runtimes::{BlockingThreads, RuntimeState, Workers},
};
use super::{Vtable, layout::Layout};
use crate::target::Memory;

/// Runtimes of a process that are read on one walk.
const MAX_RUNTIMES: usize = 256;

/// Walks on which a runtime must not be found in a row to be given up.
const MISSES: u32 = 2;

/// Which kind of runtime something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RuntimeKind {
    /// One thread, which is whoever blocks on it.
    CurrentThread,
    /// Workers.
    MultiThread,
}

/// Where a runtime has what its threads share, and what it is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RuntimeAt {
    /// Of the `Arc` of its handle.
    pub address: u64,
    /// Its kind.
    pub kind: RuntimeKind,
}

/// Why something is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doubt {
    /// The layout does not tell where it is.
    NotDescribed(&'static str),
    /// It is not there.
    Unreadable(&'static str),
    /// It can't be as it is read.
    Implausible(&'static str),
}

impl fmt::Display for Doubt {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Doubt::NotDescribed(what) => write!(out, "it is unknown where its Tokio keeps {what}"),
            Doubt::Unreadable(what) => write!(out, "{what} can't be read where it should be"),
            Doubt::Implausible(what) => write!(out, "what is read as {what} can't be that"),
        }
    }
}

/// What is found of one runtime.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuntimeWalk {
    /// Which one.
    pub at: RuntimeAt,
    /// Its numbers.
    pub state: RuntimeState,
    /// Tasks that were not found before.
    pub tasks: Vec<FoundTask>,
    /// Ids of those that were, and are not there any more.
    pub gone: Vec<u64>,
    /// How far its lists were walked.
    pub lists: Lists,
}

/// What a walk finds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Walk {
    /// Runtimes that live.
    pub runtimes: Vec<RuntimeWalk>,
    /// Those that were found before, and live no more, with their tasks.
    pub ended: Vec<(RuntimeAt, Vec<u64>)>,
    /// What a runtime, or a thread's context, was not believed for.
    pub doubt: Option<Doubt>,
}

/// What a walk may take.
pub struct Allowance<'a> {
    /// Tasks that it reads at most.
    pub tasks: usize,
    /// Whether it may read a few more.
    pub goes_on: &'a dyn Fn() -> bool,
}

/// A runtime that was believed.
#[derive(Debug, Default)]
struct Known {
    misses: u32,
    /// The walk through its lists that was begun.
    round: Option<Round>,
    tasks: FxHashSet<u64>,
}

/// Where a process's Tokio may have what it knows: its program's, at the addresses of the process.
#[derive(Clone, Debug, Default)]
pub struct Places {
    /// Those that the program may have, from the most likely on, and where the thread-local context is by each, from the
    /// thread pointer.
    pub layouts: Vec<(i64, Layout)>,
    /// By their addresses.
    pub vtables: FxHashMap<u64, TaskShape>,
}

impl Places {
    /// Those of a program, at the addresses of its file.
    pub fn new(layouts: Vec<(i64, Layout)>, vtables: &[Vtable]) -> Places {
        let vtables = vtables.iter().map(|vtable| (vtable.address, TaskShape::from(vtable))).collect();
        Places { layouts, vtables }
    }

    /// The same where a process has the file's bytes, so much (wrapping) behind the file's own addresses.
    pub fn moved_by(self, bias: u64) -> Places {
        let moved = self.vtables.into_iter().map(|(address, shape)| (address.wrapping_add(bias), shape));
        Places { vtables: moved.collect(), ..self }
    }
}

/// Where a task has what is found by its vtable: bytes from its beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TaskShape {
    /// Of its id.
    pub id: u64,
    /// Of its trailer.
    pub trailer: u64,
}

impl From<&Vtable> for TaskShape {
    fn from(vtable: &Vtable) -> TaskShape {
        TaskShape { id: vtable.id_offset, trailer: vtable.trailer_offset }
    }
}

/// Walks a process again and again.
#[derive(Debug)]
pub struct Walker {
    places: Places,
    /// Which of the layouts it is.
    trials: Trials,
    known: FxHashMap<RuntimeAt, Known>,
    walks: usize,
}

impl Walker {
    /// A walker of a process in which nothing is found yet.
    pub fn new(places: Places) -> Walker {
        let trials = Trials::of(places.layouts.len());
        Walker { places, trials, known: FxHashMap::default(), walks: 0 }
    }

    /// Reads as much as is allowed. Of runtimes that are left out, the next walk begins with others.
    ///
    /// Runtimes are found by `threads`, which are the thread pointers of the process's threads, and by what was `told`
    /// of others.
    pub fn walk(
        &mut self,
        memory: &dyn Memory,
        threads: &[u64],
        told: &[RuntimeAt],
        allowance: &mut Allowance<'_>,
    ) -> Walk {
        let mut walk = Walk::default();
        self.walks += 1;
        let Found { runtimes, are_all } = self.believed(memory, threads, told, allowance.goes_on, &mut walk.doubt);
        for (handle, state) in runtimes {
            let known = self.known.entry(handle.at).or_default();
            known.misses = 0;
            walk.runtimes.push(known.walk(memory, &handle, state, &self.places, allowance));
        }
        if are_all {
            self.end_others(&mut walk);
        }
        walk
    }

    /// The word in which a task that was found has its state.
    pub fn state_word(&self, memory: &dyn Memory, task: u64) -> Option<u64> {
        let (_, layout) = self.places.layouts.get(self.trials.chosen()?)?;
        memory.read(task.wrapping_add(layout.header.state?.into()), 8).word(0)
    }

    /// The runtimes that are believed, of the layouts that the program may have.
    fn believed(
        &mut self,
        memory: &dyn Memory,
        threads: &[u64],
        told: &[RuntimeAt],
        goes_on: &dyn Fn() -> bool,
        doubt: &mut Option<Doubt>,
    ) -> Found {
        let (mut believed, mut are_all) = (Vec::new(), true);
        for index in self.trials.left() {
            let found = self.find(index, memory, threads, told, goes_on, doubt);
            are_all = found.are_all;
            if !found.runtimes.is_empty() {
                believed.push((index, found));
            }
        }
        let layouts = &self.places.layouts;
        let judged =
            self.trials.judge(believed, |one, other| layouts[one].1.blocking_pool == layouts[other].1.blocking_pool);
        judged.unwrap_or_else(|why| {
            *doubt = why.or(*doubt);
            Found { runtimes: Vec::new(), are_all }
        })
    }

    /// The runtimes that are believed by one of the layouts.
    fn find(
        &self,
        index: usize,
        memory: &dyn Memory,
        threads: &[u64],
        told: &[RuntimeAt],
        goes_on: &dyn Fn() -> bool,
        doubt: &mut Option<Doubt>,
    ) -> Found {
        let (context, layout) = &self.places.layouts[index];
        let contexts = threads.iter().map(|thread| thread.wrapping_add_signed(*context));
        let mut candidates: FxHashSet<RuntimeAt> = told.iter().chain(self.known.keys()).copied().collect();
        match contexts::runtimes_of(memory, contexts, layout) {
            Ok(of_threads) => candidates.extend(of_threads),
            Err(why) => *doubt = Some(why),
        }
        let mut candidates: Vec<RuntimeAt> = candidates.into_iter().collect();
        candidates.sort_unstable();
        let first = self.walks % candidates.len().max(1);
        candidates.rotate_left(first);
        let mut runtimes = Vec::new();
        for (tried, &at) in (1..).zip(&candidates) {
            let read = Handle::read(memory, at, layout).and_then(|handle| {
                let state = handle.state(memory, layout)?;
                lists::check_heads(memory, &handle, &self.places)?;
                Ok((handle, state))
            });
            match read {
                Ok(believed) => runtimes.push(believed),
                Err(why) => *doubt = Some(why),
            }
            if runtimes.len() >= MAX_RUNTIMES || !goes_on() {
                return Found { runtimes, are_all: tried == candidates.len() };
            }
        }
        Found { runtimes, are_all: true }
    }

    fn end_others(&mut self, walk: &mut Walk) {
        let mut ended: Vec<RuntimeAt> = Vec::new();
        for (at, known) in &mut self.known {
            if walk.runtimes.iter().all(|runtime| runtime.at != *at) {
                known.misses += 1;
                if known.misses >= MISSES {
                    ended.push(*at);
                }
            }
        }
        ended.sort_unstable();
        for at in ended {
            let tasks = self.known.remove(&at).map(|known| known.tasks.into_iter().collect());
            walk.ended.push((at, tasks.unwrap_or_default()));
        }
    }
}

impl Known {
    fn walk(
        &mut self,
        memory: &dyn Memory,
        handle: &Handle,
        state: RuntimeState,
        places: &Places,
        allowance: &mut Allowance<'_>,
    ) -> RuntimeWalk {
        let mut walk =
            RuntimeWalk { at: handle.at, state, tasks: Vec::new(), gone: Vec::new(), lists: Lists::NotWalked };
        if allowance.tasks == 0 || !(allowance.goes_on)() {
            return walk;
        }
        let mut round = self.round.take().unwrap_or_else(|| Round::begin(memory, handle));
        for task in round.go_on(memory, places, allowance) {
            if self.tasks.insert(task.id) {
                walk.tasks.push(task);
            }
        }
        walk.lists = round.lists();
        match walk.lists {
            Lists::NotWalked | Lists::CutShort => self.round = Some(round),
            // What was not found may stand where a list was given up.
            Lists::Walked { given_up, .. } if given_up > 0 && self.tasks.len() < 2 * lists::MAX_TASKS => {}
            Lists::Walked { .. } => {
                walk.gone = self.tasks.iter().filter(|&id| !round.has_seen(*id)).copied().collect();
                self.tasks.retain(|id| round.has_seen(*id));
            }
        }
        walk
    }
}
