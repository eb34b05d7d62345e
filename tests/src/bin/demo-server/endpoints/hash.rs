//! A poll that computes for milliseconds: the worker that runs it polls nothing else meanwhile.

use axum::{Router, http::StatusCode, routing::get};
use sha2::{Digest, Sha256};

use super::{Manner, aside};

/// What is hashed for one request, in bytes: 8 to 12 ms of work for a CPU with instructions for that.
const INPUT: usize = 12 << 20;

pub fn endpoint(manner: Manner) -> Router {
    let handler = match manner {
        Manner::Faulty => get(hash),
        Manner::Healthy => get(hash_aside),
    };
    Router::new().route("/hash", handler)
}

async fn hash() -> String {
    digest()
}

async fn hash_aside() -> Result<String, StatusCode> {
    aside(digest).await
}

fn digest() -> String {
    let input = vec![b'p'; INPUT];
    format!("{:x}\n", Sha256::digest(&input))
}
