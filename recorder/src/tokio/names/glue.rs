//! Futures by what drops their tasks: the one symbol with their type, where compilers mangle names the old way.
//!
//! Functions that drop are often made one, and the symbol that is left may be another future's. So a symbol counts only for
//! the one vtable that leads to it; where several do, there must be a symbol for each.

use rustc_hash::FxHashMap;

use super::{
    evidence::functions,
    symbols::{Glue, Symbols},
};
use crate::{families::Calls, tokio::Vtable};

/// How deep functions that call each other are followed from those of the vtable.
const LEVELS: usize = 4;

/// Those of [`functions`] that drop a task: `dealloc`, `drop_join_handle_slow` and `shutdown`.
const DROPPING: [usize; 3] = [1, 3, 5];

/// The futures whose tasks each vtable may drop, sorted. None of those of which that can't be told.
pub fn futures<'s>(vtables: &[Vtable], symbols: &'s Symbols<'_>, calls: &mut Calls<'_, '_>) -> Vec<Vec<&'s str>> {
    let mut told = dropped_by(vtables, &symbols.tasks_dropped, calls);
    if told.iter().any(Vec::is_empty) {
        let by_futures = dropped_by(vtables, &symbols.futures_dropped, calls);
        for (told, by_futures) in told.iter_mut().zip(by_futures).filter(|(told, _)| told.is_empty()) {
            *told = by_futures;
        }
    }
    told
}

/// As [`futures`], by one kind of functions.
fn dropped_by<'s>(vtables: &[Vtable], dropping: &'s Glue, calls: &mut Calls<'_, '_>) -> Vec<Vec<&'s str>> {
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
        for &address in glue {
            let futures = dropping.dropped_at(address);
            let users = users.get(&(vtable.schedule, address)).copied().unwrap_or(0);
            if futures.len() < users {
                return Vec::new();
            }
            // One is of the task, another of the future in it.
            match &mut left {
                None => left = Some(futures),
                Some(left) => left.retain(|future| futures.contains(future)),
            }
        }
        left.unwrap_or_default()
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
