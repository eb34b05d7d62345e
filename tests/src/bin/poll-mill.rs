//! Tasks that do nothing but be polled, as often as they can, and count it.
//!
//! `poll-mill [--workers 0] [--tasks 1]`
//!
//! Without workers the main thread polls alone. Prints `ready PID`; on each line on standard input one line of JSON: how
//! often tasks have been polled until then. Ends when standard input does.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

use polletto_tests::workload::{boottime, line_came, option, say};
use tokio::{runtime::Builder, sync::oneshot, task::yield_now};

/// On a line of its own, so that no task waits for another's.
#[repr(align(128))]
#[derive(Default)]
struct Count(AtomicU64);

async fn mill(count: Arc<Count>) {
    loop {
        count.0.fetch_add(1, Ordering::Relaxed);
        yield_now().await;
    }
}

fn main() -> io::Result<()> {
    let (workers, tasks): (usize, usize) = (option("--workers", 0), option("--tasks", 1));
    let mut builder = if workers == 0 { Builder::new_current_thread() } else { Builder::new_multi_thread() };
    if workers > 0 {
        builder.worker_threads(workers);
    }
    let runtime = builder.build()?;
    let counts: Vec<Arc<Count>> = (0..tasks).map(|_| Arc::default()).collect();
    counts.iter().for_each(|count| drop(runtime.spawn(mill(Arc::clone(count)))));
    let (end, ended) = oneshot::channel();
    say(format_args!("ready {}", std::process::id()));
    let telling = thread::spawn(move || {
        while line_came() {
            let polls: u64 = counts.iter().map(|count| count.0.load(Ordering::Relaxed)).sum();
            say(format_args!(r#"{{"at":{},"count":{polls}}}"#, boottime()));
        }
        end.send(()).expect("the runtime waits");
    });
    runtime.block_on(ended).expect("somebody says so");
    telling.join().expect("the thread ends well");
    Ok(())
}
