//! A Tokio program that knows what it did: every poll, and every spawn.
//!
//! `task-oracle [--seconds 2 | --panics]`
//!
//! Prints `ready PID`, begins when a line comes on standard input, and prints its truth as lines of JSON, then `done`. It
//! ends when standard input closes, or in a panic of a task. It is built with old versions of Tokio too, so it uses nothing
//! new.

mod truth;

use std::{
    io::{self, BufRead, Read},
    thread,
    time::{Duration, Instant},
};

use tokio::{
    runtime::{Builder, Runtime},
    sync::mpsc,
    task,
    time::{interval, sleep},
};

use self::truth::{spawn, spawn_local};

/// Burns the CPU.
fn burn(length: Duration) {
    let end = Instant::now() + length;
    while Instant::now() < end {
        std::hint::spin_loop();
    }
}

/// Long polls that burn the CPU.
async fn hog(rounds: u32) {
    for _ in 0..rounds {
        burn(Duration::from_millis(15));
        sleep(Duration::from_millis(5)).await;
    }
}

/// Polls in which the thread sleeps.
async fn sleeper(rounds: u32) {
    for _ in 0..rounds {
        thread::sleep(Duration::from_millis(8));
        burn(Duration::from_micros(300));
        sleep(Duration::from_millis(10)).await;
    }
}

/// Many short polls.
async fn yielder(rounds: u32) {
    for _ in 0..rounds {
        burn(Duration::from_micros(20));
        task::yield_now().await;
    }
}

/// A future of its own for every type.
async fn generic<T: Default>(rounds: u32) -> T {
    for _ in 0..rounds {
        burn(Duration::from_millis(3));
        sleep(Duration::from_millis(4)).await;
    }
    T::default()
}

/// Begins others, one after another, and waits for each.
async fn parent(children: u32) {
    for index in 0..children {
        let child = spawn("child", async move {
            burn(Duration::from_micros(100 * u64::from(index % 10)));
            sleep(Duration::from_millis(1)).await;
            burn(Duration::from_millis(1));
        });
        child.await.expect("a child ends well");
    }
}

/// Sends what another waits for.
async fn pinger(rounds: u32, to: mpsc::Sender<u32>) {
    let mut every = interval(Duration::from_millis(2));
    for round in 0..rounds {
        every.tick().await;
        burn(Duration::from_micros(200));
        if to.send(round).await.is_err() {
            return;
        }
    }
}

async fn ponger(mut from: mpsc::Receiver<u32>) {
    while from.recv().await.is_some() {
        burn(Duration::from_micros(500));
    }
}

/// Several workers.
fn several(runtime: &Runtime, rounds: u32) {
    runtime.block_on(async move {
        let (to, from) = mpsc::channel(8);
        let all = vec![
            spawn("hog", hog(rounds)),
            spawn("sleeper", sleeper(rounds)),
            spawn("yielder", yielder(rounds * 100)),
            spawn("generic<u8>", async move {
                let _: u8 = generic(rounds).await;
            }),
            spawn("generic<String>", async move {
                let _: String = generic(rounds).await;
            }),
            spawn("parent", parent(rounds)),
            spawn("pinger", pinger(rounds * 5, to)),
            spawn("ponger", ponger(from)),
        ];
        for task in all {
            task.await.expect("a task ends well");
        }
    });
}

/// One worker, the thread itself, and tasks that stay on it.
fn only(rounds: u32) {
    let runtime = Builder::new_current_thread().enable_time().build().expect("a runtime");
    let local = task::LocalSet::new();
    runtime.block_on(local.run_until(async move {
        let all = vec![spawn("hog", hog(rounds)), spawn_local("local", hog(rounds))];
        for task in all {
            task.await.expect("a task ends well");
        }
    }));
}

/// A task panics, on the only worker, after a while of polls.
fn panics() {
    let runtime = Builder::new_multi_thread().worker_threads(1).enable_time().build().expect("a runtime");
    let panicked = runtime.block_on(runtime.spawn(async move {
        for _ in 0..40 {
            sleep(Duration::from_millis(1)).await;
        }
        panic!("as it was told");
    }));
    println!("caught: {}", panicked.is_err());
}

fn main() -> io::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let (first, second) = (arguments.next(), arguments.next());
    let seconds: u32 = match (first.as_deref(), second) {
        (Some("--seconds"), Some(seconds)) => seconds.parse().map_err(io::Error::other)?,
        _ => 2,
    };
    truth::begin();
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_time().build()?;
    println!("ready {}", std::process::id());
    let mut line = String::new();
    io::stdin().lock().read_line(&mut line)?;
    if first.as_deref() == Some("--panics") {
        panics();
    }
    let rounds = seconds * 20;
    let other = thread::Builder::new().name("current".to_owned()).spawn(move || only(rounds))?;
    several(&runtime, rounds);
    other.join().expect("the thread ends well");
    truth::print();
    println!("done");
    io::stdin().lock().read_to_end(&mut Vec::new())?;
    Ok(())
}
