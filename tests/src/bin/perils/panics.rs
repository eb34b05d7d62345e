//! Panics in polls. In what order they come, and by which calls, does not depend on who is faster: so their backtraces
//! are the same each time.

use std::{
    backtrace::Backtrace,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    thread,
    time::Duration,
};

use polletto_tests::workload::say;
use tokio::{
    runtime::Builder,
    task::{JoinError, LocalSet, spawn_blocking, spawn_local, yield_now},
    time::sleep,
};

use crate::tasks::{MOMENT, runtime};

/// How often the whole is done: for a few seconds.
const ROUNDS: u32 = 60;

async fn at_once(number: u32) {
    panic!("at once {number}");
}

async fn after_yielding(number: u32) {
    yield_now().await;
    panic!("after yielding {number}");
}

async fn after_sleeping(number: u32) {
    sleep(Duration::from_millis(1)).await;
    panic!("after sleeping {number}");
}

/// Catches a panic of its own, and goes on with it.
async fn caught(number: u32) {
    let panic = catch_unwind(AssertUnwindSafe(|| panic!("caught {number}"))).expect_err("it panics");
    yield_now().await;
    resume_unwind(panic);
}

/// Panics while its future goes.
struct Unwilling(u32);

impl Drop for Unwilling {
    fn drop(&mut self) {
        panic!("aborted {}", self.0);
    }
}

async fn aborted(number: u32) {
    let _unwilling = Unwilling(number);
    std::future::pending::<()>().await;
}

/// Its own callers, as a poll sees them.
async fn looks_back(number: u32) {
    yield_now().await;
    say(format_args!("looks back {number}\n{}", Backtrace::force_capture()));
}

fn tell(what: &str, ended: Result<(), JoinError>) {
    match ended {
        Ok(()) => say(format_args!("{what}: well")),
        Err(error) if error.is_cancelled() => say(format_args!("{what}: cancelled")),
        Err(error) => match error.into_panic().downcast::<String>() {
            Ok(message) => say(format_args!("{what}: {message}")),
            Err(_) => say(format_args!("{what}: a panic of another kind")),
        },
    }
}

/// A worker has one task after another: each panics while the task that spawned it waits.
async fn on_a_worker(number: u32) {
    // From here on it comes from the worker's own queue. Before, one of two calls had found it in that of all workers.
    yield_now().await;
    tell("worker", tokio::spawn(at_once(number)).await);
    tell("worker", tokio::spawn(after_yielding(number)).await);
    tell("worker", tokio::spawn(after_sleeping(number)).await);
    tell("worker", tokio::spawn(caught(number)).await);
    tell("worker", tokio::spawn(looks_back(number)).await);
    let unwilling = tokio::spawn(aborted(number));
    yield_now().await;
    unwilling.abort();
    tell("worker", unwilling.await);
    tell("blocking", spawn_blocking(move || panic!("blocking {number}")).await);
}

async fn on_one_thread(number: u32) {
    tell("one thread", tokio::spawn(after_yielding(number)).await);
    tell("one thread", spawn_local(after_sleeping(number)).await);
    tell("one thread", spawn_local(looks_back(number)).await);
}

pub fn act() {
    let one_thread = Builder::new_current_thread().enable_all().build().expect("a runtime");
    let worker = runtime(1);
    for number in 0..ROUNDS {
        tell("the whole", worker.block_on(worker.spawn(on_a_worker(number))));
        LocalSet::new().block_on(&one_thread, on_one_thread(number));
        thread::sleep(2 * MOMENT);
    }
}
