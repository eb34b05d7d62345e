//! Futures by what drops their tasks: the one symbol with their type, where compilers mangle names the old way.
//!
//! Functions that drop are often made one, and the symbol that is left may be another future's. So a symbol counts only for
//! the one vtable that leads to it; where several do, there must be a symbol for each, or they are told apart by where their
//! futures were written.

use std::collections::BTreeSet;

use rustc_hash::{FxHashMap, FxHashSet};

use super::{
    evidence::functions,
    symbols::{Glue, Symbols},
};
use crate::{families::Calls, tokio::Vtable};

/// How deep functions that call each other are followed from those of the vtable.
const LEVELS: usize = 4;

/// Those of [`functions`] that drop a task: `dealloc`, `drop_join_handle_slow` and `shutdown`.
const DROPPING: [usize; 3] = [1, 3, 5];

/// Where a future's blocks were written.
type Blocks = [(String, u32)];

/// What symbols of what drops a task leave of its future.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dropped<'s> {
    /// Those that it may be, sorted. None if that can't be told.
    pub futures: Vec<&'s str>,
    /// Then, those that it may be among others without a symbol of their own.
    among: Vec<&'s str>,
}

/// The futures whose tasks each vtable may drop.
pub fn futures<'s>(vtables: &[Vtable], symbols: &'s Symbols<'_>, calls: &mut Calls<'_, '_>) -> Vec<Dropped<'s>> {
    let mut told = dropped_by(vtables, &symbols.tasks_dropped, calls);
    if told.iter().any(|told| told.futures.is_empty()) {
        let by_futures = dropped_by(vtables, &symbols.futures_dropped, calls);
        for (told, by_futures) in told.iter_mut().zip(by_futures).filter(|(told, _)| told.futures.is_empty()) {
            told.futures = by_futures.futures;
            told.among.extend(by_futures.among);
        }
    }
    told
}

/// Tells more futures, by those that are told for another scheduler: one of a vtable's candidates that is known to be written
/// where the vtable's future is, and where none of the others is.
pub fn settle<'s>(vtables: &[Vtable], blocks: &[&Blocks], dropped: &mut [Dropped<'s>]) {
    let mut written_at: FxHashMap<&str, FxHashSet<&Blocks>> = FxHashMap::default();
    let mut written_there: FxHashMap<&Blocks, BTreeSet<&'s str>> = FxHashMap::default();
    for (dropped, &blocks) in dropped.iter().zip(blocks) {
        if let [future] = dropped.futures[..] {
            written_at.entry(future).or_default().insert(blocks);
            written_there.entry(blocks).or_default().insert(future);
        }
    }
    let settled = |dropped: &Dropped<'s>, blocks: &Blocks| {
        let mut there = written_there.get(blocks).filter(|_| !blocks.is_empty())?.iter();
        let (Some(&future), None) = (there.next(), there.next()) else { return None };
        let is_only_there = written_at.get(future).is_some_and(|places| places.len() == 1);
        (dropped.futures.is_empty() && dropped.among.contains(&future) && is_only_there).then_some(future)
    };
    let settled: Vec<Option<&str>> =
        dropped.iter().zip(blocks).map(|(dropped, blocks)| settled(dropped, blocks)).collect();
    // Vtables of the same scheduler are of different futures.
    let mut claims: FxHashMap<(u64, &str), usize> = FxHashMap::default();
    let known =
        dropped.iter().zip(&settled).map(|(dropped, settled)| settled.as_slice().iter().chain(&dropped.futures));
    for (vtable, futures) in vtables.iter().zip(known) {
        for future in futures {
            *claims.entry((vtable.schedule, future)).or_default() += 1;
        }
    }
    for ((vtable, dropped), settled) in vtables.iter().zip(dropped).zip(settled) {
        dropped.futures.extend(settled.filter(|future| claims.get(&(vtable.schedule, future)) == Some(&1)));
    }
}

/// As [`futures`], by one kind of functions.
fn dropped_by<'s>(vtables: &[Vtable], dropping: &'s Glue, calls: &mut Calls<'_, '_>) -> Vec<Dropped<'s>> {
    let reached: Vec<Vec<u64>> = vtables.iter().map(|vtable| glue_of(vtable, dropping, calls)).collect();
    // Vtables of the same scheduler are of different futures.
    let mut users: FxHashMap<(u64, u64), usize> = FxHashMap::default();
    for (vtable, glue) in vtables.iter().zip(&reached) {
        for &address in glue {
            *users.entry((vtable.schedule, address)).or_default() += 1;
        }
    }
    let choose = |(vtable, glue): (&Vtable, &Vec<u64>)| {
        let mut left: Option<Vec<&str>> = None;
        let mut is_shared = false;
        for &address in glue {
            let futures = dropping.dropped_at(address);
            let users = users.get(&(vtable.schedule, address)).copied().unwrap_or(0);
            is_shared |= futures.len() < users;
            // One is of the task, another of the future in it.
            match &mut left {
                None => left = Some(futures),
                Some(left) => left.retain(|future| futures.contains(future)),
            }
        }
        let left = left.unwrap_or_default();
        match is_shared {
            false => Dropped { futures: left, among: Vec::new() },
            true => Dropped { futures: Vec::new(), among: left },
        }
    };
    vtables.iter().zip(&reached).map(choose).collect()
}

/// Those of the functions to which the functions of a vtable lead first.
fn glue_of(vtable: &Vtable, dropping: &Glue, calls: &mut Calls<'_, '_>) -> Vec<u64> {
    let functions = functions(vtable);
    let mut glue = Vec::new();
    for function in DROPPING.map(|at| functions[at]) {
        let levels = calls.levels(function, LEVELS);
        let first = levels.iter().find_map(|level| {
            let some: Vec<u64> = level.iter().copied().filter(|at| dropping.drops_at(*at)).collect();
            (!some.is_empty()).then_some(some)
        });
        glue.extend(first.unwrap_or_default());
    }
    glue.sort_unstable();
    glue.dedup();
    glue
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tokio::example;

    /// Vtables as (scheduler, line of the only block or 0, futures told, futures among others), settled.
    fn settled(all: &[(u64, u32, &[&'static str], &[&'static str])]) -> Vec<Vec<&'static str>> {
        let vtables: Vec<Vtable> = all
            .iter()
            .map(|task| Vtable { schedule: task.0, ..example::expected(0x1000, 0, 0x80, 0x20, 0x28) })
            .collect();
        let blocks: Vec<Vec<(String, u32)>> =
            all.iter().map(|task| if task.1 > 0 { vec![("src/main.rs".to_owned(), task.1)] } else { vec![] }).collect();
        let blocks: Vec<&Blocks> = blocks.iter().map(Vec::as_slice).collect();
        let told = all.iter().map(|task| Dropped { futures: task.2.to_vec(), among: task.3.to_vec() });
        let mut dropped: Vec<Dropped<'_>> = told.collect();
        settle(&vtables, &blocks, &mut dropped);
        dropped.into_iter().map(|dropped| dropped.futures).collect()
    }

    #[test]
    fn one_of_several_is_told_by_where_another_scheduler_has_it() {
        let told = settled(&[(1, 42, &["A"], &[]), (2, 42, &[], &["A"]), (2, 50, &[], &["A"])]);
        assert_eq!(told, [vec!["A"], vec!["A"], vec![]]);
    }

    #[test]
    fn a_future_that_nothing_names_where_it_drops_is_not_told_by_its_place() {
        assert_eq!(settled(&[(1, 42, &["A"], &[]), (2, 42, &[], &["B"])]), [vec!["A"], vec![]]);
        assert_eq!(settled(&[(1, 0, &["A"], &[]), (2, 0, &[], &["A"])]), [vec!["A"], vec![]]);
    }

    #[test]
    fn a_place_or_a_future_that_is_not_the_only_one_tells_nothing() {
        // A wrapper of the same block.
        let told = settled(&[(1, 42, &["A"], &[]), (1, 42, &["Timed<A>"], &[]), (2, 42, &[], &["A"])]);
        assert_eq!(told[2], [""; 0]);
        let told = settled(&[(1, 42, &["A"], &[]), (2, 42, &[], &["A"]), (2, 42, &[], &["A"])]);
        assert_eq!(told[1..], [vec![], vec![""; 0]]);
        // Two of one name.
        let told = settled(&[(1, 42, &["A"], &[]), (1, 50, &["A"], &[]), (2, 42, &[], &["A"])]);
        assert_eq!(told[2], [""; 0]);
        // It has that future already.
        let told = settled(&[(1, 42, &["A"], &[]), (2, 42, &["A"], &[]), (2, 42, &[], &["A"])]);
        assert_eq!(told[2], [""; 0]);
    }
}
