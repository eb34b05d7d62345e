//! What budget would have been enough for a process's polls to be told all the time.

use crate::session::governor::Budget;

/// What they took in less time tells too little of what a process polls.
const LEAST_NS: u64 = 5_000_000;

/// What the probes of a process took while all of them were there. What they take while they are attached and removed, one
/// after another, says nothing of that.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Taking {
    /// Since when they all are, CLOCK_BOOTTIME nanoseconds; none while they are not.
    since_ns: Option<u64>,
    /// For how long they were, before that, nanoseconds.
    there_ns: u64,
    /// What that took, nanoseconds.
    spent_ns: u64,
    /// The budget was not enough at least once.
    was_cut_off: bool,
}

impl Taking {
    /// All of them are there now.
    pub(super) fn begin(&mut self, now_ns: u64) {
        self.since_ns = Some(now_ns);
    }

    /// Those that are there have taken so much since the last call.
    pub(super) fn spend(&mut self, spent_ns: u64) {
        if self.since_ns.is_some() {
            self.spent_ns += spent_ns;
        }
    }

    /// They are to be removed, and the budget was not enough if that is why.
    pub(super) fn end(&mut self, now_ns: u64, is_cut_off: bool) {
        self.there_ns += self.since_ns.take().map_or(0, |since_ns| now_ns.saturating_sub(since_ns));
        self.was_cut_off |= is_cut_off;
    }

    /// In percent of a CPU, with two digits; none if there was enough, or they were there for too short a time to tell.
    /// None as well if there would have been enough on average: the process polls much at times, and how much it needs
    /// then is not known.
    pub(super) fn budget_for_all(self, budget: Budget) -> Option<f64> {
        let Budget::Percent(percent) = budget else { return None };
        if !self.was_cut_off || self.there_ns < LEAST_NS {
            return None;
        }
        let enough = 100.0 * self.spent_ns as f64 / self.there_ns as f64;
        (enough > percent).then(|| rounded_up(enough))
    }
}

/// With two digits, or more in front of the point: a budget may be small, and be told as a whole percent it would be many times
/// what is needed. No less than a hundredth.
fn rounded_up(percent: f64) -> f64 {
    let parts = match percent {
        ..1.0 => 100.0,
        ..10.0 => 10.0,
        _ => 1.0,
    };
    (percent * parts).ceil() / parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_is_enough_for_what_was_taken_while_all_was_observed() {
        let budget = Budget::Percent(2.0);
        let mut taking = Taking::default();
        for (since_ns, is_cut_off) in [(1_000_000_000, true), (3_000_000_000, false)] {
            // What is taken while they are attached and removed counts for nothing.
            taking.spend(7_000_000);
            taking.begin(since_ns);
            taking.spend(3_000_000);
            taking.spend(3_550_000);
            taking.end(since_ns + 50_000_000, is_cut_off);
            taking.spend(5_000_000);
        }
        assert_eq!(taking.budget_for_all(budget), Some(14.0));
        for (what, taking, budget) in [
            ("they were there all the time", Taking { was_cut_off: false, ..taking }, budget),
            ("they were hardly there", Taking { there_ns: 4_000_000, ..taking }, budget),
            ("it was cut off by bursts", Taking { spent_ns: 1_900_000, ..taking }, budget),
            ("there is no budget", taking, Budget::Unlimited),
        ] {
            assert_eq!(taking.budget_for_all(budget), None, "{what}");
        }
    }

    #[test]
    fn a_small_budget_is_told_as_exactly_as_it_can_be_set() {
        let taken = |spent_ns| {
            let mut taking = Taking::default();
            taking.begin(1_000_000_000);
            taking.spend(spent_ns);
            taking.end(2_000_000_000, true);
            taking.budget_for_all(Budget::Percent(0.1))
        };
        for (what, spent_ns, expected) in [
            ("a third of the budget", 330_000, None),
            ("a little more", 1_204_000, Some(0.13)),
            ("much more", 21_400_000, Some(2.2)),
            ("very much more", 214_000_000, Some(22.0)),
        ] {
            assert_eq!(taken(spent_ns), expected, "{what}");
        }
    }
}
