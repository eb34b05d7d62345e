//! A poll that reads mapped memory: what looks like an access to a slice is a page fault, and waits for the disk.

use std::{fs::File, io, path::Path, ptr, slice, sync::Arc};

use axum::{Router, extract::State, http::StatusCode, routing::get};
use rustix::{
    fs::{Advice, fadvise},
    mm::{MapFlags, ProtFlags, mmap, munmap},
};

use super::{Manner, answer, aside, file_of};

/// The file's size in bytes.
const SIZE: usize = 16 << 20;
/// From one of the places that are read to the next, bytes: one byte of each is read, as of an index.
const STEP: usize = 128 << 10;

pub fn endpoint(manner: Manner, directory: &Path) -> io::Result<Router> {
    let handler = match manner {
        Manner::Faulty => get(sum),
        Manner::Healthy => get(sum_aside),
    };
    Ok(Router::new().route("/pages", handler).with_state(file_of(SIZE, directory)?))
}

async fn sum(State(file): State<Arc<File>>) -> Result<String, StatusCode> {
    answer(sum_of_pages(&file))
}

async fn sum_aside(State(file): State<Arc<File>>) -> Result<String, StatusCode> {
    answer(aside(move || sum_of_pages(&file)).await?)
}

/// Reads here and there in a mapped file that was in nobody's cache.
fn sum_of_pages(file: &File) -> io::Result<u64> {
    fadvise(file, 0, None, Advice::DontNeed)?;
    let mapped = Mapped::new(file, SIZE)?;
    Ok(mapped.bytes().iter().step_by(STEP).map(|&byte| u64::from(byte)).sum())
}

/// A file in this process's memory.
struct Mapped {
    start: *mut std::ffi::c_void,
    size: usize,
}

impl Mapped {
    fn new(file: &File, size: usize) -> io::Result<Mapped> {
        // SAFETY: the kernel chooses where, so that nothing else is replaced.
        let start = unsafe { mmap(ptr::null_mut(), size, ProtFlags::READ, MapFlags::PRIVATE, file, 0) }?;
        Ok(Mapped { start, size })
    }

    fn bytes(&self) -> &[u8] {
        // SAFETY: `size` bytes are mapped from `start` on as long as this lives. The file has no name and is written to by
        // nobody once it is made, nor made shorter.
        unsafe { slice::from_raw_parts(self.start.cast(), self.size) }
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: nothing that was borrowed of it outlives this. It cannot fail for what was mapped.
        unsafe { munmap(self.start, self.size) }.ok();
    }
}
