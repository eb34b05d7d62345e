//! Whether this machine can record, before anything is loaded: what `polletto doctor` prints, and `record` begins with.
//!
//! [`Machine`] gathers facts and judges nothing. The checks judge facts and touch nothing, so that every machine we
//! never had can be tested. Each finding that is not fine names the command that mends it.

mod checks;
mod machine;
mod memory;
mod probe;
mod report;

use std::num::NonZero;

pub use machine::{KernelTypes, Lockdown, Machine};
pub use memory::MemoryLimit;
pub use report::{Check, Outcome, Report};

/// What a recording will ask of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Needs {
    /// Size of the rings of all CPUs together, in bytes.
    pub ring_bytes: u64,
}

impl Default for Needs {
    /// A common recording: rings of 8 MiB, of 256 MiB together at most.
    fn default() -> Needs {
        let cpus = std::thread::available_parallelism().map_or(1, NonZero::get) as u64;
        Needs { ring_bytes: (cpus * (8 << 20)).min(256 << 20) }
    }
}

/// Looks at this machine and judges it. Takes some 30 ms, most of them for the kernel's type information.
pub fn run(needs: &Needs) -> Report {
    judge(&Machine::read(), needs)
}

/// Judges a machine.
pub fn judge(machine: &Machine, needs: &Needs) -> Report {
    checks::all(machine, needs)
}
