//! Which tasks a vtable may be of.
//!
//! A function of a task stands where its name does, or nowhere: then it was identical to another, and made one with it. So a
//! vtable can't be of a task one of whose functions stands elsewhere, and may be of any task whose functions all stand where
//! the vtable has them, or nowhere.

use rustc_hash::FxHashMap;

use crate::tokio::Vtable;

/// The functions of a vtable that are written for one future; `schedule` is for all futures of a scheduler.
pub const FUNCTIONS: [&str; 6] =
    ["poll", "dealloc", "try_read_output", "drop_join_handle_slow", "drop_abort_handle", "shutdown"];

/// How many tasks are known: several times what the largest programs have.
const MAX_TASKS: usize = 1 << 16;

/// How many crates may have the same function each.
const MAX_PLACES: usize = 64;

/// The addresses of these functions.
pub fn functions(vtable: &Vtable) -> [u64; 6] {
    [
        vtable.poll,
        vtable.dealloc,
        vtable.try_read_output,
        vtable.drop_join_handle_slow,
        vtable.drop_abort_handle,
        vtable.shutdown,
    ]
}

/// A future on a scheduler, as a program's names speak of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Task {
    /// The type of the future.
    pub future: String,
    /// The type of the scheduler.
    pub scheduler: String,
    /// Where each of [`FUNCTIONS`] stands. In several places if several crates have it.
    pub functions: [Vec<u64>; 6],
    /// Which of them the compiler wrote and the linker left out: they can't have been made one with others.
    pub dropped: [bool; 6],
    /// Of the trailer within the task, bytes, if its type is known. Not the same in all programs that a file holds, if they
    /// were built differently.
    pub trailer_offsets: Vec<u64>,
}

impl Task {
    /// Whether one of its functions is among those of a vtable.
    fn is_at(&self, functions: &[u64; 6]) -> bool {
        self.functions.iter().zip(functions).any(|(places, address)| places.contains(address))
    }

    /// Adds where a function stands.
    pub fn add(&mut self, function: usize, address: u64) {
        if !self.functions[function].contains(&address) && self.functions[function].len() < MAX_PLACES {
            self.functions[function].push(address);
        }
    }
}

/// All tasks that names speak of.
#[derive(Debug, Default)]
pub struct Tasks {
    tasks: Vec<Task>,
    by_name: FxHashMap<(Box<str>, Box<str>), usize>,
    /// Where the function stands that puts tasks of a scheduler into a queue.
    schedule: FxHashMap<Box<str>, Vec<u64>>,
}

impl Tasks {
    /// The task of a future and a scheduler. None if there are too many.
    pub fn task(&mut self, future: &str, scheduler: &str) -> Option<&mut Task> {
        let tasks = &mut self.tasks;
        if tasks.len() >= MAX_TASKS {
            return None;
        }
        let at = *self.by_name.entry((future.into(), scheduler.into())).or_insert_with(|| {
            tasks.push(Task { future: future.to_owned(), scheduler: scheduler.to_owned(), ..Task::default() });
            tasks.len() - 1
        });
        tasks.get_mut(at)
    }

    /// A function of the vtables of all tasks of a scheduler.
    pub fn add_schedule(&mut self, scheduler: &str, address: u64) {
        self.schedule.entry(scheduler.into()).or_default().push(address);
    }

    /// The types of all futures. Some come several times.
    pub fn futures(&self) -> impl Iterator<Item = &str> {
        self.tasks.iter().map(|task| &*task.future)
    }

    /// How many tasks have their function that polls here.
    pub fn polls_at(&self, address: u64) -> usize {
        self.tasks.iter().filter(|task| task.functions[0].contains(&address)).count()
    }

    fn may_be_of(&self, task: &Task, vtable: &Vtable, is_twin: bool) -> bool {
        let is_scheduler = self.schedule.get(&*task.scheduler).is_none_or(|places| places.contains(&vtable.schedule));
        let is_layout = task.trailer_offsets.is_empty() || task.trailer_offsets.contains(&vtable.trailer_offset);
        let mut places = task.functions.iter().zip(task.dropped).zip(functions(vtable));
        is_scheduler
            && is_layout
            && places.all(|((places, is_dropped), address)| match places.is_empty() {
                true => !is_dropped || is_twin,
                false => places.contains(&address),
            })
    }
}

/// What is left for a vtable.
#[derive(Clone, Debug, Default)]
pub struct Choice<'t> {
    /// Sorted by their futures. Those of several schedulers may have the same.
    pub tasks: Vec<&'t Task>,
}

impl<'t> Choice<'t> {
    /// The types of the futures.
    pub fn futures(&self) -> Vec<&'t str> {
        let mut futures: Vec<&str> = self.tasks.iter().map(|task| &*task.future).collect();
        futures.dedup();
        futures
    }

    /// Whether the types of all tasks were compared with the vtable: those that were made one with them would be known.
    pub fn is_by_layout(&self) -> bool {
        !self.tasks.is_empty() && self.tasks.iter().all(|task| !task.trailer_offsets.is_empty())
    }
}

/// Whether functions that were made one with others have lost their names: one of a vtable's has only another future's.
pub fn loses_names(choices: &[Choice<'_>]) -> bool {
    let mut tasks = choices.iter().flat_map(|choice| &choice.tasks);
    tasks.any(|task| task.functions.iter().any(Vec::is_empty))
}

/// What is left for each vtable of the tasks that names speak of. Nothing for those none of whose functions has a name.
pub fn choose<'t>(vtables: &[Vtable], all: &'t Tasks) -> Vec<Choice<'t>> {
    let mut at: FxHashMap<(usize, u64), Vec<usize>> = FxHashMap::default();
    let mut nowhere = Vec::new();
    for (index, task) in all.tasks.iter().enumerate() {
        if task.functions.iter().all(Vec::is_empty) {
            nowhere.push(index);
        }
        for (function, places) in task.functions.iter().enumerate() {
            for &place in places {
                at.entry((function, place)).or_default().push(index);
            }
        }
    }
    let mut alike: FxHashMap<_, usize> = FxHashMap::default();
    for vtable in vtables {
        *alike.entry(contents(vtable)).or_default() += 1;
    }
    let choose = |vtable: &Vtable| {
        let functions = functions(vtable);
        // What polls the future was written for it, or is the same code.
        if !at.contains_key(&(0, functions[0])) {
            return Choice::default();
        }
        let named = functions.into_iter().enumerate().filter_map(|place| at.get(&place));
        let mut some: Vec<usize> = named.flatten().copied().collect();
        some.extend(&nowhere);
        some.sort_unstable();
        some.dedup();
        // A linker that makes functions one says of those that it left out what it says of unused ones.
        let is_twin = alike.get(&contents(vtable)).is_some_and(|&count| count > 1);
        let tasks = some.into_iter().map(|index| &all.tasks[index]);
        let mut tasks: Vec<&Task> = tasks.filter(|task| all.may_be_of(task, vtable, is_twin)).collect();
        if !tasks.iter().any(|task| task.is_at(&functions)) {
            tasks.clear();
        }
        tasks.sort_by(|a, b| (&a.future, &a.scheduler).cmp(&(&b.future, &b.scheduler)));
        Choice { tasks }
    };
    vtables.iter().map(choose).collect()
}

/// All but where it stands.
fn contents(vtable: &Vtable) -> ([u64; 6], [u64; 2]) {
    (functions(vtable), [vtable.schedule, vtable.trailer_offset])
}
