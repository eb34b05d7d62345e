//! The timer that samples: one event per CPU, which the kernel keeps also where nothing recorded runs, so that threads cost
//! nothing that come and go.

use anyhow::{Context, Result};
use aya::programs::{
    PerfEvent,
    perf_event::{HardwareEvent, PerfEventConfig, PerfEventLink, PerfEventScope, SamplePolicy, SoftwareEvent},
};

use super::settings::SamplingClock;

/// Attaches the program to an event on each of these CPUs.
pub fn attach(program: &mut PerfEvent, cpus: &[u32], clock: SamplingClock, hz: u32) -> Result<Vec<PerfEventLink>> {
    let hz = u64::from(hz);
    let (event, policy) = match clock {
        SamplingClock::Software => {
            (PerfEventConfig::Software(SoftwareEvent::CpuClock), SamplePolicy::Period(1_000_000_000 / hz))
        }
        SamplingClock::Cycles => (PerfEventConfig::Hardware(HardwareEvent::CpuCycles), SamplePolicy::Frequency(hz)),
    };
    let attach = |&cpu: &u32| {
        let scope = PerfEventScope::AllProcessesOneCpu { cpu };
        let id = program.attach(event, scope, policy, false).with_context(|| match clock {
            SamplingClock::Software => format!("could not start the timer that takes samples on CPU {cpu}"),
            SamplingClock::Cycles => format!(
                "CPU {cpu} has no cycle counter that can be used, as most virtual machines have none: leave out --clock"
            ),
        })?;
        Ok(program.take_link(id)?)
    };
    cpus.iter().map(attach).collect()
}
