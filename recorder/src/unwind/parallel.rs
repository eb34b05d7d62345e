//! The tables of many files at once.

use std::{
    num::NonZero,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

use super::{Cache, Error, Table};
use crate::target::image::{Image, Source};

/// Threads at most. Each may hold a file's unwind information and all its rows.
const MAX_THREADS: usize = 8;

/// Makes the tables of all files, on as many CPUs as there are. Their order is that of the files.
pub fn build_all<S: Source + Sync>(cache: &Cache, files: &[(&Image, &S)]) -> Vec<Result<Table, Error>> {
    let taken = AtomicUsize::new(0);
    let work = || {
        let mut made = Vec::new();
        loop {
            let index = taken.fetch_add(1, Ordering::Relaxed);
            let Some(&(image, source)) = files.get(index) else { return made };
            made.push((index, cache.table(image, source)));
        }
    };
    let threads = thread::available_parallelism().map_or(1, NonZero::get).min(MAX_THREADS).min(files.len());
    let mut made = thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
        let mut made = work();
        for other in others {
            match other.join() {
                Ok(more) => made.extend(more),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        made
    });
    made.sort_unstable_by_key(|&(index, _)| index);
    made.into_iter().map(|(_, table)| table).collect()
}
