//! Threads hand a token around: each spins for a known time, sleeps for a known time, and wakes the next.
//!
//! `token-ring [--threads 4] [--cpus 0,1] [--rounds 500] [--sleep-us 300] [--spin-us 200] [--by pipe|condvar]`
//!
//! Prints `ready PID`, begins when a line comes on standard input, prints each thread's truth as a line of JSON, in the
//! order of the ring, then `done`, and ends when standard input closes. The truth is the kernel's own accounting at
//! moments right after a sleep: at the beginning, in every round, and at the end. Everything between the first and the
//! last is the measured section. What a hypervisor took of each round's spinning is told apart.

use std::{
    fs::File,
    io::{self, Read, Write},
    process,
    sync::{Arc, Barrier, Condvar, Mutex},
    thread,
    time::Duration,
};

use polletto_tests::workload::{
    Accounting, line_came, option, own_tid, pin_to, say, spin_and_count_stolen, until_stdin_closes,
};

/// A place for the token between one thread and the next.
enum Place {
    Pipe { reader: Mutex<File>, writer: Mutex<File> },
    Condvar { token: Mutex<bool>, came: Condvar },
}

impl Place {
    fn new(kind: &str) -> io::Result<Place> {
        match kind {
            "pipe" => {
                let (reader, writer) = rustix::pipe::pipe()?;
                Ok(Place::Pipe { reader: Mutex::new(reader.into()), writer: Mutex::new(writer.into()) })
            }
            "condvar" => Ok(Place::Condvar { token: Mutex::new(false), came: Condvar::new() }),
            other => Err(io::Error::other(format!("no hand-over by {other}: pipe or condvar"))),
        }
    }

    fn put(&self) -> io::Result<()> {
        match self {
            Place::Pipe { writer, .. } => writer.lock().expect("no thread panics").write_all(&[1]),
            Place::Condvar { token, came } => {
                *token.lock().expect("no thread panics") = true;
                came.notify_one();
                Ok(())
            }
        }
    }

    fn take(&self) -> io::Result<()> {
        match self {
            Place::Pipe { reader, .. } => reader.lock().expect("no thread panics").read_exact(&mut [0]),
            Place::Condvar { token, came } => {
                let token = token.lock().expect("no thread panics");
                *came.wait_while(token, |token| !*token).expect("no thread panics") = false;
                Ok(())
            }
        }
    }
}

/// One thread's part.
struct Member {
    index: usize,
    cpu: usize,
    rounds: u64,
    sleep: Duration,
    spin: Duration,
    places: Arc<Vec<Place>>,
    /// All meet here twice: once each is itself, and once all may begin.
    meeting: Arc<Barrier>,
}

impl Member {
    /// Its truth.
    fn run(&self) -> io::Result<String> {
        pin_to(self.cpu)?;
        self.meeting.wait();
        self.meeting.wait();
        let settling = Duration::from_millis(2);
        let mut samples = vec![Accounting::after_sleep(settling)?];
        let mut stolen = vec![];
        if self.index == 0 {
            self.places[0].put()?;
        }
        for _ in 0..self.rounds {
            self.places[self.index].take()?;
            stolen.push(spin_and_count_stolen(self.spin)?);
            samples.push(Accounting::after_sleep(self.sleep)?);
            self.places[(self.index + 1) % self.places.len()].put()?;
        }
        samples.push(Accounting::after_sleep(settling)?);
        let samples = samples.iter().map(Accounting::to_string).collect::<Vec<_>>().join(",");
        let Member { index, cpu, rounds, .. } = self;
        let (tid, sleep, spin) = (own_tid(), self.sleep.as_nanos(), self.spin.as_nanos());
        Ok(format!(
            r#"{{"thread":"ring-{index}","tid":{tid},"cpu":{cpu},"handovers":{rounds},"sleep_ns":{sleep},"spin_ns":{spin},"stolen_ns":{stolen:?},"samples":[{samples}]}}"#
        ))
    }
}

fn main() -> io::Result<()> {
    let threads = option("--threads", 4);
    let cpus: Vec<usize> = option("--cpus", "0,1".to_owned()).split(',').filter_map(|cpu| cpu.parse().ok()).collect();
    let kind = option("--by", "pipe".to_owned());
    let places = Arc::new((0..threads).map(|_| Place::new(&kind)).collect::<io::Result<Vec<_>>>()?);
    let meeting = Arc::new(Barrier::new(threads + 1));
    let members: Vec<_> = (0..threads)
        .map(|index| Member {
            index,
            cpu: cpus[index % cpus.len()],
            rounds: option("--rounds", 500),
            sleep: Duration::from_micros(option("--sleep-us", 300)),
            spin: Duration::from_micros(option("--spin-us", 200)),
            places: Arc::clone(&places),
            meeting: Arc::clone(&meeting),
        })
        .map(|member| thread::Builder::new().name(format!("ring-{}", member.index)).spawn(move || member.run()))
        .collect::<io::Result<_>>()?;
    // By now each has its name and its CPU.
    meeting.wait();
    // Ends with its parent even in the middle of a round.
    thread::spawn(move || {
        say(format_args!("ready {}", process::id()));
        if line_came() {
            meeting.wait();
            until_stdin_closes();
        }
        process::exit(0);
    });
    for member in members {
        say(member.join().expect("no thread panics")?);
    }
    say("done");
    loop {
        thread::park();
    }
}
