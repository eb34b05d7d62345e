//! Unwind tables and address spaces where the kernel programs find them.

use std::os::fd::{AsFd, AsRawFd};

use anyhow::{Context, Result, ensure};
use aya::{
    Ebpf, Pod,
    maps::{ArrayOfMaps, HashMap, Map, MapData},
};
use memmap2::{MmapOptions, MmapRaw};
use polletto_common::{
    id::Tgid,
    unwind::{AddressSpace, MAX_RULES, MAX_SHARDS, Page, Row, Rule, SHARD_ENTRIES},
};
use rustc_hash::FxHashMap;

use crate::unwind::Table;

/// `BPF_MAP_TYPE_ARRAY`
const ARRAY: u32 = 2;
/// `BPF_F_MMAPABLE`
const MAPPABLE: u32 = 1 << 10;

const SHARD_BYTES: usize = SHARD_ENTRIES * 4;

/// Where a table stands, for a [`polletto_common::unwind::Mapping`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Installed {
    /// Index among all pages of what would be the page of the file's address 0 (wrapping).
    pub first_page: u32,
    /// Index among all rows of the table's first.
    pub first_row: u32,
}

/// A value that aya passes to the kernel as bytes.
#[derive(Clone, Copy)]
#[repr(transparent)]
struct Space(AddressSpace);

// SAFETY: `#[repr(C)]` integers of which any bytes are valid: 16 bytes, then mappings of 32 without padding.
unsafe impl Pod for Space {}

/// The kernel's tables. They only grow: a file that was mapped once may be mapped again.
pub struct UnwindMaps {
    pages: Shards,
    rows: Shards,
    rules: Rules,
    spaces: HashMap<MapData, u32, Space>,
}

impl UnwindMaps {
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<UnwindMaps> {
        let mut take = |name| ebpf.take_map(name).with_context(|| format!("no map `{name}`"));
        Ok(UnwindMaps {
            pages: Shards::new(take("PAGES")?)?,
            rows: Shards::new(take("ROWS")?)?,
            rules: Rules::new(take("RULES")?)?,
            spaces: HashMap::try_from(take("SPACES")?)?,
        })
    }

    /// Copies a table into the kernel's.
    pub fn install(&mut self, table: &Table) -> Result<Installed> {
        let rules = table.rules.iter().map(|&rule| self.rules.index(rule)).collect::<Result<Vec<u16>>>()?;
        let first_row = self.rows.next;
        let mut pages = Vec::with_capacity(table.pages.len());
        for page in &table.pages {
            let own = page.first_row() as usize..(page.first_row() + page.rows()) as usize;
            let own = table.rows.get(own).context("the table refers to rows that it does not have")?;
            let at = self.rows.reserve_together(own.len())?;
            for (index, row) in own.iter().enumerate() {
                let rule =
                    rules.get(row.rule() as usize).context("the table refers to a rule that it does not have")?;
                self.rows.set(at + index as u32, Row::new(row.address() as u8, *rule).0);
            }
            let from_first = at - first_row;
            ensure!(from_first <= Page::MAX_FIRST_ROW, "the table has too many rows");
            pages.push(Page::new(from_first, own.len() as u8));
        }
        let first_page = self.pages.next;
        for page in pages {
            let at = self.pages.reserve_together(1)?;
            self.pages.set(at, page.0);
        }
        Ok(Installed { first_page: first_page.wrapping_sub(table.first_page as u32), first_row })
    }

    /// Says what is mapped in a process.
    pub fn set_space(&mut self, process: Tgid, space: &AddressSpace) -> Result<()> {
        self.spaces
            .insert(process.0, Space(*space), 0)
            .with_context(|| format!("no room for the mappings of {process}"))
    }

    /// Forgets a process.
    pub fn remove_space(&mut self, process: Tgid) {
        // It may never have had mappings.
        self.spaces.remove(&process.0).ok();
    }
}

/// Entries that stand one after another in arrays of the same size.
struct Shards {
    outer: ArrayOfMaps<MapData>,
    shards: Vec<MmapRaw>,
    /// The entry that is written next.
    next: u32,
}

impl Shards {
    fn new(outer: Map) -> Result<Shards> {
        Ok(Shards { outer: outer.try_into()?, shards: Vec::new(), next: 0 })
    }

    /// Makes room for so many entries in one shard, and returns where they begin.
    fn reserve_together(&mut self, count: usize) -> Result<u32> {
        let used = self.next as usize % SHARD_ENTRIES;
        if used + count > SHARD_ENTRIES {
            self.next += (SHARD_ENTRIES - used) as u32;
        }
        let at = self.next;
        let shard = at as usize / SHARD_ENTRIES;
        if shard == self.shards.len() && count > 0 {
            ensure!(shard < MAX_SHARDS, "there is no room for more unwind tables");
            let added = self.add(shard as u32)?;
            self.shards.push(added);
        }
        self.next += count as u32;
        Ok(at)
    }

    fn add(&mut self, index: u32) -> Result<MmapRaw> {
        let definition = aya_obj::Map::new_from_params(ARRAY, 4, SHARD_BYTES as u32, 1, MAPPABLE);
        let map =
            MapData::create(definition, "polletto_tables", None).context("could not make room for unwind tables")?;
        self.outer.set(index, &map, 0).context("could not give the programs their unwind tables")?;
        mapped(&map, SHARD_BYTES)
    }

    /// `at` was reserved.
    fn set(&mut self, at: u32, value: u32) {
        let shard = self.shards[at as usize / SHARD_ENTRIES].as_mut_ptr().cast::<u32>();
        // SAFETY: a shard has as many entries; programs read them once a mapping refers to them, and not before.
        unsafe { shard.add(at as usize % SHARD_ENTRIES).write_volatile(value) };
    }
}

/// The rules of all tables, each of them once.
struct Rules {
    _map: MapData,
    memory: MmapRaw,
    indices: FxHashMap<Rule, u16>,
}

impl Rules {
    fn new(map: Map) -> Result<Rules> {
        let Map::Array(map) = map else { anyhow::bail!("`RULES` is not an array") };
        let memory = mapped(&map, MAX_RULES * size_of::<Rule>())?;
        Ok(Rules { _map: map, memory, indices: FxHashMap::default() })
    }

    fn index(&mut self, rule: Rule) -> Result<u16> {
        if let Some(&index) = self.indices.get(&rule) {
            return Ok(index);
        }
        let index = u16::try_from(self.indices.len()).context("there are too many different unwind rules")?;
        // SAFETY: the array has as many as `u16` can count; programs read a rule once a row refers to it.
        unsafe { self.memory.as_mut_ptr().cast::<Rule>().add(usize::from(index)).write_volatile(rule) };
        self.indices.insert(rule, index);
        Ok(index)
    }
}

const _: () = assert!(MAX_RULES == u16::MAX as usize + 1);

fn mapped(map: &MapData, bytes: usize) -> Result<MmapRaw> {
    MmapOptions::new()
        .len(bytes)
        .map_raw(map.fd().as_fd().as_raw_fd())
        .context("could not map unwind tables into memory")
}
