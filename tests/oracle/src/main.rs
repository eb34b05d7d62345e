//! A Tokio program that knows what it did: every poll, every spawn, and wakes that it makes itself.
//!
//! `task-oracle [--seconds 2 [--wakes | --blocking] | --panics]`
//!
//! With `--wakes` there are tasks that wake one another, and themselves, and say so; with `--blocking` some that spawn closures
//! which may block, and some that block in place.
//!
//! Prints `ready PID`, begins when a line comes on standard input, and prints its truth as lines of JSON, then `done`. It
//! ends when standard input closes, or in a panic of a task. It is built with old versions of Tokio too, so it uses nothing
//! new.

mod truth;

use std::{
    future::Future,
    io::{self, BufRead, Read},
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll, Waker},
    thread,
    time::{Duration, Instant},
};

use tokio::{
    runtime::{Builder, Runtime},
    sync::mpsc,
    task,
    time::{interval, sleep},
};

use self::truth::{spawn, spawn_local, By};

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

/// How often bells ring in a round.
const RINGS: u32 = 10;

/// How often polls block in a round.
const BLOCKS: u32 = 4;

/// What a task waits for until another task, or a thread, rings.
#[derive(Default)]
struct Bell(Mutex<Rings>);

#[derive(Default)]
struct Rings {
    /// How often it has rung.
    count: u32,
    /// Who waits for it: the task's number and waker.
    waiting: Option<(u64, Waker)>,
}

impl Bell {
    /// Rings, and wakes who waits. False if nobody does.
    fn ring(&self, by: By) -> bool {
        let mut rings = self.0.lock().expect("nobody panics");
        let Some((number, waker)) = rings.waiting.take() else { return false };
        rings.count += 1;
        drop(rings);
        truth::wake(number, waker, by);
        true
    }
}

/// Waits until a bell has rung so often.
struct Rung<'b> {
    bell: &'b Bell,
    count: u32,
}

impl Future for Rung<'_> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let mut rings = self.bell.0.lock().expect("nobody panics");
        if rings.count >= self.count {
            return Poll::Ready(());
        }
        rings.waiting = Some((truth::polling(), context.waker().clone()));
        Poll::Pending
    }
}

/// Is woken by nothing but a bell.
async fn listener(bell: Arc<Bell>, rounds: u32) {
    for count in 1..=rounds {
        Rung { bell: &bell, count }.await;
        burn(Duration::from_micros(30));
    }
}

/// Rings for each of them so often, both ways in turn.
async fn ringer(bells: Vec<Arc<Bell>>, rounds: u32) {
    let mut left: Vec<(Arc<Bell>, u32)> = bells.into_iter().map(|bell| (bell, rounds)).collect();
    while left.iter().any(|(_, rounds)| *rounds > 0) {
        for (bell, rounds) in left.iter_mut().filter(|(_, rounds)| *rounds > 0) {
            let by = if *rounds % 2 == 0 { By::Value } else { By::Reference };
            *rounds -= u32::from(bell.ring(by));
        }
        sleep(Duration::from_millis(1)).await;
    }
}

/// Rings from a thread that polls nothing.
fn ring_from_outside(bell: &Bell, rounds: u32) {
    for round in 0..rounds {
        let by = if round % 2 == 0 { By::Value } else { By::Reference };
        while !bell.ring(by) {
            thread::sleep(Duration::from_micros(500));
        }
    }
}

/// Wakes its own task in the middle of its poll.
struct Again(bool);

impl Future for Again {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if std::mem::replace(&mut self.0, true) {
            return Poll::Ready(());
        }
        truth::wake(truth::polling(), context.waker().clone(), By::Reference);
        burn(Duration::from_micros(10));
        Poll::Pending
    }
}

async fn restless(rounds: u32) {
    for _ in 0..rounds {
        Again(false).await;
        sleep(Duration::from_millis(1)).await;
    }
}

/// Has closures run that may block, and waits for each.
async fn delegate(rounds: u32) {
    for round in 0..rounds {
        let length = Duration::from_micros(u64::from(round % 5) * 500);
        let closure = truth::spawn_blocking(move || {
            burn(Duration::from_micros(100));
            thread::sleep(length);
        });
        closure.await.expect("a closure ends well");
    }
}

/// Blocks in the middle of polls: mostly so long that another thread goes on as the worker.
async fn squatter(rounds: u32) {
    for round in 0..rounds {
        burn(Duration::from_micros(50));
        let mut other = None;
        truth::block_in_place(|| {
            if round % 4 == 1 {
                other = Some(truth::spawn_blocking(|| burn(Duration::from_micros(50))));
            }
            if round % 4 < 3 {
                thread::sleep(Duration::from_millis(5));
            }
        });
        burn(Duration::from_micros(50));
        if let Some(other) = other {
            other.await.expect("a closure ends well");
        }
        // In the same poll, there would be no worker to give away any more, and on a busy machine sleep may have no need to
        // wait.
        Again(false).await;
        sleep(Duration::from_millis(1)).await;
    }
}

/// What there is to do besides.
#[derive(Clone, Copy)]
struct More {
    /// How often bells ring.
    rings: u32,
    /// How often closures that may block are spawned, and polls block in place.
    blocks: u32,
}

/// Several workers.
fn several(runtime: &Runtime, rounds: u32, More { rings, blocks }: More, far: Arc<Bell>) {
    let (near, outside) = (Arc::new(Bell::default()), Arc::new(Bell::default()));
    let rung = Arc::clone(&outside);
    let outsider = thread::spawn(move || ring_from_outside(&rung, rings));
    runtime.block_on(async move {
        let (to, from) = mpsc::channel(8);
        let mut all = vec![
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
        if rings > 0 {
            all.extend([
                spawn("listener", listener(Arc::clone(&near), rings)),
                spawn("listener<outside>", listener(outside, rings)),
                spawn("ringer", ringer(vec![near, far], rings)),
                spawn("restless", restless(rings)),
            ]);
        }
        if blocks > 0 {
            all.push(spawn("delegate", delegate(blocks)));
            all.push(spawn("squatter", squatter(blocks)));
        }
        for task in all {
            task.await.expect("a task ends well");
        }
    });
    outsider.join().expect("the thread ends well");
}

/// One worker, the thread itself, and tasks that stay on it.
fn only(rounds: u32, rings: u32, bell: Arc<Bell>) {
    let runtime = Builder::new_current_thread().enable_time().build().expect("a runtime");
    let local = task::LocalSet::new();
    runtime.block_on(local.run_until(async move {
        let mut all = vec![spawn("hog", hog(rounds)), spawn_local("local", hog(rounds))];
        if rings > 0 {
            all.push(spawn_local("listener<local>", listener(bell, rings)));
            all.push(spawn_local("restless<local>", restless(rings)));
        }
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
    let third = arguments.next();
    let (wakes, blocking) = (third.as_deref() == Some("--wakes"), third.as_deref() == Some("--blocking"));
    truth::begin();
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_time().build()?;
    println!("ready {}", std::process::id());
    let mut line = String::new();
    io::stdin().lock().read_line(&mut line)?;
    if first.as_deref() == Some("--panics") {
        panics();
    }
    let rounds = seconds * 20;
    let rings = if wakes { rounds * RINGS } else { 0 };
    let bell = Arc::new(Bell::default());
    let rung = Arc::clone(&bell);
    let other = thread::Builder::new().name("current".to_owned()).spawn(move || only(rounds, rings, rung))?;
    let blocks = if blocking { rounds * BLOCKS } else { 0 };
    several(&runtime, rounds, More { rings, blocks }, bell);
    other.join().expect("the thread ends well");
    truth::print();
    println!("done");
    io::stdin().lock().read_to_end(&mut Vec::new())?;
    Ok(())
}
