//! As many switches as the machine can do: what `perf bench sched messaging --thread` does, for a bounded time.
//!
//! `switch-storm [--groups 10] [--fan 20] [--seconds 2] [--wait]`
//!
//! In each group every sender writes 100 bytes to every receiver, round after round. With `--wait` it prints `ready PID`
//! and begins when a line comes on standard input. At the end it prints one line of JSON: messages that arrived, and
//! voluntary and involuntary switches by the kernel's count of its threads.

use std::{
    io::{self, Read, Write},
    os::unix::net::UnixStream,
    process,
    sync::{
        Arc, Barrier,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use polletto_tests::workload::{boottime, flag, line_came, option, own_switches, say};

const MESSAGE: [u8; 100] = [0; 100];

#[derive(Default)]
struct Totals {
    messages: AtomicU64,
    voluntary: AtomicU64,
    involuntary: AtomicU64,
}

impl Totals {
    /// Adds the calling thread's switches. Its last one, when it ends, comes after this.
    fn add_switches(&self) -> io::Result<()> {
        let (voluntary, involuntary) = own_switches()?;
        self.voluntary.fetch_add(voluntary, Relaxed);
        self.involuntary.fetch_add(involuntary, Relaxed);
        Ok(())
    }
}

fn send(receivers: &[UnixStream], length: Duration, start: &Barrier, totals: &Totals) -> io::Result<()> {
    start.wait();
    let end = Instant::now() + length;
    for mut receiver in receivers.iter().cycle().take_while(|_| Instant::now() < end) {
        receiver.write_all(&MESSAGE)?;
    }
    totals.add_switches()
}

fn receive(mut from: UnixStream, totals: &Totals) -> io::Result<()> {
    let mut message = MESSAGE;
    let mut messages = 0;
    while from.read_exact(&mut message).is_ok() {
        messages += 1;
    }
    totals.messages.fetch_add(messages, Relaxed);
    totals.add_switches()
}

fn main() -> io::Result<()> {
    let groups: usize = option("--groups", 10);
    let fan: usize = option("--fan", 20);
    let length = Duration::from_secs_f64(option("--seconds", 2.0));
    let totals = Arc::new(Totals::default());
    let start = Arc::new(Barrier::new(groups * fan + 1));
    let mut threads = Vec::new();
    for _ in 0..groups {
        let mut ends = Vec::new();
        for _ in 0..fan {
            let (sender, receiver) = UnixStream::pair()?;
            ends.push(sender);
            let totals = Arc::clone(&totals);
            threads.push(
                thread::Builder::new().name("storm-receive".to_owned()).spawn(move || receive(receiver, &totals))?,
            );
        }
        // Closed when the last sender of the group ends: that is how receivers learn of it.
        let ends = Arc::new(ends);
        for _ in 0..fan {
            let (ends, start, totals) = (Arc::clone(&ends), Arc::clone(&start), Arc::clone(&totals));
            threads.push(
                thread::Builder::new()
                    .name("storm-send".to_owned())
                    .spawn(move || send(&ends, length, &start, &totals))?,
            );
        }
    }
    if flag("--wait") {
        say(format_args!("ready {}", process::id()));
        if !line_came() {
            return Ok(());
        }
    }
    let begin = boottime();
    start.wait();
    for thread in threads {
        thread.join().expect("no thread panics")?;
    }
    let end = boottime();
    let (messages, voluntary, involuntary) =
        (totals.messages.load(Relaxed), totals.voluntary.load(Relaxed), totals.involuntary.load(Relaxed));
    say(format_args!(
        r#"{{"messages":{messages},"voluntary":{voluntary},"involuntary":{involuntary},"begin":{begin},"end":{end}}}"#
    ));
    Ok(())
}
