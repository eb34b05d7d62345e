//! Nothing is wrong here: a poll of microseconds. When it is slow, another endpoint is at fault.

use axum::{Router, routing::get};

pub fn endpoint() -> Router {
    Router::new().route("/ok", get(ok))
}

async fn ok() -> &'static str {
    "ok\n"
}
