//! A poll that reads a file: the worker sleeps in the kernel until the disk answers.

use std::{fs::File, io, os::unix::fs::FileExt, path::Path, sync::Arc};

use axum::{Router, extract::State, http::StatusCode, routing::get};
use rustix::fs::{Advice, fadvise};

use super::{Manner, answer, aside, file_of};

/// The file's size in bytes.
const SIZE: usize = 16 << 20;
/// What is read at once, in bytes.
const PIECE: usize = 1 << 20;

pub fn endpoint(manner: Manner, directory: &Path) -> io::Result<Router> {
    let handler = match manner {
        Manner::Faulty => get(read),
        Manner::Healthy => get(read_aside),
    };
    Ok(Router::new().route("/file", handler).with_state(file_of(SIZE, directory)?))
}

async fn read(State(file): State<Arc<File>>) -> Result<String, StatusCode> {
    answer(read_from_disk(&file))
}

async fn read_aside(State(file): State<Arc<File>>) -> Result<String, StatusCode> {
    answer(aside(move || read_from_disk(&file)).await?)
}

/// Reads the file, which was in nobody's cache. Where files are kept in memory it is never out of it, and the poll merely
/// copies.
fn read_from_disk(file: &File) -> io::Result<usize> {
    fadvise(file, 0, None, Advice::DontNeed)?;
    let mut piece = vec![0; PIECE];
    for at in (0..SIZE).step_by(PIECE) {
        file.read_exact_at(&mut piece, at as u64)?;
    }
    Ok(SIZE)
}
