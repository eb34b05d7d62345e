//! Tasks of smol, whose executor is built on async-task, and all their polls.
//!
//! `smol-mill [--polls 200] [--tasks 8] [--blocked 12]`
//!
//! Prints `ready PID`. When a line comes on standard input, it polls tasks on two threads: some that wake themselves until
//! each has been polled so often, one that sleeps in its polls, one that computes in them, each so many milliseconds, and
//! closures that may block on threads of their own. In the end it prints a line of JSON for each poll, and one for each
//! closure, and `done`. Ends when standard input does.

use std::{
    env, fmt,
    future::poll_fn,
    io, process,
    sync::{Arc, Mutex},
    task::Poll,
    thread,
    time::Duration,
};

use polletto_tests::workload::{boottime, line_came, option, own_tid, say, spin, until_stdin_closes};

/// Polls of such a task, and closures.
const BLOCKING: usize = 10;

/// What ran on a thread from then to then.
struct Ran {
    what: &'static str,
    tid: i32,
    begin: u64,
    end: u64,
}

impl fmt::Display for Ran {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Ran { what, tid, begin, end } = self;
        write!(out, r#"{{"what":"{what}","tid":{tid},"begin":{begin},"end":{end}}}"#)
    }
}

type Book = Arc<Mutex<Vec<Ran>>>;

/// Runs something, and notes it.
fn noted(what: &'static str, book: &Book, run: impl FnOnce()) {
    let begin = boottime();
    run();
    let ran = Ran { what, tid: own_tid(), begin, end: boottime() };
    book.lock().expect("no thread panics").push(ran);
}

/// Is polled so often, and does this in each poll.
async fn polled(what: &'static str, book: Book, mut left: usize, run: impl Fn()) {
    poll_fn(move |context| {
        noted(what, &book, &run);
        left -= 1;
        if left == 0 {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

async fn yielding(book: Book, polls: usize) {
    polled("yielding", book, polls, || {}).await;
}

async fn sleeping(book: Book, blocked: Duration) {
    polled("sleeping", book, BLOCKING, move || thread::sleep(blocked)).await;
}

async fn computing(book: Book, blocked: Duration) {
    polled("computing", book, BLOCKING, move || spin(blocked)).await;
}

fn main() -> io::Result<()> {
    let (polls, tasks) = (option("--polls", 200), option("--tasks", 8));
    let blocked = Duration::from_millis(option("--blocked", 12));
    // SAFETY: there is only this thread yet.
    unsafe { env::set_var("SMOL_THREADS", "2") };
    say(format_args!("ready {}", process::id()));
    if !line_came() {
        return Ok(());
    }
    let book = Book::default();
    let mut all: Vec<smol::Task<()>> = (0..tasks).map(|_| smol::spawn(yielding(Arc::clone(&book), polls))).collect();
    all.push(smol::spawn(sleeping(Arc::clone(&book), blocked)));
    all.push(smol::spawn(computing(Arc::clone(&book), blocked)));
    for _ in 0..BLOCKING {
        let book = Arc::clone(&book);
        all.push(smol::unblock(move || noted("blocking", &book, || thread::sleep(blocked))));
    }
    all.into_iter().for_each(smol::block_on);
    book.lock().expect("no thread panics").iter().for_each(say);
    say("done");
    until_stdin_closes();
    Ok(())
}
