//! Where debug information describes what tasks are made of.

use gimli::{AttributeValue, EntriesRaw, UnitOffset, UnitRef};
use rustc_hash::FxHashMap;

use crate::{
    symbols::file::Slice,
    tokio::described::{TypeAt, Types},
};

/// The modules that the type of tasks is in.
const CORE: [&[u8]; 4] = [b"tokio", b"runtime", b"task", b"core"];

/// How the name of a table of methods ends.
const METHODS: &[u8] = b"::{vtable}";

/// Tables of methods that are known: more than any program has of futures.
const MAX_TABLES: usize = 1 << 20;

/// A module, and where its contents stand.
#[derive(Debug)]
struct Module<'a> {
    begin: UnitOffset,
    end: UnitOffset,
    name: &'a [u8],
    /// The one around it, as an index.
    parent: Option<usize>,
}

/// What all units describe.
#[derive(Debug, Default)]
pub struct Index<'a> {
    /// Types of tasks, by their names.
    pub cells: FxHashMap<&'a [u8], TypeAt>,
    /// By their addresses in the file: the types of tables of methods.
    pub tables: FxHashMap<u64, TypeAt>,
    /// By unit, in the order in which they begin.
    modules: Vec<Vec<Module<'a>>>,
}

impl<'a> Index<'a> {
    /// Reads everything once. What is damaged in one unit can be whole in others.
    pub fn read(types: &Types<'_, 'a>) -> Index<'a> {
        let mut index = Index::default();
        for unit in 0..types.units().len() {
            let mut modules = Modules::default();
            // What was read before an error counts.
            if let Err(_damaged) = index.read_unit(types, unit, &mut modules) {}
            index.modules.push(modules.finish());
        }
        index
    }

    /// The names of the modules that a type is in, from the outermost on.
    pub fn modules_of(&self, type_at: TypeAt) -> Vec<&'a [u8]> {
        let Some(modules) = self.modules.get(type_at.unit) else { return Vec::new() };
        let behind = modules.partition_point(|module| module.begin.0 < type_at.offset.0);
        // Of those that begin before it, the last that has not ended is the innermost.
        let mut next = behind.checked_sub(1);
        while let Some(module) = next.and_then(|at| modules.get(at)).filter(|module| module.end.0 <= type_at.offset.0) {
            next = module.parent;
        }
        let mut names = Vec::new();
        while let Some(module) = next.and_then(|at| modules.get(at)) {
            names.push(module.name);
            next = module.parent;
        }
        names.reverse();
        names
    }

    fn read_unit(&mut self, types: &Types<'_, 'a>, unit: usize, modules: &mut Modules<'a>) -> Result<(), gimli::Error> {
        let of = types.unit(unit);
        let mut entries = of.entries_raw(None)?;
        while !entries.is_empty() {
            let (depth, offset) = (entries.next_depth(), entries.next_offset());
            modules.leave(depth, offset);
            let Some(abbreviation) = entries.read_abbreviation()? else { continue };
            let attributes = abbreviation.attributes();
            match abbreviation.tag() {
                gimli::DW_TAG_namespace => {
                    let entry = Entry::read(&mut entries, attributes, of)?;
                    modules.enter(depth, offset, entry.name);
                }
                gimli::DW_TAG_structure_type if modules.are(&CORE, depth) => {
                    let entry = Entry::read(&mut entries, attributes, of)?;
                    if entry.name.starts_with(b"Cell<") && !entry.is_declaration {
                        self.cells.entry(entry.name).or_insert(TypeAt { unit, offset });
                    }
                }
                gimli::DW_TAG_variable => {
                    let entry = Entry::read(&mut entries, attributes, of)?;
                    if entry.name.ends_with(METHODS)
                        && self.tables.len() < MAX_TABLES
                        && let Some(address) = entry.address
                        && let Some(of_table) = types.leads_to(entry.type_at, unit)
                    {
                        self.tables.insert(address, of_table);
                    }
                }
                _ => entries.skip_attributes(attributes)?,
            }
        }
        Ok(())
    }
}

/// The modules of a unit, while it is read.
#[derive(Default)]
struct Modules<'a> {
    all: Vec<Module<'a>>,
    /// Those around the entry, with their depths, as indices.
    open: Vec<(isize, usize)>,
}

impl<'a> Modules<'a> {
    fn enter(&mut self, depth: isize, begin: UnitOffset, name: &'a [u8]) {
        let parent = self.open.last().map(|(_, at)| *at);
        self.open.push((depth, self.all.len()));
        self.all.push(Module { begin, end: UnitOffset(usize::MAX), name, parent });
    }

    /// Ends what does not reach to an entry of this depth.
    fn leave(&mut self, depth: isize, offset: UnitOffset) {
        while let Some((_, at)) = self.open.pop_if(|(of, _)| *of >= depth) {
            self.all[at].end = offset;
        }
    }

    /// Whether these are around an entry of this depth, and nothing else.
    fn are(&self, path: &[&[u8]], depth: isize) -> bool {
        self.open.len() == path.len()
            && self.open.last().is_some_and(|(of, _)| of + 1 == depth)
            && self.open.iter().zip(path).all(|((_, at), name)| self.all[*at].name == *name)
    }

    fn finish(self) -> Vec<Module<'a>> {
        self.all
    }
}

/// What counts of an entry.
#[derive(Default)]
struct Entry<'a> {
    name: &'a [u8],
    type_at: Option<AttributeValue<Slice<'a>>>,
    /// Where a variable stands, if that is one address.
    address: Option<u64>,
    is_declaration: bool,
}

impl<'a> Entry<'a> {
    fn read(
        entries: &mut EntriesRaw<'_, Slice<'a>>,
        attributes: &[gimli::AttributeSpecification],
        unit: UnitRef<'_, Slice<'a>>,
    ) -> Result<Entry<'a>, gimli::Error> {
        let mut entry = Entry::default();
        for specification in attributes {
            let attribute = entries.read_attribute(*specification)?;
            match attribute.name() {
                gimli::DW_AT_name => {
                    entry.name = unit.attr_string(attribute.value()).map(|name| name.slice()).unwrap_or_default();
                }
                gimli::DW_AT_type => entry.type_at = Some(attribute.value()),
                gimli::DW_AT_location => entry.address = address(&attribute.value(), unit)?,
                gimli::DW_AT_declaration => entry.is_declaration = true,
                _ => {}
            }
        }
        Ok(entry)
    }
}

/// The address that an expression is, if it is nothing else.
fn address(location: &AttributeValue<Slice<'_>>, unit: UnitRef<'_, Slice<'_>>) -> Result<Option<u64>, gimli::Error> {
    let Some(expression) = location.exprloc_value() else { return Ok(None) };
    let mut operations = expression.operations(unit.encoding());
    let first = operations.next()?;
    if operations.next()?.is_some() {
        return Ok(None);
    }
    match first {
        Some(gimli::Operation::Address { address }) => Ok(Some(address)),
        Some(gimli::Operation::AddressIndex { index }) => Ok(Some(unit.address(index)?)),
        _ => Ok(None),
    }
}
