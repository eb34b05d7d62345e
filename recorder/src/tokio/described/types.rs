//! Types by debug information: what they consist of, and the way from one to what is in it.

use std::rc::Rc;

use gimli::{Abbreviation, AttributeValue, DebugInfoOffset, Dwarf, EntriesRaw, Unit, UnitOffset, UnitRef};
use rustc_hash::FxHashMap;

use super::entries::{file, line, text};
use crate::symbols::file::Slice;

/// How many entries are read to understand types, all together. Those of Tokio have some thousands.
const MAX_ENTRIES: usize = 1 << 20;

/// How many wrappers may be around a thing.
const MAX_WRAPPERS: usize = 16;

/// Where a type is described.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TypeAt {
    /// Of all units, the one at this place.
    pub unit: usize,
    pub offset: UnitOffset,
}

/// Something of a type, within something else.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// Bytes.
    pub offset: u64,
    pub type_at: TypeAt,
}

/// What is known of a type.
#[derive(Default)]
pub struct Shape<'a> {
    /// Its own, with what it is generic over.
    pub name: &'a [u8],
    /// Bytes.
    size: Option<u64>,
    /// What it has, whichever variant it is.
    pub members: Vec<Member<'a>>,
    variants: Option<Variants<'a>>,
    /// What it points at, for a pointer.
    pub target: Option<TypeAt>,
    /// For the type of a table of methods, whose they are.
    pub methods_of: Option<TypeAt>,
}

/// A part of something.
#[derive(Clone, Copy)]
pub struct Member<'a> {
    /// What it is called there.
    pub name: &'a [u8],
    /// Where in it.
    pub place: Place,
    /// The file, of those of its unit, and the line that it was written at, if that is told.
    pub written_at: Option<(u64, u32)>,
}

/// What a type may be instead of having members.
#[derive(Default)]
struct Variants<'a> {
    /// What tells them apart, if there are several.
    tag: Option<Place>,
    all: Vec<Variant<'a>>,
}

/// It stands for all numbers that no other one stands for if it has none.
#[derive(Default)]
struct Variant<'a> {
    value: Option<u64>,
    content: Option<Member<'a>>,
}

impl<'a> Variants<'a> {
    fn named(&self, name: &[u8]) -> Option<&Variant<'a>> {
        self.all.iter().find(|variant| variant.content.is_some_and(|content| content.name == name))
    }
}

/// All types of a file, which are read when they are first asked for.
pub struct Types<'d, 'a> {
    dwarf: &'d Dwarf<Slice<'a>>,
    /// By where they stand in the file.
    units: &'d [Unit<Slice<'a>>],
    known: FxHashMap<TypeAt, Rc<Shape<'a>>>,
    entries_left: usize,
}

impl<'d, 'a> Types<'d, 'a> {
    pub fn new(dwarf: &'d Dwarf<Slice<'a>>, units: &'d [Unit<Slice<'a>>]) -> Types<'d, 'a> {
        Types { dwarf, units, known: FxHashMap::default(), entries_left: MAX_ENTRIES }
    }

    /// All units, by which places are counted.
    pub fn units(&self) -> &'d [Unit<Slice<'a>>] {
        self.units
    }

    /// One of them.
    pub fn unit(&self, index: usize) -> UnitRef<'d, Slice<'a>> {
        UnitRef::new(self.dwarf, &self.units[index])
    }

    /// Goes from something to what has this name in it: a member, a variant's content, or either in what it wraps. An empty
    /// name is the thing itself.
    pub fn step(&mut self, from: Place, name: &str) -> Option<Place> {
        if name.is_empty() {
            return Some(from);
        }
        let mut from = from;
        for _ in 0..MAX_WRAPPERS {
            let within = self.get(from.type_at)?;
            let member = within.members.iter().find(|member| member.name == name.as_bytes()).copied();
            let variant = || within.variants.as_ref()?.named(name.as_bytes())?.content;
            if let Some(found) = member.or_else(variant) {
                return from.to(&found);
            }
            from = self.unwrap(from)?;
        }
        None
    }

    /// What is left of something without wrappers.
    pub fn innermost(&mut self, place: Place) -> Place {
        let next = |inner: &Place| self.unwrap(*inner);
        std::iter::successors(Some(place), next).take(MAX_WRAPPERS).last().unwrap_or(place)
    }

    /// What a pointer points at, in wrappers or not.
    pub fn target(&mut self, pointer: Place) -> Option<TypeAt> {
        let pointer = self.innermost(pointer);
        self.get(pointer.type_at)?.target
    }

    pub fn size(&mut self, type_at: TypeAt) -> Option<u64> {
        self.get(type_at)?.size
    }

    /// The number that tells the variants of something apart, in wrappers or not.
    pub fn tag(&mut self, place: Place) -> Option<Place> {
        let place = self.innermost(place);
        let tag = self.get(place.type_at)?.variants.as_ref()?.tag?;
        Some(Place { offset: place.offset.checked_add(tag.offset)?, ..tag })
    }

    /// The number that stands for a variant of something, in wrappers or not.
    pub fn value(&mut self, place: Place, variant: &str) -> Option<u64> {
        let place = self.innermost(place);
        self.get(place.type_at)?.variants.as_ref()?.named(variant.as_bytes())?.value
    }

    /// What something wraps: all that takes room in it.
    fn unwrap(&mut self, place: Place) -> Option<Place> {
        let wrapper = self.get(place.type_at)?;
        if let Some(variants) = &wrapper.variants {
            return match &variants.all[..] {
                [Variant { content: Some(only), .. }] => place.to(only),
                _ => None,
            };
        }
        let mut only = None;
        for member in &wrapper.members {
            if self.size(member.place.type_at) != Some(0) && only.replace(*member).is_some() {
                return None;
            }
        }
        place.to(&only?)
    }

    /// What a thing is that has this number as its tag, by its type.
    pub fn variant(&mut self, type_at: TypeAt, tag: u64) -> Option<Member<'a>> {
        let of = self.get(type_at)?;
        let variants = &of.variants.as_ref()?.all;
        let exact = variants.iter().find(|variant| variant.value == Some(tag));
        exact.or_else(|| variants.iter().find(|variant| variant.value.is_none()))?.content
    }

    /// None if it can't be read.
    pub fn get(&mut self, type_at: TypeAt) -> Option<Rc<Shape<'a>>> {
        if let Some(known) = self.known.get(&type_at) {
            return Some(Rc::clone(known));
        }
        let read = Rc::new(self.read(type_at).ok()??);
        self.known.insert(type_at, Rc::clone(&read));
        Some(read)
    }

    fn read(&mut self, type_at: TypeAt) -> Result<Option<Shape<'a>>, gimli::Error> {
        let Some(unit) = self.units.get(type_at.unit) else { return Ok(None) };
        let unit = UnitRef::new(self.dwarf, unit);
        let mut entries = unit.entries_raw(Some(type_at.offset))?;
        let Some(abbreviation) = entries.read_abbreviation()? else { return Ok(None) };
        let read = |entries: &mut EntriesRaw<'_, Slice<'a>>, abbreviation: &Abbreviation| {
            Entry::read(entries, abbreviation, unit)
        };
        let own = read(&mut entries, abbreviation)?;
        let mut found = Shape { name: own.name.unwrap_or_default(), size: own.size, ..Shape::default() };
        found.methods_of = self.leads_to(own.methods_of, type_at.unit);
        match abbreviation.tag() {
            gimli::DW_TAG_pointer_type => {
                found.size = Some(own.size.unwrap_or(u64::from(unit.header.address_size())));
                found.target = self.type_of(&own, type_at.unit);
            }
            _ if own.is_declaration => return Ok(None),
            _ => {}
        }
        let mut open = Open::Members;
        while abbreviation.has_children() && !entries.is_empty() && entries.next_depth() > 0 {
            let Some(left) = self.entries_left.checked_sub(1) else { return Ok(None) };
            self.entries_left = left;
            let depth = entries.next_depth();
            let Some(abbreviation) = entries.read_abbreviation()? else { continue };
            let (tag, entry) = (abbreviation.tag(), read(&mut entries, abbreviation)?);
            let place = self.type_of(&entry, type_at.unit);
            let place = place.map(|type_at| Place { offset: entry.location.unwrap_or(0), type_at });
            let written_at = entry.file.zip(entry.line);
            let member = place.map(|place| Member { name: entry.name.unwrap_or_default(), place, written_at });
            open = open.next(depth, tag);
            match (open, tag) {
                (Open::Members, gimli::DW_TAG_member) => found.members.extend(member),
                (Open::Members, gimli::DW_TAG_subrange_type) if entry.count == Some(0) => found.size = Some(0),
                (Open::Part, gimli::DW_TAG_variant_part) => found.variants = Some(Variants::default()),
                (Open::Part, gimli::DW_TAG_member) => {
                    found.variants.get_or_insert_default().tag = place;
                }
                (Open::Variant, gimli::DW_TAG_variant) => {
                    let variant = Variant { value: entry.value, content: None };
                    found.variants.get_or_insert_default().all.push(variant);
                }
                (Open::Variant, gimli::DW_TAG_member) => {
                    if let Some(last) = found.variants.as_mut().and_then(|variants| variants.all.last_mut()) {
                        last.content = member;
                    }
                }
                _ => {}
            }
        }
        Ok(Some(found))
    }

    fn type_of(&self, entry: &Entry<'a>, unit: usize) -> Option<TypeAt> {
        self.leads_to(entry.type_at, unit)
    }

    /// What an attribute of a unit stands for.
    pub fn leads_to(&self, attribute: Option<AttributeValue<Slice<'a>>>, unit: usize) -> Option<TypeAt> {
        match attribute? {
            AttributeValue::UnitRef(offset) => Some(TypeAt { unit, offset }),
            AttributeValue::DebugInfoRef(offset) => self.at(offset),
            _ => None,
        }
    }

    /// What is at this place in the section of all units.
    fn at(&self, offset: DebugInfoOffset) -> Option<TypeAt> {
        let begins = |unit: &Unit<Slice<'_>>| unit.header.debug_info_offset().is_some_and(|begin| begin <= offset);
        let unit = self.units.partition_point(begins).checked_sub(1)?;
        Some(TypeAt { unit, offset: offset.to_unit_offset(&self.units[unit].header)? })
    }
}

impl Place {
    /// A member of what is here.
    pub fn to(self, member: &Member<'_>) -> Option<Place> {
        Some(Place { offset: self.offset.checked_add(member.place.offset)?, ..member.place })
    }
}

/// Which of a type's entries the one that is read belongs to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Open {
    /// The type itself.
    Members,
    /// That which has all variants.
    Part,
    /// One variant.
    Variant,
    /// Others, which are of no interest.
    Other,
}

impl Open {
    fn next(self, depth: isize, tag: gimli::DwTag) -> Open {
        match (depth, tag, self) {
            (1, gimli::DW_TAG_variant_part, _) => Open::Part,
            (1, gimli::DW_TAG_member | gimli::DW_TAG_subrange_type, _) => Open::Members,
            (1, ..) => Open::Other,
            (2, gimli::DW_TAG_variant, Open::Part | Open::Variant) => Open::Variant,
            (2, _, Open::Part | Open::Variant) => Open::Part,
            (3, _, Open::Variant) => Open::Variant,
            _ if depth > 2 => self,
            _ => Open::Other,
        }
    }
}

/// What an entry says.
#[derive(Default)]
struct Entry<'a> {
    name: Option<&'a [u8]>,
    size: Option<u64>,
    location: Option<u64>,
    value: Option<u64>,
    count: Option<u64>,
    type_at: Option<AttributeValue<Slice<'a>>>,
    methods_of: Option<AttributeValue<Slice<'a>>>,
    file: Option<u64>,
    line: Option<u32>,
    is_declaration: bool,
}

impl<'a> Entry<'a> {
    fn read(
        entries: &mut EntriesRaw<'_, Slice<'a>>,
        abbreviation: &Abbreviation,
        unit: UnitRef<'_, Slice<'a>>,
    ) -> Result<Entry<'a>, gimli::Error> {
        let mut entry = Entry::default();
        for specification in abbreviation.attributes() {
            let attribute = entries.read_attribute(*specification)?;
            match attribute.name() {
                gimli::DW_AT_name => entry.name = text(unit, attribute.value()),
                gimli::DW_AT_byte_size => entry.size = attribute.udata_value(),
                gimli::DW_AT_data_member_location => entry.location = attribute.udata_value(),
                gimli::DW_AT_discr_value => entry.value = attribute.udata_value(),
                gimli::DW_AT_count => entry.count = attribute.udata_value(),
                gimli::DW_AT_type => entry.type_at = Some(attribute.value()),
                gimli::DW_AT_containing_type => entry.methods_of = Some(attribute.value()),
                gimli::DW_AT_decl_file => entry.file = file(attribute.value()),
                gimli::DW_AT_decl_line => entry.line = line(attribute.value()),
                gimli::DW_AT_declaration => entry.is_declaration = true,
                _ => {}
            }
        }
        Ok(entry)
    }
}
