//! A poll that holds a `std::sync::Mutex` over blocking work: others that want it block their workers too.

use std::{
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::Duration,
};

use axum::{Router, extract::State, routing::get};

/// How long the lock is held, as by a client of a database that is not asynchronous.
const WORK: Duration = Duration::from_millis(10);

pub fn endpoint() -> Router {
    Router::new().route("/mutex", get(count)).with_state(Arc::new(Mutex::new(0)))
}

async fn count(State(requests): State<Arc<Mutex<u64>>>) -> String {
    let mut requests = requests.lock().unwrap_or_else(PoisonError::into_inner);
    thread::sleep(WORK);
    *requests += 1;
    format!("{requests}\n")
}
