//! A poll that computes in a library: its own frames are few, and the time is spent deep below them.

use std::io::{self, Write};

use axum::{Router, http::StatusCode, routing::get};
use flate2::{Compression, write::GzEncoder};

use super::{Manner, answer, aside};

/// What is compressed for one request, in lines: about 10 ms of work.
const LINES: usize = 20_000;

pub fn endpoint(manner: Manner) -> Router {
    let handler = match manner {
        Manner::Faulty => get(compress),
        Manner::Healthy => get(compress_aside),
    };
    Router::new().route("/compress", handler)
}

async fn compress() -> Result<String, StatusCode> {
    answer(gzip())
}

async fn compress_aside() -> Result<String, StatusCode> {
    answer(aside(gzip).await?)
}

/// How many bytes are left of the lines.
fn gzip() -> io::Result<usize> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(lines().as_bytes())?;
    Ok(encoder.finish()?.len())
}

fn lines() -> String {
    (0..LINES).map(|line| format!("{line} {}\n", line.wrapping_mul(0x9e37_79b9) % 65_521)).collect()
}
