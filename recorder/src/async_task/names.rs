//! What the futures are called that the functions of vtables poll.
//!
//! Functions that are alike are made one, and so are those that drop what is alike: a name counts only where all are known
//! that may be meant.

use std::borrow::Cow;

use object::{Object, ObjectSymbol, ObjectSymbolTable};
use rustc_hash::FxHashMap;

use super::TaskVtable;
use crate::{
    families::{
        Calls, FutureName, Locations, NameTier, Places, PolledFuture, by_address, by_futures, by_places, with_calls,
        written,
    },
    symbols::{brackets, demangle, file::ElfObject},
};

/// Symbols of one table that are read: several times what the largest programs have.
const MAX_SYMBOLS: usize = 1 << 25;

/// Names of the same code that are kept.
const MAX_ALIKE: usize = 64;

/// How deep functions that call each other are followed from the one that polls to what drops its guard.
const LEVELS: usize = 3;

/// A future and how its task is scheduled, as symbols have them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Task {
    pub(super) future: String,
    pub(super) schedule: String,
}

/// What symbols say of tasks, by addresses.
#[derive(Debug, Default)]
pub(super) struct Symbols {
    /// Functions that poll: where the compiler wrote whole types.
    pub(super) runs: FxHashMap<u64, Vec<Task>>,
    /// Functions that drop what stands guard while a future is polled: the one symbol with its type elsewhere.
    pub(super) guards: FxHashMap<u64, Vec<Task>>,
}

/// Names the futures behind each function that polls, in the order of its first vtable. What can't be read is as if it were
/// not there.
pub fn futures(vtables: &[TaskVtable], binary: &[u8]) -> Vec<PolledFuture> {
    let mut runs: Vec<(u64, Vec<&TaskVtable>)> = Vec::new();
    let mut known: FxHashMap<u64, usize> = FxHashMap::default();
    for vtable in vtables {
        let index = *known.entry(vtable.run).or_insert_with(|| {
            runs.push((vtable.run, Vec::new()));
            runs.len() - 1
        });
        runs[index].1.push(vtable);
    }
    let symbols = ElfObject::parse(binary).map(|file| read_symbols(&file)).unwrap_or_default();
    let functions: Vec<u64> = runs.iter().map(|(run, _)| *run).collect();
    let by_code = by_code(binary, &functions, &symbols);
    let named = runs.into_iter().enumerate().map(|(index, (run, vtables))| {
        let found = by_code.get(index);
        let (tasks, tier) = match symbols.runs.get(&run) {
            Some(tasks) => (tasks.clone(), NameTier::Symbol),
            None => (found.map(|found| found.tasks.clone()).unwrap_or_default(), NameTier::DropGlue),
        };
        let blocks = found.map(|found| &*found.blocks).unwrap_or_default();
        let by_places = || by_places(blocks).or_else(|| by_places(found?.near.as_slice()));
        let name = by_tasks(&tasks, tier, vtables.len()).or_else(by_places);
        let mut name = name.unwrap_or_else(|| by_address(vtables[0].address));
        name.add_place(blocks);
        PolledFuture { key: run, name, may_block: may_block(&vtables, &tasks) }
    });
    named.collect()
}

/// A name by what symbols say of a function that polls for so many vtables.
pub(super) fn by_tasks(tasks: &[Task], tier: NameTier, vtables: usize) -> Option<FutureName> {
    let futures: Vec<Cow<'_, str>> = tasks.iter().map(|task| inside(&task.future)).collect();
    let mut name = by_futures(&futures.iter().map(|future| &**future).collect::<Vec<_>>(), tier)?;
    // Functions were made one, and not all of their names are left.
    if vtables > tasks.len() {
        name.leave_open();
    }
    Some(name)
}

/// Whether tasks are those that the crate `blocking` runs on threads of its own.
///
/// Executors push tasks into a queue of theirs, which the schedule function captures; that crate has only one queue, and
/// captures nothing. Where types are known, they tell.
fn may_block(vtables: &[&TaskVtable], tasks: &[Task]) -> bool {
    let is_of_blocking = |task: &Task| task.schedule.trim_start_matches('<').starts_with("blocking::");
    match tasks {
        [] => vtables.iter().all(|vtable| vtable.schedule_size == 0),
        tasks => tasks.iter().all(is_of_blocking),
    }
}

/// What people have written, of what executors make of it: a future, or `blocking::unblock<F>` of a closure that may block.
pub(super) fn inside(future: &str) -> Cow<'_, str> {
    /// More than executors put around one another.
    const MAX_AROUND: usize = 4;
    let mut inner = future;
    for _ in 0..MAX_AROUND {
        match unwrapped(inner) {
            Some((Around::Future, within)) => inner = within,
            Some((Around::Closure, within)) => return Cow::Owned(format!("{}<{within}>", written::BLOCKING[1])),
            None => break,
        }
    }
    Cow::Borrowed(inner)
}

/// What executors put something around.
#[derive(Clone, Copy)]
enum Around {
    Future,
    /// It may block, and runs to its end.
    Closure,
}

/// What an executor has put something around.
fn unwrapped(future: &str) -> Option<(Around, &str)> {
    /// Types of which the first argument is the future's.
    const TYPES: [&str; 2] = ["async_executor::AsyncCallOnDrop", "async_std::task::builder::SupportTaskLocals"];
    /// Functions whose blocks wait for a future, or run a closure, of the type that they are generic over in second place.
    const BLOCKS: [(&str, &str, Around); 2] =
        [("async_executor::", "::spawn_inner", Around::Future), ("blocking::", "unblock", Around::Closure)];
    if TYPES.contains(&written::without_arguments(future)) {
        let (arguments, _) = brackets::inside(future, future.find('<')?);
        let first = brackets::split_once(arguments, ",").map_or(arguments, |(first, _)| first);
        return Some((Around::Future, first.trim()));
    }
    let path = future.trim_start_matches('<');
    BLOCKS.iter().find_map(|(of, function, around)| {
        let at = path.starts_with(of).then(|| path.find(function))??;
        let (before, generic) = (&path[..at], &path[at + function.len()..]);
        let open = generic.find('<').filter(|_| !before.contains('<'))?;
        let (_, end) = brackets::inside(generic, open);
        let [_, inner] = written::arguments(&generic[..end])?;
        Some((*around, inner))
    })
}

fn read_symbols(file: &ElfObject<'_>) -> Symbols {
    let mut symbols = Symbols::default();
    for table in [file.elf().symbol_table(), file.elf().dynamic_symbol_table()].into_iter().flatten() {
        for symbol in table.symbols().take(MAX_SYMBOLS).filter(|symbol| symbol.is_definition()) {
            if let Ok(name) = symbol.name() {
                symbols.add(name, symbol.address());
            }
        }
    }
    symbols
}

impl Symbols {
    /// Takes a symbol that may be of a task.
    pub(super) fn add(&mut self, name: &str, address: u64) {
        if !name.contains("async_task") || !name.contains("run") {
            return;
        }
        let demangled = demangle(name);
        let run = demangled.strip_prefix("<async_task::raw::RawTask").and_then(|rest| rest.strip_suffix(">::run"));
        let (kind, arguments) = match run {
            Some(arguments) => (&mut self.runs, arguments),
            None => {
                let Some((_, guard)) = demangled.split_once("::run::Guard") else { return };
                if !demangled.contains("drop_in_place") || !guard.starts_with('<') {
                    return;
                }
                let (_, end) = brackets::inside(guard, 0);
                (&mut self.guards, &guard[..end])
            }
        };
        let Some([future, _output, schedule, _metadata]) = written::arguments(arguments) else { return };
        let task = Task { future: future.to_owned(), schedule: schedule.to_owned() };
        let tasks = kind.entry(address).or_default();
        if tasks.len() < MAX_ALIKE && !tasks.contains(&task) {
            tasks.push(task);
            tasks.sort_unstable();
        }
    }
}

/// What the code of a function that polls says of its future.
#[derive(Default)]
struct ByCode {
    tasks: Vec<Task>,
    /// See [`Places`].
    blocks: Vec<(String, u32)>,
    near: Option<(String, u32)>,
}

/// Looks at what functions that poll call. Nothing for files whose code can't be read.
fn by_code(binary: &[u8], runs: &[u64], symbols: &Symbols) -> Vec<ByCode> {
    let read = with_calls(binary, |calls| {
        let reached: Vec<Vec<u64>> = runs.iter().map(|&run| guards_of(run, symbols, calls)).collect();
        let mut users: FxHashMap<u64, usize> = FxHashMap::default();
        reached.iter().flatten().for_each(|&guard| *users.entry(guard).or_default() += 1);
        let mut locations = Locations::new(calls);
        let one = |(&run, guards): (&u64, &Vec<u64>)| {
            let tasks = match guards[..] {
                // Of a function that drops for several there must be a name for each.
                [guard] if users[&guard] <= symbols.guards[&guard].len() => symbols.guards[&guard].clone(),
                _ => Vec::new(),
            };
            let Places { blocks, near } = locations.of_future(run);
            ByCode { tasks, blocks, near }
        };
        runs.iter().zip(&reached).map(one).collect()
    });
    read.unwrap_or_default()
}

/// What drops the guard of a function that polls: it may have several where another's was inlined.
fn guards_of(run: u64, symbols: &Symbols, calls: &mut Calls<'_, '_>) -> Vec<u64> {
    let levels = calls.levels(run, LEVELS);
    let guards = levels.iter().map(|level| {
        let mut some: Vec<u64> = level.iter().copied().filter(|at| symbols.guards.contains_key(at)).collect();
        some.sort_unstable();
        some
    });
    guards.into_iter().find(|some| !some.is_empty()).unwrap_or_default()
}
