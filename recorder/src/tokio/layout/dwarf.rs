//! Layouts by debug information, of a program that has some.
//!
//! All that matters hangs together: from three types of Tokio, which are searched by their names, the way leads through
//! members, variants and pointers to every other one.

mod types;

use gimli::{Dwarf, EntriesRaw, SectionId, Unit, UnitRef, UnitType};
use rustc_hash::FxHashMap;
use typed_arena::Arena;

use self::types::{Place, TypeAt, Types};
use super::{
    Layout,
    fields::{Base, FIELDS, Fact, PARTS},
};
use crate::symbols::file::{ElfObject, Slice};

/// What no offset within these structures comes near to, bytes.
const MAX_NUMBER: u64 = 1 << 20;

/// Reads the layout that a program was built with from its debug information, as far as that tells it. None if it tells
/// nothing of Tokio, or is not there.
pub fn read(file: &[u8]) -> Result<Option<Layout>, String> {
    let object = ElfObject::parse(file)?;
    if !object.has_debug_information() {
        return Ok(None);
    }
    let room = Arena::new();
    let mut dwarf = Dwarf::load(|id| match id {
        SectionId::DebugInfo
        | SectionId::DebugAbbrev
        | SectionId::DebugStr
        | SectionId::DebugLineStr
        | SectionId::DebugLine
        | SectionId::DebugAddr
        | SectionId::DebugStrOffsets => object.section(id.name(), &room),
        _ => Ok(Slice::new(&[], gimli::LittleEndian)),
    })?;
    dwarf.populate_abbreviations_cache(gimli::AbbreviationsCacheStrategy::Duplicates);
    let units = units(&dwarf).map_err(|error| error.to_string())?;
    let mut types = Types::new(&dwarf, &units);
    let mut layout = Layout::default();
    for index in most_promising_first(&units) {
        let mut roots = Roots::default();
        // What was found before an error is as good as if there were none.
        find(UnitRef::new(&dwarf, &units[index]), index, &mut roots).ok();
        if roots.0.is_empty() {
            continue;
        }
        layout.learn(&described(&mut types, &roots));
        if layout.knows_every_part() {
            break;
        }
    }
    Ok((layout != Layout::default()).then_some(layout))
}

fn units<'a>(dwarf: &Dwarf<Slice<'a>>) -> Result<Vec<Unit<Slice<'a>>>, gimli::Error> {
    let mut units = Vec::new();
    let mut headers = dwarf.units();
    while let Some(header) = headers.next()? {
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

/// Types that have been searched by name, by that name.
#[derive(Default)]
struct Roots(FxHashMap<&'static [&'static str], TypeAt>);

/// Names that are searched.
fn names() -> impl Iterator<Item = &'static [&'static str]> {
    let bases = PARTS.iter().flat_map(|part| part.bases);
    bases.filter_map(|base| match base {
        Base::Named(name) => Some(*name),
        Base::Behind(..) => None,
    })
}

/// Searches a unit for types by name.
fn find(unit: UnitRef<'_, Slice<'_>>, index: usize, roots: &mut Roots) -> Result<(), gimli::Error> {
    let names: Vec<_> = names().collect();
    let mut spaces = Namespaces::default();
    let mut entries = unit.entries_raw(None)?;
    while !entries.is_empty() && roots.0.len() < names.len() {
        let (depth, offset) = (entries.next_depth(), entries.next_offset());
        let Some(abbreviation) = entries.read_abbreviation()? else { continue };
        match abbreviation.tag() {
            gimli::DW_TAG_namespace => {
                let named = Named::read(&mut entries, abbreviation, unit)?;
                spaces.enter(depth, named.name, &names);
            }
            gimli::DW_TAG_structure_type if spaces.is_promising(depth) => {
                let named = Named::read(&mut entries, abbreviation, unit)?;
                let is_it = |name: &&&'static [&str]| spaces.hold(depth, named.name, name);
                if let Some(name) = names.iter().find(is_it)
                    && !named.is_declaration
                {
                    roots.0.entry(name).or_insert(TypeAt { unit: index, offset });
                }
            }
            _ => entries.skip_attributes(abbreviation.attributes())?,
        }
    }
    Ok(())
}

/// The namespaces around an entry, from the outermost on, as far as something that is searched may be in them.
#[derive(Default)]
struct Namespaces<'a>(Vec<(isize, &'a [u8])>);

impl<'a> Namespaces<'a> {
    fn enter(&mut self, depth: isize, name: &'a [u8], searched: &[&[&str]]) {
        self.leave(depth);
        self.0.push((depth, name));
        let may_hold = |searched: &&[&str]| self.lead_to(searched);
        if !searched.iter().any(may_hold) {
            self.0.pop();
        }
    }

    /// Ends what does not reach to an entry of this depth.
    fn leave(&mut self, depth: isize) {
        while self.0.pop_if(|(space, _)| *space >= depth).is_some() {}
    }

    fn lead_to(&self, searched: &[&str]) -> bool {
        // Each lies in the one before, and the first in none.
        let depths = self.0.iter().enumerate().all(|(at, (depth, _))| usize::try_from(*depth) == Ok(at + 1));
        let names = self.0.iter().zip(searched).all(|((_, name), searched)| *name == searched.as_bytes());
        depths && names && self.0.len() < searched.len()
    }

    /// Whether an entry of this depth lies in the innermost one itself.
    fn is_promising(&mut self, depth: isize) -> bool {
        self.leave(depth);
        self.0.last().is_some_and(|(space, _)| space + 1 == depth)
    }

    fn hold(&self, depth: isize, name: &[u8], searched: &[&str]) -> bool {
        let [spaces @ .., last] = searched else { return false };
        self.lead_to(searched)
            && spaces.len() == self.0.len()
            && usize::try_from(depth) == Ok(searched.len())
            && name == last.as_bytes()
    }
}

/// What an entry is called.
#[derive(Default)]
struct Named<'a> {
    name: &'a [u8],
    /// What it is called is described elsewhere.
    is_declaration: bool,
}

impl<'a> Named<'a> {
    fn read(
        entries: &mut EntriesRaw<'_, Slice<'a>>,
        abbreviation: &gimli::Abbreviation,
        unit: UnitRef<'_, Slice<'a>>,
    ) -> Result<Named<'a>, gimli::Error> {
        let mut named = Named::default();
        for specification in abbreviation.attributes() {
            let attribute = entries.read_attribute(*specification)?;
            match attribute.name() {
                gimli::DW_AT_name => {
                    named.name = unit.attr_string(attribute.value()).map(|name| name.slice()).unwrap_or_default();
                }
                gimli::DW_AT_declaration => named.is_declaration = true,
                _ => {}
            }
        }
        Ok(named)
    }
}

/// What can be known from these types on.
fn described(types: &mut Types<'_, '_>, roots: &Roots) -> Layout {
    let mut begins: FxHashMap<&str, Place> = FxHashMap::default();
    for part in PARTS {
        let found = part.bases.iter().find_map(|base| match base {
            Base::Named(name) => roots.0.get(name).copied(),
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
