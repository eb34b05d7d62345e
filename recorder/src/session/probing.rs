//! The thread that attaches probes, and looks often enough at what they take.

use std::{
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender},
    },
    time::{Duration, Instant},
};

use anyhow::Result;
use polletto_common::id::Tgid;

use super::{
    changes::{Code, Follower},
    governor::Budget,
    modules::ModuleFile,
    polls::{ProbeSummary, Probing},
    precedence::go_first,
};
use crate::{families::ProbedCode, kernel::PollProbes, timeline::PollNews};

/// What the thread is told.
pub enum Order {
    /// This file's code polls, wakes and spawns.
    Knows { file: Arc<ModuleFile>, code: Vec<ProbedCode> },
    /// A process has mapped code.
    Mapped { process: Tgid, time_ns: u64, code: Code },
    /// This is all the code that a process has.
    Scanned { process: Tgid, time_ns: u64, code: Vec<Code> },
    /// A process began as a copy of another.
    Copied { from: Tgid, to: Tgid, time_ns: u64 },
    /// A process has ended, or begins another program.
    Forget { process: Tgid },
    /// No program's code may be patched any more.
    Stop,
    /// Everything before is done.
    Done(SyncSender<()>),
}

impl From<SyncSender<()>> for Order {
    fn from(done: SyncSender<()>) -> Order {
        Order::Done(done)
    }
}

/// Starts the thread. `news` is told when polls are not observed.
pub fn follow(probes: PollProbes, budget: Budget, news: Sender<PollNews>) -> Result<Follower<ProbeSummary, Order>> {
    Follower::start("polletto-probes", move |orders| run(Probing::new(probes, budget, news), &orders))
}

fn run(mut probing: Probing, orders: &Receiver<Order>) -> ProbeSummary {
    // What it does late, recorded programs pay for.
    go_first();
    let mut looked = Instant::now();
    loop {
        let order = match probing.next_look() {
            None => orders.recv().map_err(RecvTimeoutError::from),
            Some(pause) => orders.recv_timeout(pause.saturating_sub(looked.elapsed())),
        };
        match order {
            Ok(order) => follow_order(&mut probing, order),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
        // However much there is to do.
        if probing.next_look().unwrap_or(Duration::ZERO) <= looked.elapsed() {
            probing.look();
            looked = Instant::now();
        }
    }
    probing.summary()
}

fn follow_order(probing: &mut Probing, order: Order) {
    match order {
        Order::Knows { file, code } => probing.knows(file, code),
        Order::Mapped { process, time_ns, code } => probing.add(process, time_ns, &code),
        Order::Scanned { process, time_ns, code } => {
            // Probes stay, unless it is other code than before.
            if !probing.fits(process, &code) {
                probing.forget(process);
            }
            code.iter().for_each(|code| probing.add(process, time_ns, code));
        }
        Order::Copied { from, to, time_ns } => probing.copied(from, to, time_ns),
        Order::Forget { process } => probing.forget(process),
        Order::Stop => probing.stop(),
        Order::Done(done) => {
            // Who waits may have given up.
            done.send(()).ok();
        }
    }
}
