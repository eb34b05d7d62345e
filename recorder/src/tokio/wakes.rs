//! Where probes can stand that tell who wakes and who spawns which task.

mod blocking;
mod x86_64;

use std::{error, fmt, ops::Range};

use object::{Object, ObjectSymbol};
use polletto_common::poll::Register;
use rustc_hash::FxHashSet;

use super::{Program, SchedulerKind};
use crate::{
    code::{Code, Place, Reference, Unprobed, pieces_of_code, x86_64::probes::Argument},
    symbols::file::ElfObject,
    target::image::{Architecture, Contents, Image, Pointers, Source},
};

/// Symbols that are read: several times what the largest programs have.
const MAX_SYMBOLS: usize = 1 << 25;

/// Places that spawn in one file. Where compilers write the code anew for every future, there are as many as futures.
const MAX_SPAWNS: usize = 1 << 13;

/// Functions of which each calls the next until one makes a task.
const MAX_MAKERS: usize = 2;

/// Functions of which each leads to the next until one does what a waker's does.
const MAX_LEADS: usize = 3;

/// A place that tells of a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// Where a probe can stand.
    pub place: Place,
    /// What holds the address of the task there.
    pub header: Register,
}

/// Why wakes or spawns can't be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Untold {
    /// No code in the file is known to do it.
    NotFound,
    /// Several functions could.
    Ambiguous,
    /// A probe can't stand where it is done.
    Unprobed(Unprobed),
}

/// Where a file's code wakes and spawns tasks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WakeCode {
    /// All of its code that wakes tasks: both ways in which a waker does.
    pub wakes: Result<Vec<Told>, Untold>,
    /// Its code that spawns tasks which await, as far as it is recognised; at least one place.
    pub spawns: Result<Vec<Told>, Untold>,
    /// All of its code that gives closures which may block to the threads that run them.
    pub blocking_spawns: Result<Vec<Told>, Untold>,
}

impl WakeCode {
    /// Of a program, whose file this is: its image and `bytes`, which may lack their end.
    pub fn read<S: Source + ?Sized>(program: &Program, image: &Image, source: &S, bytes: &[u8]) -> WakeCode {
        let untold =
            |reason: Untold| WakeCode { wakes: Err(reason), spawns: Err(reason), blocking_spawns: Err(reason) };
        if image.architecture != Architecture::X86_64 {
            return untold(Untold::Unprobed(Unprobed::Architecture));
        }
        let contents = Contents::new(image, source);
        let Ok(pointers) = Pointers::read(image, source, &contents) else {
            return untold(Untold::Unprobed(Unprobed::Unreadable));
        };
        let Ok(code) = Code::read(image, source, &contents, &pointers) else {
            return untold(Untold::Unprobed(Unprobed::NoFunction));
        };
        let reader = Reader { contents: &contents, pointers: &pointers, code: &code };
        let symbols = list_functions(bytes);
        let spawns = reader.spawns(program, &symbols).unwrap_or_default();
        let spawns = if spawns.is_empty() { Err(Untold::NotFound) } else { Ok(spawns) };
        let wakes = reader.wakes().or_else(|unrecognised| reader.named_wakes(&symbols).ok_or(unrecognised));
        WakeCode { wakes, spawns, blocking_spawns: reader.blocking_spawns(program, &symbols) }
    }
}

struct Reader<'c, 'a, S: ?Sized> {
    contents: &'c Contents<'a, S>,
    pointers: &'c Pointers,
    code: &'c Code<'c, 'a, S>,
}

impl<S: Source + ?Sized> Reader<'_, '_, S> {
    /// Wakers of tasks have one vtable, which is four addresses of code: clone, wake, wake by reference, drop. The first
    /// counts a reference and returns the vtable's own address, and the last gives a reference back.
    fn wakes(&self) -> Result<Vec<Told>, Untold> {
        let sorted = self.pointers.sorted();
        let mut found = None;
        for four in sorted.windows(4) {
            let is_row = four.windows(2).all(|two| two[1].at.wrapping_sub(two[0].at) == 8);
            if !is_row || !self.is_waker([four[0].to, four[1].to, four[2].to, four[3].to], four[0].at) {
                continue;
            }
            if found.replace([four[1].to, four[2].to]).is_some_and(|other| other != [four[1].to, four[2].to]) {
                return Err(Untold::Ambiguous);
            }
        }
        let mut functions = found.ok_or(Untold::NotFound)?.to_vec();
        functions.dedup();
        let places = functions.into_iter().map(|function| self.passed_once(function, Argument::First));
        places.collect::<Result<_, _>>().map_err(Untold::Unprobed)
    }

    /// Both functions by which a waker wakes, where only symbols tell of them: nobody has optimized them.
    fn named_wakes(&self, symbols: &ListFunctions) -> Option<Vec<Told>> {
        let ([wake], [wake_by_ref]) = (&symbols.wake_by_val[..], &symbols.wake_by_ref[..]) else { return None };
        [wake, wake_by_ref].into_iter().map(|&function| self.passed(function, Argument::First)).collect()
    }

    /// A place that every call of a function comes by that a symbol names.
    fn passed(&self, function: u64, argument: Argument) -> Option<Told> {
        let bounds = self.code.function(function).filter(|bounds| bounds.start == function)?;
        x86_64::passed(&self.code.bytes(&bounds).ok()?, &bounds, argument).ok()
    }

    fn is_waker(&self, [clone, wake, wake_by_ref, drop]: [u64; 4], vtable: u64) -> bool {
        self.does(clone, x86_64::counts_up)
            && self.does(drop, x86_64::counts_down)
            && self.does(wake, x86_64::schedules)
            && self.does(wake_by_ref, x86_64::schedules)
            && self.refers_to(clone, vtable)
    }

    /// Whether a function does something, or the one that it leads to first: where code is to be small, little is inlined.
    fn does(&self, function: u64, what: impl Fn(&[u8], &Range<u64>) -> bool) -> bool {
        let mut next = Some(function);
        for _ in 0..MAX_LEADS {
            let Some(bounds) = next.and_then(|start| self.code.function(start).filter(|bounds| bounds.start == start))
            else {
                return false;
            };
            let Ok(bytes) = self.code.bytes(&bounds) else { return false };
            if what(&bytes, &bounds) {
                return true;
            }
            next = x86_64::leads_to(&bytes, &bounds);
        }
        false
    }

    /// Whether a function takes an address, from its own instructions or from a word that holds it.
    fn refers_to(&self, function: u64, address: u64) -> bool {
        let references = self.code.function(function).and_then(|bounds| self.code.references(&bounds).ok());
        references.unwrap_or_default().iter().any(|reference| match *reference {
            Reference::Data(at) => at == address || self.pointers.at(at) == Some(address),
            _ => false,
        })
    }

    fn passed_once(&self, function: u64, argument: Argument) -> Result<Told, Unprobed> {
        let bounds = self.code.function(function).filter(|bounds| bounds.start == function);
        let bounds = bounds.ok_or(Unprobed::NoFunction)?;
        x86_64::passed_once(&self.code.bytes(&bounds)?, &bounds, argument)
    }

    /// The code that puts new tasks into the lists of their owners: recognised by what it does, else by its symbol. Where
    /// nobody has optimized it, all of it calls one function, which only gives a task the id of its owner.
    fn spawns(&self, program: &Program, symbols: &ListFunctions) -> Result<Vec<Told>, Unprobed> {
        let tasks: FxHashSet<u64> =
            program.vtables.iter().filter(|one| one.kind() == SchedulerKind::Async).map(|one| one.address).collect();
        let mut found: Vec<Told> = Vec::new();
        let mut recognised = FxHashSet::default();
        for function in self.owner_stores()? {
            let told = x86_64::spawns(&self.code.bytes(&function)?, &function, |address| tasks.contains(&address));
            if !told.is_empty() {
                recognised.insert(function.start);
                found.extend(told);
            }
            if found.len() > MAX_SPAWNS {
                return Ok(Vec::new());
            }
        }
        for &binder in symbols.bind_inner.iter().filter(|binder| !recognised.contains(binder)) {
            found.extend(self.passed_once(binder, Argument::Second));
        }
        for &binder in symbols.bind_local.iter().filter(|binder| !recognised.contains(binder)) {
            let Some(bounds) = self.code.function(binder).filter(|bounds| bounds.start == binder) else { continue };
            let makes_task = |function: u64| self.makes_task(function, &tasks, MAX_MAKERS);
            found.extend(x86_64::behind_call(&self.code.bytes(&bounds)?, &bounds, makes_task));
        }
        if found.is_empty() {
            let named = symbols.set_owner_id.iter().map(|&function| self.passed(function, Argument::First));
            found = named.collect::<Option<_>>().unwrap_or_default();
        }
        found.sort_by_key(|told| told.place.address);
        found.dedup_by_key(|told| told.place.address);
        Ok(found)
    }

    /// Whether a function gives a task one of these vtables, or one that it calls does.
    fn makes_task(&self, function: u64, vtables: &FxHashSet<u64>, depth: usize) -> bool {
        let references = self.code.function(function).and_then(|bounds| self.code.references(&bounds).ok());
        references.unwrap_or_default().iter().any(|reference| match *reference {
            Reference::Data(at) => vtables.contains(&at),
            Reference::Call(called) => depth > 1 && self.makes_task(called, vtables, depth - 1),
            Reference::Jump(_) => false,
        })
    }

    /// Functions that store eight bytes where a task has its owner's id. Many do.
    fn owner_stores(&self) -> Result<Vec<Range<u64>>, Unprobed> {
        let mut functions: Vec<Range<u64>> = Vec::new();
        for (start, piece) in pieces_of_code(self.contents) {
            for (bytes, address) in piece?.windows(x86_64::STORE_BYTES).zip(start..) {
                if x86_64::may_be_owner_store(bytes) && functions.last().is_none_or(|last| last.end <= address) {
                    functions.extend(self.code.function(address));
                }
            }
        }
        Ok(functions)
    }
}

/// Functions of Tokio's lists and queues of tasks that a symbol names.
#[derive(Debug, Default)]
struct ListFunctions {
    /// `OwnedTasks::bind_inner`
    bind_inner: Vec<u64>,
    /// `LocalOwnedTasks::bind`, one for each future
    bind_local: Vec<u64>,
    /// `blocking::pool::Spawner::spawn_task`
    spawn_task: Vec<u64>,
    /// `task::core::Header::set_owner_id`
    set_owner_id: Vec<u64>,
    /// `task::waker::wake_by_val` and `wake_by_ref`
    wake_by_val: Vec<u64>,
    wake_by_ref: Vec<u64>,
}

fn list_functions(bytes: &[u8]) -> ListFunctions {
    let mut found = ListFunctions::default();
    let Ok(file) = ElfObject::parse(bytes) else { return found };
    let symbols = file.elf().symbols().take(MAX_SYMBOLS).filter(|symbol| symbol.is_definition());
    for symbol in symbols {
        let Ok(Ok(name)) = symbol.name_bytes().map(std::str::from_utf8) else { continue };
        if let Some(functions) = found.of_symbol(name) {
            functions.push(symbol.address());
        }
    }
    for functions in found.all() {
        functions.sort_unstable();
        functions.dedup();
    }
    found
}

impl ListFunctions {
    /// Those that a symbol is one of, however it is mangled: types may stand between a module and its function.
    fn of_symbol(&mut self, name: &str) -> Option<&mut Vec<u64>> {
        if !name.contains("5tokio7runtime") || is_closure(name) {
            return None;
        }
        let has = |parts: &[&str]| parts.iter().all(|part| name.contains(part));
        if has(&["4task4list", "10bind_inner"]) {
            Some(&mut self.bind_inner)
        } else if has(&["4task4list", "LocalOwnedTasks", "4bind"]) {
            Some(&mut self.bind_local)
        } else if has(&["8blocking4pool", "7Spawner10spawn_task"]) {
            Some(&mut self.spawn_task)
        } else if has(&["4task4core", "6Header12set_owner_id"]) {
            Some(&mut self.set_owner_id)
        } else if has(&["4task5waker11wake_by_val"]) {
            Some(&mut self.wake_by_val)
        } else if has(&["4task5waker11wake_by_ref"]) {
            Some(&mut self.wake_by_ref)
        } else {
            None
        }
    }

    fn all(&mut self) -> [&mut Vec<u64>; 6] {
        [
            &mut self.bind_inner,
            &mut self.bind_local,
            &mut self.spawn_task,
            &mut self.set_owner_id,
            &mut self.wake_by_val,
            &mut self.wake_by_ref,
        ]
    }
}

/// Whether a symbol is of a closure that is written in the function that it names.
fn is_closure(name: &str) -> bool {
    name.starts_with("_RNC") || name.contains("$u7b$$u7b$closure")
}

impl fmt::Display for Untold {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Untold::NotFound => out.write_str("no code was recognised that does it"),
            Untold::Ambiguous => out.write_str("more than one piece of code could do it"),
            Untold::Unprobed(reason) => reason.fmt(out),
        }
    }
}

impl error::Error for Untold {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_are_known_by_their_symbols_however_those_are_mangled() {
        let which = |name: &str| {
            let mut found = ListFunctions::default();
            found.of_symbol(name)?.push(1);
            found.all().iter().position(|functions| !functions.is_empty())
        };
        for (name, expected) in [
            ("_ZN5tokio7runtime4task4list19OwnedTasks$LT$S$GT$10bind_inner17hffa8bb6869f91184E", Some(0)),
            ("_ZN5tokio7runtime8blocking4pool7Spawner10spawn_task17hdeffb8fbd0a2e92fE", Some(2)),
            ("_ZN5tokio7runtime4task4core6Header12set_owner_id17hba5874f9e7e94d2aE", Some(3)),
            ("_RNvMs_NtNtNtCs1_5tokio7runtime4task4coreNtB4_6Header12set_owner_id", Some(3)),
            ("_ZN5tokio7runtime4task5waker11wake_by_val17h04e59be515b0ff2eE", Some(4)),
            ("_RNvNtNtNtCs1_5tokio7runtime4task5waker11wake_by_ref", Some(5)),
            ("_ZN5tokio7runtime4task4core6Header12set_owner_id28_$u7b$$u7b$closure$u7d$$u7d$17h4E", None),
            ("_RNCNvNtNtNtCs1_5tokio7runtime4task5waker11wake_by_ref0", None),
            ("_ZN4core4task4wake5Waker11wake_by_ref17h7714ae076b429c01E", None),
        ] {
            assert_eq!(which(name), expected, "{name}");
        }
    }
}
