//! How much of a process's time its probes may take, so that they never take more than was promised.
//!
//! What a process may spend comes in evenly as time goes by. While it has something left it has its probes; when it has
//! nothing left they are removed, until it has saved enough for it to be worth while to attach them again.

use std::{ops::RangeInclusive, time::Duration};

/// What a process saves at most, as the time in which it comes in.
const SAVED: Duration = Duration::from_secs(1);

/// How much of that may be spent in each window, the first one too, whatever attaching its probes has taken: enough to see
/// how much the process polls.
const PILOT: f64 = 0.25;

/// How much of that is kept for what is spent late, at most: some is left for each window.
const MOST_RESERVED: f64 = 0.9;

/// How soon it is looked again at a process, at the latest: where polls return to is learnt then, too.
const LOOK: Duration = Duration::from_millis(10);

/// And at the earliest.
pub const SOON: Duration = Duration::from_millis(1);

/// Taken for what a process spends in each nanosecond before it is known: all of a CPU.
const UNKNOWN_PACE: f64 = 1.0;

/// So many nanoseconds, but not less or more than that; the most if it is never.
fn within(nanoseconds: f64, bounds: RangeInclusive<Duration>) -> Duration {
    let [least, most] = [bounds.start(), bounds.end()].map(|bound| bound.as_nanos() as f64);
    // Nothing by nothing is no number.
    Duration::from_nanos(if nanoseconds < most { nanoseconds.max(least) } else { most } as u64)
}

/// What probes may take of each process's time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Budget {
    /// As much as they like.
    Unlimited,
    /// Of one CPU, in percent.
    Percent(f64),
}

impl Budget {
    /// Nanoseconds that come in with each.
    fn rate(self) -> f64 {
        match self {
            Budget::Unlimited => f64::INFINITY,
            Budget::Percent(percent) => percent / 100.0,
        }
    }
}

/// What one process has left to spend.
#[derive(Clone, Debug)]
pub struct Account {
    rate: f64,
    /// Nanoseconds; less than nothing if it was overdrawn.
    left_ns: f64,
    /// When that was so, nanoseconds of any clock.
    at_ns: u64,
    /// What may be spent of the open window even if nothing is left, nanoseconds: nobody would have anything of probes that are
    /// removed as soon as they are there.
    pilot_ns: f64,
    /// How much is likely to be spent in a nanosecond: as much as between the last two looks.
    pace: f64,
    /// What is likely to be spent after there should be no probes any more: as much as after the last times, nanoseconds.
    reserve_ns: f64,
}

impl Account {
    /// Of a process that gets its first probes at `now_ns`.
    pub fn new(budget: Budget, now_ns: u64) -> Account {
        let rate = budget.rate();
        let left_ns = rate * SAVED.as_nanos() as f64 * PILOT;
        Account { rate, left_ns, at_ns: now_ns, pilot_ns: 0.0, pace: UNKNOWN_PACE, reserve_ns: 0.0 }
    }

    /// The process has probes from now on. How much it will spend is unknown, so it may be much.
    pub fn open(&mut self) {
        self.pace = UNKNOWN_PACE;
        self.pilot_ns = self.most_ns() * PILOT;
    }

    /// So much was spent since the last call.
    pub fn spend(&mut self, now_ns: u64, spent_ns: u64) {
        let passed_ns = now_ns.saturating_sub(self.at_ns);
        self.at_ns = self.at_ns.max(now_ns);
        if self.rate.is_infinite() {
            return;
        }
        // Two looks in a moment tell nothing of the pace.
        if passed_ns >= SOON.as_nanos() as u64 / 2 {
            self.pace = spent_ns as f64 / passed_ns as f64;
        }
        self.pilot_ns = (self.pilot_ns - spent_ns as f64).max(0.0);
        let most_ns = self.most_ns();
        self.left_ns = (self.left_ns + self.rate * passed_ns as f64).min(most_ns) - spent_ns as f64;
    }

    /// The process's probes are gone, and everything that they took has been spent.
    pub fn closed(&mut self) {
        self.pilot_ns = 0.0;
        let late_ns = self.reserve_ns - self.left_ns;
        self.reserve_ns = late_ns.max(self.reserve_ns / 2.0).clamp(0.0, self.most_ns() * MOST_RESERVED);
    }

    /// What may be spent until the next look, nanoseconds; nothing if that is less than nothing.
    pub fn left_ns(&self) -> Option<u64> {
        let left_ns = self.spendable_ns();
        // What is beyond stays at the most that a number can be.
        (left_ns > 0.0).then_some(left_ns as u64)
    }

    fn spendable_ns(&self) -> f64 {
        (self.left_ns - self.reserve_ns).max(self.pilot_ns)
    }

    fn most_ns(&self) -> f64 {
        self.rate * SAVED.as_nanos() as f64
    }

    /// Whether enough is saved for new probes.
    pub fn is_full(&self) -> bool {
        self.rate.is_infinite() || self.left_ns >= self.most_ns()
    }

    /// When to look again at a process with probes: when half of what is left may have been spent.
    pub fn next_look(&self) -> Duration {
        within(self.spendable_ns() / 2.0 / self.pace, SOON..=LOOK)
    }

    /// When to look again at a process without: when it will have saved enough.
    pub fn is_full_in(&self) -> Duration {
        within((self.most_ns() - self.left_ns) / self.rate, SOON..=SAVED)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND_NS: u64 = 1_000_000_000;

    /// What a process spends in ten seconds of which it has probes in some, and how long it has them, when polling takes so
    /// much of the time that it has them. They are gone so long after there is nothing left.
    fn spent(budget: Budget, taken: f64, late_ns: u64) -> (f64, f64) {
        let (mut account, mut now_ns) = (Account::new(budget, 0), 0);
        let (mut all_ns, mut probed_ns) = (0.0, 0.0);
        let mut is_probed = true;
        while now_ns < 10 * SECOND_NS {
            let step_ns = account.next_look().as_nanos() as u64 + if is_probed { late_ns } else { 0 };
            now_ns += step_ns;
            let spent_ns = if is_probed { taken * step_ns as f64 } else { 0.0 };
            probed_ns += if is_probed { step_ns as f64 } else { 0.0 };
            all_ns += spent_ns;
            account.spend(now_ns, spent_ns as u64);
            let was_probed = is_probed;
            let is_left = account.left_ns().is_some();
            if was_probed && !is_left {
                account.closed();
            }
            is_probed = if is_probed { is_left } else { account.is_full() };
            if is_probed && !was_probed {
                account.open();
            }
        }
        (all_ns / now_ns as f64, probed_ns / now_ns as f64)
    }

    #[test]
    fn what_fits_the_budget_is_seen_all_the_time() {
        for taken in [0.0, 0.001, 0.0199] {
            let (_, probed) = spent(Budget::Percent(2.0), taken, 0);
            assert_eq!(probed, 1.0, "{taken}");
        }
        assert_eq!(spent(Budget::Unlimited, 1.5, 0).1, 1.0);
    }

    #[test]
    fn whatever_a_process_polls_it_spends_no_more_than_its_budget() {
        for (taken, late_ns) in [(0.021, 0), (0.1, 1_000_000), (0.5, 0), (2.0, 0), (2.0, 50_000_000), (64.0, 1_000_000)]
        {
            let (all, probed) = spent(Budget::Percent(2.0), taken, late_ns);
            // What it saves at most is spent at once in the last of ten seconds.
            let late = taken * (late_ns as f64 + 1e6) / (10.0 * SECOND_NS as f64);
            assert!(all <= 0.02 * 1.1 + late, "{all} of {taken}");
            assert!(probed > 0.0 && probed < 1.0, "{probed} of {taken}");
        }
    }

    #[test]
    fn much_of_the_budget_is_used() {
        for taken in [0.03, 0.2, 1.0] {
            let (all, _) = spent(Budget::Percent(2.0), taken, 0);
            assert!(all > 0.015, "{all} of {taken}");
        }
    }

    #[test]
    fn one_that_spends_fast_is_looked_at_sooner() {
        let mut account = Account::new(Budget::Percent(2.0), 0);
        // 5 ms, and nobody knows yet how soon they will be spent.
        assert_eq!(account.next_look(), Duration::from_micros(2_500));
        account.spend(5_000_000, 1_000);
        assert_eq!(account.next_look(), LOOK);
        account.spend(6_000_000, 119_000);
        assert_eq!(account.next_look(), LOOK);
        account.spend(7_000_000, 500_000);
        assert_eq!(account.next_look(), Duration::from_micros(4_520));
        account.spend(11_000_000, 3_800_000);
        assert_eq!(account.next_look(), SOON);
        account.spend(2 * SECOND_NS, 0);
        assert_eq!(account.next_look(), LOOK);
        account.open();
        assert_eq!(account.next_look(), LOOK);
    }

    #[test]
    fn one_that_has_spent_all_is_looked_at_when_it_has_saved_enough() {
        let mut account = Account::new(Budget::Percent(2.0), 0);
        assert_eq!(account.is_full_in(), Duration::from_millis(750));
        account.spend(0, 7_000_000);
        assert_eq!(account.is_full_in(), SAVED);
        account.spend(2 * SECOND_NS, 0);
        assert_eq!(account.is_full_in(), SOON);
        assert_eq!(Account::new(Budget::Unlimited, 0).is_full_in(), SAVED);
    }

    #[test]
    fn what_was_spent_late_is_reserved_the_next_time() {
        let mut account = Account::new(Budget::Percent(2.0), 0);
        account.spend(0, 12_000_000);
        account.closed();
        account.spend(5 * SECOND_NS, 0);
        assert!(account.is_full());
        // 20 ms, of which 7 may be spent late.
        assert_eq!(account.left_ns(), Some(13_000_000));
        account.spend(5 * SECOND_NS, 15_000_000);
        account.closed();
        account.spend(10 * SECOND_NS, 0);
        assert_eq!(account.left_ns(), Some(16_500_000));
        account.spend(10 * SECOND_NS, 400_000_000);
        account.closed();
        account.spend(60 * SECOND_NS, 0);
        assert_eq!(account.left_ns(), Some(2_000_000));
    }

    #[test]
    fn nothing_comes_in_twice_when_a_clock_goes_back() {
        let mut account = Account::new(Budget::Percent(2.0), SECOND_NS);
        account.spend(SECOND_NS, 1_000_000);
        account.spend(0, 0);
        account.spend(SECOND_NS, 0);
        assert_eq!(account.left_ns(), Some(4_000_000));
    }
}
