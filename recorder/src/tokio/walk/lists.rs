//! The lists that a runtime has of its tasks.
//!
//! Tasks come and go while they are walked, and memory of one that is gone may be another's. So each task is only believed
//! with the runtime's number as its owner and a vtable that is one, and a list is given up that does not go on like that.

use rustc_hash::FxHashSet;

use super::{
    Allowance, Doubt, Places,
    runtimes::{Handle, TaskFields, TaskLists},
};
use crate::target::{Excerpt, Memory};

/// Tasks that one round takes in. Those behind have no names but by their polls.
pub const MAX_TASKS: usize = 100_000;

/// Lists that are followed at the same time, since a system call is what takes most of the time.
const LANES: usize = 32;

/// Bytes from a task's beginning that hold its id too, mostly.
const HEADER: usize = 64;

/// A task in a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FoundTask {
    /// Where it stands.
    pub address: u64,
    /// Its id.
    pub id: u64,
    /// The address of its vtable in the process.
    pub vtable: u64,
    /// What it was doing.
    pub state: TaskState,
}

/// What a task does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TaskState {
    /// Waits for something.
    Idle,
    /// Was woken, and waits to be polled.
    Notified,
    /// Is being polled.
    Running,
    /// Is to end at its next poll.
    Cancelled,
    /// Has ended.
    Complete,
}

impl TaskState {
    /// What the word says in which a task has it.
    pub fn of(word: u64) -> TaskState {
        match word {
            word if word & 0b10 != 0 => TaskState::Complete,
            word if word & 0b1 != 0 => TaskState::Running,
            word if word & 0b10_0000 != 0 => TaskState::Cancelled,
            word if word & 0b100 != 0 => TaskState::Notified,
            _ => TaskState::Idle,
        }
    }
}

/// How many tasks do what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TaskStates {
    /// [`TaskState::Idle`].
    pub idle: u64,
    /// [`TaskState::Notified`].
    pub notified: u64,
    /// [`TaskState::Running`].
    pub running: u64,
    /// [`TaskState::Cancelled`].
    pub cancelled: u64,
    /// [`TaskState::Complete`].
    pub complete: u64,
}

impl TaskStates {
    fn count(&mut self, state: TaskState) {
        *match state {
            TaskState::Idle => &mut self.idle,
            TaskState::Notified => &mut self.notified,
            TaskState::Running => &mut self.running,
            TaskState::Cancelled => &mut self.cancelled,
            TaskState::Complete => &mut self.complete,
        } += 1;
    }
}

/// How far lists were walked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lists {
    /// It was not their turn.
    NotWalked,
    /// More than was allowed is left, and comes with the next walks.
    CutShort,
    /// To their ends.
    Walked {
        /// What the tasks were doing that were found.
        states: TaskStates,
        /// Lists that were not followed to their end, since they have none or changed meanwhile.
        given_up: u64,
        /// Whether all of it was read within one walk.
        at_once: bool,
    },
}

/// A list that is followed.
#[derive(Clone, Copy, Debug)]
struct Lane {
    /// The next task, never 0.
    task: u64,
    /// Where the one before had its trailer, bytes. Its neighbour is mostly of the same kind.
    trailer: u64,
}

/// A walk through all lists of a runtime.
#[derive(Debug)]
pub struct Round {
    lists: TaskLists,
    /// Those that have not been followed to their ends. The last ones are followed first.
    lanes: Vec<Lane>,
    seen: FxHashSet<u64>,
    states: TaskStates,
    given_up: u64,
    walks: u64,
}

/// Where a list goes on.
enum Next {
    Task(FoundTask, Lane),
    Last(FoundTask),
    /// What stands there is no task of this runtime.
    Lost,
}

impl Round {
    /// At the heads of all lists.
    pub fn begin(memory: &dyn Memory, handle: &Handle) -> Round {
        let lists = handle.tasks.clone();
        let (lanes, given_up) = match heads(memory, &lists) {
            Some(heads) => (heads, 0),
            None => (Vec::new(), lists.count),
        };
        let lanes = lanes.into_iter().filter(|&head| head != 0).map(|task| Lane { task, trailer: 0 }).collect();
        Round { lists, lanes, seen: FxHashSet::default(), states: TaskStates::default(), given_up, walks: 0 }
    }

    /// Follows the lists as far as is allowed.
    pub fn go_on(&mut self, memory: &dyn Memory, places: &Places, allowance: &mut Allowance<'_>) -> Vec<FoundTask> {
        self.walks += 1;
        let mut found = Vec::new();
        while !self.lanes.is_empty() && allowance.tasks > 0 && (allowance.goes_on)() {
            let followed = self.lanes.split_off(self.lanes.len().saturating_sub(LANES.min(allowance.tasks)));
            allowance.tasks -= followed.len();
            for next in follow(memory, &followed, &self.lists, places) {
                let (task, lane) = match next {
                    Next::Task(task, lane) => (task, Some(lane)),
                    Next::Last(task) => (task, None),
                    Next::Lost => {
                        self.given_up += 1;
                        continue;
                    }
                };
                // A task that comes again is one of a list that leads back into itself.
                if self.seen.len() >= MAX_TASKS || !self.seen.insert(task.id) {
                    self.given_up += 1;
                    continue;
                }
                self.states.count(task.state);
                found.push(task);
                self.lanes.extend(lane);
            }
        }
        found
    }

    /// How far it is.
    pub fn lists(&self) -> Lists {
        if self.lanes.is_empty() {
            Lists::Walked { states: self.states, given_up: self.given_up, at_once: self.walks == 1 }
        } else {
            Lists::CutShort
        }
    }

    pub fn has_seen(&self, id: u64) -> bool {
        self.seen.contains(&id)
    }
}

/// Whether the first task of each list is one: a wrong layout shows here, if not before.
pub fn check_heads(memory: &dyn Memory, handle: &Handle, places: &Places) -> Result<(), Doubt> {
    const WHAT: &str = "lists of tasks";
    let heads = heads(memory, &handle.tasks).ok_or(Doubt::Unreadable(WHAT))?;
    let lanes: Vec<Lane> =
        heads.into_iter().filter(|&head| head != 0).take(LANES).map(|task| Lane { task, trailer: 0 }).collect();
    let nexts = follow(memory, &lanes, &handle.tasks, places);
    let is_lost = |next: &Next| matches!(next, Next::Lost);
    // Some may end at this moment.
    if !nexts.is_empty() && nexts.iter().all(is_lost) { Err(Doubt::Implausible(WHAT)) } else { Ok(()) }
}

fn heads(memory: &dyn Memory, lists: &TaskLists) -> Option<Vec<u64>> {
    let TaskFields { shard_size, head, .. } = lists.fields;
    let all = memory.read(lists.address, lists.count as usize * shard_size);
    (0..lists.count).map(|index| all.word(index * shard_size as u64 + head)).collect()
}

/// The tasks at which the lanes stand, and what comes after each.
fn follow(memory: &dyn Memory, lanes: &[Lane], lists: &TaskLists, places: &Places) -> Vec<Next> {
    let mut excerpts = Vec::with_capacity(2 * lanes.len());
    for lane in lanes {
        excerpts.push(Excerpt::of(lane.task, HEADER));
        excerpts.push(Excerpt::of(lane.task.wrapping_add(lane.trailer).wrapping_add(lists.fields.next), 8));
    }
    memory.read_each(&mut excerpts);
    let (pairs, _) = excerpts.as_chunks::<2>();
    let next = |(lane, [header, link]): (&Lane, &[Excerpt; 2])| next(memory, lane, header, link, lists, places);
    lanes.iter().zip(pairs).map(|pair| next(pair).unwrap_or(Next::Lost)).collect()
}

fn next(
    memory: &dyn Memory,
    lane: &Lane,
    header: &Excerpt,
    link: &Excerpt,
    lists: &TaskLists,
    places: &Places,
) -> Option<Next> {
    let fields = &lists.fields;
    let vtable = header.word(fields.vtable)?;
    if header.word(fields.owner)? != lists.owner {
        return None;
    }
    let shape = places.vtables.get(&vtable)?;
    let read = |offset: u64| memory.read(lane.task.wrapping_add(offset), 8).word(0);
    let id = header.word(shape.id).or_else(|| read(shape.id))?;
    let next = if shape.trailer == lane.trailer { link.word(0) } else { read(shape.trailer + fields.next) }?;
    let task = FoundTask { address: lane.task, id, vtable, state: TaskState::of(header.word(fields.state)?) };
    Some(match next {
        0 => Next::Last(task),
        next => Next::Task(task, Lane { task: next, trailer: shape.trailer }),
    })
}
