//! What the recorder itself takes of the machine.

use std::time::Duration;

use anyhow::{Context, Result};
use rustix::time::{ClockId, clock_gettime};

/// Since the recorder started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OwnUse {
    /// CPU time of all its threads, user and system.
    pub cpu: Duration,
    /// The most memory that it had resident, rings included.
    pub peak_memory_bytes: u64,
}

impl OwnUse {
    /// As it is now.
    pub fn now() -> Result<OwnUse> {
        let status = procfs::process::Process::myself()?.status()?;
        let kib = status.vmhwm.context("the kernel does not tell the recorder's memory")?;
        Ok(OwnUse { cpu: cpu_time(), peak_memory_bytes: kib * 1024 })
    }
}

/// What the processes took that were started to find names, and have ended: CPU time, and the most memory of any.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NamingUse {
    /// Of all of them.
    pub cpu: Duration,
    /// Files that they mapped included.
    pub peak_memory_bytes: u64,
}

/// Runs `name`, during which no other process that we started is waited for. It says how much memory those have: what the
/// kernel tells of them begins with what the recorder had when it started them.
pub fn of_naming<T>(name: impl FnOnce(&mut u64) -> T) -> (T, NamingUse) {
    let before = cpu_time_of_children();
    let mut peak_memory_bytes = 0;
    let result = name(&mut peak_memory_bytes);
    (result, NamingUse { cpu: cpu_time_of_children().saturating_sub(before), peak_memory_bytes })
}

fn cpu_time_of_children() -> Duration {
    // SAFETY: all zeros are a valid value of this plain structure.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: it is ours, and filled as far as the kernel knows it.
    unsafe { libc::getrusage(libc::RUSAGE_CHILDREN, &mut usage) };
    let time = |time: libc::timeval| Duration::new(time.tv_sec.unsigned_abs(), time.tv_usec as u32 * 1000);
    time(usage.ru_utime) + time(usage.ru_stime)
}

/// CPU time of the calling thread, user and system, nanoseconds.
pub fn thread_cpu_ns() -> u64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec as u32).as_nanos() as u64
}

/// CPU time of all threads of the recorder, user and system.
pub fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec as u32)
}
