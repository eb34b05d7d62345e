//! Thousands of threads that sleep and wake; one in ten ends early and is followed by a new one.
//!
//! `many-threads [--threads 10000] [--seconds 3]`
//!
//! Prints `ready PID` once the first ones live, begins when a line comes on standard input, then prints one line of JSON
//! with how many threads it started in all, and ends.

use std::{
    io, process,
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use polletto_tests::workload::{line_came, option, say};

const STACK_BYTES: usize = 32 * 1024;

/// Opens once, for everybody.
#[derive(Default)]
struct Gate {
    end: Mutex<Option<Instant>>,
    opened: Condvar,
}

impl Gate {
    fn open_until(&self, end: Instant) {
        *self.end.lock().expect("no thread panics") = Some(end);
        self.opened.notify_all();
    }

    fn pass(&self) -> Instant {
        let closed = self.end.lock().expect("no thread panics");
        let open = self.opened.wait_while(closed, |end| end.is_none()).expect("no thread panics");
        open.expect("the gate is open")
    }
}

fn start(index: u64, gate: &Arc<Gate>, started: &Arc<AtomicU64>) -> io::Result<()> {
    started.fetch_add(1, Relaxed);
    let (gate, started) = (Arc::clone(gate), Arc::clone(started));
    thread::Builder::new().name(format!("many-{index}")).stack_size(STACK_BYTES).spawn(move || {
        let end = gate.pass();
        // Spread over 300 to 500 ms, so that they don't wake in one crowd.
        let nap = Duration::from_millis(300 + index * 7 % 200);
        let mut naps = 0;
        while Instant::now() + nap < end {
            thread::sleep(nap);
            naps += 1;
            if index.is_multiple_of(10) && naps == 2 {
                start(index + 1_000_001, &gate, &started).expect("a thread takes the place of this one");
                return;
            }
        }
    })?;
    Ok(())
}

fn main() -> io::Result<()> {
    let length = Duration::from_secs_f64(option("--seconds", 3.0));
    let (gate, started) = (Arc::new(Gate::default()), Arc::new(AtomicU64::new(0)));
    for index in 0..option("--threads", 10_000) {
        start(index, &gate, &started)?;
    }
    say(format_args!("ready {}", process::id()));
    if line_came() {
        gate.open_until(Instant::now() + length);
        thread::sleep(length);
        say(format_args!(r#"{{"started":{}}}"#, started.load(Relaxed)));
    }
    Ok(())
}
