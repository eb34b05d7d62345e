//! What kept workers while tasks waited for their polls.

use std::{collections::VecDeque, sync::Arc};

use polletto_common::id::Tgid;
use rustc_hash::FxHashMap;

use super::{Polls, showing::Shown};
use crate::timeline::{findings::Keeper, tokio_tracks::Poller};

/// Long polls of a runtime that are remembered, the latest: who starved meanwhile is told soon after.
const MAX_LONG: usize = 64;

/// Long polls of runtimes, in the order in which they were told.
#[derive(Debug, Default)]
pub(super) struct LongPolls(FxHashMap<(Tgid, u64), VecDeque<Long>>);

#[derive(Debug)]
struct Long {
    since_ns: u64,
    until_ns: u64,
    keeper: Keeper,
}

/// The runtime whose worker that is; 1, which is no address of one, where workers are known by their names.
fn runtime(poller: Poller) -> Option<(Tgid, u64)> {
    match poller {
        Poller::Worker { tgid, runtime, .. } => Some((tgid, runtime)),
        Poller::Named { tgid, .. } => Some((tgid, 1)),
        Poller::Thread { .. } => None,
    }
}

impl LongPolls {
    fn push(&mut self, poller: Poller, shown: &Shown) {
        let Some(runtime) = runtime(poller) else { return };
        let polls = self.0.entry(runtime).or_default();
        if polls.len() >= MAX_LONG {
            polls.pop_front();
        }
        let (since_ns, until_ns) = (shown.presence.since_ns, shown.presence.last_ns);
        let keeper = Keeper { poller, future: Arc::clone(&shown.future), lasted_ns: until_ns - since_ns };
        polls.push_back(Long { since_ns, until_ns, keeper });
    }

    pub(super) fn forget_process(&mut self, tgid: Tgid) {
        self.0.retain(|(of, _), _| *of != tgid);
    }
}

impl Polls {
    /// The long poll, of the workers of that runtime, that took most of this time; none if none was told.
    pub(super) fn kept_by(&self, poller: Poller, (since_ns, until_ns): (u64, u64)) -> Option<Keeper> {
        let polls = self.long.0.get(&runtime(poller)?)?;
        let shared_ns = |long: &Long| long.until_ns.min(until_ns).saturating_sub(long.since_ns.max(since_ns));
        let most = polls.iter().filter(|long| shared_ns(long) > 0).max_by_key(|long| shared_ns(long))?;
        Some(most.keeper.clone())
    }

    /// A poll was shown that kept its worker for that long.
    pub(super) fn keeps(&mut self, poller: Poller, shown: &Shown) {
        self.long.push(poller, shown);
    }
}
