//! The endpoints. Each is a module, named as its path is, that says in its first line what is wrong with it. Each can do
//! the same work as it should be done.

mod compress;
mod dns;
mod file;
mod hang;
mod hash;
mod mutex;
mod ok;
mod pages;
mod sleep;
mod starvation;

use std::{
    fs::File,
    io::{self, Write},
    path::Path,
    sync::Arc,
};

use axum::{Router, http::StatusCode};
use tokio::task::spawn_blocking;

/// How endpoints do their work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// As it should not be done: each in its own way keeps workers from other tasks.
    Faulty,
    /// So that no worker is kept: what takes long is awaited, or done by a thread that is there to block.
    Healthy,
}

/// Every endpoint, with what it needs already made. Files lie in `directory`.
pub fn all(manner: Manner, directory: &Path) -> io::Result<Router> {
    let endpoints = [
        ok::endpoint(),
        hash::endpoint(manner),
        compress::endpoint(manner),
        file::endpoint(manner, directory)?,
        dns::endpoint(manner)?,
        sleep::endpoint(manner),
        mutex::endpoint(manner),
        pages::endpoint(manner, directory)?,
        starvation::endpoint(manner),
        hang::endpoint(manner),
    ];
    Ok(endpoints.into_iter().fold(Router::new(), Router::merge))
}

/// Has work done by a thread that is there to block, and that gives way to workers where CPUs are few.
async fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, StatusCode> {
    let done = spawn_blocking(|| give_way().map(|()| work())).await;
    done.ok().and_then(Result::ok).ok_or(StatusCode::INTERNAL_SERVER_ERROR)
}

/// Lets the calling thread run only where nobody else wants to.
fn give_way() -> io::Result<()> {
    let priority = libc::sched_param { sched_priority: 0 };
    // SAFETY: the pointer is to a live value, which the kernel only reads.
    match unsafe { libc::sched_setscheduler(0, libc::SCHED_IDLE, &raw const priority) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// What a client is told of work that may fail.
fn answer(done: io::Result<impl ToString>) -> Result<String, StatusCode> {
    match done {
        Ok(done) => Ok(format!("{}\n", done.to_string())),
        Err(_) => Err(StatusCode::INTERNAL_SERVER_ERROR),
    }
}

/// A file without a name, of so many bytes, all of which are on the disk: only such can be dropped from the page cache.
fn file_of(size: usize, directory: &Path) -> io::Result<Arc<File>> {
    let mut file = tempfile::tempfile_in(directory)?;
    file.write_all(&vec![b'p'; size])?;
    file.sync_all()?;
    Ok(Arc::new(file))
}
