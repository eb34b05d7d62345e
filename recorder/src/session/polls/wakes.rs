//! Which probes tell who wakes and who spawns tasks.

use polletto_common::poll::Site;

use super::process::Wanted;
use crate::tokio::{Told, WakeCode};

/// All of them for a file.
pub(super) fn wanted(code: &WakeCode) -> impl Iterator<Item = Wanted> {
    let wakes = code.wakes.iter().flatten().map(|Told { place, header }| (place, Site::Wake { header: *header }));
    let spawns = code.spawns.iter().flatten().map(|Told { place, header }| (place, Site::Spawn { header: *header }));
    let blocking = code.blocking_spawns.iter().flatten();
    let blocking = blocking.map(|Told { place, header }| (place, Site::Spawn { header: *header }));
    wakes.chain(spawns).chain(blocking).map(|(place, site)| Wanted { place: place.clone(), site })
}

/// Why a file's wakes or spawns are not told.
pub(super) fn refusals(code: &WakeCode) -> impl Iterator<Item = String> {
    let wakes = code.wakes.as_ref().err().map(|reason| format!("where tasks are woken: {reason}"));
    let spawns = code.spawns.as_ref().err().map(|reason| format!("where tasks are spawned: {reason}"));
    let blocking = code.blocking_spawns.as_ref().err();
    let blocking = blocking.map(|reason| format!("where closures are spawned that may block: {reason}"));
    wakes.into_iter().chain(spawns).chain(blocking)
}
