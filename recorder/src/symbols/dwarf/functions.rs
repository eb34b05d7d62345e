//! Functions of a unit, and what was inlined into them.

use gimli::{Abbreviation, AttributeValue, EntriesRaw, Range, UnitOffset, UnitRef};

use super::{DebugSections, Slice};

/// How many entries are asked for a name that each says another one has.
const MAX_REFERENCES: usize = 16;

/// A function as it was written.
#[derive(Clone, Copy, Debug)]
pub struct Written<'r> {
    /// As the compiler calls it.
    pub name: Option<&'r [u8]>,
    /// Where in the next outer function it was inlined.
    pub called_from: CallPlace,
}

/// A place in a file, by numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CallPlace {
    /// Of those that the unit's lines refer to.
    pub file: Option<u64>,
    /// 0 if it is not known.
    pub line: u32,
}

/// Where a unit stands, and with it what it refers to.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// In the file.
    Own,
    /// In one that it is split into: by itself.
    Split,
    /// In the one that several share parts with.
    Shared,
}

/// What finds names.
pub struct Naming<'s, 'r> {
    pub sections: &'s DebugSections<'r>,
    pub place: Place,
}

/// Adds to each of the addresses, which are sorted, the functions that it lies in, the outermost first. Reads all entries of
/// the unit once; what was found before an error stays.
pub fn find<'r>(
    unit: UnitRef<'_, Slice<'r>>,
    addresses: &[u64],
    naming: &Naming<'_, 'r>,
    found: &mut [Vec<Written<'r>>],
) -> Result<(), gimli::Error> {
    let mut scopes = Scopes::default();
    let mut entries = unit.entries_raw(None)?;
    while !entries.is_empty() {
        let depth = entries.next_depth();
        scopes.leave(depth);
        let Some(abbreviation) = entries.read_abbreviation()? else { continue };
        let level = match abbreviation.tag() {
            gimli::DW_TAG_subprogram => 0,
            gimli::DW_TAG_inlined_subroutine if scopes.has_addresses() => scopes.level(),
            _ => {
                entries.skip_attributes(abbreviation.attributes())?;
                continue;
            }
        };
        let function = Function::read(&mut entries, abbreviation, unit)?;
        scopes.enter(depth, level);
        let mut name = None;
        for range in function.ranges(unit)? {
            let range = range?;
            scopes.choose(level, addresses, &range, |at| {
                // What has a function of this level already has it twice: identical code was made one.
                let is_first = found[at].len() == level;
                if is_first {
                    let name = match name {
                        Some(name) => name,
                        None => *name.insert(function.name(unit, naming)?),
                    };
                    found[at].push(Written { name, called_from: function.called_from });
                }
                Ok(is_first)
            })?;
        }
        if !abbreviation.has_children() {
            scopes.leave(depth);
        }
    }
    Ok(())
}

/// Functions around an entry.
#[derive(Default)]
struct Scopes {
    scopes: Vec<Scope>,
    /// Those of all scopes, by their places in the list of addresses. Those of an inner scope stand behind.
    addresses: Vec<usize>,
}

struct Scope {
    /// Of the function's entry. Those of its parts are greater.
    depth: isize,
    /// 0 for a function that is not inlined, 1 for those that are inlined into it, and so on.
    level: usize,
    /// Where its addresses begin.
    from: usize,
}

impl Scopes {
    /// Ends what does not reach to an entry of this depth.
    fn leave(&mut self, depth: isize) {
        while let Some(scope) = self.scopes.pop_if(|scope| scope.depth >= depth) {
            self.addresses.truncate(scope.from);
        }
    }

    fn enter(&mut self, depth: isize, level: usize) {
        self.scopes.push(Scope { depth, level, from: self.addresses.len() });
    }

    /// The level of what is inlined here.
    fn level(&self) -> usize {
        self.scopes.last().map_or(0, |scope| scope.level + 1)
    }

    /// Whether any address lies in the innermost function.
    fn has_addresses(&self) -> bool {
        self.scopes.last().is_some_and(|scope| scope.from < self.addresses.len())
    }

    /// Adds those addresses to the innermost scope that are in a range, and in the next outer scope if it is inlined there,
    /// and that `take` takes.
    fn choose(
        &mut self,
        level: usize,
        addresses: &[u64],
        range: &Range,
        mut take: impl FnMut(usize) -> Result<bool, gimli::Error>,
    ) -> Result<(), gimli::Error> {
        if level == 0 {
            let first = addresses.partition_point(|&address| address < range.begin);
            for at in (first..addresses.len()).take_while(|&at| addresses[at] < range.end) {
                if take(at)? {
                    self.addresses.push(at);
                }
            }
            return Ok(());
        }
        let [.., outer, own] = &self.scopes[..] else { return Ok(()) };
        for place in outer.from..own.from {
            let at = self.addresses[place];
            if (range.begin..range.end).contains(&addresses[at]) && take(at)? {
                self.addresses.push(at);
            }
        }
        Ok(())
    }
}

/// What an entry says of a function.
#[derive(Default)]
struct Function<'r> {
    begin: Option<u64>,
    end: Option<End>,
    ranges: Option<AttributeValue<Slice<'r>>>,
    names: Names<'r>,
    called_from: CallPlace,
}

/// Where a function ends.
enum End {
    Address(u64),
    Length(u64),
}

/// What an entry says of a name.
#[derive(Clone, Copy, Default)]
struct Names<'r> {
    /// As symbols have it.
    linkage: Option<AttributeValue<Slice<'r>>>,
    /// As the source has it.
    plain: Option<AttributeValue<Slice<'r>>>,
    /// Another entry that says more.
    more: Option<AttributeValue<Slice<'r>>>,
}

impl<'r> Names<'r> {
    fn read(&mut self, name: gimli::DwAt, value: AttributeValue<Slice<'r>>) {
        match name {
            gimli::DW_AT_linkage_name | gimli::DW_AT_MIPS_linkage_name => self.linkage = Some(value),
            gimli::DW_AT_name => self.plain = Some(value),
            gimli::DW_AT_abstract_origin | gimli::DW_AT_specification => self.more = Some(value),
            _ => {}
        }
    }

    fn own(&self, unit: UnitRef<'_, Slice<'r>>) -> Option<&'r [u8]> {
        let [linkage, plain] = [self.linkage, self.plain].map(|name| unit.attr_string(name?).ok());
        Some(linkage.or(plain)?.slice())
    }
}

impl<'r> Function<'r> {
    fn read(
        entries: &mut EntriesRaw<'_, Slice<'r>>,
        abbreviation: &Abbreviation,
        unit: UnitRef<'_, Slice<'r>>,
    ) -> Result<Function<'r>, gimli::Error> {
        let mut function = Function::default();
        for specification in abbreviation.attributes() {
            let attribute = entries.read_attribute(*specification)?;
            let value = attribute.value();
            match attribute.name() {
                gimli::DW_AT_low_pc => function.begin = unit.attr_address(value)?,
                gimli::DW_AT_high_pc => {
                    let length = || attribute.udata_value().map(End::Length);
                    function.end = unit.attr_address(value)?.map(End::Address).or_else(length);
                }
                gimli::DW_AT_ranges => function.ranges = Some(value),
                gimli::DW_AT_call_file => {
                    // Before version 5, 0 was no file.
                    let is_file = |&file: &u64| file > 0 || unit.header.version() >= 5;
                    function.called_from.file = match value {
                        AttributeValue::FileIndex(file) => Some(file).filter(is_file),
                        _ => None,
                    };
                }
                gimli::DW_AT_call_line => {
                    let line = attribute.udata_value().and_then(|line| u32::try_from(line).ok());
                    function.called_from.line = line.unwrap_or(0);
                }
                name => function.names.read(name, value),
            }
        }
        Ok(function)
    }

    /// The addresses of its code. Of what the linker dropped, none.
    fn ranges(
        &self,
        unit: UnitRef<'_, Slice<'r>>,
    ) -> Result<impl Iterator<Item = Result<Range, gimli::Error>> + use<'r>, gimli::Error> {
        let mut list = match self.ranges {
            Some(ranges) => unit.attr_ranges(ranges)?,
            None => None,
        };
        let only = match (self.begin.filter(|_| list.is_none()), &self.end) {
            (Some(begin), Some(End::Address(end))) => Some(Range { begin, end: *end }),
            (Some(begin), Some(End::Length(length))) => Some(Range { begin, end: begin.wrapping_add(*length) }),
            _ => None,
        };
        let listed = std::iter::from_fn(move || list.as_mut()?.next().transpose());
        let is_code = |range: &Range| range.begin != 0 && range.begin < range.end;
        let all = only.map(Ok).into_iter().chain(listed);
        Ok(all.filter(move |range| range.as_ref().map_or(true, is_code)))
    }

    fn name(&self, unit: UnitRef<'_, Slice<'r>>, naming: &Naming<'_, 'r>) -> Result<Option<&'r [u8]>, gimli::Error> {
        match (self.names.own(unit), self.names.more) {
            (None, Some(more)) => naming.follow(more, unit, naming.place, MAX_REFERENCES),
            (name, _) => Ok(name),
        }
    }
}

impl<'r> Naming<'_, 'r> {
    /// The name that another entry has.
    fn follow(
        &self,
        reference: AttributeValue<Slice<'r>>,
        unit: UnitRef<'_, Slice<'r>>,
        place: Place,
        left: usize,
    ) -> Result<Option<&'r [u8]>, gimli::Error> {
        if left == 0 {
            return Ok(None);
        }
        match reference {
            AttributeValue::UnitRef(offset) => self.entry(offset, unit, place, left),
            AttributeValue::DebugInfoRef(offset) => {
                if let Some(offset) = offset.to_unit_offset(&unit.header) {
                    return self.entry(offset, unit, place, left);
                }
                let other = match place {
                    Place::Split => None,
                    Place::Own | Place::Shared => self.sections.unit_around(offset, place == Place::Shared),
                };
                other.map_or(Ok(None), |(unit, offset)| self.entry(offset, unit, place, left))
            }
            AttributeValue::DebugInfoRefSup(offset) => {
                let shared = self.sections.unit_around(offset, true);
                shared.map_or(Ok(None), |(unit, offset)| self.entry(offset, unit, Place::Shared, left))
            }
            _ => Ok(None),
        }
    }

    fn entry(
        &self,
        offset: UnitOffset,
        unit: UnitRef<'_, Slice<'r>>,
        place: Place,
        left: usize,
    ) -> Result<Option<&'r [u8]>, gimli::Error> {
        let mut entries = unit.entries_raw(Some(offset))?;
        let Some(abbreviation) = entries.read_abbreviation()? else { return Ok(None) };
        let mut names = Names::default();
        for specification in abbreviation.attributes() {
            let attribute = entries.read_attribute(*specification)?;
            names.read(attribute.name(), attribute.value());
        }
        match (names.own(unit), names.more) {
            (None, Some(more)) => self.follow(more, unit, place, left - 1),
            (name, _) => Ok(name),
        }
    }
}
