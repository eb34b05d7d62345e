//! A poll that sleeps with `std::thread::sleep` where `tokio::time::sleep` was meant.

use std::{thread, time::Duration};

use axum::{Router, routing::get};

const NAP: Duration = Duration::from_millis(20);

pub fn endpoint() -> Router {
    Router::new().route("/sleep", get(sleep))
}

async fn sleep() -> &'static str {
    thread::sleep(NAP);
    "slept\n"
}
