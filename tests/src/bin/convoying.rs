//! Threads that stand at one lock, and who holds it.
//!
//! `convoying [--rounds 10] [--lock std|parking_lot|readers] [--before 0]`
//!
//! Prints `ready PID`. When a line comes on standard input, one thread takes a lock again and again, and lets it go
//! after 20 ms at which others want it: three polls; two polls, which are too few for a convoy; four closures that may
//! block, which keep no worker; and four polls that want a lock of their own each, all of which the thread holds. In
//! the end it prints a line of JSON for each of these: who wanted the lock, where it lies, how many bytes it has, who
//! held it, since when all others waited, and when it was let go; then `done`. Ends when standard input does.
//!
//! Locks are the standard library's mutexes, or `parking_lot`'s, or its locks for readers: one reads, the others want
//! to write.
//!
//! With `--before N`, there is one round instead, of a mutex that one thread holds before the program is ready, and at which N
//! others stand. After the line came, three polls want it as well. Each of the threads lets it go after 20 ms, which is told of
//! each of them in the end.

use std::{
    fmt, io, process,
    sync::{
        Arc, Barrier, Mutex,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use polletto_tests::workload::{boottime, line_came, option, own_tid, say, until_stdin_closes};
use tokio::runtime::{Builder, Runtime};

/// How long the lock is held while all the others wait for it.
const HELD: Duration = Duration::from_millis(20);

/// Between two rounds, so that nobody stands there any more.
const PAUSE: Duration = Duration::from_millis(10);

const WORKERS: usize = 4;

/// Who wants the lock.
#[derive(Clone, Copy)]
enum WantedBy {
    Polls(usize),
    BlockingCode(usize),
    /// Each wants its own.
    PollsApart(usize),
}

impl WantedBy {
    fn count(self) -> usize {
        match self {
            WantedBy::Polls(count) | WantedBy::BlockingCode(count) | WantedBy::PollsApart(count) => count,
        }
    }

    fn locks(self) -> usize {
        match self {
            WantedBy::Polls(_) | WantedBy::BlockingCode(_) => 1,
            WantedBy::PollsApart(count) => count,
        }
    }
}

enum Lock {
    Std(Mutex<()>),
    ParkingLot(parking_lot::Mutex<()>),
    Readers(parking_lot::RwLock<()>),
}

impl Lock {
    fn new(kind: &str) -> Lock {
        match kind {
            "std" => Lock::Std(Mutex::default()),
            "parking_lot" => Lock::ParkingLot(parking_lot::Mutex::default()),
            "readers" => Lock::Readers(parking_lot::RwLock::default()),
            _ => panic!("--lock is std, parking_lot or readers, not {kind}"),
        }
    }

    /// Takes the lock, does something, and lets it go.
    fn hold(&self, meanwhile: &mut dyn FnMut()) {
        match self {
            Lock::Std(lock) => {
                let _held = lock.lock().expect("no thread panics");
                meanwhile();
            }
            Lock::ParkingLot(lock) => {
                let _held = lock.lock();
                meanwhile();
            }
            Lock::Readers(lock) => {
                let _held = lock.read();
                meanwhile();
            }
        }
    }

    /// Takes the lock, and lets it go at once.
    fn want(&self) {
        match self {
            Lock::Std(lock) => drop(lock.lock().expect("no thread panics")),
            Lock::ParkingLot(lock) => drop(lock.lock()),
            Lock::Readers(lock) => drop(lock.write()),
        }
    }

    /// Where it lies, and how many bytes it has.
    fn place(&self) -> (usize, usize) {
        fn of<T>(lock: &T) -> (usize, usize) {
            ((&raw const *lock).addr(), size_of::<T>())
        }
        match self {
            Lock::Std(lock) => of(lock),
            Lock::ParkingLot(lock) => of(lock),
            Lock::Readers(lock) => of(lock),
        }
    }
}

/// Takes all these locks, does something, and lets them go.
fn hold_all(locks: &[Lock], meanwhile: &mut dyn FnMut()) {
    match locks.split_first() {
        Some((first, others)) => first.hold(&mut || hold_all(others, meanwhile)),
        None => meanwhile(),
    }
}

/// A lock that threads wanted which one held.
struct Round {
    wanted: WantedBy,
    lock: (usize, usize),
    holder: i32,
    begin: u64,
    end: u64,
}

impl fmt::Display for Round {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Round { wanted, lock: (lock, bytes), holder, begin, end } = self;
        let by = match wanted {
            WantedBy::Polls(_) => "polls",
            WantedBy::BlockingCode(_) => "blocking code",
            WantedBy::PollsApart(_) => "polls apart",
        };
        let count = wanted.count();
        write!(
            out,
            r#"{{"by":"{by}","count":{count},"lock":{lock},"bytes":{bytes},"holder":{holder},"begin":{begin},"end":{end}}}"#
        )
    }
}

/// The calling thread holds locks that others want.
fn hold(runtime: &Runtime, kind: &str, wanted: WantedBy) -> Round {
    let locks: Arc<[Lock]> = (0..wanted.locks()).map(|_| Lock::new(kind)).collect();
    let coming = Arc::new(AtomicUsize::new(0));
    let (mut all, mut begin, mut end) = (Vec::new(), 0, 0);
    hold_all(&locks, &mut || {
        all.extend((0..wanted.count()).map(|index| {
            let (locks, coming) = (Arc::clone(&locks), Arc::clone(&coming));
            let want = move || {
                coming.fetch_add(1, Ordering::SeqCst);
                locks[index % locks.len()].want();
            };
            match wanted {
                WantedBy::Polls(_) | WantedBy::PollsApart(_) => runtime.spawn(async move { want() }),
                WantedBy::BlockingCode(_) => runtime.spawn_blocking(want),
            }
        }));
        while coming.load(Ordering::SeqCst) < wanted.count() {
            thread::yield_now();
        }
        begin = boottime();
        thread::sleep(HELD);
        end = boottime();
    });
    all.into_iter().for_each(|one| runtime.block_on(one).expect("tasks end well"));
    thread::sleep(PAUSE);
    Round { wanted, lock: locks[0].place(), holder: own_tid(), begin, end }
}

/// A thread holds a lock, as soon as it gets it.
fn take_turn(lock: &Lock, meanwhile: impl FnOnce()) -> Round {
    let (mut begin, mut end, mut meanwhile) = (0, 0, Some(meanwhile));
    lock.hold(&mut || {
        begin = boottime();
        meanwhile.take().into_iter().for_each(|meanwhile| meanwhile());
        thread::sleep(HELD);
        end = boottime();
    });
    Round { wanted: WantedBy::Polls(3), lock: lock.place(), holder: own_tid(), begin, end }
}

/// One thread holds the lock and others stand there before anybody says that it may go on.
fn stand_before(runtime: &Runtime, kind: &str, count: usize) -> Vec<Round> {
    /// Until a thread sleeps at a lock that it wants.
    const ASLEEP: Duration = Duration::from_millis(50);
    let lock = Arc::new(Lock::new(kind));
    let goes_on = Arc::new(Barrier::new(2));
    let (holds, is_held) = mpsc::channel();
    let first = {
        let (lock, goes_on) = (Arc::clone(&lock), Arc::clone(&goes_on));
        thread::spawn(move || {
            take_turn(&lock, || {
                holds.send(()).expect("it is waited for");
                goes_on.wait();
            })
        })
    };
    is_held.recv().expect("a thread holds it");
    let mut all = vec![first];
    for _ in 0..count {
        let lock = Arc::clone(&lock);
        all.push(thread::spawn(move || take_turn(&lock, || ())));
        thread::sleep(ASLEEP);
    }
    say(format_args!("ready {}", process::id()));
    if !line_came() {
        process::exit(0);
    }
    let polls: Vec<_> = (0..3)
        .map(|_| {
            let lock = Arc::clone(&lock);
            runtime.spawn(async move { lock.want() })
        })
        .collect();
    thread::sleep(ASLEEP);
    goes_on.wait();
    polls.into_iter().for_each(|poll| runtime.block_on(poll).expect("tasks end well"));
    all.into_iter().map(|thread| thread.join().expect("threads end well")).collect()
}

fn main() -> io::Result<()> {
    let rounds: usize = option("--rounds", 10);
    let kind: String = option("--lock", "std".to_owned());
    let runtime = Builder::new_multi_thread().worker_threads(WORKERS).build()?;
    let before: usize = option("--before", 0);
    if before > 0 {
        stand_before(&runtime, &kind, before).iter().for_each(say);
        say("done");
        until_stdin_closes();
        return Ok(());
    }
    say(format_args!("ready {}", process::id()));
    if !line_came() {
        return Ok(());
    }
    let each = [WantedBy::Polls(3), WantedBy::Polls(2), WantedBy::BlockingCode(4), WantedBy::PollsApart(4)];
    // Not the main thread, so that nothing can be mistaken for the process.
    let holding = thread::spawn(move || {
        (0..rounds).flat_map(|_| each).map(|wanted| hold(&runtime, &kind, wanted)).collect::<Vec<Round>>()
    });
    let all = holding.join().expect("the thread ends well");
    all.iter().for_each(say);
    say("done");
    until_stdin_closes();
    Ok(())
}
