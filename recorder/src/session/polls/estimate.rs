//! What budget would have been enough for a process's polls to be told all the time.

use crate::session::governor::Budget;

/// What was observed for less tells too little of what a process polls.
const LEAST_NS: u64 = 5_000_000;

/// What the probes of a process took while its polls were observed.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Taking {
    /// For how long they were, nanoseconds.
    pub(super) observed_ns: u64,
    /// What that took, nanoseconds.
    pub(super) spent_ns: u64,
    /// The budget was not enough at least once.
    pub(super) was_cut_off: bool,
}

impl Taking {
    /// In whole percent of a CPU; none if there was enough, or too little was observed to tell. None as well if there
    /// would have been enough on average: the process polls much at times, and how much it needs then is not known.
    pub(super) fn budget_for_all(self, budget: Budget) -> Option<u64> {
        let Budget::Percent(percent) = budget else { return None };
        if !self.was_cut_off || self.observed_ns < LEAST_NS {
            return None;
        }
        let enough = (100.0 * self.spent_ns as f64 / self.observed_ns as f64).ceil();
        (enough > percent).then_some(enough as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_is_enough_for_what_was_taken_while_all_was_observed() {
        let budget = Budget::Percent(2.0);
        let taking = Taking { observed_ns: 100_000_000, spent_ns: 13_100_000, was_cut_off: true };
        assert_eq!(taking.budget_for_all(budget), Some(14));
        for (what, taking, budget) in [
            ("it was observed all the time", Taking { was_cut_off: false, ..taking }, budget),
            ("it was hardly observed", Taking { observed_ns: 4_000_000, ..taking }, budget),
            ("it was cut off by bursts", Taking { spent_ns: 1_900_000, ..taking }, budget),
            ("there is no budget", taking, Budget::Unlimited),
        ] {
            assert_eq!(taking.budget_for_all(budget), None, "{what}");
        }
    }
}
