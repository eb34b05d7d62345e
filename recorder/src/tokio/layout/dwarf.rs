//! Layouts by debug information, of a program that has some.
//!
//! All that matters hangs together: from three types of Tokio, which are searched by their names, the way leads through
//! members, variants and pointers to every other one.

mod roots;
#[cfg(test)]
mod tests;

use gimli::{Unit, UnitRef};
use rustc_hash::FxHashMap;

use self::roots::{Name, Roots};
use super::{
    Layout,
    fields::{Base, FIELDS, Fact, PARTS},
};
use crate::{
    symbols::file::{Decompressed, ElfObject, Slice},
    tokio::described::{Place, Types, load, units},
};

/// What no offset within these structures comes near to, bytes.
const MAX_NUMBER: u64 = 1 << 20;

/// Reads the layout that a program was built with from its debug information, as far as that tells it. None if it tells
/// nothing of Tokio, or is not there.
pub fn read(file: &[u8]) -> Result<Option<Layout>, String> {
    let object = ElfObject::parse(file)?;
    if !object.has_debug_information() {
        return Ok(None);
    }
    let room = Decompressed::default();
    let dwarf = load(&object, &room)?;
    let units = units(&dwarf).map_err(|error| error.to_string())?;
    let names = names();
    let mut types = Types::new(&dwarf, &units);
    let mut layout = Layout::default();
    for index in most_promising_first(&units) {
        let roots = Roots::find(UnitRef::new(&dwarf, &units[index]), index, &names);
        if roots.is_empty() {
            continue;
        }
        layout.learn(&described(&mut types, &roots));
        if layout.knows_every_part() {
            break;
        }
    }
    Ok((layout != Layout::default()).then_some(layout))
}

/// Tokio's own units know most of its types, and of a large program they are a small part.
fn most_promising_first(units: &[Unit<Slice<'_>>]) -> Vec<usize> {
    const TOKIO: &[u8] = b"/tokio-";
    let is_promising = |unit: &Unit<Slice<'_>>| {
        unit.name.is_some_and(|name| name.slice().windows(TOKIO.len()).any(|part| part == TOKIO))
    };
    let (mut first, rest): (Vec<usize>, Vec<usize>) = (0..units.len()).partition(|&index| is_promising(&units[index]));
    first.extend(rest);
    first
}

/// What is searched by name.
fn names() -> Vec<Name> {
    let bases = PARTS.iter().flat_map(|part| part.bases);
    let named = bases.filter_map(|base| match base {
        Base::Named(name) => Some(*name),
        Base::Behind(..) => None,
    });
    named.collect()
}

/// What can be known from these types on.
fn described(types: &mut Types<'_, '_>, roots: &Roots) -> Layout {
    let mut begins: FxHashMap<&str, Place> = FxHashMap::default();
    for part in PARTS {
        let found = part.bases.iter().find_map(|base| match base {
            Base::Named(name) => roots.get(name),
            Base::Behind(part, path) => {
                let pointer = walk(types, *begins.get(part)?, path)?;
                types.target(pointer)
            }
        });
        if let Some(type_at) = found {
            begins.insert(part.name, Place { offset: 0, type_at });
        }
    }
    let mut layout = Layout::default();
    for field in FIELDS {
        let begin = begins.get(field.part);
        let number = begin.and_then(|begin| find_fact(types, *begin, field.fact));
        let number = number.filter(|&number| number < MAX_NUMBER);
        (field.set)(&mut layout, number.and_then(|number| u32::try_from(number).ok()));
    }
    layout
}

fn find_fact(types: &mut Types<'_, '_>, begin: Place, fact: Fact) -> Option<u64> {
    let (Fact::Offset(paths) | Fact::Size(paths) | Fact::Tag(paths) | Fact::TagSize(paths) | Fact::Value(paths)) = fact;
    paths.iter().find_map(|path| {
        let (within, last) = path.rsplit_once('.').unwrap_or(("", path));
        let within = walk(types, begin, within)?;
        if let Fact::Value(_) = fact {
            return types.value(within, last);
        }
        let place = types.step(within, last)?;
        match fact {
            Fact::Size(_) => types.size(place.type_at),
            Fact::Tag(_) => Some(types.tag(place)?.offset),
            Fact::TagSize(_) => {
                let tag = types.tag(place)?;
                types.size(tag.type_at)
            }
            Fact::Offset(_) | Fact::Value(_) => Some(types.innermost(place).offset),
        }
    })
}

fn walk(types: &mut Types<'_, '_>, from: Place, path: &str) -> Option<Place> {
    path.split('.').try_fold(from, |from, name| types.step(from, name))
}
