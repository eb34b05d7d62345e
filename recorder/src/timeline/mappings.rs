//! Which code stands where in the memory of each process.

use std::sync::Arc;

use polletto_common::id::Tgid;
use rustc_hash::FxHashMap;

/// A file that holds code.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Module {
    /// As the process has it.
    pub path: String,
    /// The identifying bytes themselves; none if the file has none.
    pub build_id: Vec<u8>,
    /// `p_vaddr - p_offset` of its code's segment.
    pub load_bias: u64,
}

/// Code that a process has mapped: addresses `start..end`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapped {
    /// The process.
    pub tgid: Tgid,
    /// The first address.
    pub start: u64,
    /// The first address after it.
    pub end: u64,
    /// Where `start` stands in the file, bytes.
    pub file_offset: u64,
    /// The file; none for memory that the process itself has filled.
    pub module: Option<Arc<Module>>,
    /// `address in the process - bias`, wrapping, is the address as the file's own symbols have it.
    pub bias: u64,
}

/// A [`Mapped`], or what is left of it, in whichever process.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Region {
    pub start: u64,
    pub end: u64,
    pub file_offset: u64,
    pub module: Option<Arc<Module>>,
    pub bias: u64,
}

impl Region {
    pub fn contains(&self, address: u64) -> bool {
        (self.start..self.end).contains(&address)
    }

    fn before(&self, end: u64) -> Option<Region> {
        (self.start < end).then(|| Region { end: end.min(self.end), ..self.clone() })
    }

    fn from(&self, start: u64) -> Option<Region> {
        let file_offset = self.file_offset.wrapping_add(start.saturating_sub(self.start));
        (start < self.end).then(|| Region { start: start.max(self.start), file_offset, ..self.clone() })
    }
}

/// The mappings of one process.
#[derive(Clone, Debug, Default)]
pub struct AddressSpace {
    /// In the order of their addresses, none of them overlapping.
    regions: Vec<Region>,
    changes: u32,
}

impl AddressSpace {
    /// How often it has changed.
    pub fn changes(&self) -> u32 {
        self.changes
    }

    /// What stands at this address.
    pub fn find(&self, address: u64) -> Option<&Region> {
        let after = self.regions.partition_point(|region| region.start <= address);
        self.regions[..after].last().filter(|region| region.contains(address))
    }

    fn map(&mut self, new: Region) {
        self.changes = self.changes.wrapping_add(1);
        let first = self.regions.partition_point(|region| region.end <= new.start);
        let after = self.regions.partition_point(|region| region.start < new.end);
        let overlapped = &self.regions[first..after];
        let left = overlapped.first().and_then(|region| region.before(new.start));
        let right = overlapped.last().and_then(|region| region.from(new.end));
        self.regions.splice(first..after, [left, Some(new), right].into_iter().flatten());
    }
}

/// The mappings of all processes. A process that was forked shares those of its parent until either changes.
#[derive(Debug, Default)]
pub struct AddressSpaces {
    of: FxHashMap<Tgid, Arc<AddressSpace>>,
}

impl AddressSpaces {
    /// The process's mappings, if any are known.
    pub fn of(&self, tgid: Tgid) -> Option<&AddressSpace> {
        self.of.get(&tgid).map(Arc::as_ref)
    }

    /// Replaces what stood at these addresses.
    pub fn map(&mut self, mapped: Mapped) {
        let Mapped { tgid, start, end, file_offset, module, bias } = mapped;
        if start < end {
            let space = self.of.entry(tgid).or_default();
            Arc::make_mut(space).map(Region { start, end, file_offset, module, bias });
        }
    }

    /// `child` begins with the memory of `parent`.
    pub fn fork(&mut self, parent: Tgid, child: Tgid) {
        match self.of.get(&parent).cloned() {
            Some(space) => self.of.insert(child, space),
            None => self.of.remove(&child),
        };
    }

    /// The process has ended, or begins anew with another program.
    pub fn clear(&mut self, tgid: Tgid) {
        self.of.remove(&tgid);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROCESS: Tgid = Tgid(10);
    const CHILD: Tgid = Tgid(20);

    fn mapped(start: u64, end: u64, file_offset: u64) -> Mapped {
        Mapped { tgid: PROCESS, start, end, file_offset, module: None, bias: start.wrapping_sub(file_offset) }
    }

    /// `(start, end, file offset)`
    type Shown = (u64, u64, u64);

    fn regions(spaces: &AddressSpaces, tgid: Tgid) -> Vec<Shown> {
        let regions = spaces.of(tgid).into_iter().flat_map(|space| &space.regions);
        regions.map(|region| (region.start, region.end, region.file_offset)).collect()
    }

    #[test]
    fn a_mapping_replaces_what_it_overlaps() {
        let before = [mapped(10, 20, 100), mapped(20, 30, 200), mapped(40, 50, 300)];
        let cases: [(&str, (u64, u64), &[Shown]); 7] = [
            ("in a gap", (30, 40), &[(10, 20, 100), (20, 30, 200), (30, 40, 7), (40, 50, 300)]),
            ("the same", (20, 30), &[(10, 20, 100), (20, 30, 7), (40, 50, 300)]),
            ("inside", (12, 15), &[(10, 12, 100), (12, 15, 7), (15, 20, 105), (20, 30, 200), (40, 50, 300)]),
            ("two halves", (15, 25), &[(10, 15, 100), (15, 25, 7), (25, 30, 205), (40, 50, 300)]),
            ("all", (0, 100), &[(0, 100, 7)]),
            ("over a gap", (25, 45), &[(10, 20, 100), (20, 25, 200), (25, 45, 7), (45, 50, 305)]),
            ("nothing", (12, 12), &[(10, 20, 100), (20, 30, 200), (40, 50, 300)]),
        ];
        for (what, (start, end), expected) in cases {
            let mut spaces = AddressSpaces::default();
            before.iter().cloned().for_each(|mapped| spaces.map(mapped));
            spaces.map(mapped(start, end, 7));
            assert_eq!(regions(&spaces, PROCESS), expected, "{what}");
        }
    }

    #[test]
    fn an_address_is_found_in_its_mapping_only() {
        let mut spaces = AddressSpaces::default();
        spaces.map(mapped(10, 20, 0));
        spaces.map(mapped(30, 40, 0));
        let space = spaces.of(PROCESS).unwrap();
        let found = [9, 10, 19, 20, 30, 40].map(|address| space.find(address).map(|region| region.start));
        assert_eq!(found, [None, Some(10), Some(10), None, Some(30), None]);
    }

    #[test]
    fn a_forked_process_goes_its_own_way() {
        let mut spaces = AddressSpaces::default();
        spaces.map(mapped(10, 20, 0));
        spaces.fork(PROCESS, CHILD);
        spaces.map(mapped(30, 40, 0));
        assert_eq!(regions(&spaces, CHILD), [(10, 20, 0)]);
        spaces.clear(PROCESS);
        assert_eq!(regions(&spaces, PROCESS), []);
        assert_eq!(regions(&spaces, CHILD), [(10, 20, 0)]);
    }
}
