//! What the program did, written down by itself.

use std::{
    cell::Cell,
    fmt,
    future::Future,
    pin::Pin,
    sync::{
        atomic::{AtomicU64, AtomicUsize, Ordering},
        Mutex, OnceLock,
    },
    task::{Context, Poll, Waker},
};

use tokio::task::JoinHandle;

/// CLOCK_BOOTTIME, nanoseconds: the clock of traces.
fn now() -> u64 {
    #[repr(C)]
    struct Timespec {
        seconds: i64,
        nanoseconds: i64,
    }
    extern "C" {
        fn clock_gettime(clock: i32, time: *mut Timespec) -> i32;
    }
    const BOOTTIME: i32 = 7;
    let mut time = Timespec { seconds: 0, nanoseconds: 0 };
    // SAFETY: the pointer is to a live value of the layout that 64-bit Linux has for it.
    let result = unsafe { clock_gettime(BOOTTIME, &mut time) };
    assert_eq!(result, 0, "every kernel has this clock");
    time.seconds as u64 * 1_000_000_000 + time.nanoseconds as u64
}

/// The calling thread's id.
fn own_tid() -> i32 {
    extern "C" {
        fn gettid() -> i32;
    }
    // SAFETY: a system call without arguments, which can't fail.
    unsafe { gettid() }
}

/// A task was begun.
struct Spawn {
    number: u64,
    /// As Tokio numbers tasks.
    id: u64,
    name: &'static str,
    /// The task that began it; 0 for none.
    parent: u64,
    at: u64,
}

/// Polls that can be written down. A second has some thousands.
const MAX_POLLS: usize = 1 << 17;

/// A task was polled: its number, the thread, when it began, and when it ended with a 1 in the lowest bit if for ever.
///
/// What writes a poll down is still part of it, so it must take no time: no lock, and memory that is there already.
type Polled = [AtomicU64; 4];

/// Wakes that can be written down.
const MAX_WAKES: usize = 1 << 14;

/// A task was woken: its number, that of the task that did it or 0, the thread, and when it began and was done.
type Woken = [AtomicU64; 5];

/// A closure that may block was spawned, from then to then.
struct Closure {
    number: u64,
    id: u64,
    parent: u64,
    begin: u64,
    end: u64,
}

/// What ran on a thread, from then to then: a closure, or what a task did in place, by its number.
#[derive(Clone, Copy)]
struct Ran {
    number: u64,
    tid: i32,
    begin: u64,
    end: u64,
}

/// Where these are written down there is a lock: they are far apart.
static CLOSURES: Mutex<Vec<Closure>> = Mutex::new(Vec::new());
static RAN: Mutex<Vec<Ran>> = Mutex::new(Vec::new());
static IN_PLACE: Mutex<Vec<Ran>> = Mutex::new(Vec::new());

static SPAWNS: Mutex<Vec<Spawn>> = Mutex::new(Vec::new());
static POLLS: OnceLock<Vec<Polled>> = OnceLock::new();
static POLLED: AtomicUsize = AtomicUsize::new(0);
static WAKES: OnceLock<Vec<Woken>> = OnceLock::new();
static WOKEN: AtomicUsize = AtomicUsize::new(0);
static NUMBERS: AtomicU64 = AtomicU64::new(1);

thread_local! {
    /// The number of the task that this thread polls.
    static POLLING: Cell<u64> = const { Cell::new(0) };
    static TID: i32 = own_tid();
}

/// A future that writes down when it is polled.
struct Told<F> {
    number: u64,
    future: F,
}

impl<F: Future> Future for Told<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let number = self.number;
        // SAFETY: the future is never moved out of `self`, which stays where it is.
        let future = unsafe { self.map_unchecked_mut(|told| &mut told.future) };
        let before = POLLING.replace(number);
        let begin = now();
        let result = future.poll(context);
        let end = now();
        POLLING.set(before);
        let end = end & !1 | u64::from(result.is_ready());
        let at = POLLED.fetch_add(1, Ordering::Relaxed);
        let polls = POLLS.get().expect("there is room from the beginning");
        for (slot, value) in polls[at].iter().zip([number, TID.with(|tid| *tid) as u64, begin, end]) {
            slot.store(value, Ordering::Relaxed);
        }
        result
    }
}

/// Makes room for what will be written down.
pub fn begin() {
    let polls = (0..MAX_POLLS).map(|_| Polled::default()).collect();
    let wakes = (0..MAX_WAKES).map(|_| Woken::default()).collect();
    assert!(POLLS.set(polls).is_ok() && WAKES.set(wakes).is_ok(), "it begins once");
}

/// The number of the task that the calling thread polls.
pub fn polling() -> u64 {
    POLLING.get()
}

/// How a task is woken.
#[derive(Clone, Copy)]
pub enum By {
    /// The waker is used up.
    Value,
    /// It is not.
    Reference,
}

/// Wakes the task of this number, and writes that down.
pub fn wake(number: u64, waker: Waker, by: By) {
    let begin = now();
    match by {
        By::Value => waker.wake(),
        By::Reference => waker.wake_by_ref(),
    }
    let end = now();
    let at = WOKEN.fetch_add(1, Ordering::Relaxed);
    let wakes = WAKES.get().expect("there is room from the beginning");
    for (slot, value) in wakes[at].iter().zip([number, POLLING.get(), TID.with(|tid| *tid) as u64, begin, end]) {
        slot.store(value, Ordering::Relaxed);
    }
}

/// Begins a task, and writes that down.
pub fn spawn<F>(name: &'static str, future: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + fmt::Debug,
{
    write_down(name, |number| tokio::spawn(Told { number, future }))
}

/// As [`spawn`], for a task that stays on its thread.
pub fn spawn_local<F>(name: &'static str, future: F) -> JoinHandle<F::Output>
where
    F: Future + 'static,
    F::Output: fmt::Debug,
{
    write_down(name, |number| tokio::task::spawn_local(Told { number, future }))
}

fn write_down<T>(name: &'static str, spawn: impl FnOnce(u64) -> JoinHandle<T>) -> JoinHandle<T>
where
    JoinHandle<T>: fmt::Debug,
{
    let number = NUMBERS.fetch_add(1, Ordering::Relaxed);
    let at = now();
    let handle = spawn(number);
    let id = id_of(&handle);
    SPAWNS.lock().expect("nobody panics").push(Spawn { number, id, name, parent: POLLING.get(), at });
    handle
}

/// Gives a closure to the threads for those that may block, and writes that down.
pub fn spawn_blocking(closure: impl FnOnce() + Send + 'static) -> JoinHandle<()> {
    let number = NUMBERS.fetch_add(1, Ordering::Relaxed);
    let begin = now();
    let handle = tokio::task::spawn_blocking(move || write_down_run(&RAN, number, closure));
    let end = now();
    let id = id_of(&handle);
    let closure = Closure { number, id, parent: POLLING.get(), begin, end };
    CLOSURES.lock().expect("nobody panics").push(closure);
    handle
}

/// Blocks in the middle of a poll, for which another thread goes on as the worker, and writes that down.
pub fn block_in_place(closure: impl FnOnce()) {
    let begin = now();
    tokio::task::block_in_place(closure);
    let ran = Ran { number: POLLING.get(), tid: TID.with(|tid| *tid), begin, end: now() };
    IN_PLACE.lock().expect("nobody panics").push(ran);
}

fn write_down_run(to: &Mutex<Vec<Ran>>, number: u64, closure: impl FnOnce()) {
    let begin = now();
    closure();
    let ran = Ran { number, tid: TID.with(|tid| *tid), begin, end: now() };
    to.lock().expect("nobody panics").push(ran);
}

/// Old versions tell a task's id in no other way.
fn id_of<T>(handle: &JoinHandle<T>) -> u64
where
    JoinHandle<T>: fmt::Debug,
{
    let text = format!("{handle:?}");
    text.chars().filter(char::is_ascii_digit).collect::<String>().parse().expect("an id")
}

/// Prints everything.
pub fn print() {
    for Spawn { number, id, name, parent, at } in SPAWNS.lock().expect("nobody panics").iter() {
        println!(r#"{{"spawn":{number},"id":{id},"name":"{name}","parent":{parent},"at":{at}}}"#);
    }
    for Closure { number, id, parent, begin, end } in CLOSURES.lock().expect("nobody panics").iter() {
        println!(r#"{{"closure":{number},"id":{id},"parent":{parent},"begin":{begin},"end":{end}}}"#);
    }
    for (what, all) in [("ran", &RAN), ("in_place", &IN_PLACE)] {
        for Ran { number, tid, begin, end } in all.lock().expect("nobody panics").iter() {
            println!(r#"{{"{what}":{number},"tid":{tid},"begin":{begin},"end":{end}}}"#);
        }
    }
    let polls = POLLS.get().expect("there is room from the beginning");
    for poll in &polls[..POLLED.load(Ordering::Relaxed)] {
        let [number, tid, begin, end] = [0, 1, 2, 3].map(|at: usize| poll[at].load(Ordering::Relaxed));
        let is_last = end & 1 == 1;
        println!(r#"{{"poll":{number},"tid":{tid},"begin":{begin},"end":{end},"last":{is_last}}}"#);
    }
    let wakes = WAKES.get().expect("there is room from the beginning");
    for wake in &wakes[..WOKEN.load(Ordering::Relaxed)] {
        let [number, by, tid, begin, end] = [0, 1, 2, 3, 4].map(|at: usize| wake[at].load(Ordering::Relaxed));
        println!(r#"{{"wake":{number},"by":{by},"tid":{tid},"begin":{begin},"end":{end}}}"#);
    }
}
