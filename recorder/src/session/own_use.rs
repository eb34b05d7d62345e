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

/// CPU time of all threads of the recorder, user and system.
pub fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec as u32)
}
