//! The thread that keeps the kernel's unwind tables and address spaces up to date.

use std::{
    collections::BTreeSet,
    ops::Range,
    sync::{
        Arc,
        mpsc::{Receiver, SyncSender},
    },
};

use anyhow::Result;
use polletto_common::{
    id::Tgid,
    unwind::{AddressSpace, MAX_MAPPINGS, Mapping},
};
use rustc_hash::{FxHashMap, FxHashSet};

use super::{
    changes::{Change, Code, Follower},
    modules::{ModuleFile, Unreadable},
    precedence::go_first,
};
use crate::{
    kernel::{Installed, UnwindMaps},
    pieces::Pieces,
    unwind::{self, Cache},
};

/// Starts the thread. At its end it says which files have no table, and why.
pub fn follow(maps: UnwindMaps, cache: Cache) -> Result<Follower<BTreeSet<Unreadable>>> {
    Follower::start("polletto-unwind", move |coming| Worker::new(maps, cache).run(&coming))
}

/// A process's memory.
#[derive(Clone, Default)]
struct Space {
    exec_id: Option<u64>,
    code: Pieces<Code>,
    /// What the kernel was told last, and of which program.
    told: Option<(u64, Vec<Mapping>)>,
}

/// A table that the kernel has, and the file's own addresses that it covers.
#[derive(Clone)]
struct Known {
    installed: Installed,
    addresses: Range<u64>,
}

/// The thread's own.
struct Worker {
    maps: UnwindMaps,
    cache: Cache,
    spaces: FxHashMap<Tgid, Space>,
    /// By [`ModuleFile::index`]; none where there is no table.
    tables: FxHashMap<usize, Option<Known>>,
    last_version: u32,
    refused: BTreeSet<Unreadable>,
}

impl Worker {
    fn new(maps: UnwindMaps, cache: Cache) -> Worker {
        Worker {
            maps,
            cache,
            spaces: FxHashMap::default(),
            tables: FxHashMap::default(),
            last_version: 0,
            refused: BTreeSet::new(),
        }
    }

    fn run(mut self, coming: &Receiver<Change>) -> BTreeSet<Unreadable> {
        go_first();
        while let Ok(first) = coming.recv() {
            let (mut files, mut changed, mut waiting) = (Vec::new(), FxHashSet::default(), Vec::new());
            for change in std::iter::once(first).chain(coming.try_iter()) {
                self.apply(change, &mut files, &mut changed, &mut waiting);
            }
            // Code in another's place must not be unwound by the other's table while its own is made.
            changed.iter().for_each(|&process| self.tell_space(process));
            // What takes long must not hold up what does not.
            let (large, small) = files.into_iter().partition(|file: &Arc<ModuleFile>| file.takes_long());
            for files in [small, large] {
                if self.make_tables(files) > 0 {
                    changed.iter().for_each(|&process| self.tell_space(process));
                }
            }
            for done in waiting {
                // Who waits may have given up.
                done.send(()).ok();
            }
        }
        self.refused
    }

    fn apply(
        &mut self,
        change: Change,
        files: &mut Vec<Arc<ModuleFile>>,
        changed: &mut FxHashSet<Tgid>,
        waiting: &mut Vec<SyncSender<()>>,
    ) {
        match change {
            Change::Prepare(file) => files.push(file),
            Change::Mapped { process, code, .. } => {
                files.extend(code.file.clone());
                if !code.addresses.is_empty() {
                    self.spaces.entry(process).or_default().code.insert(code);
                    changed.insert(process);
                }
            }
            Change::Scanned { process, exec_id, code, .. } => {
                files.extend(code.iter().filter_map(|code| code.file.clone()));
                let space = self.spaces.entry(process).or_default();
                space.exec_id = Some(exec_id);
                space.code = Pieces::default();
                for code in code.into_iter().filter(|code| !code.addresses.is_empty()) {
                    space.code.insert(code);
                }
                changed.insert(process);
            }
            Change::Copied { from, to, .. } => {
                let copy = self.spaces.get(&from).cloned().unwrap_or_default();
                self.spaces.insert(to, Space { told: None, ..copy });
                changed.insert(to);
            }
            Change::Cleared { process } => {
                self.spaces.insert(process, Space::default());
            }
            Change::Runs { process, exec_id } => {
                self.spaces.entry(process).or_default().exec_id = Some(exec_id);
                changed.insert(process);
            }
            Change::Ended { process } => {
                self.spaces.remove(&process);
                changed.remove(&process);
                self.maps.remove_space(process);
            }
            Change::Unprobe => {}
            Change::Done(done) => waiting.push(done),
        }
    }

    /// Makes the tables that are missing, all at once. Returns how many.
    fn make_tables(&mut self, mut files: Vec<Arc<ModuleFile>>) -> usize {
        files.retain(|file| !self.tables.contains_key(&file.index));
        files.sort_by_key(|file| file.index);
        files.dedup_by_key(|file| file.index);
        let (with_image, without): (Vec<_>, Vec<_>) = files.into_iter().partition(|file| file.image.is_some());
        self.tables.extend(without.iter().map(|file| (file.index, None)));
        let jobs: Vec<_> = with_image.iter().filter_map(|file| Some((file.image.as_ref()?, &file.source))).collect();
        let tables = unwind::build_all(&self.cache, &jobs);
        let made = tables.len();
        let mut good = Vec::new();
        for (file, table) in with_image.into_iter().zip(tables) {
            match table {
                Ok(table) if !table.rows.is_empty() => good.push((file, table)),
                Ok(_) => self.refuse(&file, "it has no unwind information (.eh_frame)".to_owned()),
                Err(error) => self.refuse(&file, error.to_string()),
            }
        }
        let installed = self.maps.install(&good.iter().map(|(_, table)| table).collect::<Vec<_>>());
        for ((file, table), installed) in good.into_iter().zip(installed) {
            match installed {
                Ok(installed) => {
                    self.tables.insert(file.index, Some(Known { installed, addresses: table.addresses() }));
                }
                Err(error) => self.refuse(&file, format!("{error:#}")),
            }
        }
        made
    }

    /// A file has no table.
    fn refuse(&mut self, file: &ModuleFile, reason: String) {
        self.refused.insert(Unreadable { path: file.module.path.clone(), reason });
        self.tables.insert(file.index, None);
    }

    /// Tells the kernel what a process has mapped, once it is known which program runs, and unless it knows already: a
    /// process whose mappings change has other stacks.
    fn tell_space(&mut self, process: Tgid) {
        let Worker { spaces, tables, .. } = self;
        let Some(Space { exec_id: Some(exec_id), code, told }) = spaces.get_mut(&process) else { return };
        let known = code.iter().filter_map(|code| {
            let known = tables.get(&code.file.as_ref()?.index)?.as_ref()?;
            mapping(code, known)
        });
        let mut mappings: Vec<Mapping> = known.collect();
        if mappings.len() > MAX_MAPPINGS {
            let reason = format!("its code beyond {MAX_MAPPINGS} mappings is unwound by frame pointers");
            self.refused.insert(Unreadable { path: format!("process {process}"), reason });
            // Libraries that everything goes through lie at the highest addresses.
            mappings.drain(..mappings.len() - MAX_MAPPINGS);
        }
        if told.as_ref().is_some_and(|(program, before)| program == exec_id && *before == mappings) {
            return;
        }
        self.last_version += 1;
        let none = Mapping { start: u64::MAX, ..Mapping::default() };
        let mut space = AddressSpace {
            exec_id: *exec_id,
            version: self.last_version,
            count: mappings.len() as u32,
            mappings: [none; MAX_MAPPINGS],
        };
        space.mappings[..mappings.len()].copy_from_slice(&mappings);
        *told = Some((*exec_id, mappings));
        if let Err(error) = self.maps.set_space(process, &space) {
            *told = None;
            self.refused.insert(Unreadable { path: format!("process {process}"), reason: format!("{error:#}") });
        }
    }
}

/// The part of a mapping that the file's table covers.
fn mapping(code: &Code, known: &Known) -> Option<Mapping> {
    let Known { installed: Installed { first_page, first_row }, addresses } = known;
    let Range { start, end } = code.addresses;
    let (first, last) = (start.wrapping_sub(code.bias), (end - 1).wrapping_sub(code.bias));
    if first > last || last < addresses.start || first >= addresses.end {
        return None;
    }
    let start = first.max(addresses.start).wrapping_add(code.bias);
    let end = last.min(addresses.end - 1).wrapping_add(code.bias).wrapping_add(1);
    Some(Mapping { start, end, bias: code.bias, first_page: *first_page, first_row: *first_row })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mapping_is_cut_to_what_its_table_covers() {
        let known = Known { installed: Installed { first_page: 7, first_row: 9 }, addresses: 0x1000..0x3000 };
        let cut = |start, end| {
            let code = Code { addresses: start..end, bias: 0x10000, file: None };
            mapping(&code, &known).map(|cut| (cut.start, cut.end))
        };
        assert_eq!(cut(0x10000, 0x14000), Some((0x11000, 0x13000)));
        assert_eq!(cut(0x11800, 0x12000), Some((0x11800, 0x12000)));
        assert_eq!(cut(0x13000, 0x14000), None);
        assert_eq!(cut(0x10000, 0x11000), None);
    }
}
