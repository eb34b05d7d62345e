//! The timer that samples: one event per CPU, which the kernel keeps also where nothing recorded runs, so that threads cost
//! nothing that come and go.

use anyhow::{Context, Result};
use aya::programs::{
    PerfEvent,
    perf_event::{HardwareEvent, PerfEventConfig, PerfEventLink, PerfEventScope, SamplePolicy, SoftwareEvent},
};

/// What drives the timer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SamplingClock {
    /// The CPU's cycle counter, which also sees code that runs with interrupts off.
    Cycles,
    /// The kernel's own timer.
    Software,
}

impl SamplingClock {
    /// What the trace calls it.
    pub fn name(self) -> &'static str {
        match self {
            SamplingClock::Cycles => "cycles",
            SamplingClock::Software => "cpu-clock",
        }
    }
}

/// Attaches the program to each CPU's cycle counter or, where there is none, to the kernel's timer.
pub fn attach(program: &mut PerfEvent, cpus: &[u32], hz: u32) -> Result<(SamplingClock, Vec<PerfEventLink>)> {
    let cycles = PerfEventConfig::Hardware(HardwareEvent::CpuCycles);
    match attach_to(program, cpus, cycles, SamplePolicy::Frequency(u64::from(hz))) {
        Ok(links) => return Ok((SamplingClock::Cycles, links)),
        // Virtual machines mostly have none.
        Err(_) => {}
    }
    let clock = PerfEventConfig::Software(SoftwareEvent::CpuClock);
    let links = attach_to(program, cpus, clock, SamplePolicy::Period(1_000_000_000 / u64::from(hz)))
        .context("could not start the timer that takes samples")?;
    Ok((SamplingClock::Software, links))
}

/// On all CPUs or, if any has no such event, on none.
fn attach_to(
    program: &mut PerfEvent,
    cpus: &[u32],
    event: PerfEventConfig,
    policy: SamplePolicy,
) -> Result<Vec<PerfEventLink>> {
    cpus.iter()
        .map(|&cpu| {
            let scope = PerfEventScope::AllProcessesOneCpu { cpu };
            let id = program.attach(event, scope, policy, false).with_context(|| format!("on CPU {cpu}"))?;
            Ok(program.take_link(id)?)
        })
        .collect()
}
