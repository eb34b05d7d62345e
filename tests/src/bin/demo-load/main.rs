//! Requests for the demo server, at a fixed rate and for a fixed time.
//!
//! It is bounded in every way: by time, by rate, by how many requests are under way at once, and to the loopback
//! interface.

mod mix;
mod report;

use std::{
    net::SocketAddr,
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};

use axum::body::Body;
use clap::Parser;
use http_body_util::BodyExt;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use tokio::{
    sync::Semaphore,
    task::JoinSet,
    time::{MissedTickBehavior, interval, timeout},
};

use self::{
    mix::Mix,
    report::{Outcome, Report},
};

/// How many requests may be under way at once.
const AT_ONCE: usize = 128;
/// How long one request may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// Sends requests to the demo server, ends by itself, and prints one line about what it did.
#[derive(Parser)]
struct Options {
    /// Where the server listens: an address of the loopback interface, with its port.
    #[arg(long, value_parser = loopback)]
    address: SocketAddr,
    /// How long to send requests, in seconds.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    /// How many requests to send each second.
    #[arg(long, default_value_t = 250, value_parser = clap::value_parser!(u64).range(1..=2000))]
    rate: u64,
    /// How often each endpoint is asked, relative to the others.
    #[arg(long, default_value = "ok=80,hash=3,compress=2,file=3,dns=3,sleep=3,mutex=2,pages=2,starvation=1,hang=1")]
    mix: Mix,
}

fn loopback(text: &str) -> Result<SocketAddr, String> {
    let address: SocketAddr = text.parse().map_err(|problem| format!("{problem}"))?;
    if address.ip().is_loopback() { Ok(address) } else { Err("only the loopback interface is a target".to_owned()) }
}

#[tokio::main]
async fn main() -> ExitCode {
    let report = send(Options::parse()).await;
    println!("demo-load: {report}");
    if report.is_success() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

async fn send(options: Options) -> Report {
    let Options { address, seconds, rate, mut mix } = options;
    let client = Client::builder(TokioExecutor::new()).build_http();
    let places = Arc::new(Semaphore::new(AT_ONCE));
    let mut requests = JoinSet::new();
    let mut report = Report::default();
    let mut ticks = interval(Duration::from_secs(1) / u32::try_from(rate).unwrap_or(u32::MAX));
    // A server that stalls must not be met with all that was missed at once.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_secs(seconds) {
        ticks.tick().await;
        let endpoint = mix.next_endpoint();
        match Arc::clone(&places).try_acquire_owned() {
            Ok(place) => {
                let client = client.clone();
                requests.spawn(async move {
                    let outcome = request(&client, address, &endpoint).await;
                    drop(place);
                    outcome
                });
            }
            Err(_) => report.hold_back(),
        }
        while let Some(outcome) = requests.try_join_next() {
            report.add(outcome.unwrap_or(Outcome::Failed));
        }
    }
    while let Some(outcome) = requests.join_next().await {
        report.add(outcome.unwrap_or(Outcome::Failed));
    }
    report.end(begin.elapsed());
    report
}

async fn request(client: &Client<HttpConnector, Body>, server: SocketAddr, endpoint: &str) -> Outcome {
    let begin = Instant::now();
    let Ok(uri) = format!("http://{server}/{endpoint}").parse() else { return Outcome::Failed };
    let answer = async {
        let response = client.get(uri).await.ok()?;
        let succeeded = response.status().is_success();
        // A connection is used again only after the whole answer was read.
        response.into_body().collect().await.ok()?;
        succeeded.then_some(())
    };
    match timeout(PATIENCE, answer).await {
        Ok(Some(())) => Outcome::Answered(begin.elapsed()),
        Ok(None) | Err(_) => Outcome::Failed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_loopback_interface_is_a_target() {
        assert!(loopback("127.0.0.1:80").is_ok());
        assert!(loopback("[::1]:80").is_ok());
        assert!(loopback("192.0.2.1:80").is_err());
        assert!(loopback("0.0.0.0:80").is_err());
    }
}
