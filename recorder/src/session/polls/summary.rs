//! What became of probes.

use std::collections::BTreeMap;

use polletto_common::poll::Site;

use crate::session::calibration::ProbeCost;

/// Reasons that are kept, so that a program of thousands of vtables does not fill a summary.
const MAX_REASONS: usize = 64;

/// What became of the probes, for people to read.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize)]
pub struct ProbeSummary {
    /// Places with a probe where polls begin, of all processes.
    pub begins: u64,
    /// Places with a probe where polls have ended, of all processes.
    pub ends: u64,
    /// Places with a probe where tasks are woken, of all processes.
    pub wakes: u64,
    /// Places with a probe where tasks are spawned, of all processes.
    pub spawns: u64,
    /// Places without, by the reason why not.
    pub refused: BTreeMap<String, u64>,
    /// For how long there were probes, of all processes that poll, nanoseconds.
    pub observed_ns: u64,
    /// For how long there were none, nanoseconds.
    pub unobserved_ns: u64,
    /// How often probes were reached.
    pub hits: u64,
    /// What that took of the processes' time, for all that was measured, nanoseconds.
    pub spent_ns: u64,
    /// CPU time of the recorder for attaching and removing them, nanoseconds. The budget pays for it too.
    pub attaching_ns: u64,
    /// The budget that would have been enough to observe all polls of the process that needs most, percent of a CPU: an
    /// estimate by what its probes took while they were there, with two digits. None if all were, or it is not known.
    pub budget_for_all: Option<f64>,
    /// What one takes besides the kernel program, as it was measured; nothing before it was.
    pub cost: ProbeCost,
}

impl ProbeSummary {
    /// There are none at all.
    pub fn refused(reason: String) -> ProbeSummary {
        ProbeSummary { refused: BTreeMap::from([(reason, 1)]), ..ProbeSummary::default() }
    }

    /// There are probes that tell this, where there were none before.
    pub(super) fn count(&mut self, site: Site) {
        let places = match site {
            Site::Begin { .. } | Site::BeginOwn { .. } => &mut self.begins,
            Site::End { .. } => &mut self.ends,
            Site::Wake { .. } => &mut self.wakes,
            Site::Spawn { .. } => &mut self.spawns,
        };
        *places += 1;
    }

    /// A process is of no interest any more, for which that budget would have been enough.
    pub(super) fn estimate(&mut self, budget: Option<f64>) {
        let all = self.budget_for_all.into_iter().chain(budget);
        self.budget_for_all = all.reduce(f64::max);
    }

    /// So many places have none.
    pub(super) fn refuse(&mut self, count: usize, reason: &str) {
        let refused = &mut self.refused;
        if refused.len() < MAX_REASONS || refused.contains_key(reason) {
            *refused.entry(reason.to_owned()).or_default() += count as u64;
        }
    }
}
