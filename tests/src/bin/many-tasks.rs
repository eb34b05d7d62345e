//! Tasks, queues and threads of two runtimes, in numbers that are known.
//!
//! `many-tasks [--tasks 1000] [--workers 2] [--blocking 3] [--churn 0]`
//!
//! Prints `ready PID` once all tasks wait. When a line comes on standard input, prints one line of JSON with what the
//! runtime of workers knows of itself. Then keeps every worker busy, with tasks waiting in each queue, and every thread for
//! blocking code, prints `stuck`, and on the next line again what is known. With `--churn`, so many tasks a second come and
//! go instead until the end. Ends when standard input does.

use std::{
    io, process,
    sync::{Arc, Barrier, Condvar, Mutex},
    thread,
    time::Duration,
};

use polletto_tests::workload::{boottime, line_came, option, say, until_stdin_closes};
use tokio::{
    runtime::{Builder, Handle, Runtime},
    sync::watch,
};

/// Tasks of the runtime of one thread.
const OF_ONE_THREAD: u64 = 7;
/// Tasks that wait in the queue of each worker. One more is in its slot for the next.
const IN_EACH_QUEUE: u64 = 5;
/// Tasks that wait for any worker.
const INJECTED: u64 = 11;
/// Tasks that wait for a thread for blocking code.
const QUEUED: u64 = 4;

/// Opens once, for everybody.
#[derive(Clone, Default)]
struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Gate {
    fn open(&self) {
        *self.0.0.lock().expect("no thread panics") = true;
        self.0.1.notify_all();
    }

    fn pass(&self) {
        let closed = self.0.0.lock().expect("no thread panics");
        drop(self.0.1.wait_while(closed, |is_open| !*is_open).expect("no thread panics"));
    }
}

async fn waits_for_news(mut news: watch::Receiver<()>) {
    news.changed().await.ok();
}

async fn sleeps_for_long(_weight: [u8; 4096]) {
    tokio::time::sleep(Duration::from_secs(3600)).await;
}

/// What the runtime knows of itself.
fn tell(runtime: &Handle, blocking: u64, queued: u64, in_each_queue: u64) {
    let metrics = runtime.metrics();
    let (live, injected, workers) = (metrics.num_alive_tasks(), metrics.global_queue_depth(), metrics.num_workers());
    say(format_args!(
        r#"{{"at":{},"live":{live},"injected":{injected},"workers":{workers},"blocking":{blocking},"queued":{queued},"in_each_queue":{in_each_queue}}}"#,
        boottime()
    ));
}

/// A runtime of one thread, with tasks that wait.
fn one_thread() {
    let runtime = Builder::new_current_thread().enable_time().build().expect("a runtime");
    for _ in 0..OF_ONE_THREAD {
        runtime.spawn(sleeps_for_long([0; 4096]));
    }
    runtime.block_on(std::future::pending::<()>());
}

/// Leaves no worker free, and tasks in all queues.
fn stick(runtime: &Runtime, workers: u64, blocking: u64, gate: &Gate) {
    for _ in 0..blocking + QUEUED {
        let gate = gate.clone();
        runtime.spawn_blocking(move || gate.pass());
    }
    let together = Arc::new(Barrier::new(workers as usize + 1));
    for _ in 0..workers {
        let (gate, together) = (gate.clone(), Arc::clone(&together));
        runtime.spawn(async move {
            // From here on nobody is left who could take what is in another's queue.
            together.wait();
            for _ in 0..=IN_EACH_QUEUE {
                tokio::spawn(std::future::ready(()));
            }
            together.wait();
            gate.pass();
        });
    }
    together.wait();
    together.wait();
    for _ in 0..INJECTED {
        runtime.spawn(std::future::ready(()));
    }
}

fn churn(runtime: &Runtime, a_second: u64) {
    let period = Duration::from_millis(10);
    runtime.spawn(async move {
        let mut ticks = tokio::time::interval(period);
        loop {
            ticks.tick().await;
            for index in 0..a_second / 100 {
                tokio::spawn(tokio::time::sleep(Duration::from_millis(1 + index % 200)));
            }
        }
    });
    until_stdin_closes();
    process::exit(0);
}

fn main() -> io::Result<()> {
    let (tasks, workers) = (option("--tasks", 1000_u64), option("--workers", 2_u64));
    let (blocking, churned) = (option("--blocking", 3_u64), option("--churn", 0));
    let runtime = Builder::new_multi_thread()
        .worker_threads(workers as usize)
        .max_blocking_threads(blocking as usize)
        .enable_time()
        .build()?;
    let (_tell, news) = watch::channel(());
    for index in 0..tasks {
        if index.is_multiple_of(2) {
            runtime.spawn(waits_for_news(news.clone()));
        } else {
            runtime.spawn(sleeps_for_long([0; 4096]));
        }
    }
    thread::Builder::new().name("one-thread".into()).spawn(one_thread)?;
    // Until all of them have been polled.
    thread::sleep(Duration::from_millis(200) + Duration::from_micros(4 * tasks));
    say(format_args!("ready {}", process::id()));
    if churned > 0 {
        churn(&runtime, churned);
    }
    let gate = Gate::default();
    if line_came() {
        tell(runtime.handle(), 0, 0, 0);
        stick(&runtime, workers, blocking, &gate);
        say(format_args!("stuck"));
        if line_came() {
            tell(runtime.handle(), blocking, QUEUED, IN_EACH_QUEUE);
        }
    }
    until_stdin_closes();
    gate.open();
    // The other runtime never ends.
    process::exit(0)
}
