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
    /// Futures, by where functions are that drop their tasks: where their names say it without types' arguments.
    glue: FxHashMap<u64, Vec<String>>,
}

impl Symbols<'_> {
    /// How many functions that poll have their symbol here.
    pub fn polls_at(&self, address: u64) -> usize {
        let first = self.polls.partition_point(|(poll, _)| *poll < address);
        self.polls[first..].iter().take_while(|(poll, _)| *poll == address).count()
    }

    /// Whether a function here drops tasks.
    pub fn drops_at(&self, address: u64) -> bool {
        self.glue.contains_key(&address)
    }

    /// The futures whose tasks are dropped by the function here, sorted.
    pub fn dropped_at(&self, address: u64) -> Vec<&str> {
        self.glue.get(&address).into_iter().flatten().map(|future| &**future).collect()
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
    for futures in symbols.glue.values_mut() {
        futures.sort_unstable();
    }
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

    /// Takes `drop_in_place<…Cell<T, S>>` of the old way of mangling.
    fn add_glue(&mut self, name: &str, address: u64) {
        if !name.contains("drop_in_place") || !name.contains("tokio..runtime..task..core..Cell$LT$") {
            return;
        }
        let demangled = demangle(name);
        let Some((_, cell)) = demangled.split_once("tokio::runtime::task::core::Cell") else { return };
        let (_, end) = brackets::inside(cell, 0);
        let Some([future, _]) = written::arguments(&cell[..end]) else { return };
        let futures = self.glue.entry(address).or_default();
        if futures.len() < MAX_ALIKE && !futures.iter().any(|known| known == future) {
            futures.push(future.to_owned());
        }
    }
}
