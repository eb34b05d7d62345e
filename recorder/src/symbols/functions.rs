//! Functions by their symbols: what there is to say where debug information is missing.

use object::{Object, ObjectSymbol, ObjectSymbolTable, SectionIndex, SymbolSection, elf};

use super::file::ElfObject;

/// Symbols of one table that are read: several times what the largest programs have.
const MAX_SYMBOLS: usize = 1 << 25;

/// How many symbols that begin nearer to an address, but end before it, are passed over to find one that holds it.
const MAX_NESTED: usize = 16;

/// Functions, by where they begin.
#[derive(Debug, Default)]
pub struct FunctionTable<'a> {
    /// Sorted, no two with the same start.
    functions: Vec<Function<'a>>,
}

#[derive(Clone, Copy, Debug)]
struct Function<'a> {
    start: u64,
    /// 0 if unknown: then up to the next one.
    size: u64,
    name: &'a [u8],
    /// How good the name is, among those of one address: more is better.
    rank: u8,
}

impl<'a> FunctionTable<'a> {
    /// Adds the functions of a file's tables: all of them where it has those, else those that others link to.
    pub fn add(&mut self, object: &ElfObject<'a>) {
        let elf = object.elf();
        for table in [elf.symbol_table(), elf.dynamic_symbol_table()].into_iter().flatten() {
            self.functions.extend(table.symbols().take(MAX_SYMBOLS).filter_map(|symbol| function(&symbol)));
        }
    }

    /// Makes what was added ready to be searched.
    pub fn sort(&mut self) {
        self.functions.sort_unstable_by(|a, b| (a.start, b.rank, a.name).cmp(&(b.start, a.rank, b.name)));
        self.functions.dedup_by_key(|function| function.start);
        self.functions.shrink_to_fit();
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.functions.is_empty()
    }

    /// The name of the function that an address lies in.
    pub fn find(&self, address: u64) -> Option<&'a [u8]> {
        let behind = self.functions.partition_point(|function| function.start <= address);
        let before = self.functions[..behind].iter().rev().take(MAX_NESTED);
        let mut nearest = true;
        for function in before {
            let offset = address - function.start;
            // One without a size ends where any other begins.
            if offset < function.size || (nearest && function.size == 0) {
                return Some(function.name);
            }
            nearest = false;
        }
        None
    }
}

fn function<'a>(symbol: &object::read::elf::ElfSymbol64<'a, '_, object::LittleEndian>) -> Option<Function<'a>> {
    let raw = symbol.elf_symbol();
    // A label in assembly has no type, and names the code behind it, unless something better does.
    let is_function = match raw.st_type() {
        elf::STT_FUNC | elf::STT_GNU_IFUNC => true,
        elf::STT_NOTYPE => false,
        _ => return None,
    };
    if matches!(symbol.section(), SymbolSection::Undefined | SymbolSection::Absolute | SymbolSection::Common)
        || symbol.section_index() == Some(SectionIndex(0))
    {
        return None;
    }
    let name = symbol.name_bytes().ok().filter(|name| !name.is_empty() && !name.starts_with(b"$"))?;
    let binding = match raw.st_bind() {
        elf::STB_GLOBAL => 2,
        elf::STB_WEAK => 1,
        _ => 0,
    };
    let is_plain = !name.starts_with(b"_") || name.starts_with(b"_Z") || name.starts_with(b"_R");
    let rank = u8::from(is_function) << 3 | binding << 1 | u8::from(is_plain);
    Some(Function { start: symbol.address(), size: symbol.size(), name, rank })
}
