//! The tables of many files at once.

use std::{
    num::NonZero,
    sync::{Mutex, PoisonError},
    thread,
};

use super::{Cache, Error, Table};
use crate::target::image::{Image, Source};

/// Threads at most. Each may hold a file's unwind information and all its rows.
const MAX_THREADS: usize = 8;

/// Makes the tables of all files, on as many CPUs as there are. Their order is that of the files.
///
/// Files are taken one by one, so that the iterator can open them only then.
pub fn build_all<S: Source>(
    cache: &Cache,
    files: impl IntoIterator<Item = (Image, S), IntoIter: Send>,
) -> Vec<Result<Table, Error>> {
    let files = Mutex::new(files.into_iter().enumerate());
    let next = || files.lock().unwrap_or_else(PoisonError::into_inner).next();
    let work = || {
        let mut made = Vec::new();
        while let Some((index, (image, source))) = next() {
            made.push((index, cache.table(&image, &source)));
        }
        made
    };
    let threads = thread::available_parallelism().map_or(1, NonZero::get).min(MAX_THREADS);
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
