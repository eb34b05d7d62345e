//! On whose track polls are drawn.

use polletto_common::{
    id::{Tgid, Tid},
    polled::Polled,
};

use super::Polls;
use crate::timeline::{named_workers::NamedWorkers, tokio_tracks::Poller};

impl Polls {
    /// Threads whose names begin like this are workers, where their runtimes don't tell.
    pub fn name_workers(&mut self, prefixes: &[String]) {
        self.named = NamedWorkers::new(prefixes.to_vec());
    }

    /// What is known of such threads.
    pub fn named_workers(&mut self) -> &mut NamedWorkers {
        &mut self.named
    }

    /// How many threads were taken for workers by their names; none if there are no such names.
    pub fn workers_by_name(&self) -> Option<u64> {
        self.named.is_wanted().then(|| self.named.workers())
    }

    /// Whether a thread that polls has the worker that it was found to be.
    pub fn has_worker(&self, tgid: Tgid, tid: Tid, polled: &Polled) -> bool {
        polled.runtime != 0 && !self.given.has_given(tgid, tid, polled)
    }

    /// Who polls a task on that thread, which may block or not.
    pub fn poller(&mut self, tgid: Tgid, tid: Tid, polled: &Polled, may_block: bool) -> Poller {
        if self.given.has_given(tgid, tid, polled) {
            // What the worker polls meanwhile is on its track.
            return Poller::Thread { tgid, tid };
        }
        // Threads of the blocking pool mostly have the same name as workers, but poll nothing that awaits.
        let is_by_name = polled.runtime == 0 && !may_block;
        match is_by_name.then(|| self.named.index(tid)).flatten() {
            Some(index) => Poller::Named { tgid, index },
            None => Poller::of(tgid, tid, polled),
        }
    }
}
