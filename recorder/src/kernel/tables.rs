//! Unwind tables and address spaces where the kernel programs find them.

use anyhow::{Context, Result, anyhow, ensure};
use aya::{
    Ebpf,
    maps::{Map, MapData},
};
use memmap2::MmapRaw;
use polletto_common::{
    id::Tgid,
    unwind::{AddressSpace, MAX_RULES, MAX_SHARDS, Page, Row, Rule, SHARD_ENTRIES},
};
use rustc_hash::FxHashMap;

use super::{
    outer::{OuterMap, array, mapped},
    spaces::Spaces,
};
use crate::unwind::Table;

const SHARD_BYTES: usize = SHARD_ENTRIES * 4;

/// Where a table stands, for a [`polletto_common::unwind::Mapping`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Installed {
    /// Index among all pages of what would be the page of the file's address 0 (wrapping).
    pub first_page: u32,
    /// Index among all rows of the table's first.
    pub first_row: u32,
}

/// The kernel's tables. They only grow: a file that was mapped once may be mapped again.
pub struct UnwindMaps {
    pages: Shards,
    rows: Shards,
    rules: Rules,
    spaces: Spaces,
}

impl UnwindMaps {
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<UnwindMaps> {
        let spaces = Spaces::take(ebpf)?;
        let mut take = |name| ebpf.take_map(name).with_context(|| format!("no map `{name}`"));
        Ok(UnwindMaps {
            pages: Shards::new(take("PAGES")?)?,
            rows: Shards::new(take("ROWS")?)?,
            rules: Rules::new(take("RULES")?)?,
            spaces,
        })
    }

    /// Copies tables into the kernel's. All at once, since making room for them takes the kernel ten milliseconds.
    pub fn install(&mut self, tables: &[&Table]) -> Vec<Result<Installed>> {
        let placed: Vec<_> = tables.iter().map(|table| self.place(table)).collect();
        let grown = self.rows.grow().and_then(|()| self.pages.grow());
        let tables = tables.iter().zip(placed);
        tables
            .map(|(table, placed)| {
                let place = placed?;
                match &grown {
                    Ok(()) => self.fill(table, &place),
                    Err(error) => Err(anyhow!("{error:#}")),
                }
            })
            .collect()
    }

    /// Finds room for a table.
    fn place(&mut self, table: &Table) -> Result<Place> {
        let first_row = self.rows.next;
        let page_rows = table.pages.iter().map(|page| self.rows.reserve(page.rows())).collect::<Result<Vec<u32>>>()?;
        let first_page = self.pages.reserve_many(table.pages.len())?;
        Ok(Place { first_page, first_row, page_rows })
    }

    fn fill(&mut self, table: &Table, place: &Place) -> Result<Installed> {
        let rules = table.rules.iter().map(|&rule| self.rules.index(rule)).collect::<Result<Vec<u16>>>()?;
        let rule = |row: &Row| rules.get(row.rule() as usize).copied();
        for (index, (page, &at)) in table.pages.iter().zip(&place.page_rows).enumerate() {
            let own = page.first_row() as usize..(page.first_row() + page.rows()) as usize;
            let own = table.rows.get(own).context("the table refers to rows that it does not have")?;
            for (at, row) in (at..).zip(own) {
                let rule = rule(row).context("the table refers to a rule that it does not have")?;
                self.rows.set(at, Row::new(row.address() as u8, rule).0);
            }
            let from_first = at - place.first_row;
            ensure!(from_first <= Page::MAX_FIRST_ROW, "the table has too many rows");
            let page = Page::new(from_first, own.len() as u8);
            self.pages.set(place.first_page + index as u32, page.0);
        }
        Ok(Installed { first_page: place.first_page.wrapping_sub(table.first_page as u32), first_row: place.first_row })
    }

    /// Says what is mapped in a process.
    pub fn set_space(&mut self, process: Tgid, space: &AddressSpace) -> Result<()> {
        self.spaces.set(process, space)
    }

    /// Forgets a process.
    pub fn remove_space(&mut self, process: Tgid) {
        self.spaces.remove(process);
    }
}

/// Where a table will stand.
struct Place {
    first_page: u32,
    first_row: u32,
    /// Where the rows of each page begin.
    page_rows: Vec<u32>,
}

/// Entries that stand one after another in arrays of the same size.
struct Shards {
    outer: OuterMap,
    shards: Vec<MmapRaw>,
    /// The first entry that is free.
    next: u32,
}

impl Shards {
    fn new(outer: Map) -> Result<Shards> {
        let mut shards = Shards { outer: OuterMap::new(outer)?, shards: Vec::new(), next: 0 };
        shards.grow()?;
        Ok(shards)
    }

    /// Finds room for so many entries, fewer than a shard has, that must not lie in two.
    fn reserve(&mut self, count: u32) -> Result<u32> {
        let rest = SHARD_ENTRIES as u32 - self.next % SHARD_ENTRIES as u32;
        if count > rest {
            self.next += rest;
        }
        self.reserve_many(count as usize)
    }

    /// Finds room for so many entries.
    fn reserve_many(&mut self, count: usize) -> Result<u32> {
        let at = self.next;
        let end = at as usize + count;
        ensure!(end <= MAX_SHARDS * SHARD_ENTRIES, "there is no room for more unwind tables");
        self.next = end as u32;
        Ok(at)
    }

    /// Makes shards for everything that was reserved, and for a table of ordinary size that may come next.
    fn grow(&mut self) -> Result<()> {
        let wanted = (self.next as usize / SHARD_ENTRIES + 2).min(MAX_SHARDS);
        let first = self.shards.len();
        if self.next as usize <= first * SHARD_ENTRIES && first > 0 {
            return Ok(());
        }
        let made = (first..wanted).map(|_| array(SHARD_BYTES, "polletto_tables")).collect::<Result<Vec<_>>>()?;
        let elements: Vec<_> = made.iter().enumerate().map(|(index, (map, _))| ((first + index) as u32, map)).collect();
        self.outer.set(&elements).context("could not give the programs their unwind tables")?;
        self.shards.extend(made.into_iter().map(|(_, memory)| memory));
        Ok(())
    }

    /// `at` was reserved, and there is a shard for it.
    fn set(&self, at: u32, value: u32) {
        let shard = self.shards[at as usize / SHARD_ENTRIES].as_mut_ptr().cast::<u32>();
        // SAFETY: a shard has as many entries; programs read one once a mapping refers to it, and not before.
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
