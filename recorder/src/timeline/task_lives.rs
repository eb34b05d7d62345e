//! Tasks from when they are first known of to their ends.
//!
//! Nothing tells when a task ends, but that a runtime has it no more when its lists are read. Its last poll was its end
//! then, if that was seen.

use std::{mem, sync::Arc};

use polletto_common::id::Tgid;
use rustc_hash::{FxHashMap, FxHashSet};

use super::{
    polls::TaskKey,
    runtimes::WalkedProcess,
    task_code::{Future, PollBody},
    task_waits::{AwaitingTask, TaskWaits},
};

/// Tasks that are known at the same time. Those of which nothing was heard for longest make room.
const MAX_LIVES: usize = 1 << 17;

/// Tasks in no list that are worth to be looked through for those that make room.
const LEAST_UNLISTED: usize = MAX_LIVES / 16;

/// What a task's first moment is that is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begin {
    /// It was spawned.
    Spawned,
    /// It may have lived before.
    FirstSeen,
}

/// What a task's last moment is that is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Its last poll that was told ended.
    LastPoll,
    /// It may have lived a little longer.
    LastSeen,
    /// It lives.
    Alive,
}

impl Begin {
    /// What the trace calls it.
    pub fn name(self) -> &'static str {
        match self {
            Begin::Spawned => "spawned",
            Begin::FirstSeen => "first seen",
        }
    }
}

impl End {
    /// What the trace calls it.
    pub fn name(self) -> &'static str {
        match self {
            End::LastPoll => "last poll",
            End::LastSeen => "last seen",
            End::Alive => "alive",
        }
    }
}

/// What is known of a task.
#[derive(Clone, Debug)]
pub struct Life {
    pub body: Arc<PollBody>,
    pub since_ns: u64,
    pub begin: Begin,
    /// Polls that were told.
    pub polls: u64,
    /// When the last of them ended; 0 if there is none.
    polled_ns: u64,
    /// When it was last heard of.
    seen_ns: u64,
    /// Whose task it is; 0 if that is not known.
    runtime: u64,
    /// Found in its runtime's lists, and not missed there since.
    is_listed: bool,
    /// What it awaited.
    pub waits: TaskWaits,
    /// Where it was spawned, if that is known.
    pub spawned_at: Option<Box<str>>,
}

/// A task whose life is over, or known no further.
#[derive(Clone, Debug)]
pub struct Lived {
    pub task: TaskKey,
    pub life: Life,
    pub until_ns: u64,
    pub end: End,
}

/// What a walk said of a process, until all that happened before it is known.
#[derive(Debug, Default)]
struct Walked {
    /// By runtime, when the walk before it began, if that read its lists from end to end.
    before: FxHashMap<u64, u64>,
    gone: Vec<u64>,
    /// Runtimes whose lists were read from end to end, and since when.
    complete: FxHashMap<u64, u64>,
}

/// All tasks of which something is known.
#[derive(Debug, Default)]
pub struct Lives {
    lives: FxHashMap<TaskKey, Life>,
    /// Those whose tasks are found in lists. Not all are: a `LocalSet` has its own.
    listable: FxHashSet<Arc<Future>>,
    walked: FxHashMap<Tgid, Walked>,
    /// Those that had to make room.
    crowded_out: Vec<Lived>,
    /// There is hardly a task that could make room, until lists are read again.
    is_full: bool,
    /// Tasks of lists for which there was none.
    not_kept: u64,
}

impl Life {
    fn new(body: &Arc<PollBody>, time_ns: u64) -> Life {
        Life {
            body: Arc::clone(body),
            since_ns: time_ns,
            begin: Begin::FirstSeen,
            polls: 0,
            polled_ns: 0,
            seen_ns: time_ns,
            runtime: 0,
            is_listed: false,
            waits: TaskWaits::default(),
            spawned_at: None,
        }
    }

    fn heard_of(&mut self, time_ns: u64) {
        self.seen_ns = self.seen_ns.max(time_ns);
        if self.begin == Begin::FirstSeen {
            self.since_ns = self.since_ns.min(time_ns);
        }
    }

    /// It is of this runtime, if that is known.
    fn is_of(&mut self, runtime: u64) {
        if runtime != 0 {
            self.runtime = runtime;
        }
    }

    /// Of a task that lived at `alive_ns`, and does not any more, or of which no more is known.
    fn over(self, task: TaskKey, alive_ns: u64) -> Lived {
        let (until_ns, end) = if self.polled_ns >= self.seen_ns.max(alive_ns) {
            (self.polled_ns, End::LastPoll)
        } else {
            (self.seen_ns.max(alive_ns), End::LastSeen)
        };
        Lived { task, until_ns, end, life: self }
    }
}

impl Lives {
    /// What a task is, if that is known.
    pub fn body(&self, task: TaskKey) -> Option<&Arc<PollBody>> {
        self.lives.get(&task).map(|life| &life.body)
    }

    /// When a task's last poll ended that was told, or else since when it is known.
    pub fn polled_last(&self, task: TaskKey) -> Option<u64> {
        self.lives.get(&task).map(|life| life.polled_ns.max(life.since_ns))
    }

    /// A task of this runtime was found with this on the stack, which may only tell that it is one of several.
    pub fn found(&mut self, task: TaskKey, body: &Arc<PollBody>, runtime: u64, time_ns: u64) {
        if let Some(life) = self.life(task, body, time_ns) {
            life.is_of(runtime);
        }
    }

    /// A task was polled from then to then, by this runtime.
    pub fn polled(&mut self, task: TaskKey, body: &Arc<PollBody>, runtime: u64, (since_ns, until_ns): (u64, u64)) {
        let Some(life) = self.life(task, body, since_ns) else { return };
        life.heard_of(until_ns);
        life.body = Arc::clone(body);
        life.polls += 1;
        life.polled_ns = life.polled_ns.max(until_ns);
        life.waits.polled(since_ns);
        life.is_of(runtime);
    }

    /// A task begins.
    pub fn spawned(&mut self, task: TaskKey, body: &Arc<PollBody>, time_ns: u64) {
        if let Some(life) = self.life(task, body, time_ns) {
            (life.begin, life.since_ns) = (Begin::Spawned, time_ns);
        }
    }

    /// A task was found waiting. False if that is not kept.
    pub fn awaits(&mut self, task: TaskKey, found: &AwaitingTask) -> bool {
        // Of a task that nobody has polled and no list has had, there is nothing to show.
        let Some(life) = self.lives.get_mut(&task) else { return true };
        life.heard_of(found.time_ns);
        if let Some(place) = &found.spawned_at {
            life.spawned_at.get_or_insert_with(|| place.as_str().into());
        }
        let polled_ns = life.polled_ns;
        found.awaited.as_ref().is_none_or(|awaited| life.waits.found(found.time_ns, awaited, polled_ns))
    }

    /// It is no task, or nothing is to be told of it.
    pub fn forget(&mut self, task: TaskKey) {
        self.lives.remove(&task);
    }

    /// A process's lists were read. Tells whose lives were over when they were read before: what had happened until then is
    /// known by now. Those who are `present`, in a poll that is not over, are left for later.
    pub fn walked(&mut self, walked: &WalkedProcess, present: &FxHashSet<TaskKey>) -> Vec<Lived> {
        let over = self.settle(walked.tgid, present);
        self.is_full = false;
        for runtime in &walked.runtimes {
            for (id, body) in &runtime.tasks {
                let task = TaskKey { tgid: walked.tgid, id: *id };
                if !self.listable.contains(&body.future) {
                    self.listable.insert(Arc::clone(&body.future));
                }
                match self.life(task, body, walked.time_ns) {
                    Some(life) => {
                        life.body = Arc::clone(body);
                        (life.runtime, life.is_listed) = (runtime.address, true);
                    }
                    None => self.not_kept += 1,
                }
            }
        }
        let complete = walked.runtimes.iter().filter_map(|runtime| Some((runtime.address, runtime.listed_since_ns?)));
        let pending = self.walked.entry(walked.tgid).or_default();
        pending.gone.clone_from(&walked.gone);
        pending.complete = complete.collect();
        over
    }

    /// All lives of a process that has ended, or runs another program.
    pub fn take_process(&mut self, tgid: Tgid) -> Vec<Lived> {
        let mut over = self.settle(tgid, &FxHashSet::default());
        let listed = self.walked.remove(&tgid).unwrap_or_default().before;
        let taken = self.lives.extract_if(|task, _| task.tgid == tgid);
        over.extend(taken.map(|(task, life)| {
            // It was in its runtime's list when that was read last.
            let alive_ns = listed.get(&life.runtime).copied().filter(|_| life.is_listed);
            life.over(task, alive_ns.unwrap_or_default())
        }));
        over
    }

    /// All that are left when a recording ends.
    pub fn take_all(&mut self, now_ns: u64) -> Vec<Lived> {
        let none = FxHashSet::default();
        let processes: Vec<Tgid> = self.walked.keys().copied().collect();
        let mut over: Vec<Lived> = processes.into_iter().flat_map(|process| self.settle(process, &none)).collect();
        let lives = mem::take(&mut self.lives).into_iter();
        // What is read when nothing is attached any more is read a little later.
        over.extend(lives.map(|(task, life)| match life.is_listed || life.seen_ns >= now_ns {
            true => Lived { task, until_ns: now_ns.max(life.since_ns), end: End::Alive, life },
            false => life.over(task, 0),
        }));
        over
    }

    /// Those that had to make room since the last call.
    pub fn take_crowded_out(&mut self) -> Vec<Lived> {
        mem::take(&mut self.crowded_out)
    }

    /// Tasks of lists that are not shown since the last call, because there are too many.
    pub fn take_not_kept(&mut self) -> u64 {
        mem::take(&mut self.not_kept)
    }

    /// Whose lives the last walk has shown to be over.
    fn settle(&mut self, tgid: Tgid, present: &FxHashSet<TaskKey>) -> Vec<Lived> {
        let Some(walked) = self.walked.get_mut(&tgid) else { return Vec::new() };
        let (gone, complete) = (mem::take(&mut walked.gone), mem::take(&mut walked.complete));
        let mut over = Vec::new();
        for task in gone.into_iter().map(|id| TaskKey { tgid, id }) {
            let Some(mut life) = self.lives.remove(&task) else { continue };
            if present.contains(&task) {
                life.is_listed = false;
                self.lives.insert(task, life);
                continue;
            }
            let alive_ns = walked.before.get(&life.runtime).copied().unwrap_or_default();
            over.push(life.over(task, alive_ns));
        }
        walked.before.extend(&complete);
        if complete.is_empty() {
            return over;
        }
        let listable = &self.listable;
        let is_over = |task: &TaskKey, life: &mut Life| {
            task.tgid == tgid
                && !life.is_listed
                && !present.contains(task)
                && complete.get(&life.runtime).is_some_and(|&since_ns| life.seen_ns < since_ns)
                && listable.contains(&life.body.future)
        };
        over.extend(self.lives.extract_if(is_over).map(|(task, life)| life.over(task, 0)));
        over
    }

    /// Of a task that is known by now. None where there is no room.
    fn life(&mut self, task: TaskKey, body: &Arc<PollBody>, time_ns: u64) -> Option<&mut Life> {
        if self.lives.len() >= MAX_LIVES && !self.lives.contains_key(&task) {
            self.make_room();
            if self.is_full {
                return None;
            }
        }
        let life = self.lives.entry(task).or_insert_with(|| Life::new(body, time_ns));
        life.heard_of(time_ns);
        Some(life)
    }

    /// Lets half of those go that are in no list, unless they are so few that it would be to do again at once.
    fn make_room(&mut self) {
        if self.is_full {
            return;
        }
        let mut heard: Vec<u64> = self.lives.values().filter(|life| !life.is_listed).map(|life| life.seen_ns).collect();
        if heard.len() < LEAST_UNLISTED {
            self.is_full = true;
            return;
        }
        let middle = heard.len() / 2;
        let (_, &mut middle_ns, _) = heard.select_nth_unstable(middle);
        let leaves = |_: &TaskKey, life: &mut Life| !life.is_listed && life.seen_ns <= middle_ns;
        let taken = self.lives.extract_if(leaves).map(|(task, life)| life.over(task, 0));
        self.crowded_out.extend(taken);
    }
}

#[cfg(test)]
mod tests {
    use std::ops::Range;

    use super::{super::WalkedRuntime, *};

    fn lists(ids: Range<u64>, body: &Arc<PollBody>) -> WalkedProcess {
        let tasks = ids.map(|id| (id, Arc::clone(body))).collect();
        let runtimes = vec![WalkedRuntime { tasks, ..WalkedRuntime::default() }];
        WalkedProcess { tgid: Tgid(1), runtimes, ..WalkedProcess::default() }
    }

    fn body() -> Arc<PollBody> {
        let future = Future::example("f");
        Arc::new(PollBody { addresses: 0..1, future: Arc::new(future), may_block: false })
    }

    #[test]
    fn tasks_of_lists_make_no_room_and_those_beyond_are_counted() {
        let (body, mut lives) = (body(), Lives::default());
        let all = MAX_LIVES as u64;
        assert!(lives.walked(&lists(0..all + 3, &body), &FxHashSet::default()).is_empty());
        assert_eq!((lives.lives.len(), lives.take_not_kept(), lives.take_not_kept()), (MAX_LIVES, 3, 0));
        lives.polled(TaskKey { tgid: Tgid(1), id: all + 7 }, &body, 0, (5, 6));
        assert!(lives.is_full && lives.take_crowded_out().is_empty());
    }

    #[test]
    fn tasks_of_which_nothing_was_heard_for_longest_make_room_unless_they_are_listed() {
        let body = body();
        let task = |id| TaskKey { tgid: Tgid(1), id };
        let mut lives = Lives::default();
        let listed = lists(0..1, &body);
        assert!(lives.walked(&listed, &FxHashSet::default()).is_empty());
        for id in 1..=MAX_LIVES as u64 {
            lives.polled(task(id), &body, 0, (id, id));
        }
        let crowded_out = lives.take_crowded_out();
        assert_eq!(crowded_out.len(), MAX_LIVES / 2);
        assert!(crowded_out.iter().all(|lived| lived.end == End::LastPoll && lived.until_ns <= MAX_LIVES as u64 / 2));
        let known = [0, 1, MAX_LIVES as u64].map(|id| lives.body(task(id)).is_some());
        assert_eq!(known, [true, false, true]);
    }
}
