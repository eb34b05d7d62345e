//! When polls of processes were told by probes.

use polletto_common::id::Tgid;
use rustc_hash::FxHashMap;

/// Windows that are kept of a process: one a second for a day, almost. What is beyond counts as not observed.
const MAX_WINDOWS: usize = 1 << 16;

#[derive(Clone, Copy, Debug)]
struct Window {
    since_ns: u64,
    /// None while it is open.
    until_ns: Option<u64>,
}

/// For how long a task was not polled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unpolled {
    /// Of the time in which polls were observed, nanoseconds.
    For(u64),
    /// They never were.
    NotObserved,
}

/// The windows in which each process had its probes.
#[derive(Debug, Default)]
pub struct Observed(FxHashMap<Tgid, Vec<Window>>);

impl Observed {
    /// Its polls are told from then on.
    pub fn begin(&mut self, process: Tgid, since_ns: u64) {
        let windows = self.0.entry(process).or_default();
        if windows.len() < MAX_WINDOWS {
            windows.push(Window { since_ns, until_ns: None });
        }
    }

    /// And until then.
    pub fn end(&mut self, process: Tgid, time_ns: u64) {
        let last = self.0.get_mut(&process).and_then(|windows| windows.last_mut());
        if let Some(Window { until_ns: until_ns @ None, .. }) = last {
            *until_ns = Some(time_ns);
        }
    }

    /// The process has ended, and its id may be another's.
    pub fn forget(&mut self, process: Tgid) {
        self.0.remove(&process);
    }

    /// For how much of that time its polls were observed. None where there never were probes: samples tell only of some.
    pub fn within_ns(&self, process: Tgid, (since_ns, until_ns): (u64, u64)) -> Option<u64> {
        let windows = self.0.get(&process)?;
        let shared_ns = |window: &Window| {
            let end_ns = window.until_ns.unwrap_or(u64::MAX).min(until_ns);
            end_ns.saturating_sub(window.since_ns.max(since_ns))
        };
        Some(windows.iter().map(shared_ns).sum())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_that_time_counts_in_which_polls_were_observed() {
        let process = Tgid(10);
        let mut observed = Observed::default();
        assert_eq!(observed.within_ns(process, (100, 900)), None, "samples tell of some");
        observed.begin(process, 200);
        assert_eq!(observed.within_ns(process, (100, 900)), Some(700), "before there were probes");
        observed.end(process, 300);
        // It is told once.
        observed.end(process, 350);
        observed.begin(process, 500);
        observed.end(process, 700);
        for (times, expected) in [((100, 900), 300), ((250, 600), 150), ((700, 900), 0), ((300, 500), 0)] {
            assert_eq!(observed.within_ns(process, times), Some(expected), "{times:?}");
        }
        assert_eq!(observed.within_ns(Tgid(11), (100, 900)), None, "another");
        observed.forget(process);
        assert_eq!(observed.within_ns(process, (100, 900)), None, "another by the same id");
    }
}
