//! A poll that reads a file: the worker sleeps in the kernel until the disk answers.

use std::{
    fs::File,
    io::{self, Write},
    os::unix::fs::FileExt,
    sync::Arc,
};

use axum::{Router, extract::State, http::StatusCode, routing::get};
use rustix::fs::{Advice, fadvise};

/// The file's size in bytes.
const SIZE: usize = 8 << 20;

pub fn endpoint() -> io::Result<Router> {
    let mut file = tempfile::tempfile()?;
    file.write_all(&vec![b'p'; SIZE])?;
    // Only what is on the disk can be dropped from the page cache.
    file.sync_all()?;
    Ok(Router::new().route("/file", get(read)).with_state(Arc::new(file)))
}

async fn read(State(file): State<Arc<File>>) -> Result<String, StatusCode> {
    match read_from_disk(&file) {
        Ok(bytes) => Ok(format!("{bytes}\n")),
        Err(_) => Err(StatusCode::INTERNAL_SERVER_ERROR),
    }
}

/// Reads the file, which was in nobody's cache. Where temporary files are kept in memory it is never out of it, and the
/// poll merely copies.
fn read_from_disk(file: &File) -> io::Result<usize> {
    fadvise(file, 0, None, Advice::DontNeed)?;
    let mut content = vec![0; SIZE];
    file.read_exact_at(&mut content, 0)?;
    Ok(content.len())
}
