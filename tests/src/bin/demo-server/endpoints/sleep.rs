//! A poll that sleeps with `std::thread::sleep` where `tokio::time::sleep` was meant.

use std::{thread, time::Duration};

use axum::{Router, routing::get};

use super::Manner;

const NAP: Duration = Duration::from_millis(20);

pub fn endpoint(manner: Manner) -> Router {
    let handler = match manner {
        Manner::Faulty => get(sleep),
        Manner::Healthy => get(sleep_as_meant),
    };
    Router::new().route("/sleep", handler)
}

async fn sleep() -> &'static str {
    thread::sleep(NAP);
    "slept\n"
}

async fn sleep_as_meant() -> &'static str {
    tokio::time::sleep(NAP).await;
    "slept\n"
}
