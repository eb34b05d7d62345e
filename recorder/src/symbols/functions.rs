//! Functions by their symbols: what there is to say where debug information is missing.

use object::{Object, ObjectSection, ObjectSymbol, ObjectSymbolTable, SectionFlags, elf, read::elf::ElfSymbol64};
use rustc_hash::FxHashMap;

use super::file::ElfObject;

/// Symbols of one table that are read: several times what the largest programs have.
const MAX_SYMBOLS: usize = 1 << 25;

/// How many symbols that begin nearer to an address, but end before it, are passed over to find one that holds it.
const MAX_NESTED: usize = 16;

/// How many names of the same code are kept.
const MAX_NAMES: usize = 16;

/// Functions, by where they begin.
#[derive(Debug, Default)]
pub struct FunctionTable<'a> {
    /// Sorted; those of the same start by how good their names are, the best first.
    functions: Vec<Function<'a>>,
    /// Whether a file still had the table of its own functions.
    has_own: bool,
}

/// The names of the function that an address lies in.
#[derive(Clone, Copy, Debug)]
pub struct Names<'t, 'a> {
    /// Of the same start. Not all of them need to reach up to the address.
    functions: &'t [Function<'a>],
    offset: u64,
    /// Whether the table says where the function ends.
    pub is_sized: bool,
}

impl<'a> Names<'_, 'a> {
    /// All of them, the best first.
    pub fn iter(self) -> impl Iterator<Item = &'a [u8]> {
        self.functions.iter().filter(move |function| function.holds(self.offset, self.is_sized)).map(|one| one.name)
    }
}

#[derive(Clone, Copy, Debug)]
struct Function<'a> {
    start: u64,
    /// 0 if unknown: then up to the next one.
    size: u64,
    /// Where the section ends that it is in, from its start on.
    rest_of_section: u64,
    name: &'a [u8],
    /// How good the name is, among those of one address: more is better.
    rank: u8,
}

impl<'a> FunctionTable<'a> {
    /// Adds the functions of a file's tables: all of them where it has those, else those that others link to.
    pub fn add(&mut self, object: &ElfObject<'a>) {
        let elf = object.elf();
        let sections = elf.sections().filter_map(|section| {
            let SectionFlags::Elf { sh_flags, .. } = section.flags() else { return None };
            let holds_code = sh_flags.contains(elf::SHF_EXECINSTR);
            holds_code.then(|| (section.index().0, section.address().saturating_add(section.size())))
        });
        let ends: FxHashMap<usize, u64> = sections.collect();
        self.has_own |= elf.symbol_table().is_some();
        for table in [elf.symbol_table(), elf.dynamic_symbol_table()].into_iter().flatten() {
            self.functions.extend(table.symbols().take(MAX_SYMBOLS).filter_map(|symbol| function(&symbol, &ends)));
        }
    }

    /// Makes what was added ready to be searched.
    pub fn sort(&mut self) {
        self.functions.sort_unstable_by(|a, b| (a.start, b.rank, a.name).cmp(&(b.start, a.rank, b.name)));
        // Many are in both tables.
        self.functions.dedup_by(|a, b| (a.start, a.size, a.name) == (b.start, b.size, b.name));
        let (mut start, mut names) = (None, 0);
        self.functions.retain(|function| {
            names = if start.replace(function.start) == Some(function.start) { names + 1 } else { 1 };
            names <= MAX_NAMES
        });
        self.functions.shrink_to_fit();
    }

    /// Whether the files were stripped of all names but those that others link to.
    pub fn has_only_exported(&self) -> bool {
        !self.has_own
    }

    /// The function that an address lies in.
    pub fn find(&self, address: u64) -> Option<Names<'_, 'a>> {
        let mut before = &self.functions[..self.functions.partition_point(|function| function.start <= address)];
        for passed in 0..MAX_NESTED {
            let start = before.last()?.start;
            let (others, functions) = before.split_at(before.partition_point(|function| function.start < start));
            let offset = address - start;
            // One without a size ends where any other begins.
            for is_sized in [true, false].into_iter().take(if passed == 0 { 2 } else { 1 }) {
                if functions.iter().any(|function| function.holds(offset, is_sized)) {
                    return Some(Names { functions, offset, is_sized });
                }
            }
            before = others;
        }
        None
    }
}

impl Function<'_> {
    fn holds(&self, offset: u64, is_sized: bool) -> bool {
        if is_sized { offset < self.size } else { self.size == 0 && offset < self.rest_of_section }
    }
}

/// None if it is none. `ends` are those of the sections with code, by their index.
fn function<'a>(
    symbol: &ElfSymbol64<'a, '_, object::LittleEndian>,
    ends: &FxHashMap<usize, u64>,
) -> Option<Function<'a>> {
    let raw = symbol.elf_symbol();
    // A label in assembly has no type, and names the code behind it, unless something better does.
    let is_function = match raw.st_type() {
        elf::STT_FUNC | elf::STT_GNU_IFUNC => true,
        elf::STT_NOTYPE => false,
        _ => return None,
    };
    // Neither what other files define nor what stands for a number.
    let end = ends.get(&symbol.section_index()?.0)?;
    let name = symbol.name_bytes().ok().filter(|name| !name.is_empty() && !name.starts_with(b"$"))?;
    let binding = match raw.st_bind() {
        elf::STB_GLOBAL => 2,
        elf::STB_WEAK => 1,
        _ => 0,
    };
    let is_plain = !name.starts_with(b"_") || name.starts_with(b"_Z") || name.starts_with(b"_R");
    let rank = u8::from(is_function) << 3 | binding << 1 | u8::from(is_plain);
    let start = symbol.address();
    Some(Function { start, size: symbol.size(), rest_of_section: end.saturating_sub(start), name, rank })
}
