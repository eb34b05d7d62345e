//! The endpoints. Each is a module, named as its path is, that says in its first line what is wrong with it.

mod compress;
mod file;
mod hash;
mod mutex;
mod ok;
mod sleep;

use std::io;

use axum::Router;

/// Every endpoint, with what it needs already made.
pub fn all() -> io::Result<Router> {
    let endpoints = [
        ok::endpoint(),
        hash::endpoint(),
        compress::endpoint(),
        file::endpoint()?,
        sleep::endpoint(),
        mutex::endpoint(),
    ];
    Ok(endpoints.into_iter().fold(Router::new(), Router::merge))
}
