//! Types by their names.

use gimli::UnitRef;
use rustc_hash::FxHashMap;

use crate::{
    symbols::file::Slice,
    tokio::described::{Entries, TypeAt, may_have, text},
};

/// A type's name, behind those of the modules that it is in.
pub type Name = &'static [&'static str];

/// Types of one unit that were searched by name.
#[derive(Default)]
pub struct Roots(FxHashMap<Name, TypeAt>);

impl Roots {
    /// Searches the unit, which is this one among all.
    pub fn find(unit: UnitRef<'_, Slice<'_>>, index: usize, names: &[Name]) -> Roots {
        let mut roots = Roots::default();
        // Debug information of lines alone has no types.
        if !may_have(&unit.abbreviations, gimli::DW_TAG_structure_type) {
            return roots;
        }
        // What was found before an error is as good as if there were none.
        roots.search(unit, index, names).ok();
        roots
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn get(&self, name: Name) -> Option<TypeAt> {
        self.0.get(name).copied()
    }

    fn search(&mut self, unit: UnitRef<'_, Slice<'_>>, index: usize, names: &[Name]) -> Result<(), gimli::Error> {
        let mut entries = Entries::of(unit)?;
        while self.0.len() < names.len()
            && let Some(at) = entries.next()?
        {
            if at.tag != gimli::DW_TAG_structure_type {
                continue;
            }
            let mut searched = names.iter().filter_map(|name| name.split_last());
            let Some((_, modules)) = searched.find(|(_, modules)| entries.is_in(modules)) else { continue };
            let named = Named::read(&mut entries)?;
            let is_it = |(own, around): (&&str, &[&str])| around == modules && own.as_bytes() == named.name;
            let found = names.iter().find(|name| name.split_last().is_some_and(is_it));
            if let Some(name) = found.filter(|_| !named.is_declaration) {
                self.0.entry(name).or_insert(TypeAt { unit: index, offset: at.offset });
            }
        }
        Ok(())
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
    fn read(entries: &mut Entries<'_, 'a>) -> Result<Named<'a>, gimli::Error> {
        let (unit, mut named) = (entries.unit(), Named::default());
        entries.read_attributes(|attribute| {
            match attribute.name() {
                gimli::DW_AT_name => named.name = text(unit, attribute.value()).unwrap_or_default(),
                gimli::DW_AT_declaration => named.is_declaration = true,
                _ => {}
            }
            Ok(())
        })?;
        Ok(named)
    }
}
