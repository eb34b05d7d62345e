//! Polls that hold a `std::sync::Mutex` over blocking work: those that want it meanwhile block their workers too, all that
//! there are.

use std::{
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::Duration,
};

use axum::{Router, extract::State, http::StatusCode, routing::get};
use tokio::task::JoinSet;

use super::Manner;

/// How long the lock is held, as by a client of a database that is not asynchronous.
const WORK: Duration = Duration::from_millis(10);
/// Tasks of one request that want the lock: as many as there are workers.
const PARTS: usize = 4;

pub fn endpoint(manner: Manner) -> Router {
    match manner {
        Manner::Faulty => Router::new().route("/mutex", get(count)).with_state(Arc::default()),
        Manner::Healthy => Router::new().route("/mutex", get(count_in_turn)).with_state(Arc::default()),
    }
}

async fn count(State(parts): State<Arc<Mutex<u64>>>) -> Result<String, StatusCode> {
    all((0..PARTS).map(|_| part(Arc::clone(&parts))).collect()).await
}

async fn part(parts: Arc<Mutex<u64>>) -> u64 {
    let mut parts = parts.lock().unwrap_or_else(PoisonError::into_inner);
    thread::sleep(WORK);
    *parts += 1;
    *parts
}

async fn count_in_turn(State(parts): State<Arc<tokio::sync::Mutex<u64>>>) -> Result<String, StatusCode> {
    all((0..PARTS).map(|_| part_in_turn(Arc::clone(&parts))).collect()).await
}

async fn part_in_turn(parts: Arc<tokio::sync::Mutex<u64>>) -> u64 {
    let mut parts = parts.lock().await;
    tokio::time::sleep(WORK).await;
    *parts += 1;
    *parts
}

/// How many parts there have been, once all of these are done.
async fn all(mut parts: JoinSet<u64>) -> Result<String, StatusCode> {
    let mut count = 0;
    while let Some(part) = parts.join_next().await {
        count = count.max(part.map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?);
    }
    Ok(format!("{count}\n"))
}
