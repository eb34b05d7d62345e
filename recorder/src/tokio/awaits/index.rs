//! Where debug information describes what tasks are made of.

use gimli::{AttributeValue, UnitRef};
use rustc_hash::FxHashMap;

use crate::{
    symbols::file::Slice,
    tokio::described::{Entries, Namespaces, TASK_CORE, TypeAt, Types, text},
};

/// How the name of a table of methods ends.
const METHODS: &[u8] = b"::{vtable}";

/// Tables of methods that are known: more than any program has of futures.
const MAX_TABLES: usize = 1 << 20;

/// What all units describe.
#[derive(Debug, Default)]
pub struct Index<'a> {
    /// Types of tasks, by their names.
    pub cells: FxHashMap<&'a [u8], TypeAt>,
    /// By their addresses in the file: the types of tables of methods.
    pub tables: FxHashMap<u64, TypeAt>,
    /// By unit.
    modules: Vec<Namespaces<'a>>,
}

impl<'a> Index<'a> {
    /// Reads everything once. What is damaged in one unit can be whole in others.
    pub fn read(types: &Types<'_, 'a>) -> Index<'a> {
        let mut index = Index::default();
        for unit in 0..types.units().len() {
            let modules = index.read_unit(types, unit).unwrap_or_default();
            index.modules.push(modules);
        }
        index
    }

    /// The names of the modules that a type is in, from the outermost on.
    pub fn modules_of(&self, type_at: TypeAt) -> Vec<&'a [u8]> {
        self.modules.get(type_at.unit).map(|modules| modules.around(type_at.offset)).unwrap_or_default()
    }

    /// Reads a unit, and hands over its modules.
    fn read_unit(&mut self, types: &Types<'_, 'a>, unit: usize) -> Result<Namespaces<'a>, gimli::Error> {
        let mut entries = Entries::of(types.unit(unit))?;
        // What was read before an error counts.
        if let Err(_damaged) = self.read_entries(types, unit, &mut entries) {}
        Ok(entries.into_namespaces())
    }

    fn read_entries(
        &mut self,
        types: &Types<'_, 'a>,
        unit: usize,
        entries: &mut Entries<'_, 'a>,
    ) -> Result<(), gimli::Error> {
        while let Some(at) = entries.next()? {
            match at.tag {
                gimli::DW_TAG_structure_type if entries.is_in(&TASK_CORE) => {
                    let entry = Entry::read(entries)?;
                    if entry.name.starts_with(b"Cell<") && !entry.is_declaration {
                        self.cells.entry(entry.name).or_insert(TypeAt { unit, offset: at.offset });
                    }
                }
                gimli::DW_TAG_variable => {
                    let entry = Entry::read(entries)?;
                    if entry.name.ends_with(METHODS)
                        && self.tables.len() < MAX_TABLES
                        && let Some(address) = entry.address
                        && let Some(of_table) = types.leads_to(entry.type_at, unit)
                    {
                        self.tables.insert(address, of_table);
                    }
                }
                _ => {}
            }
        }
        Ok(())
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
    fn read(entries: &mut Entries<'_, 'a>) -> Result<Entry<'a>, gimli::Error> {
        let (unit, mut entry) = (entries.unit(), Entry::default());
        entries.read_attributes(|attribute| {
            match attribute.name() {
                gimli::DW_AT_name => entry.name = text(unit, attribute.value()).unwrap_or_default(),
                gimli::DW_AT_type => entry.type_at = Some(attribute.value()),
                gimli::DW_AT_location => entry.address = address(&attribute.value(), unit)?,
                gimli::DW_AT_declaration => entry.is_declaration = true,
                _ => {}
            }
            Ok(())
        })?;
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
