//! Polls in whose middle a thread gives its worker to another, to block: `block_in_place`.
//!
//! The worker goes on in a closure that is given to the threads for those that may block. So the first such closure that is
//! spawned when a poll's worker is gone is the one that has it. A poll may spawn others afterwards, and may get its worker
//! back, if no thread has taken it yet, and give it away again: then the closure is known by its vtable.

use polletto_common::{
    id::{Tgid, Tid},
    polled::Polled,
    record::{self, flags},
};
use rustc_hash::{FxHashMap, FxHashSet};

use super::{Polls, presence::Presence};
use crate::timeline::task_code::PollBody;

/// Vtables of such closures that are remembered: of old versions of Tokio, every type that blocks in place has its own.
const MAX_VTABLES: usize = 1 << 12;

/// A poll whose worker is another thread's, unless it has got it back.
#[derive(Debug)]
pub(super) struct GivenAway {
    /// The poll's [`Polled::tick`].
    tick: u64,
    /// When it was given away first.
    pub(super) at_ns: u64,
    /// What the poll was found in before.
    pub(super) before: Option<Presence>,
}

/// Such polls, and such closures.
#[derive(Debug, Default)]
pub(super) struct GivenWorkers {
    polls: FxHashMap<Tid, GivenAway>,
    vtables: FxHashSet<(Tgid, u64)>,
    /// Processes whose workers were seen to tell their ticks.
    ticking: FxHashSet<Tgid>,
    /// Processes of which polls were told that began with a worker.
    holding: FxHashSet<Tgid>,
}

impl GivenWorkers {
    /// The worker that a thread gave away in this poll, which is over.
    pub(super) fn take(&mut self, tid: Tid, polled: &Polled) -> Option<GivenAway> {
        if self.polls.get(&tid)?.tick == polled.tick { self.polls.remove(&tid) } else { None }
    }

    /// What a thread says that it polls.
    pub(super) fn seen(&mut self, tgid: Tgid, polled: &Polled) {
        if !is_one_of_several(polled) || polled.tick == 0 {
            return;
        }
        if polled.began_ns().is_none() {
            self.ticking.insert(tgid);
        } else if polled.tick & Polled::WITH_WORKER != 0 {
            self.holding.insert(tgid);
        }
    }

    /// Whether a thread that says that it polls this as a worker is known not to have the worker, or may not.
    pub(super) fn has_given(&self, tgid: Tgid, tid: Tid, polled: &Polled) -> bool {
        match polled.began_ns() {
            Some(_) => {
                self.is_within(tgid, polled) || self.polls.get(&tid).is_some_and(|given| given.tick == polled.tick)
            }
            // Only who has the worker can tell its ticks.
            None => is_one_of_several(polled) && polled.tick == 0 && self.ticking.contains(&tgid),
        }
    }

    /// Whether a poll has begun without a worker on a worker's thread: within one that had given it away.
    pub(super) fn is_within(&self, tgid: Tgid, polled: &Polled) -> bool {
        let has_none = polled.awaits() && polled.tick & Polled::WITH_WORKER == 0;
        is_one_of_several(polled) && has_none && self.holding.contains(&tgid)
    }

    pub(super) fn forget_thread(&mut self, tid: Tid) {
        self.polls.remove(&tid);
    }

    pub(super) fn forget_process(&mut self, tgid: Tgid) {
        self.vtables.retain(|(process, _)| *process != tgid);
        self.ticking.remove(&tgid);
        self.holding.remove(&tgid);
    }

    /// Whether it is the thread's worker that goes on in what it spawns.
    fn is_worker(&self, spawn: &record::Spawn, body: Option<&PollBody>) -> bool {
        let record::Spawn { header, tid, tgid, vtable, polled, .. } = *spawn;
        let is_first = self.polls.get(&tid).is_none_or(|given| given.tick != polled.tick);
        header.flags & flags::GAVE_WORKER_AWAY != 0
            && polled.began_ns().is_some()
            && (is_first || self.vtables.contains(&(tgid, vtable)))
            && body.is_none_or(may_be_worker)
    }
}

fn is_one_of_several(polled: &Polled) -> bool {
    polled.runtime != 0 && polled.worker != Polled::ONLY_WORKER
}

/// Whether a closure may be a worker, by its name: where that tells of types, it tells that they are Tokio's.
fn may_be_worker(body: &PollBody) -> bool {
    let tells_types = !matches!(body.future.tier, "location" | "vtable");
    !tells_types || body.future.full_name.contains("::worker::")
}

impl Polls {
    /// Whether a thread gives its worker away with what it spawns. If it does, what its poll is found in from now on is told
    /// apart.
    pub(super) fn gives_worker_away(&mut self, spawn: &record::Spawn, body: Option<&PollBody>) -> bool {
        if !self.given.is_worker(spawn, body) {
            return false;
        }
        let record::Spawn { header, tid, tgid, vtable, polled, .. } = *spawn;
        if self.given.vtables.len() < MAX_VTABLES {
            self.given.vtables.insert((tgid, vtable));
        }
        if self.given.polls.get(&tid).is_some_and(|given| given.tick == polled.tick) {
            return true;
        }
        let found = self.present.get_mut(&tid);
        let before = found.and_then(|nested| nested.pop_if(|presence| presence.polled.tick == polled.tick));
        self.given.polls.insert(tid, GivenAway { tick: polled.tick, at_ns: header.time_ns, before });
        true
    }
}
