//! What a probe takes and whether it tells everything, tried on the recorder itself.

use std::{
    fs::File,
    sync::{Arc, Barrier},
    thread,
    time::Instant,
};

use anyhow::{Context, Result};
use polletto_common::{
    id::Tgid,
    poll::{Allowance, Cookie, Site},
};

use crate::{
    kernel::{PollLink, PollProbes, Probe},
    target,
};

/// Taken for a probe's cost where it can't be measured: more than it was on any machine so far.
const UNKNOWN: ProbeCost = ProbeCost { trap_ns: 5_000, step_ns: 20_000 };

/// What it takes a thread to come to a probe that tells nothing, nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct ProbeCost {
    /// Where the kernel carries the instruction out.
    pub trap_ns: u64,
    /// Where the thread runs a copy of it.
    pub step_ns: u64,
}

/// Threads that come to the probe at the same time: several hinder one another.
const THREADS: usize = 4;

/// How often each thread does so at a stretch, and how often it tries: few, as it takes the program's time too, and enough
/// to be off by less than what they vary by.
const CALLS: u32 = 100;
const TRIES: usize = 5;

/// How many times as much it takes in a program that does something else in between: what it had in the CPU's caches and
/// predictors is no longer there, nor is what the kernel needs. (An axum server's requests took so much longer.)
const COLD: u64 = 2;

#[cfg(target_arch = "x86_64")]
core::arch::global_asm!(
    ".pushsection .text.polletto_probed, \"ax\", @progbits",
    ".globl polletto_trapped",
    ".hidden polletto_trapped",
    ".type polletto_trapped, @function",
    "polletto_trapped:",
    ".cfi_startproc",
    // As most functions that poll begin.
    "push rax",
    "pop rax",
    "ret",
    ".cfi_endproc",
    ".size polletto_trapped, . - polletto_trapped",
    ".globl polletto_stepped",
    ".hidden polletto_stepped",
    ".type polletto_stepped, @function",
    "polletto_stepped:",
    ".cfi_startproc",
    // As those begin that nobody has optimized.
    "sub rsp, 8",
    "add rsp, 8",
    "ret",
    ".cfi_endproc",
    ".size polletto_stepped, . - polletto_stepped",
    ".popsection",
);

#[cfg(target_arch = "x86_64")]
unsafe extern "C" {
    safe fn polletto_trapped();
    safe fn polletto_stepped();
}

/// On others there are no probes yet.
#[cfg(not(target_arch = "x86_64"))]
extern "C" fn polletto_trapped() {}

/// See [`polletto_trapped`].
#[cfg(not(target_arch = "x86_64"))]
extern "C" fn polletto_stepped() {}

impl ProbeCost {
    /// What it is here and now.
    pub fn measured(probes: &PollProbes) -> ProbeCost {
        let measured = [polletto_trapped, polletto_stepped].map(|function| measure(probes, function).ok());
        match measured {
            [Some(trap_ns), Some(step_ns)] => ProbeCost { trap_ns: COLD * trap_ns, step_ns: COLD * step_ns },
            _ => UNKNOWN,
        }
    }
}

/// Whether probes of a process tell of all its threads. Until Linux 6.10, and where that was not mended in older ones, they
/// stop every thread and tell of the first alone: they would cost much, and that would not be noticed either.
pub fn tell_of_all_threads(probes: &mut PollProbes) -> Result<bool> {
    let own = Tgid(std::process::id());
    // Nothing is told, and it is counted.
    probes.allow(own, Allowance { over_ns: 1, ..Allowance::default() })?;
    let link =
        attach_to_own(probes, polletto_trapped, Cookie::of(Site::Begin { pushed: 0 }).unwrap_or(Cookie::NOTHING))?;
    thread::scope(|scope| scope.spawn(|| polletto_trapped()).join().ok());
    let are_told = !probes.taken(own).is_empty();
    probes.forget(own);
    remove(link);
    Ok(are_told)
}

fn attach_to_own(probes: &PollProbes, function: extern "C" fn(), cookie: Cookie) -> Result<PollLink> {
    let address = function as *const () as u64;
    let own = Tgid(std::process::id());
    let code = target::code_of(own)?.context("no process of our own")?;
    let range = code.iter().find(|range| (range.start..range.end).contains(&address)).context("no code of our own")?;
    let probe = Probe { file_offset: address - range.start + range.file_offset, cookie };
    Ok(probes.attach(own, &File::open("/proc/self/exe")?, &[probe])?)
}

/// Nobody waits for it: it takes longer than what is tried here.
fn remove(link: PollLink) {
    thread::spawn(move || drop(link));
}

fn measure(probes: &PollProbes, function: extern "C" fn()) -> Result<u64> {
    let link = attach_to_own(probes, function, Cookie::NOTHING)?;
    let threads = thread::available_parallelism().map_or(1, usize::from).min(THREADS);
    let barrier = Arc::new(Barrier::new(threads));
    let measuring: Vec<_> = (0..threads)
        .map(|_| {
            let barrier = Arc::clone(&barrier);
            thread::spawn(move || usual_call_ns(function, &barrier))
        })
        .collect();
    let slowest = measuring.into_iter().filter_map(|thread| thread.join().ok()).max();
    remove(link);
    slowest.context("no thread measured anything")
}

/// What a call takes in the middle one of several tries, while others do the same.
fn usual_call_ns(function: extern "C" fn(), barrier: &Barrier) -> u64 {
    let mut tries = [0; TRIES];
    for nanoseconds in &mut tries {
        barrier.wait();
        let began = Instant::now();
        (0..CALLS).for_each(|_| function());
        *nanoseconds = (began.elapsed() / CALLS).as_nanos() as u64;
    }
    tries.sort_unstable();
    tries[TRIES / 2]
}
