//! A poll that computes for milliseconds: the worker that runs it polls nothing else meanwhile.

use axum::{Router, routing::get};
use sha2::{Digest, Sha256};

/// What is hashed for one request, in bytes: 5 to 10 ms of work.
const INPUT: usize = 4 << 20;

pub fn endpoint() -> Router {
    Router::new().route("/hash", get(hash))
}

async fn hash() -> String {
    let input = vec![b'p'; INPUT];
    format!("{:x}\n", Sha256::digest(&input))
}
