//! The entries of a unit, one after another, and the namespaces that each is in.

use std::{ffi::CStr, mem};

use gimli::{
    Attribute, AttributeSpecification, AttributeValue, DebugStrOffset, DwTag, EntriesRaw, Section, UnitOffset, UnitRef,
};

use super::namespaces::{Namespaces, PathHash};
use crate::symbols::file::Slice;

/// Reads all entries of a unit once, in their order.
pub struct Entries<'u, 'a> {
    unit: UnitRef<'u, Slice<'a>>,
    raw: EntriesRaw<'u, Slice<'a>>,
    /// Of the entry that was met last.
    unread: &'u [AttributeSpecification],
    /// How deep that is.
    depth: isize,
    namespaces: Namespaces<'a>,
}

/// An entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntryAt {
    /// What it describes.
    pub tag: DwTag,
    /// In its unit.
    pub offset: UnitOffset,
    /// In how many others it is: 0 is the unit itself.
    pub depth: isize,
}

impl<'u, 'a> Entries<'u, 'a> {
    /// From the unit itself on.
    pub fn of(unit: UnitRef<'u, Slice<'a>>) -> Result<Entries<'u, 'a>, gimli::Error> {
        let raw = unit.unit.entries_raw(None)?;
        Ok(Entries { unit, raw, unread: &[], depth: 0, namespaces: Namespaces::default() })
    }

    /// That which is read.
    pub fn unit(&self) -> UnitRef<'u, Slice<'a>> {
        self.unit
    }

    /// Goes on to the next entry. None at the end.
    // Most entries are of no interest: to return each from a call takes a tenth of all the time that reading takes.
    #[inline(always)]
    pub fn next(&mut self) -> Result<Option<EntryAt>, gimli::Error> {
        self.raw.skip_attributes(self.unread)?;
        loop {
            self.unread = &[];
            if self.raw.is_empty() {
                return Ok(None);
            }
            let (depth, offset) = (self.raw.next_depth(), self.raw.next_offset());
            self.namespaces.leave(depth, offset);
            let Some(abbreviation) = self.raw.read_abbreviation()? else { continue };
            self.unread = abbreviation.attributes();
            self.depth = depth;
            if abbreviation.tag() == gimli::DW_TAG_namespace {
                self.enter(offset)?;
            }
            return Ok(Some(EntryAt { tag: abbreviation.tag(), offset, depth }));
        }
    }

    #[inline(never)]
    fn enter(&mut self, offset: UnitOffset) -> Result<(), gimli::Error> {
        let (unit, mut name) = (self.unit, None);
        self.read_attributes(|attribute| {
            if attribute.name() == gimli::DW_AT_name {
                name = text(unit, attribute.value());
            }
            Ok(())
        })?;
        self.namespaces.enter(self.depth, offset, name.unwrap_or_default());
        Ok(())
    }

    /// Shows the attributes of the entry that was met last. Otherwise they are skipped.
    #[inline]
    pub fn read_attributes(
        &mut self,
        mut show: impl FnMut(Attribute<Slice<'a>>) -> Result<(), gimli::Error>,
    ) -> Result<(), gimli::Error> {
        for specification in mem::take(&mut self.unread) {
            show(self.raw.read_attribute(*specification)?)?;
        }
        Ok(())
    }

    /// Whether the entry that was met last is in these namespaces, from the outermost on, and in nothing else.
    #[inline]
    pub fn is_in(&self, path: &[&str]) -> bool {
        usize::try_from(self.depth) == Ok(path.len() + 1) && self.namespaces.are(path)
    }

    /// Stands for the namespaces around the entry that was met last. One is among its own.
    pub fn path(&self) -> PathHash {
        self.namespaces.path()
    }

    /// All namespaces, as far as the unit was read.
    pub fn into_namespaces(self) -> Namespaces<'a> {
        self.namespaces
    }
}

/// The string that an attribute of a unit is.
pub fn text<'a>(unit: UnitRef<'_, Slice<'a>>, attribute: AttributeValue<Slice<'a>>) -> Option<&'a [u8]> {
    match attribute {
        // As below, where the end is searched byte by byte. There are millions of these, and those of types are long.
        AttributeValue::DebugStrRef(DebugStrOffset(offset)) => {
            let strings = unit.dwarf.debug_str.reader().slice();
            CStr::from_bytes_until_nul(strings.get(offset..)?).ok().map(CStr::to_bytes)
        }
        _ => unit.attr_string(attribute).ok().map(|text| text.slice()),
    }
}

/// The file that an attribute is, of those that its unit's lines refer to.
pub fn file(attribute: AttributeValue<Slice<'_>>) -> Option<u64> {
    match attribute {
        AttributeValue::FileIndex(file) => Some(file),
        _ => None,
    }
}

/// The line that an attribute is.
pub fn line(attribute: AttributeValue<Slice<'_>>) -> Option<u32> {
    attribute.udata_value().and_then(|line| u32::try_from(line).ok())
}
