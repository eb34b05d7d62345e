//! A poll that computes in a library: its own frames are few, and the time is spent deep below them.

use std::io::Write;

use axum::{Router, http::StatusCode, routing::get};
use flate2::{Compression, write::GzEncoder};

/// What is compressed for one request, in lines: about 10 ms of work.
const LINES: usize = 20_000;

pub fn endpoint() -> Router {
    Router::new().route("/compress", get(compress))
}

async fn compress() -> Result<Vec<u8>, StatusCode> {
    gzip(&lines()).map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)
}

fn lines() -> String {
    (0..LINES).map(|line| format!("{line} {}\n", line.wrapping_mul(0x9e37_79b9) % 65_521)).collect()
}

fn gzip(text: &str) -> std::io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(text.as_bytes())?;
    encoder.finish()
}
