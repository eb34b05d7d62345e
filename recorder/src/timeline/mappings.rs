//! Which code stands where in the memory of each process.

use std::{ops::Range, sync::Arc};

use polletto_common::id::Tgid;
use rustc_hash::FxHashMap;

use crate::pieces::{Piece, Pieces};

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

/// Whose code it is that stands somewhere.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Code {
    /// A file's.
    File(Arc<Module>),
    /// This process wrote it into its memory, or the one that it was forked from.
    Compiled(Tgid),
}

/// A [`Mapped`], or what is left of it, in whichever process.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Region {
    pub start: u64,
    pub end: u64,
    pub file_offset: u64,
    pub code: Code,
    pub bias: u64,
}

impl From<Mapped> for Region {
    fn from(mapped: Mapped) -> Region {
        let Mapped { tgid, start, end, file_offset, module, bias } = mapped;
        Region { start, end, file_offset, code: module.map_or(Code::Compiled(tgid), Code::File), bias }
    }
}

impl Piece for Region {
    fn addresses(&self) -> Range<u64> {
        self.start..self.end
    }

    fn part(&self, addresses: Range<u64>) -> Region {
        let Range { start, end } = addresses;
        Region { start, end, file_offset: self.file_offset.wrapping_add(start - self.start), ..self.clone() }
    }
}

/// The mappings of one process.
#[derive(Clone, Debug, Default)]
pub struct AddressSpace {
    regions: Pieces<Region>,
    changes: u64,
    replaced: u64,
}

impl AddressSpace {
    /// Another number after every change, in any process.
    pub fn changes(&self) -> u64 {
        self.changes
    }

    /// [`AddressSpace::changes`] when a mapping took another's place last: what its addresses meant, they mean no more.
    pub fn replaced(&self) -> u64 {
        self.replaced
    }

    /// What stands at this address.
    pub fn find(&self, address: u64) -> Option<&Region> {
        self.regions.find(address)
    }

    /// All of them, in the order of their addresses.
    pub fn regions(&self) -> impl Iterator<Item = &Region> {
        self.regions.iter()
    }

    fn map(&mut self, new: Region, change: u64) {
        self.changes = change;
        if self.regions.insert(new) {
            self.replaced = change;
        }
    }
}

/// The mappings of all processes. A process that was forked shares those of its parent until either changes.
#[derive(Debug, Default)]
pub struct AddressSpaces {
    of: FxHashMap<Tgid, Arc<AddressSpace>>,
    /// Changes so far, of all of them.
    changes: u64,
}

impl AddressSpaces {
    /// The process's mappings, if any are known.
    pub fn of(&self, tgid: Tgid) -> Option<&AddressSpace> {
        self.of.get(&tgid).map(Arc::as_ref)
    }

    /// Replaces what stood at these addresses.
    pub fn map(&mut self, mapped: Mapped) {
        if mapped.start < mapped.end {
            self.changes += 1;
            let space = self.of.entry(mapped.tgid).or_default();
            Arc::make_mut(space).map(mapped.into(), self.changes);
        }
    }

    /// This is all that the process has mapped.
    pub fn set(&mut self, tgid: Tgid, mappings: Vec<Mapped>) {
        self.changes += 1;
        let mut regions = Pieces::default();
        for mapped in mappings {
            if mapped.start < mapped.end {
                regions.insert(mapped.into());
            }
        }
        let space = self.of.entry(tgid).or_default();
        if space.regions != regions {
            *space = Arc::new(AddressSpace { regions, changes: self.changes, replaced: self.changes });
        }
    }

    /// `child` begins with the memory of `parent`.
    pub fn fork(&mut self, parent: Tgid, child: Tgid) {
        match self.of.get(&parent).cloned() {
            Some(space) => self.of.insert(child, space),
            None => self.of.remove(&child),
        };
    }

    /// The process begins anew with another program.
    pub fn clear(&mut self, tgid: Tgid) {
        self.changes += 1;
        if let Some(space) = self.of.get_mut(&tgid) {
            *space =
                Arc::new(AddressSpace { regions: Pieces::default(), changes: self.changes, replaced: self.changes });
        }
    }

    /// The process has ended.
    pub fn remove(&mut self, tgid: Tgid) {
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
        let regions = spaces.of(tgid).into_iter().flat_map(|space| space.regions.iter());
        regions.map(|region| (region.start, region.end, region.file_offset)).collect()
    }

    #[test]
    fn what_is_left_of_a_mapping_begins_further_into_its_file() {
        let mut spaces = AddressSpaces::default();
        spaces.map(mapped(10, 20, 100));
        spaces.map(mapped(12, 15, 7));
        spaces.map(mapped(16, 16, 8));
        assert_eq!(regions(&spaces, PROCESS), [(10, 12, 100), (12, 15, 7), (15, 20, 105)]);
    }

    #[test]
    fn what_is_read_again_and_is_the_same_is_no_change() {
        let mut spaces = AddressSpaces::default();
        spaces.map(mapped(10, 20, 100));
        let before = spaces.of(PROCESS).unwrap().changes();
        spaces.set(PROCESS, vec![mapped(10, 20, 100)]);
        assert_eq!(spaces.of(PROCESS).unwrap().changes(), before);
        spaces.set(PROCESS, vec![mapped(10, 20, 101)]);
        assert!(spaces.of(PROCESS).unwrap().replaced() > before);
        assert_eq!(regions(&spaces, PROCESS), [(10, 20, 101)]);
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
