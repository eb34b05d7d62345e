//! Threads that run and sleep by turns of known lengths, and say what the kernel has counted for each.
//!
//! `weights [--seconds 3] [--threads CPU:SPIN_MS:SLEEP_MS,…]`
//!
//! Prints `ready PID`. When a line comes on standard input every thread is pinned to its CPU and takes its turns for so
//! long: it uses the CPU for SPIN_MS, not counting what others use meanwhile, then it sleeps for SLEEP_MS. Either can be a
//! fraction, and SLEEP_MS can be 0. Then each thread prints one line of JSON with the kernel's accounting at the first
//! and last moment of its section, both of them right after a sleep; at the end there is `done`.

use std::{
    io, process,
    str::FromStr,
    sync::{Arc, Barrier},
    thread,
    time::{Duration, Instant},
};

use polletto_tests::workload::{Accounting, line_came, option, own_tid, pin_to, say, spin};

/// Around a section.
const SETTLE: Duration = Duration::from_millis(5);

#[derive(Clone, Copy)]
struct Duty {
    cpu: usize,
    spin: Duration,
    sleep: Duration,
}

impl FromStr for Duty {
    type Err = io::Error;

    fn from_str(text: &str) -> io::Result<Duty> {
        let fields: Vec<_> = text.split(':').collect();
        let [cpu, spin, sleep] = fields[..] else {
            return Err(io::Error::other(format!("{text:?} is not CPU:SPIN_MS:SLEEP_MS")));
        };
        let milliseconds = |text: &str| text.parse::<f64>().map(|value| Duration::from_secs_f64(value / 1e3));
        Ok(Duty {
            cpu: cpu.parse().map_err(io::Error::other)?,
            spin: milliseconds(spin).map_err(io::Error::other)?,
            sleep: milliseconds(sleep).map_err(io::Error::other)?,
        })
    }
}

impl Duty {
    fn section(&self, length: Duration, all: &Barrier) -> io::Result<()> {
        pin_to(self.cpu)?;
        all.wait();
        let begin = Accounting::after_sleep(SETTLE)?;
        let end = Instant::now() + length;
        let mut turns = 0_u64;
        while Instant::now() < end {
            take_turn(self.spin, self.sleep);
            turns += 1;
        }
        let end = Accounting::after_sleep(SETTLE)?;
        let Duty { cpu, spin, sleep } = self;
        say(format_args!(
            r#"{{"tid":{},"cpu":{cpu},"spin_ns":{},"sleep_ns":{},"turns":{turns},"begin":{begin},"end":{end}}}"#,
            own_tid(),
            spin.as_nanos(),
            sleep.as_nanos(),
        ));
        Ok(())
    }
}

#[inline(never)]
fn take_turn(length: Duration, sleep: Duration) {
    spin(length);
    if !sleep.is_zero() {
        thread::sleep(sleep);
    }
}

fn main() -> io::Result<()> {
    let length = Duration::from_secs_f64(option("--seconds", 3.0));
    let duties: String = option("--threads", "0:20:20,1:15:45".to_owned());
    let duties: Vec<Duty> = duties.split(',').map(str::parse).collect::<Result<_, _>>()?;
    say(format_args!("ready {}", process::id()));
    if !line_came() {
        return Ok(());
    }
    let all = Arc::new(Barrier::new(duties.len()));
    let threads = duties.into_iter().enumerate().map(|(index, duty)| {
        let all = Arc::clone(&all);
        thread::Builder::new().name(format!("weights-{index}")).spawn(move || duty.section(length, &all))
    });
    for thread in threads.collect::<io::Result<Vec<_>>>()? {
        thread.join().expect("no thread panics")?;
    }
    say("done");
    Ok(())
}
