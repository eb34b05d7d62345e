//! What a trace says about its circumstances.

use std::io;

use anyhow::{Context, Result};
use rustix::time::{ClockId, clock_gettime};

use super::Config;
use crate::trace::{Clocks, Preamble};

/// CLOCK_BOOTTIME, nanoseconds: the clock of the kernel programs.
pub fn boottime_ns() -> u64 {
    nanoseconds(ClockId::Boottime)
}

/// All clocks, as nearly at once as a program can read them.
pub fn clocks() -> Clocks {
    Clocks {
        boottime_ns: nanoseconds(ClockId::Boottime),
        monotonic_ns: nanoseconds(ClockId::Monotonic),
        realtime_ns: nanoseconds(ClockId::Realtime),
    }
}

/// The first packets of a recording.
pub fn preamble(config: &Config, clocks: Clocks) -> Result<Preamble> {
    let names = rustix::system::uname();
    let text = |name: &std::ffi::CStr| name.to_string_lossy().into_owned();
    Ok(Preamble {
        uuid: random_number().context("could not read a random number")?,
        kernel: [names.sysname(), names.release(), names.version(), names.machine()].map(text),
        version: env!("CARGO_PKG_VERSION"),
        cpus: std::thread::available_parallelism().map_or(0, |cpus| cpus.get() as u32),
        page_bytes: rustix::param::page_size() as u32,
        attributes: config.attributes(),
        clocks,
    })
}

fn nanoseconds(clock: ClockId) -> u64 {
    let time = clock_gettime(clock);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// A number that nobody can foresee.
pub fn random_number() -> io::Result<u128> {
    let mut bytes = [0; 16];
    io::Read::read_exact(&mut std::fs::File::open("/dev/urandom")?, &mut bytes)?;
    Ok(u128::from_ne_bytes(bytes))
}
