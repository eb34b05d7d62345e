//! What a probe takes, measured on the recorder itself.

use std::{
    fs::File,
    sync::{Arc, Barrier},
    thread,
    time::Instant,
};

use anyhow::{Context, Result};
use polletto_common::{id::Tgid, poll::Cookie};

use crate::{
    kernel::{PollProbes, Probe},
    target,
};

/// Taken for a probe's cost where it can't be measured, nanoseconds: more than it was on any machine so far.
const UNKNOWN_NS: u64 = 5_000;

/// Threads that come to the probe at the same time: several hinder one another.
const THREADS: usize = 4;

/// How often each thread does so at a stretch, and how often it tries.
const CALLS: u32 = 200;
const TRIES: usize = 9;

#[cfg(target_arch = "x86_64")]
core::arch::global_asm!(
    ".pushsection .text.polletto_probed, \"ax\", @progbits",
    ".type polletto_probed, @function",
    "polletto_probed:",
    ".cfi_startproc",
    // As most functions that poll begin.
    "push rax",
    "pop rax",
    "ret",
    ".cfi_endproc",
    ".size polletto_probed, . - polletto_probed",
    ".popsection",
);

#[cfg(target_arch = "x86_64")]
unsafe extern "C" {
    safe fn polletto_probed();
}

/// On others there are no probes yet.
#[cfg(not(target_arch = "x86_64"))]
extern "C" fn polletto_probed() {}

/// What it takes a thread to come to a probe that tells nothing, nanoseconds.
pub fn trap_ns(probes: &PollProbes) -> u64 {
    measure(probes).unwrap_or(UNKNOWN_NS)
}

fn measure(probes: &PollProbes) -> Result<u64> {
    let address = polletto_probed as *const () as u64;
    let own = Tgid(std::process::id());
    let code = target::code_of(own)?.context("no process of our own")?;
    let range = code.iter().find(|range| (range.start..range.end).contains(&address)).context("no code of our own")?;
    let probe = Probe { file_offset: address - range.start + range.file_offset, cookie: Cookie::NOTHING };
    let link = probes.attach(own, &File::open("/proc/self/exe")?, &[probe])?;
    let threads = thread::available_parallelism().map_or(1, usize::from).min(THREADS);
    let barrier = Arc::new(Barrier::new(threads));
    let measuring: Vec<_> = (0..threads)
        .map(|_| {
            let barrier = Arc::clone(&barrier);
            thread::spawn(move || usual_call_ns(&barrier))
        })
        .collect();
    let slowest = measuring.into_iter().filter_map(|thread| thread.join().ok()).max();
    // Removing it takes longer than measuring did.
    thread::spawn(move || drop(link));
    slowest.context("no thread measured anything")
}

/// What a call takes in the middle one of several tries, while others do the same.
fn usual_call_ns(barrier: &Barrier) -> u64 {
    let mut tries = [0; TRIES];
    for nanoseconds in &mut tries {
        barrier.wait();
        let began = Instant::now();
        (0..CALLS).for_each(|_| polletto_probed());
        *nanoseconds = (began.elapsed() / CALLS).as_nanos() as u64;
    }
    tries.sort_unstable();
    tries[TRIES / 2]
}
