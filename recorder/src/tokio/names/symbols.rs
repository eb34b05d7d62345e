//! Tasks by symbols in which the compiler wrote whole types.

use object::{Object, ObjectSymbol, ObjectSymbolTable};
use rustc_hash::FxHashMap;

use super::evidence::{FUNCTIONS, Tasks};
use crate::{
    families::written,
    symbols::{brackets, demangle, file::ElfObject},
};

/// Symbols of one table that are read: several times what the largest programs have.
const MAX_SYMBOLS: usize = 1 << 25;

/// Names of the same code that are kept.
const MAX_ALIKE: usize = 64;

/// What the symbols of a program's files say of tasks.
#[derive(Debug, Default)]
pub struct Symbols<'a> {
    pub tasks: Tasks,
    /// Where functions that poll are, and their symbols: types are in some of them.
    polls: Vec<(u64, &'a [u8])>,
    /// What drops tasks.
    pub tasks_dropped: Glue,
    /// What drops the future of a task or what has become of it. Stands alone where the former is a part of others' code.
    pub futures_dropped: Glue,
}

/// Futures, by the functions that drop them or their tasks, where their names say it the old way.
#[derive(Debug, Default)]
pub struct Glue(FxHashMap<u64, Vec<String>>);

impl Glue {
    /// Whether a function here drops any.
    pub fn drops_at(&self, address: u64) -> bool {
        self.0.contains_key(&address)
    }

    /// Those that the function here drops, sorted.
    pub fn dropped_at(&self, address: u64) -> Vec<&str> {
        self.0.get(&address).into_iter().flatten().map(|future| &**future).collect()
    }

    fn add(&mut self, address: u64, future: &str) {
        let futures = self.0.entry(address).or_default();
        if futures.len() < MAX_ALIKE && !futures.iter().any(|known| known == future) {
            futures.push(future.to_owned());
        }
    }

    fn sort(&mut self) {
        self.0.values_mut().for_each(|futures| futures.sort_unstable());
    }
}

impl Symbols<'_> {
    /// How many functions that poll have their symbol here.
    pub fn polls_at(&self, address: u64) -> usize {
        let first = self.polls.partition_point(|(poll, _)| *poll < address);
        self.polls[first..].iter().take_while(|(poll, _)| *poll == address).count()
    }
}

/// Reads the symbol tables of files.
pub fn read<'f, 'a: 'f>(files: impl Iterator<Item = &'f ElfObject<'a>>) -> Symbols<'a> {
    let mut symbols = Symbols::default();
    for file in files {
        for table in [file.elf().symbol_table(), file.elf().dynamic_symbol_table()].into_iter().flatten() {
            for symbol in table.symbols().take(MAX_SYMBOLS).filter(|symbol| symbol.is_definition()) {
                if let Ok(name) = symbol.name_bytes() {
                    symbols.add(name, symbol.address());
                }
            }
        }
    }
    symbols.polls.sort_unstable();
    symbols.polls.dedup();
    symbols.tasks_dropped.sort();
    symbols.futures_dropped.sort();
    symbols
}

impl<'a> Symbols<'a> {
    fn add(&mut self, name: &'a [u8], address: u64) {
        // `tokio::runtime::task::raw::`, as both ways of mangling have it.
        const MARKS: [&str; 2] = ["4task3raw", "5tokio"];
        let Ok(text) = std::str::from_utf8(name) else { return };
        if text.starts_with("_ZN4core3ptr") {
            return self.add_glue(text, address);
        }
        if !MARKS.iter().all(|mark| text.contains(mark)) {
            return;
        }
        let demangled = demangle(text);
        let Some(function) = demangled.strip_prefix("tokio::runtime::task::raw::") else { return };
        let (function, arguments) = function.split_at(function.find("::<").unwrap_or(function.len()));
        if function == "poll" {
            self.polls.push((address, name));
        }
        if function == "schedule" {
            if let Some([scheduler]) = written::arguments(arguments) {
                self.tasks.add_schedule(scheduler, address);
            }
        } else if let Some(function) = FUNCTIONS.iter().position(|name| *name == function)
            && let Some([future, scheduler]) = written::arguments(arguments)
            && let Some(task) = self.tasks.task(future, scheduler)
        {
            task.add(function, address);
        }
    }

    /// Takes `drop_in_place<…Cell<T, S>>` of the old way of mangling, and `drop_in_place<…Stage<T>>`.
    fn add_glue(&mut self, name: &str, address: u64) {
        const CORE: &str = "tokio..runtime..task..core..";
        if !name.contains("drop_in_place") || !name.contains(CORE) {
            return;
        }
        let demangled = demangle(name);
        let Some((_, task)) = demangled.split_once("tokio::runtime::task::core::") else { return };
        let Some(open) = task.find('<') else { return };
        let part = &task[..brackets::inside(task, open).1];
        match &task[..open] {
            "Cell" => {
                if let Some([future, _]) = written::arguments(part) {
                    self.tasks_dropped.add(address, future);
                }
            }
            "CoreStage" | "Stage" => {
                if let Some([future]) = written::arguments(part) {
                    self.futures_dropped.add(address, future);
                }
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_drops_a_task_is_told_from_what_drops_its_future() {
        const CELL: &str = "_ZN4core3ptr176drop_in_place$LT$tokio..runtime..task..core..Cell$LT$app..serve..$u7b$$u7b$\
             closure$u7d$$u7d$$C$alloc..sync..Arc$LT$tokio..runtime..scheduler..current_thread..Handle$GT$$GT$$GT$\
             17h37d0f1be77abc9daE";
        const STAGE: &str = "_ZN4core3ptr122drop_in_place$LT$tokio..runtime..task..core..CoreStage$LT$app..Told$LT$app..\
             serve..$u7b$$u7b$closure$u7d$$u7d$$GT$$GT$$GT$17he38780f6a8baa3d6E.llvm.7762539791486420880";
        const OTHER: &str = "_ZN4core3ptr55drop_in_place$LT$tokio..runtime..task..core..TaskId$GT$17he38780f6a8baa3d6E";
        let mut symbols = Symbols::default();
        for (name, address) in [(CELL, 1), (STAGE, 2), (OTHER, 3), (STAGE, 2)] {
            symbols.add(name.as_bytes(), address);
        }
        assert_eq!(symbols.tasks_dropped.dropped_at(1), ["app::serve::{{closure}}"]);
        assert_eq!(symbols.futures_dropped.dropped_at(2), ["app::Told<app::serve::{{closure}}>"]);
        let told = [&symbols.tasks_dropped, &symbols.futures_dropped].map(|glue| glue.0.len());
        assert_eq!(told, [1, 1]);
    }
}
