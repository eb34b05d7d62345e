//! Tasks by symbols in which the compiler wrote whole types.

use object::{Object, ObjectSymbol, ObjectSymbolTable};

use super::{
    evidence::{FUNCTIONS, Tasks},
    written,
};
use crate::{
    symbols::{demangle, file::ElfObject},
    tokio::Vtable,
};

/// Symbols of one table that are read: several times what the largest programs have.
const MAX_SYMBOLS: usize = 1 << 25;

/// What the symbols of a program's files say of tasks.
#[derive(Debug, Default)]
pub struct Symbols<'a> {
    pub tasks: Tasks,
    /// Where functions that poll are, and their symbols: types are in some of them.
    polls: Vec<(u64, &'a [u8])>,
}

impl Symbols<'_> {
    /// How many functions that poll have their symbol here.
    pub fn polls_at(&self, address: u64) -> usize {
        self.polls.iter().filter(|(poll, _)| *poll == address).count()
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
    symbols
}

impl<'a> Symbols<'a> {
    fn add(&mut self, name: &'a [u8], address: u64) {
        // `tokio::runtime::task::raw::`, as both ways of mangling have it.
        const MARKS: [&str; 2] = ["4task3raw", "5tokio"];
        let Ok(text) = std::str::from_utf8(name) else { return };
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
}
