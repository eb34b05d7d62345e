//! Asks an echo server at an even pace, and says how long its answers took.
//!
//! `echo-load PORT [--per-second 1000]`
//!
//! Prints `ready PID`; on each line on standard input one line of JSON: how many answers have come since the last one, and
//! how long half of them and 99 in 100 took at most, in microseconds. A question that is late since the last answer was
//! counts from when it should have been asked. Ends when standard input does.

use std::{
    env,
    io::{self, Read, Write},
    net::{Ipv4Addr, TcpStream},
    process,
    sync::Mutex,
    thread,
    time::{Duration, Instant},
};

use polletto_tests::workload::{line_came, option, say};

const QUESTION: &[u8] = b"how long?";

/// How long answers took since they were last told.
static TOOK: Mutex<Vec<Duration>> = Mutex::new(Vec::new());

fn ask(mut server: TcpStream, period: Duration) -> io::Result<()> {
    let mut answer = [0; QUESTION.len()];
    let mut due = Instant::now();
    loop {
        let ahead = due.saturating_duration_since(Instant::now());
        thread::sleep(ahead);
        // How late the timer is says nothing of the server.
        let asked = if ahead.is_zero() { due } else { Instant::now() };
        server.write_all(QUESTION)?;
        server.read_exact(&mut answer)?;
        TOOK.lock().expect("no thread panics").push(asked.elapsed());
        due += period;
    }
}

/// The least that so many in a hundred did not exceed.
fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    sorted.get((sorted.len() * percent / 100).min(sorted.len().saturating_sub(1))).copied().unwrap_or_default()
}

fn main() -> io::Result<()> {
    let port = env::args().nth(1).and_then(|port| port.parse().ok());
    let port: u16 = port.ok_or_else(|| io::Error::other("usage: echo-load PORT [--per-second 1000]"))?;
    let period = Duration::from_secs(1) / option("--per-second", 1000);
    let server = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    server.set_nodelay(true)?;
    thread::spawn(move || ask(server, period).expect("the server answers"));
    say(format_args!("ready {}", process::id()));
    while line_came() {
        let mut took = std::mem::take(&mut *TOOK.lock().expect("no thread panics"));
        took.sort_unstable();
        let microseconds = |percent| percentile(&took, percent).as_secs_f64() * 1e6;
        let (half, most) = (microseconds(50), microseconds(99));
        say(format_args!(r#"{{"answers":{},"p50":{half:.1},"p99":{most:.1}}}"#, took.len()));
    }
    Ok(())
}
