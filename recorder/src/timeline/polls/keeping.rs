//! What workers did while tasks waited for their polls.

use std::{collections::VecDeque, sync::Arc};

use polletto_common::id::{Tgid, Tid};
use rustc_hash::FxHashMap;

use super::{Polls, showing::Shown};
use crate::timeline::{
    findings::{Fault, Keeper, Meanwhile},
    tokio_tracks::{Group, Poller},
};

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
    fn push(&mut self, poller: Poller, group: Option<Group>, shown: &Shown, fault: Fault) {
        let Some(runtime) = runtime(poller) else { return };
        let polls = self.0.entry(runtime).or_default();
        if polls.len() >= MAX_LONG {
            polls.pop_front();
        }
        let (since_ns, until_ns) = (shown.presence.since_ns, shown.presence.last_ns);
        let run_queue_ns = shown.presence.weights().run_queue_ns;
        let preempted_ns = if fault == Fault::Preempted { run_queue_ns } else { 0 };
        let future = Arc::clone(&shown.future);
        let runtime = group.map(|group| group.name);
        let keeper = Keeper { poller, runtime, future, lasted_ns: until_ns - since_ns, preempted_ns };
        polls.push_back(Long { since_ns, until_ns, keeper });
    }

    pub(super) fn forget_process(&mut self, tgid: Tgid) {
        self.0.retain(|(of, _), _| *of != tgid);
    }
}

impl Polls {
    /// What was done while a task waited for its poll on that thread, as far as that is known.
    pub(super) fn meanwhile(&self, poller: Poller, tid: Tid, waited: (u64, u64)) -> Option<Meanwhile> {
        let did = || self.doings.most(tid, waited).map(Meanwhile::Did);
        self.kept_by(poller, waited).map(Meanwhile::Polled).or_else(did)
    }

    /// The long poll, of the workers of that runtime, that took most of this time; none if none was told.
    fn kept_by(&self, poller: Poller, (since_ns, until_ns): (u64, u64)) -> Option<Keeper> {
        let polls = self.long.0.get(&runtime(poller)?)?;
        let shared_ns = |long: &Long| long.until_ns.min(until_ns).saturating_sub(long.since_ns.max(since_ns));
        let most = polls.iter().filter(|long| shared_ns(long) > 0).max_by_key(|long| shared_ns(long))?;
        let preempted_ns = most.keeper.preempted_ns.min(shared_ns(most));
        Some(Keeper { preempted_ns, ..most.keeper.clone() })
    }

    /// A poll was shown that kept its worker for that long.
    pub(super) fn keeps(&mut self, poller: Poller, shown: &Shown, fault: Fault) {
        self.long.push(poller, self.tracks.group_of_poller(poller), shown, fault);
    }
}
