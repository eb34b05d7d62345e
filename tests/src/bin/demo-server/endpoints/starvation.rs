//! More tasks at once than workers can poll soon: each computes for a moment only, and whoever is woken waits for all that
//! came before.

use axum::{Router, http::StatusCode, routing::get};
use sha2::{Digest, Sha256};
use tokio::task::JoinSet;

use super::{Manner, aside};

/// Tasks of one request.
const PIECES: usize = 64;
/// What each of them hashes, in bytes: less than 1 ms of work.
const PIECE: usize = 1 << 20;

pub fn endpoint(manner: Manner) -> Router {
    let handler = match manner {
        Manner::Faulty => get(hash_at_once),
        Manner::Healthy => get(hash_in_turn),
    };
    Router::new().route("/starvation", handler)
}

async fn hash_at_once() -> Result<String, StatusCode> {
    let mut pieces: JoinSet<u8> = (0..PIECES).map(piece).collect();
    let mut sum = 0;
    while let Some(hashed) = pieces.join_next().await {
        sum ^= hashed.map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?;
    }
    Ok(format!("{sum}\n"))
}

async fn piece(number: usize) -> u8 {
    digest(number)
}

async fn hash_in_turn() -> Result<String, StatusCode> {
    let sum = aside(|| (0..PIECES).map(digest).fold(0, |sum, hashed| sum ^ hashed)).await?;
    Ok(format!("{sum}\n"))
}

/// The first byte of the piece's hash.
fn digest(number: usize) -> u8 {
    Sha256::digest(vec![number as u8; PIECE])[0]
}
