//! What the futures behind task vtables are called.
//!
//! Identical functions are made one, so the function at an address may be of several futures and say the name of only one of
//! them. A name is given where all that is known of a vtable leaves one future. Where several are left all of them are told,
//! and where those are too many, what is known less well.

mod calls;
mod evidence;
mod glue;
mod locations;
mod symbols;
mod types;
mod written;

use std::fmt;

use self::{
    calls::Calls,
    evidence::Choice,
    locations::{Locations, Places},
    symbols::Symbols,
    types::Types,
};
use super::{Code, Vtable};
use crate::{
    symbols::{file::ElfObject, short_file},
    target::image::{Contents, Image, Pointers},
};

/// How many futures a name may leave open.
const MAX_CANDIDATES: usize = 3;

/// What the name of a future was told from, the best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NameTier {
    /// The functions and types that debug information describes.
    Dwarf,
    /// Symbols in which the compiler wrote whole types.
    Symbol,
    /// The symbol of what drops the task, in programs whose symbols have no types.
    DropGlue,
    /// Places in source files that the code would tell when it panics.
    Location,
    /// Nothing: the vtable's address.
    Address,
}

impl NameTier {
    /// All of them, the best first.
    pub const ALL: [NameTier; 5] =
        [NameTier::Dwarf, NameTier::Symbol, NameTier::DropGlue, NameTier::Location, NameTier::Address];

    /// The name that a trace has for it. Queries rely on these: they don't change.
    pub const fn name(self) -> &'static str {
        match self {
            NameTier::Dwarf => "dwarf",
            NameTier::Symbol => "symbol",
            NameTier::DropGlue => "drop-glue",
            NameTier::Location => "location",
            NameTier::Address => "vtable",
        }
    }
}

impl fmt::Display for NameTier {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.name())
    }
}

/// What a future is called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FutureName {
    /// Its whole type, with `{async}` and `{closure#0}` for what has no name; or as much as is known.
    pub full: String,
    /// What fits on a slice.
    pub short: String,
    /// What it was told from.
    pub tier: NameTier,
    /// The file and the line that it was written at.
    pub place: Option<(String, u32)>,
    /// It is one of those that the name has, with ` | ` between them, and nothing tells which. `…` stands for those whose
    /// names are lost.
    pub ambiguous: bool,
}

impl FutureName {
    /// Adds where it was written: it is a block, and its code polls only one.
    fn add_place(&mut self, blocks: &[(String, u32)]) {
        if let [block] = blocks
            && self.place.is_none()
            && !self.ambiguous
            && self.short.ends_with("{async}")
        {
            self.place = Some(block.clone());
        }
    }

    /// Says that another future of the same code may have lost its name. Blocks tell their own places, so those that are
    /// the same code are written at the same place: only what they are generic over differs.
    fn leave_open(&mut self) {
        self.full.push_str(" | …");
        self.short.push_str(" | …");
        self.ambiguous = true;
        self.place = None;
    }
}

/// A program's files, as they are: nothing in them is trusted.
#[derive(Clone, Copy, Debug, Default)]
pub struct ProgramFiles<'a> {
    /// The one that runs.
    pub binary: &'a [u8],
    /// Debug information that was taken out of it.
    pub debug: Option<&'a [u8]>,
    /// What that has in common with other files'.
    pub shared: Option<&'a [u8]>,
    /// Debug information that the compiler had split off, packed into one file.
    pub package: Option<&'a [u8]>,
}

/// What a program's files say of its vtables, in their order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// What the future of each is called.
    pub futures: Vec<FutureName>,
    /// What debug information calls the type of each one's tasks, where it is certain.
    pub tasks: Vec<Option<String>>,
}

/// Names the future of each vtable, and the type of its tasks. What can't be read is as if it were not there.
pub fn name(vtables: &[Vtable], files: &ProgramFiles<'_>) -> Names {
    let Ok(binary) = ElfObject::parse(files.binary) else {
        return Names { futures: vtables.iter().map(by_address).collect(), tasks: vec![None; vtables.len()] };
    };
    let [debug, shared, package] =
        [files.debug, files.shared, files.package].map(|bytes| ElfObject::parse(bytes?).ok());
    let symbols = symbols::read([Some(&binary), debug.as_ref()].into_iter().flatten());
    let described = [debug.as_ref(), Some(&binary)].into_iter().flatten().find(|file| file.has_debug_information());
    let types = described.map(|file| types::read(file, shared.as_ref(), package.as_ref())).unwrap_or_default();
    let by_types = evidence::choose(vtables, &types.tasks);
    let by_symbols = evidence::choose(vtables, &symbols.tasks);
    let named = vtables.iter().zip(&by_types).zip(&by_symbols).map(|((vtable, by_types), by_symbols)| {
        // More names at the address than debug information has functions there: some were made one without its saying so.
        let is_whole = symbols.polls_at(vtable.poll) <= types.tasks.polls_at(vtable.poll) || by_types.is_by_layout();
        by_types_of(&by_types.futures(), &types)
            .filter(|_| is_whole)
            .or_else(|| by_futures(&by_symbols.futures(), NameTier::Symbol))
    });
    let mut names: Vec<Option<FutureName>> = named.collect();
    let loses_names = evidence::loses_names(&by_types) || evidence::loses_names(&by_symbols);
    let is_certain = |name: &FutureName, by_types: &Choice<'_>| {
        !name.ambiguous && (!loses_names || name.tier == NameTier::Dwarf && by_types.is_by_layout())
    };
    let mut certain = names
        .iter()
        .zip(&by_types)
        .map(|(name, by_types)| name.as_ref().is_some_and(|name| is_certain(name, by_types)));
    // Reading code takes longer than all else.
    if !certain.all(|certain| certain) {
        let by_code = by_code(files.binary, vtables, &symbols);
        for ((name, by_types), by_code) in names.iter_mut().zip(&by_types).zip(by_code) {
            match name {
                None => *name = by_code.name,
                Some(known) if is_certain(known, by_types) => {}
                Some(known) if !known.ambiguous => {
                    if by_code.blocks.is_empty() || known.full.contains('<') {
                        known.leave_open();
                    }
                }
                Some(known) if known.tier == NameTier::Dwarf => {
                    *name = by_types_of(&types.written_at(by_types.futures(), &by_code.blocks), &types);
                }
                Some(_) => {}
            }
            if let Some(name) = name {
                name.add_place(&by_code.blocks);
            }
        }
    }
    let named = names.into_iter().zip(vtables);
    Names {
        futures: named.map(|(name, vtable)| name.unwrap_or_else(|| by_address(vtable))).collect(),
        tasks: by_types.iter().map(type_of_tasks).collect(),
    }
}

fn type_of_tasks(by_types: &Choice<'_>) -> Option<String> {
    match by_types.tasks[..] {
        [only] => Some(format!("Cell<{}, {}>", only.future, only.scheduler)),
        _ => None,
    }
}

/// A name by debug information.
fn by_types_of(futures: &[&str], types: &Types) -> Option<FutureName> {
    let place = match futures {
        [future] => types.place(future).cloned(),
        _ => None,
    };
    by_futures(futures, NameTier::Dwarf).map(|name| FutureName { place, ..name })
}

/// What code says of a future.
#[derive(Default)]
struct ByCode {
    name: Option<FutureName>,
    /// Where the blocks are that it may be.
    blocks: Vec<(String, u32)>,
}

/// Names by what the functions of vtables call. Nothing for files whose code can't be read.
fn by_code(binary: &[u8], vtables: &[Vtable], symbols: &Symbols<'_>) -> Vec<ByCode> {
    let read = || {
        let image = Image::read(binary).ok()?;
        let contents = Contents::new(&image, binary);
        let pointers = Pointers::read(&image, binary, &contents).ok()?;
        let code = Code::read(&image, binary, &contents, &pointers).ok()?;
        let mut calls = Calls::new(&code, &contents, &pointers);
        let dropped = glue::futures(vtables, symbols, &mut calls);
        let mut locations = Locations::new(&mut calls);
        let name = |(vtable, futures): (&Vtable, Vec<&str>)| {
            let Places { blocks, near } = locations.of_future(vtable);
            let by_blocks = || by_places(&blocks).or_else(|| by_places(near.as_slice()));
            ByCode { name: by_futures(&futures, NameTier::DropGlue).or_else(by_blocks), blocks }
        };
        Some(vtables.iter().zip(dropped).map(name).collect())
    };
    read().unwrap_or_default()
}

/// None if there is none, or there are too many.
fn by_places(places: &[(String, u32)]) -> Option<FutureName> {
    if places.is_empty() || places.len() > MAX_CANDIDATES {
        return None;
    }
    let names = places.iter().map(|(file, line)| format!("{}:{line}", short_file(file)));
    let full = names.collect::<Vec<_>>().join(" | ");
    let place = match places {
        [place] => Some(place.clone()),
        _ => None,
    };
    Some(FutureName { short: full.clone(), full, tier: NameTier::Location, ambiguous: places.len() > 1, place })
}

/// None if nothing is left, or too much.
fn by_futures(futures: &[&str], tier: NameTier) -> Option<FutureName> {
    if futures.is_empty() || futures.len() > MAX_CANDIDATES {
        return None;
    }
    let joined = |write: fn(&str) -> String| {
        let mut names: Vec<String> = Vec::with_capacity(futures.len());
        for name in futures.iter().map(|future| write(future)) {
            if !names.contains(&name) {
                names.push(name);
            }
        }
        names.join(" | ")
    };
    let (full, short) = (joined(written::full), joined(written::short));
    Some(FutureName { ambiguous: futures.len() > 1, full, short, tier, place: None })
}

fn by_address(vtable: &Vtable) -> FutureName {
    let full = format!("vtable {:#x}", vtable.address);
    FutureName { short: full.clone(), full, tier: NameTier::Address, place: None, ambiguous: false }
}

#[cfg(test)]
mod tests;
