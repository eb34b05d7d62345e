//! Names of functions, by the symbol tables of ELF files: for scenarios to say which functions a stack must show.

use std::{
    collections::HashMap,
    fs::{self, File},
    path::{Path, PathBuf},
};

use object::{
    LittleEndian, Object, ObjectSymbol, ReadCache, SymbolKind, elf,
    elf::FileHeader64,
    read::elf::{FileHeader, SectionHeader},
};
use rustc_demangle::demangle;

use crate::trace::{Callstack, Frame};

/// The symbol tables of files, each read when it is first asked for.
#[derive(Default)]
pub struct Symbols {
    files: HashMap<PathBuf, Functions>,
    originals: HashMap<PathBuf, PathBuf>,
}

impl Symbols {
    /// Of every file its own table.
    pub fn new() -> Symbols {
        Symbols::default()
    }

    /// Looks up what is in `stripped` in the file that it was copied from.
    pub fn with_original(mut self, stripped: &Path, original: &Path) -> Symbols {
        self.originals.insert(stripped.to_owned(), original.to_owned());
        self
    }

    /// The function at a file's own address: the last part of its name, without type parameters. None if the file's
    /// tables don't name it.
    pub fn function(&mut self, path: &str, address: u64) -> Option<&str> {
        self.functions(path, address).next()
    }

    /// All functions whose code is at a file's own address, as [`Symbols::function`] names one of them: where the compiler
    /// has made several the same code, each is as right as the others.
    pub fn functions(&mut self, path: &str, address: u64) -> impl Iterator<Item = &str> {
        self.table(path).all_at(address)
    }

    /// The function of a frame: by the trace, or by its file.
    pub fn name(&mut self, frame: &Frame) -> Option<&str> {
        match frame.path() {
            Some(path) => self.function(path, frame.rel_pc),
            None => None,
        }
    }

    fn table(&mut self, path: &str) -> &Functions {
        let path = self.originals.get(Path::new(path)).map_or(Path::new(path), PathBuf::as_path);
        self.files.entry(path.to_owned()).or_insert_with(|| Functions::of_file(path))
    }

    /// The functions of a program's frames, the innermost first; those without a name are `?`.
    pub fn names(&mut self, stack: &Callstack) -> Vec<String> {
        stack.user_frames().map(|frame| self.name(frame).unwrap_or("?").to_owned()).collect()
    }
}

/// A file's build id in hexadecimal digits; empty if it has none. Nothing else of it is read: it may be huge, or lie.
pub fn build_id(path: &Path) -> String {
    let data = ReadCache::new(File::open(path).unwrap_or_else(|error| panic!("{}: {error}", path.display())));
    let header = FileHeader64::<LittleEndian>::parse(&data);
    let header = header.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let sections = header.sections(LittleEndian, &data).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let ids = sections.iter().filter_map(|section| {
        let mut notes = section.notes(LittleEndian, &data).ok()??;
        std::iter::from_fn(move || notes.next().ok()?)
            .find(|note| note.name() == elf::ELF_NOTE_GNU && note.n_type(LittleEndian) == elf::NT_GNU_BUILD_ID)
    });
    let id = ids.map(|note| note.desc()).next().unwrap_or_default();
    id.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The address of a file's first instruction, `_start` of a program.
pub fn entry_point(path: &Path) -> Option<u64> {
    let bytes = fs::read(path).ok()?;
    object::File::parse(&*bytes).ok().map(|file| file.entry())
}

/// Functions of a file, sorted by their address, and by their names where that is the same.
#[derive(Default)]
struct Functions(Vec<Function>);

struct Function {
    address: u64,
    size: u64,
    name: String,
}

impl Functions {
    /// What is no file, or no ELF file, has no functions.
    fn of_file(path: &Path) -> Functions {
        let Ok(bytes) = fs::read(path) else { return Functions::default() };
        let Ok(file) = object::File::parse(&*bytes) else { return Functions::default() };
        let functions = file.symbols().chain(file.dynamic_symbols()).filter(|symbol| symbol.is_definition());
        let functions = functions.filter(|symbol| symbol.kind() == SymbolKind::Text).filter_map(|symbol| {
            let name = short_name(&format!("{:#}", demangle(symbol.name().ok()?)));
            Some(Function { address: symbol.address(), size: symbol.size(), name })
        });
        let mut functions: Vec<_> = functions.collect();
        functions.sort_by(|one, other| (one.address, &one.name).cmp(&(other.address, &other.name)));
        Functions(functions)
    }

    /// The functions that begin last in front of this address, and reach as far.
    fn all_at(&self, address: u64) -> impl Iterator<Item = &str> {
        let end = self.0.partition_point(|function| function.address <= address);
        let start = self.0[..end].last().map_or(0, |function| function.address);
        let first = self.0[..end].partition_point(|function| function.address < start);
        let reach = move |function: &&Function| address - start < function.size;
        self.0[first..end].iter().filter(reach).map(|function| function.name.as_str())
    }
}

/// The last part of a path, without type parameters: `<a::B as c::D>::e::<F>` is `e`.
pub fn short_name(name: &str) -> String {
    let mut short = String::new();
    let mut depth = 0_usize;
    let mut before = ' ';
    for letter in name.chars() {
        match letter {
            '<' => depth += 1,
            // Not the arrow of a function type.
            '>' if before != '-' => depth = depth.saturating_sub(1),
            letter if depth == 0 => short.push(letter),
            _ => {}
        }
        before = letter;
    }
    let last = short.rsplit("::").find(|part| !part.is_empty());
    last.unwrap_or(name).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_shortened_to_its_last_part() {
        let cases = [
            ("deep_stacks::bottom::burn", "burn"),
            ("<deep_stacks::calls::Plain as deep_stacks::calls::Layer>::pass", "pass"),
            ("deep_stacks::calls::layer::<deep_stacks::calls::Around<fn(u8) -> u8>>", "layer"),
            ("core::ops::function::FnOnce::call_once{{vtable.shim}}", "call_once{{vtable.shim}}"),
            ("deep_stacks::main::{{closure}}", "{{closure}}"),
            ("qsort_r", "qsort_r"),
        ];
        for (name, short) in cases {
            assert_eq!(short_name(name), short);
        }
    }

    #[test]
    fn an_address_between_functions_is_in_none() {
        let function = |address, size, name: &str| Function { address, size, name: name.to_owned() };
        let functions = Functions(vec![function(0x10, 4, "a"), function(0x20, 8, "b")]);
        let found = [0, 0x10, 0x13, 0x14, 0x27, 0x28].map(|address| functions.all_at(address).next());
        assert_eq!(found, [None, Some("a"), Some("a"), None, Some("b"), None]);
    }

    #[test]
    fn functions_of_the_same_code_all_have_it() {
        let function = |address, size, name: &str| Function { address, size, name: name.to_owned() };
        let functions = Functions(vec![function(0x10, 4, "a"), function(0x20, 8, "b"), function(0x20, 4, "c")]);
        let found = [0x13, 0x23, 0x24].map(|address| functions.all_at(address).collect::<Vec<_>>());
        assert_eq!(found, [vec!["a"], vec!["b", "c"], vec!["b"]]);
    }

    #[inline(never)]
    fn found_by_its_address(seed: u64) -> u64 {
        // Unlike any other function, so that it is not made one with it.
        std::hint::black_box(seed).wrapping_mul(0x5eed_f00d_0dd5) ^ 0x0f0f_1234
    }

    #[test]
    fn this_very_function_is_found() {
        let own = fs::canonicalize("/proc/self/exe").expect("a process has an executable");
        let bytes = fs::read(&own).expect("it is readable");
        let file = object::File::parse(&*bytes).expect("it is an ELF file");
        let symbol =
            file.symbols().find(|symbol| symbol.name().is_ok_and(|name| name.contains("found_by_its_address")));
        let address = symbol.expect("tests have symbols").address();
        assert_ne!(std::hint::black_box(found_by_its_address(1)), 0);
        let path = own.to_str().expect("a plain path");
        assert_eq!(Symbols::new().function(path, address), Some("found_by_its_address"));
        let stripped = Path::new("/nowhere/stripped");
        let mut symbols = Symbols::new().with_original(stripped, &own);
        assert_eq!(symbols.function("/nowhere/stripped", address), Some("found_by_its_address"));
    }
}
