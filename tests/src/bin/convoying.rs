//! Threads that stand at one lock, and who holds it.
//!
//! `convoying [--rounds 10]`
//!
//! Prints `ready PID`. When a line comes on standard input, one thread takes a lock again and again, and lets it go after
//! 20 ms at which others want it: three polls; two polls, which are too few for a convoy; and four closures that may block, which
//! keep no worker. In the end it prints a line of JSON for each of these: who wanted the lock, where it lies, how many bytes it
//! has, who held it, since when all others waited, and when it was let go; then `done`. Ends when standard input does.

use std::{
    fmt, io, process,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
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
enum Wanted {
    ByPolls(usize),
    ByBlockingCode(usize),
}

impl Wanted {
    fn count(self) -> usize {
        match self {
            Wanted::ByPolls(count) | Wanted::ByBlockingCode(count) => count,
        }
    }
}

/// A lock that threads wanted which one held.
struct Round {
    wanted: Wanted,
    lock: usize,
    holder: i32,
    begin: u64,
    end: u64,
}

impl fmt::Display for Round {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Round { wanted, lock, holder, begin, end } = self;
        let (by, count, bytes) = match wanted {
            Wanted::ByPolls(count) => ("polls", count, size_of::<Mutex<()>>()),
            Wanted::ByBlockingCode(count) => ("blocking code", count, size_of::<Mutex<()>>()),
        };
        write!(
            out,
            r#"{{"by":"{by}","count":{count},"lock":{lock},"bytes":{bytes},"holder":{holder},"begin":{begin},"end":{end}}}"#
        )
    }
}

/// Takes the lock, and lets it go at once.
fn want(lock: &Mutex<()>, coming: &AtomicUsize) {
    coming.fetch_add(1, Ordering::SeqCst);
    drop(lock.lock().expect("no thread panics"));
}

/// The calling thread holds a lock that others want.
fn hold(runtime: &Runtime, wanted: Wanted) -> Round {
    let lock = Arc::new(Mutex::new(()));
    let coming = Arc::new(AtomicUsize::new(0));
    let held = lock.lock().expect("no thread panics");
    let all: Vec<_> = (0..wanted.count())
        .map(|_| {
            let (lock, coming) = (Arc::clone(&lock), Arc::clone(&coming));
            match wanted {
                Wanted::ByPolls(_) => runtime.spawn(async move { want(&lock, &coming) }),
                Wanted::ByBlockingCode(_) => runtime.spawn_blocking(move || want(&lock, &coming)),
            }
        })
        .collect();
    while coming.load(Ordering::SeqCst) < wanted.count() {
        thread::yield_now();
    }
    let begin = boottime();
    thread::sleep(HELD);
    let end = boottime();
    drop(held);
    all.into_iter().for_each(|one| runtime.block_on(one).expect("tasks end well"));
    thread::sleep(PAUSE);
    Round { wanted, lock: Arc::as_ptr(&lock).addr(), holder: own_tid(), begin, end }
}

fn main() -> io::Result<()> {
    let rounds: usize = option("--rounds", 10);
    let runtime = Builder::new_multi_thread().worker_threads(WORKERS).build()?;
    say(format_args!("ready {}", process::id()));
    if !line_came() {
        return Ok(());
    }
    let each = [Wanted::ByPolls(3), Wanted::ByPolls(2), Wanted::ByBlockingCode(4)];
    // Not the main thread, so that nothing can be mistaken for the process.
    let holding = thread::spawn(move || {
        (0..rounds).flat_map(|_| each).map(|wanted| hold(&runtime, wanted)).collect::<Vec<Round>>()
    });
    let all = holding.join().expect("the thread ends well");
    all.iter().for_each(say);
    say("done");
    until_stdin_closes();
    Ok(())
}
