//! What budget would have been enough for a process's polls to be told all the time.

use crate::session::governor::Budget;

/// What they took in less time tells too little of what a process polls.
const LEAST_NS: u64 = 5_000_000;

/// What the probes of a process took while all of them were there. What they take while they are attached and removed, one
/// after another, says nothing of that.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Taking {
    /// Since when they all are, CLOCK_BOOTTIME nanoseconds.
    since_ns: u64,
    /// What they had taken until then that is not told yet, nanoseconds.
    before_ns: u64,
    /// For how long they were, before that, nanoseconds.
    there_ns: u64,
    /// What that took, nanoseconds.
    spent_ns: u64,
    /// The budget was not enough at least once.
    was_cut_off: bool,
}

impl Taking {
    /// All of them are there now, and have taken so much while they were attached.
    pub(super) fn begin(&mut self, now_ns: u64, before_ns: u64) {
        (self.since_ns, self.before_ns) = (now_ns, before_ns);
    }

    /// They have taken so much since they were attached, or since the last call.
    pub(super) fn spend(&mut self, spent_ns: u64) {
        self.spent_ns += spent_ns.saturating_sub(std::mem::take(&mut self.before_ns));
    }

    /// They are to be removed, and the budget was not enough if that is why.
    pub(super) fn end(&mut self, now_ns: u64, is_cut_off: bool) {
        self.there_ns += now_ns.saturating_sub(self.since_ns);
        self.was_cut_off |= is_cut_off;
    }

    /// In whole percent of a CPU; none if there was enough, or they were there for too short a time to tell. None as well if there
    /// would have been enough on average: the process polls much at times, and how much it needs then is not known.
    pub(super) fn budget_for_all(self, budget: Budget) -> Option<u64> {
        let Budget::Percent(percent) = budget else { return None };
        if !self.was_cut_off || self.there_ns < LEAST_NS {
            return None;
        }
        let enough = (100.0 * self.spent_ns as f64 / self.there_ns as f64).ceil();
        (enough > percent).then_some(enough as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_is_enough_for_what_was_taken_while_all_was_observed() {
        let budget = Budget::Percent(2.0);
        let mut taking = Taking::default();
        for (since_ns, is_cut_off) in [(1_000_000_000, true), (3_000_000_000, false)] {
            // What is taken while they are attached counts for nothing.
            taking.begin(since_ns, 7_000_000);
            taking.spend(10_000_000);
            taking.spend(3_550_000);
            taking.end(since_ns + 50_000_000, is_cut_off);
        }
        assert_eq!(taking.budget_for_all(budget), Some(14));
        for (what, taking, budget) in [
            ("they were there all the time", Taking { was_cut_off: false, ..taking }, budget),
            ("they were hardly there", Taking { there_ns: 4_000_000, ..taking }, budget),
            ("it was cut off by bursts", Taking { spent_ns: 1_900_000, ..taking }, budget),
            ("there is no budget", taking, Budget::Unlimited),
        ] {
            assert_eq!(taking.budget_for_all(budget), None, "{what}");
        }
    }
}
