//! A worker that is kept in polls, and says for how long and by what.
//!
//! `stalling [--rounds 1] [--cpu 0]`
//!
//! Prints `ready PID`. When a line comes on standard input, one task after another keeps its only worker in a poll for 1 to
//! 500 ms: by using the CPU, by sleeping, or by using a CPU that another thread wants as well. In the end it prints a line
//! of JSON for each of them: what kept the worker, the task and the thread, what that should have taken, when it began and
//! ended, and for how long the thread ran, for how long it waited for a CPU and how often it was given one meanwhile, by the
//! kernel's count; then `done`. Ends when standard input does.

use std::{
    fmt,
    fs::File,
    io,
    os::unix::fs::FileExt,
    process,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{self, Sender},
    },
    thread,
    time::Duration,
};

use polletto_tests::workload::{
    boottime, line_came, option, own_cpu_time, own_tid, pin_to, say, spin, until_stdin_closes,
};
use rustix::thread::{sched_getaffinity, sched_setaffinity};
use tokio::{
    runtime::{Builder, Runtime},
    task,
};

const LENGTHS_MS: [u64; 9] = [1, 2, 5, 10, 20, 50, 100, 200, 500];

/// Clocks that were read within this time, in nanoseconds, show the same moment.
const AT_ONCE_NS: u64 = 30_000;

/// What keeps a worker.
#[derive(Clone, Copy)]
enum Cause {
    Cpu,
    Sleep,
    /// Another thread has its CPU for half of the time.
    Competitor,
}

impl Cause {
    fn name(self) -> &'static str {
        match self {
            Cause::Cpu => "cpu",
            Cause::Sleep => "sleep",
            Cause::Competitor => "competitor",
        }
    }
}

/// What a thread has had until a moment, in nanoseconds.
#[derive(Clone, Copy)]
struct Moment {
    ran: u64,
    waited: u64,
    /// How often it was given a CPU.
    turns: u64,
    /// CLOCK_BOOTTIME.
    at: u64,
}

/// The worker's clocks.
struct Clocks {
    /// Open already: what is done in a poll before the clocks are read is not in what they tell of it.
    schedstat: File,
}

impl Clocks {
    /// Of the calling thread.
    fn own() -> io::Result<Clocks> {
        Ok(Clocks { schedstat: File::open("/proc/thread-self/schedstat")? })
    }

    /// What they show, to the thread whose they are.
    fn now(&self) -> Moment {
        loop {
            let before = boottime();
            let [_, waited, turns] = self.sums().expect("the kernel counts");
            let ran = u64::try_from(own_cpu_time().as_nanos()).expect("a few seconds");
            let at = boottime();
            if at - before < AT_ONCE_NS {
                return Moment { ran, waited, turns, at };
            }
        }
    }

    /// For how long the thread has run, up to its last switch or tick, and waited for a CPU, in nanoseconds, and how often it
    /// was given one.
    fn sums(&self) -> io::Result<[u64; 3]> {
        let mut bytes = [0; 64];
        let length = self.schedstat.read_at(&mut bytes, 0)?;
        let sums = String::from_utf8_lossy(&bytes[..length]);
        let sums: Vec<u64> = sums.split_ascii_whitespace().filter_map(|sum| sum.parse().ok()).collect();
        sums.try_into().map_err(|sums| io::Error::other(format!("schedstat says {sums:?}")))
    }
}

/// A stall as its task saw it.
struct Stall {
    cause: Cause,
    length: Duration,
    task: task::Id,
    tid: i32,
    begin: Moment,
    end: Moment,
}

impl fmt::Display for Stall {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Stall { cause, length, task, tid, begin, end } = self;
        write!(
            out,
            r#"{{"cause":"{}","length":{},"task":{task},"tid":{tid},"begin":{},"end":{},"ran":{},"waited":{},"turns":{}}}"#,
            cause.name(),
            length.as_nanos(),
            begin.at,
            end.at,
            end.ran - begin.ran,
            end.waited - begin.waited,
            end.turns - begin.turns,
        )
    }
}

/// A thread that uses its CPU for so long whenever it is told to.
struct Competitor(Sender<Order>);

struct Order {
    length: Duration,
    is_done: Arc<AtomicBool>,
}

impl Competitor {
    fn start(cpu: usize) -> io::Result<Competitor> {
        let (order, ordered) = mpsc::channel::<Order>();
        thread::Builder::new().name("competitor".to_owned()).spawn(move || {
            pin_to(cpu).expect("the CPU is there");
            for Order { length, is_done } in ordered {
                spin(length);
                is_done.store(true, Ordering::Release);
            }
        })?;
        Ok(Competitor(order))
    }
}

/// Uses the CPU for so long, and lets the competitor do the same.
fn compete(length: Duration, order: &Sender<Order>) {
    let is_done = Arc::new(AtomicBool::default());
    order.send(Order { length, is_done: Arc::clone(&is_done) }).expect("the competitor waits for it");
    spin(length);
    // What takes less than a thread's turn would only begin when the next one comes.
    while !is_done.load(Ordering::Acquire) {
        thread::yield_now();
    }
}

/// Keeps the worker in its first poll. The end of its last one wakes who waits for it, and may have to make room for them.
async fn stall(clocks: Arc<Clocks>, cause: Cause, length: Duration, order: Sender<Order>) -> Stall {
    let begin = clocks.now();
    match cause {
        Cause::Cpu => spin(length),
        Cause::Sleep => thread::sleep(length),
        Cause::Competitor => compete(length / 2, &order),
    }
    let end = clocks.now();
    task::yield_now().await;
    Stall { cause, length, task: task::id(), tid: own_tid(), begin, end }
}

/// A runtime whose worker is kept.
struct Stalling {
    runtime: Runtime,
    clocks: Arc<Clocks>,
    competitor: Competitor,
}

impl Stalling {
    fn start(cpu: usize) -> io::Result<Stalling> {
        let runtime = Builder::new_multi_thread().worker_threads(1).build()?;
        let clocks = Arc::new(on_worker(&runtime, async { Clocks::own() })?);
        Ok(Stalling { runtime, clocks, competitor: Competitor::start(cpu)? })
    }

    /// One of each length.
    fn stalls(&self, cause: Cause) -> Vec<Stall> {
        let Stalling { runtime, clocks, competitor: Competitor(order) } = self;
        let one =
            |length| on_worker(runtime, stall(Arc::clone(clocks), cause, Duration::from_millis(length), order.clone()));
        LENGTHS_MS.into_iter().map(one).collect()
    }
}

/// What comes of a task.
fn on_worker<T: Send + 'static>(runtime: &Runtime, task: impl Future<Output = T> + Send + 'static) -> T {
    runtime.block_on(runtime.spawn(task)).expect("tasks end well")
}

fn main() -> io::Result<()> {
    let (cpu, rounds) = (option("--cpu", 0), option("--rounds", 1));
    let stalling = Stalling::start(cpu)?;
    let anywhere = sched_getaffinity(None)?;
    say(format_args!("ready {}", process::id()));
    if !line_came() {
        return Ok(());
    }
    let mut all = Vec::new();
    for _ in 0..rounds {
        all.extend(stalling.stalls(Cause::Cpu));
        all.extend(stalling.stalls(Cause::Sleep));
        on_worker(&stalling.runtime, async move { pin_to(cpu) })?;
        all.extend(stalling.stalls(Cause::Competitor));
        on_worker(&stalling.runtime, async move { sched_setaffinity(None, &anywhere) })?;
    }
    all.iter().for_each(say);
    say("done");
    until_stdin_closes();
    Ok(())
}
