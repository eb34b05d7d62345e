//! Which unit knows what.

use std::collections::{BTreeMap, BTreeSet};

use gimli::{DebugInfoOffset, Dwarf, Range, Unit, UnitRef, UnitType};
use rustc_hash::FxHashMap;

use super::{Slice, lines};
use crate::{
    symbols::{built_package, memory::Ceiling},
    target::spare_memory,
};

/// A unit among those of its file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct UnitIndex(usize);

/// All units of a file, and the addresses that they say are theirs.
#[derive(Default)]
pub struct Units<'a> {
    /// By where they stand in the file.
    units: Vec<Unit<Slice<'a>>>,
    /// Sorted by where they begin.
    claims: Vec<Claim>,
}

/// A unit says that it knows these addresses.
#[derive(Clone, Copy)]
struct Claim {
    range: Range,
    unit: UnitIndex,
    /// Where this one and all before it end.
    all_end: u64,
}

impl<'a> Units<'a> {
    /// Reads the first entry of each unit. That this takes too much memory is an error: each may have a list of files, and
    /// of what its entries are like, as long as all of their section.
    pub fn list(dwarf: &Dwarf<Slice<'a>>) -> Result<Units<'a>, gimli::Error> {
        let aranges = Aranges::list(dwarf)?;
        let (mut units, mut claims, ceiling) = (Vec::new(), Vec::new(), Ceiling::new(spare_memory()));
        let mut headers = dwarf.units();
        while let Some(header) = headers.next()? {
            ceiling.check(units.len())?;
            let has_code = match header.type_() {
                UnitType::Type { .. } | UnitType::SplitType { .. } => continue,
                // Others refer to these.
                UnitType::Partial => false,
                _ => true,
            };
            let offset = header.debug_info_offset();
            // What is wrong with one unit is not wrong with others.
            let Ok(unit) = dwarf.unit(header) else { continue };
            let index = UnitIndex(units.len());
            if has_code {
                let ranges = ranges(UnitRef::new(dwarf, &unit), offset, &aranges)?;
                claims.extend(ranges.into_iter().map(|range| Claim { range, unit: index, all_end: 0 }));
            }
            units.push(unit);
        }
        claims.sort_by_key(|claim| claim.range.begin);
        let mut all_end = 0;
        for claim in &mut claims {
            all_end = claim.range.end.max(all_end);
            claim.all_end = all_end;
        }
        Ok(Units { units, claims })
    }

    pub fn get(&self, index: UnitIndex) -> &Unit<Slice<'a>> {
        &self.units[index.0]
    }

    pub fn all(&self) -> impl Iterator<Item = UnitIndex> + use<> {
        (0..self.units.len()).map(UnitIndex)
    }

    /// The folders of packages that programs were made of, where those stand among dependencies: see [`built_package`].
    pub fn built_packages(&self) -> BTreeSet<String> {
        let names = self.units.iter().filter_map(|unit| unit.name);
        names.filter_map(|name| built_package(std::str::from_utf8(name.slice()).ok()?).map(str::to_owned)).collect()
    }

    /// The unit that this place in the section is in.
    pub fn around(&self, offset: DebugInfoOffset) -> Option<&Unit<Slice<'a>>> {
        let begins = |unit: &Unit<Slice<'_>>| unit.header.debug_info_offset().is_some_and(|begin| begin <= offset);
        self.units[..self.units.partition_point(begins)].last()
    }

    /// Groups addresses by the unit whose claim on them is the best but so many; they come without a unit if there is none.
    pub fn claims_on(&self, addresses: impl Iterator<Item = u64>, better: usize) -> Vec<(Option<UnitIndex>, Vec<u64>)> {
        let mut groups: BTreeMap<Option<UnitIndex>, Vec<u64>> = BTreeMap::new();
        for address in addresses {
            groups.entry(self.claimants(address).nth(better)).or_default().push(address);
        }
        groups.into_iter().collect()
    }

    /// The units that say that an address is theirs. Of several, the one is first whose claim begins nearest to it.
    fn claimants(&self, address: u64) -> impl Iterator<Item = UnitIndex> {
        let before = &self.claims[..self.claims.partition_point(|claim| claim.range.begin <= address)];
        let near = before.iter().rev().take_while(move |claim| claim.all_end > address);
        let mut last = None;
        near.filter(move |claim| claim.range.end > address)
            .map(|claim| claim.unit)
            .filter(move |&unit| last.replace(unit) != Some(unit))
    }
}

/// Lists of addresses that stand beside the units, by the units' places.
struct Aranges(FxHashMap<DebugInfoOffset, Vec<Range>>);

impl Aranges {
    fn list(dwarf: &Dwarf<Slice<'_>>) -> Result<Aranges, gimli::Error> {
        let mut all: FxHashMap<_, Vec<Range>> = FxHashMap::default();
        let mut headers = dwarf.debug_aranges.headers();
        while let Some(header) = headers.next()? {
            let mut entries = header.entries();
            let ranges = all.entry(header.debug_info_offset()).or_default();
            // Some compilers write entries that reach beyond all addresses. The others of the list are right.
            while let Some(entry) = entries.next().transpose() {
                ranges.extend(entry.iter().map(gimli::ArangeEntry::range).filter(|range| range.begin < range.end));
            }
        }
        Ok(Aranges(all))
    }
}

/// The addresses that a unit knows: what it says itself, or what is said of it elsewhere.
fn ranges(
    unit: UnitRef<'_, Slice<'_>>,
    offset: Option<DebugInfoOffset>,
    aranges: &Aranges,
) -> Result<Vec<Range>, gimli::Error> {
    let mut own = unit.unit_ranges()?;
    let mut ranges = Vec::new();
    while let Some(range) = own.next()? {
        if range.begin < range.end && range.begin != 0 {
            ranges.push(range);
        }
    }
    if let Some(listed) = offset.and_then(|offset| aranges.0.get(&offset)).filter(|_| ranges.len() <= 1) {
        // A single range may reach over code of others, and a list does not.
        ranges = if listed.is_empty() { ranges } else { listed.clone() };
    }
    if ranges.is_empty() {
        ranges = lines::ranges(unit)?;
    }
    Ok(ranges)
}
