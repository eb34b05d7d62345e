//! What became of the requests.

use std::{fmt, time::Duration};

/// How one request ended.
pub enum Outcome {
    /// With the server's answer, after this time.
    Answered(Duration),
    /// With an error, or not in time.
    Failed,
}

/// The sum of all outcomes, printed as one line.
#[derive(Default)]
pub struct Report {
    answered: Vec<Duration>,
    failed: u64,
    held_back: u64,
    took: Duration,
}

impl Report {
    pub fn add(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Answered(after) => self.answered.push(after),
            Outcome::Failed => self.failed += 1,
        }
    }

    /// Counts a request that was due and not sent, because too many were under way.
    pub fn hold_back(&mut self) {
        self.held_back += 1;
    }

    /// Completes the report of a run that took this long.
    pub fn end(&mut self, took: Duration) {
        self.took = took;
        self.answered.sort_unstable();
    }

    /// Whether the server was there and well.
    pub fn is_success(&self) -> bool {
        !self.answered.is_empty() && self.failed == 0
    }

    fn percentile(&self, percent: usize) -> Duration {
        let last = self.answered.len().saturating_sub(1);
        self.answered.get(last * percent / 100).copied().unwrap_or_default()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "{} requests answered in {:.1} s (median {:.1?}, 99 % within {:.1?}, all within {:.1?}), {} failed, {} held back",
            self.answered.len(),
            self.took.as_secs_f64(),
            self.percentile(50),
            self.percentile(99),
            self.percentile(100),
            self.failed,
            self.held_back,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_without_an_answer_or_with_a_failure_is_no_success() {
        let mut report = Report::default();
        assert!(!report.is_success());
        report.add(Outcome::Answered(Duration::from_millis(1)));
        assert!(report.is_success());
        report.add(Outcome::Failed);
        assert!(!report.is_success());
    }

    #[test]
    fn the_report_is_one_line() {
        let mut report = Report::default();
        for milliseconds in (1..=101).rev() {
            report.add(Outcome::Answered(Duration::from_millis(milliseconds)));
        }
        report.hold_back();
        report.end(Duration::from_secs(1));
        let expected = "101 requests answered in 1.0 s (median 51.0ms, 99 % within 100.0ms, all within 101.0ms), \
                        0 failed, 1 held back";
        assert_eq!(report.to_string(), expected);
    }
}
