//! What the futures behind task vtables are called.
//!
//! Identical functions are made one, so the function at an address may be of several futures and say the name of only one of
//! them. A name is given where all that is known of a vtable leaves one future. Where several are left all of them are told,
//! and where those are too many, what is known less well.

mod evidence;
mod glue;
mod symbols;
mod types;

use self::{evidence::Choice, symbols::Symbols, types::Types};
use super::Vtable;
use crate::{
    families::{FutureName, Locations, NameTier, Places, ProgramFiles, by_address, by_futures, by_places, with_calls},
    symbols::file::ElfObject,
};

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
        return Names {
            futures: vtables.iter().map(|vtable| by_address(vtable.address)).collect(),
            tasks: vec![None; vtables.len()],
        };
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
        futures: named.map(|(name, vtable)| name.unwrap_or_else(|| by_address(vtable.address))).collect(),
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
    let read = with_calls(binary, |calls| {
        let mut dropped = glue::futures(vtables, symbols, calls);
        let mut locations = Locations::new(calls);
        let places: Vec<Places> = vtables.iter().map(|vtable| locations.of_future(vtable.poll)).collect();
        let blocks: Vec<&[(String, u32)]> = places.iter().map(|places| places.blocks.as_slice()).collect();
        glue::settle(vtables, &blocks, &mut dropped);
        let name = |(Places { blocks, near }, dropped): (Places, glue::Dropped<'_>)| {
            let by_blocks = || by_places(&blocks).or_else(|| by_places(near.as_slice()));
            ByCode { name: by_futures(&dropped.futures, NameTier::DropGlue).or_else(by_blocks), blocks }
        };
        places.into_iter().zip(dropped).map(name).collect()
    });
    read.unwrap_or_default()
}

#[cfg(test)]
mod tests;
