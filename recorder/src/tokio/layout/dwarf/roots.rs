//! Types by their names.

use gimli::{EntriesRaw, UnitRef};
use rustc_hash::FxHashMap;

use crate::{symbols::file::Slice, tokio::described::TypeAt};

/// A type's name, behind those of the modules that it is in.
pub type Name = &'static [&'static str];

/// Types of one unit that were searched by name.
#[derive(Default)]
pub struct Roots(FxHashMap<Name, TypeAt>);

impl Roots {
    /// Searches the unit, which is this one among all.
    pub fn find(unit: UnitRef<'_, Slice<'_>>, index: usize, names: &[Name]) -> Roots {
        let mut roots = Roots::default();
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
        let mut spaces = Namespaces::default();
        let mut entries = unit.entries_raw(None)?;
        while !entries.is_empty() && self.0.len() < names.len() {
            let (depth, offset) = (entries.next_depth(), entries.next_offset());
            let Some(abbreviation) = entries.read_abbreviation()? else { continue };
            match abbreviation.tag() {
                gimli::DW_TAG_namespace => {
                    let named = Named::read(&mut entries, abbreviation, unit)?;
                    spaces.enter(depth, named.name, names);
                }
                gimli::DW_TAG_structure_type if spaces.is_promising(depth) => {
                    let named = Named::read(&mut entries, abbreviation, unit)?;
                    let found = names.iter().find(|name| spaces.hold(depth, named.name, name));
                    if let Some(name) = found.filter(|_| !named.is_declaration) {
                        self.0.entry(name).or_insert(TypeAt { unit: index, offset });
                    }
                }
                _ => entries.skip_attributes(abbreviation.attributes())?,
            }
        }
        Ok(())
    }
}

/// The namespaces around an entry, from the outermost on, as far as something that is searched may be in them.
#[derive(Default)]
struct Namespaces<'a>(Vec<(isize, &'a [u8])>);

impl<'a> Namespaces<'a> {
    fn enter(&mut self, depth: isize, name: &'a [u8], searched: &[Name]) {
        self.leave(depth);
        self.0.push((depth, name));
        if !searched.iter().any(|searched| self.lead_to(searched)) {
            self.0.pop();
        }
    }

    /// Ends what does not reach to an entry of this depth.
    fn leave(&mut self, depth: isize) {
        while self.0.pop_if(|(space, _)| *space >= depth).is_some() {}
    }

    fn lead_to(&self, searched: Name) -> bool {
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

    fn hold(&self, depth: isize, name: &[u8], searched: Name) -> bool {
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
