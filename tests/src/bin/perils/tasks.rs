//! Tasks that end otherwise than by themselves.

use std::{
    future::{Future, pending},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use polletto_tests::workload::{say, spin};
use tokio::{
    runtime::{Builder, Handle, Runtime},
    task::{AbortHandle, JoinHandle, block_in_place, yield_now},
    time::sleep,
};

/// How often the whole is done: for a few seconds.
const ROUNDS: usize = 150;

/// Tasks of each kind.
const TASKS: usize = 10;

/// Between what is done, so that it takes as long on each machine.
pub const MOMENT: Duration = Duration::from_millis(10);

/// A runtime of so many workers.
pub fn runtime(workers: usize) -> Runtime {
    Builder::new_multi_thread().worker_threads(workers).enable_all().build().expect("a runtime")
}

/// Counts the futures that are gone.
#[derive(Clone, Default)]
struct Gone(Arc<AtomicUsize>);

/// Goes with a future.
struct Leaving(Gone);

impl Gone {
    fn leaving(&self) -> Leaving {
        Leaving(self.clone())
    }

    fn count(&self) -> usize {
        self.0.load(Ordering::Acquire)
    }
}

impl Drop for Leaving {
    fn drop(&mut self) {
        let Gone(count) = &self.0;
        count.fetch_add(1, Ordering::Release);
    }
}

async fn waits(_leaving: Leaving) {
    pending::<()>().await;
}

async fn yields(_leaving: Leaving) {
    loop {
        for _ in 0..20 {
            yield_now().await;
        }
        sleep(Duration::from_millis(1)).await;
    }
}

async fn spins(_leaving: Leaving) {
    loop {
        spin(Duration::from_micros(200));
        sleep(Duration::from_millis(1)).await;
    }
}

async fn sleeps(_leaving: Leaving) {
    loop {
        sleep(Duration::from_millis(2)).await;
    }
}

/// One of each kind that goes on until it is stopped.
pub async fn all_kinds() {
    let gone = Gone::default();
    tokio::join!(yields(gone.leaving()), spins(gone.leaving()), sleeps(gone.leaving()));
}

/// Spawns tasks that end only if somebody ends them.
fn spawn_endless(gone: &Gone, spawn: impl Fn(std::pin::Pin<Box<dyn Future<Output = ()> + Send>>)) -> usize {
    for _ in 0..TASKS {
        spawn(Box::pin(waits(gone.leaving())));
        spawn(Box::pin(yields(gone.leaving())));
        spawn(Box::pin(sleeps(gone.leaving())));
    }
    spawn(Box::pin(spins(gone.leaving())));
    3 * TASKS + 1
}

/// A task that aborts itself in its own poll, whose future goes when that ends.
async fn aborts_itself(gone: &Gone) -> JoinHandle<()> {
    let leaving = gone.leaving();
    let (send, receive) = tokio::sync::oneshot::channel::<AbortHandle>();
    let task = tokio::spawn(async move {
        let _leaving = leaving;
        receive.await.expect("it is sent").abort();
        yield_now().await;
        unreachable!("it is polled after it was aborted");
    });
    send.send(task.abort_handle()).expect("it is received");
    task
}

pub fn aborts() {
    runtime(2).block_on(async {
        for round in 0..ROUNDS {
            let (gone, tasks) = (Gone::default(), std::cell::RefCell::new(Vec::new()));
            let mut spawned = spawn_endless(&gone, |future| tasks.borrow_mut().push(tokio::spawn(future)));
            let mut tasks = tasks.into_inner();
            sleep(MOMENT).await;
            tasks.iter().for_each(JoinHandle::abort);
            tasks.push(aborts_itself(&gone).await);
            spawned += 1;
            let mut cancelled = 0;
            for task in tasks {
                cancelled += usize::from(task.await.is_err_and(|error| error.is_cancelled()));
            }
            say(format_args!("round {round}: {cancelled} of {spawned} are cancelled, {} gone", gone.count()));
        }
    });
}

pub fn blocks() {
    runtime(2).block_on(async {
        for round in 0..ROUNDS {
            let tasks: Vec<_> = (0..TASKS).map(|number| tokio::spawn(blocks_in_place(number))).collect();
            let mut sum = 0;
            for task in tasks {
                sum += task.await.expect("it ends well");
            }
            say(format_args!("round {round}: {sum}"));
            sleep(MOMENT).await;
        }
    });
}

/// Leaves its worker to others, in a poll, and polls another task meanwhile.
async fn blocks_in_place(number: usize) -> usize {
    yield_now().await;
    let inner = block_in_place(|| {
        spin(Duration::from_micros(50));
        Handle::current().block_on(async move {
            sleep(Duration::from_millis(1)).await;
            tokio::spawn(async move { number }).await.expect("it ends well")
        })
    });
    yield_now().await;
    inner + block_in_place(|| 1)
}

pub fn shuts_down() {
    for round in 0..ROUNDS {
        let gone = Gone::default();
        let runtime = runtime(2);
        let mut spawned = spawn_endless(&gone, |future| drop(runtime.spawn(future)));
        std::thread::sleep(MOMENT);
        if round % 2 == 0 {
            drop(runtime);
        } else {
            runtime.shutdown_timeout(Duration::from_secs(60));
        }
        let one_thread = Builder::new_current_thread().enable_all().build().expect("a runtime");
        spawned += spawn_endless(&gone, |future| drop(one_thread.spawn(future)));
        one_thread.block_on(async { sleep(Duration::from_millis(1)).await });
        drop(one_thread);
        say(format_args!("round {round}: {} of {spawned} are gone", gone.count()));
    }
}
