//! What is a change, and what is chance.
//!
//! A difference is a change if it is neither noise nor small:
//!
//! - Findings come at random, as those who call a server do. If they come independently of each other, a sum of their
//!   durations has a variance of about the sum of their squares, however different they are. What comes in bursts, as
//!   tasks that one poll starves, varies more: then the sums of single seconds do as well, and tell by how much. That
//!   one trace has none in the little time in which its polls were observed does not mean that it never would: then the
//!   other tells how much it varies. A difference of at least [`DEVIATIONS`] standard deviations is not left to chance. Of
//!   findings of the same length that come evenly, in traces of the same length, that is 9 against none, or 137 against 90.
//! - It is at least by a [`RATIO`], since machines are not equally fast all day.

use std::{cmp::Ordering, collections::BTreeMap};

use super::{Found, Pair, Side, Span, Verdict};

/// Of the noise, what a difference must be to be a change.
const DEVIATIONS: f64 = 3.0;

/// Of one to the other, likewise.
const RATIO: f64 = 1.5;

/// In fewer seconds than that, how much they vary says little.
const MIN_SECONDS: u64 = 4;

/// Findings in a place, summed.
#[derive(Clone, Debug, Default)]
pub struct Sum {
    count: u64,
    total_ns: u64,
    /// Of durations in nanoseconds.
    squares: f64,
    /// Nanoseconds, by the second in which they began.
    of_seconds: BTreeMap<i64, u64>,
    /// Nanoseconds, by what callstacks are about.
    about: BTreeMap<Option<String>, u64>,
    /// Nanoseconds, by crate: of what is in none of the program's own code.
    of_crates: BTreeMap<String, u64>,
    longest: Option<Found>,
}

impl Sum {
    /// Takes one more.
    pub fn add(&mut self, found: &Found) {
        self.count += 1;
        self.total_ns += found.dur;
        self.squares += (found.dur as f64).powi(2);
        *self.of_seconds.entry(found.ts.div_euclid(1_000_000_000)).or_default() += found.dur;
        *self.about.entry(found.category.clone()).or_default() += found.dur;
        if let Some(krate) = found.krate.as_ref().filter(|_| found.own_function.is_none()) {
            *self.of_crates.entry(krate.clone()).or_default() += found.dur;
        }
        if self.longest.as_ref().is_none_or(|longest| found.dur > longest.dur) {
            self.longest = Some(found.clone());
        }
    }

    /// The one that lasted longest.
    pub fn longest(&self) -> Option<&Found> {
        self.longest.as_ref()
    }

    /// What most of the time went to.
    pub fn category(&self) -> Option<String> {
        self.about.iter().max_by_key(|(_, ns)| **ns)?.0.clone()
    }

    /// The crate in which most of the time went by, if nothing is the program's own.
    pub fn krate(&self) -> Option<String> {
        self.of_crates.iter().max_by_key(|(_, ns)| **ns).map(|(krate, _)| krate.clone())
    }

    /// The same for people; none of nothing.
    pub fn side(&self, seconds: f64) -> Option<Side> {
        let longest = self.longest.as_ref()?;
        Some(Side {
            count: self.count,
            total_ns: self.total_ns,
            longest_ns: longest.dur,
            count_per_second: self.count as f64 / seconds,
            ns_per_second: self.total_ns as f64 / seconds,
            source: longest.own_source.clone(),
        })
    }

    /// Of the total, in square nanoseconds.
    fn variance(&self, span: Span) -> f64 {
        let seconds = span.recorded_ns.div_ceil(1_000_000_000);
        if seconds < MIN_SECONDS {
            return self.squares;
        }
        let seconds = seconds as f64;
        let squares: f64 = self.of_seconds.values().map(|&ns| (ns as f64).powi(2)).sum();
        let between_seconds = seconds / (seconds - 1.0) * (squares - (self.total_ns as f64).powi(2) / seconds);
        self.squares.max(between_seconds)
    }
}

/// What became of the time that something takes of each second.
pub fn verdict(sums: Pair<&Sum>, spans: Pair<Span>) -> Verdict {
    let seconds = spans.map(Span::seconds);
    let rate = |at: usize| sums[at].total_ns as f64 / seconds[at];
    let (before, after) = (rate(0), rate(1));
    let deviation = deviation([0, 1].map(|at| sums[at].variance(spans[at])), seconds);
    if (after - before).abs() < DEVIATIONS * deviation || before.max(after) < RATIO * before.min(after) {
        return Verdict::Same;
    }
    match after.total_cmp(&before) {
        Ordering::Greater => Verdict::Worse,
        Ordering::Less => Verdict::Better,
        Ordering::Equal => Verdict::Same,
    }
}

/// Of the difference of two rates, by the variances of what was summed up in so many seconds each: by each sum's own, or by
/// what both tell of a second if that is more.
fn deviation(variances: Pair<f64>, [before, after]: Pair<f64>) -> f64 {
    let own = variances[0] / before.powi(2) + variances[1] / after.powi(2);
    let of_both = (variances[0] + variances[1]) / (before + after) * (1.0 / before + 1.0 / after);
    own.max(of_both).sqrt()
}
