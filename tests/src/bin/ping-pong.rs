//! Two threads on one CPU wake each other through pipes: nearly nothing but switches.
//!
//! `ping-pong [--cpu 0] [--seconds 2] [--wait]`
//!
//! With `--wait` it prints `ready PID` and begins when a line comes on standard input. At the end it prints one line of
//! JSON: switches, and nanoseconds of each by the clock. Both threads carry the name `ping-pong`.

use std::{
    fs::File,
    io::{self, Read, Write},
    process, thread,
    time::{Duration, Instant},
};

use polletto_tests::workload::{boottime, flag, line_came, option, pin_to, say};

/// Rounds between two looks at the clock.
const BATCH: u64 = 256;

fn main() -> io::Result<()> {
    pin_to(option("--cpu", 0))?;
    let length = Duration::from_secs_f64(option("--seconds", 2.0));
    let (mut ping_reader, mut ping) = files(rustix::pipe::pipe()?);
    let (mut pong_reader, mut pong) = files(rustix::pipe::pipe()?);
    // Inherits this thread's CPU. Ends when `ping` is closed.
    let partner = thread::Builder::new()
        .name("ping-pong".to_owned())
        .spawn(move || while ping_reader.read_exact(&mut [0]).is_ok() && pong.write_all(&[0]).is_ok() {})?;
    if flag("--wait") {
        say(format_args!("ready {}", process::id()));
        if !line_came() {
            return Ok(());
        }
    }
    let (begin, start) = (boottime(), Instant::now());
    let mut rounds = 0;
    while start.elapsed() < length {
        for _ in 0..BATCH {
            ping.write_all(&[0])?;
            pong_reader.read_exact(&mut [0])?;
        }
        rounds += BATCH;
    }
    let (nanoseconds, end) = (start.elapsed().as_nanos(), boottime());
    drop(ping);
    partner.join().expect("the partner does not panic");
    let switches = 2 * rounds;
    let each = nanoseconds as f64 / switches as f64;
    say(format_args!(r#"{{"switches":{switches},"ns_per_switch":{each:.1},"begin":{begin},"end":{end}}}"#));
    Ok(())
}

fn files<A: Into<File>>((reader, writer): (A, A)) -> (File, File) {
    (reader.into(), writer.into())
}
