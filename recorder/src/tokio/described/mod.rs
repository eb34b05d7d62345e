//! What debug information says of a program's types: what they consist of, and what leads from one to another.

mod entries;
mod namespaces;
#[cfg(test)]
mod tests;
mod types;

use gimli::{Abbreviations, DwTag, Dwarf, SectionId, Unit, UnitType, constants::DW_TAG_variant_part};

pub use self::{
    entries::{Entries, EntryAt, file, line, text},
    namespaces::{Namespaces, PathHash},
    types::{Place, Shape, TypeAt, Types},
};
use crate::{
    symbols::{
        file::{Decompressed, ElfObject, Slice},
        memory::Ceiling,
    },
    target::spare_memory,
};

/// The modules that the type of tasks is in.
pub const TASK_CORE: [&str; 4] = ["tokio", "runtime", "task", "core"];

/// The sections that describe types, and those without which units can't be opened.
pub fn load<'a>(object: &ElfObject<'a>, room: &'a Decompressed) -> Result<Dwarf<Slice<'a>>, String> {
    let mut dwarf = Dwarf::load(|id| match id {
        SectionId::DebugInfo
        | SectionId::DebugAbbrev
        | SectionId::DebugStr
        | SectionId::DebugStrOffsets
        | SectionId::DebugLineStr
        | SectionId::DebugLine
        | SectionId::DebugAddr => object.section(id.name(), room),
        _ => Ok(Slice::new(&[], gimli::LittleEndian)),
    })?;
    dwarf.populate_abbreviations_cache(gimli::AbbreviationsCacheStrategy::Duplicates);
    Ok(dwarf)
}

/// Whether types with variants are described, as only Rust has them, and what awaits is one. A program with line tables
/// alone has none. Far less is read for that than what there is.
pub fn has_variants(object: &ElfObject<'_>) -> bool {
    let room = Decompressed::default();
    let dwarf = Dwarf::load(|id| match id {
        SectionId::DebugInfo | SectionId::DebugAbbrev => object.section(id.name(), &room),
        _ => Ok(Slice::new(&[], gimli::LittleEndian)),
    });
    let Ok(mut dwarf) = dwarf else { return false };
    dwarf.populate_abbreviations_cache(gimli::AbbreviationsCacheStrategy::Duplicates);
    let mut headers = dwarf.units();
    while let Ok(Some(header)) = headers.next() {
        let Ok(abbreviations) = dwarf.abbreviations(&header) else { continue };
        if may_have(&abbreviations, DW_TAG_variant_part) {
            return true;
        }
    }
    false
}

/// Whether what these abbreviate can be of that kind.
pub fn may_have(abbreviations: &Abbreviations, tag: DwTag) -> bool {
    // Compilers count them.
    (1..).map_while(|code| abbreviations.get(code)).any(|entry| entry.tag() == tag)
}

/// All units but those of types alone. That it takes too much memory to open them is an error: each may have a list of
/// files, and of what its entries are like, as long as all of their section.
pub fn units<'a>(dwarf: &Dwarf<Slice<'a>>) -> Result<Vec<Unit<Slice<'a>>>, gimli::Error> {
    let (mut units, ceiling) = (Vec::new(), Ceiling::new(spare_memory()));
    let mut headers = dwarf.units();
    while let Some(header) = headers.next()? {
        ceiling.check(units.len())?;
        let is_of_types = matches!(header.type_(), UnitType::Type { .. } | UnitType::SplitType { .. });
        // What is wrong with one unit is not wrong with others.
        if let Ok(unit) = dwarf.unit(header)
            && !is_of_types
        {
            units.push(unit);
        }
    }
    Ok(units)
}
