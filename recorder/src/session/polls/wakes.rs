//! Which probes tell who wakes and who spawns tasks.

use polletto_common::poll::Site;
use rustc_hash::FxHashMap;

use super::{ProbeSummary, Wanted};
use crate::tokio::{Told, WakeCode};

/// What a probe tells of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    Wake,
    Spawn,
}

impl ProbeSummary {
    pub(super) fn count(&mut self, what: What) {
        match what {
            What::Wake => self.wakes += 1,
            What::Spawn => self.spawns += 1,
        }
    }
}

/// All of them for a file.
pub(super) fn wanted(code: &WakeCode) -> impl Iterator<Item = Wanted> {
    let wakes = code.wakes.iter().flatten().map(|Told { place, header }| (place, Site::Wake { header: *header }));
    let spawns = code.spawns.iter().flatten().map(|Told { place, header }| (place, Site::Spawn { header: *header }));
    wakes.chain(spawns).map(|(place, site)| Wanted { place: place.clone(), site })
}

/// What they tell, by where they are in a process.
pub(super) fn places(wanted: &[Wanted], bias: u64) -> FxHashMap<u64, What> {
    let of = |Wanted { place, site }: &Wanted| {
        let what = match site {
            Site::Wake { .. } => What::Wake,
            Site::Spawn { .. } => What::Spawn,
            Site::Begin { .. } | Site::End { .. } => return None,
        };
        Some((place.address.wrapping_add(bias), what))
    };
    wanted.iter().filter_map(of).collect()
}

/// Why a file's wakes or spawns are not told.
pub(super) fn refusals(code: &WakeCode) -> impl Iterator<Item = String> {
    let wakes = code.wakes.as_ref().err().map(|reason| format!("where tasks are woken: {reason}"));
    let spawns = code.spawns.as_ref().err().map(|reason| format!("where tasks are spawned: {reason}"));
    wakes.into_iter().chain(spawns)
}
