//! For how long a trace tells of polls.

use std::fmt;

use serde::{Deserialize, Serialize};

/// For how long a trace tells what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct Span {
    /// The recording, nanoseconds.
    pub recorded_ns: u64,
    /// For how much of that polls were observed: for as large a share as the summary says, of all processes that poll.
    pub observed_ns: u64,
    /// Polls were told exactly then, by probes.
    #[serde(deserialize_with = "zero_or_one")]
    pub is_exact: bool,
}

/// Asks for it: a table with the column `object`. Takes the module `polletto.findings`.
pub const QUERY: &str = "WITH probed AS (SELECT 1 FROM polletto_polls WHERE extent = 'exact' LIMIT 1), \
     recorded AS (SELECT coalesce((SELECT CAST(value AS INTEGER) FROM polletto_overhead \
     WHERE name = 'recorded'), trace_dur()) AS ns) \
     SELECT json_object('recorded_ns', ns, 'observed_ns', \
     coalesce(CAST(ns * (SELECT 1.0 - sum(unobserved_ns) * 1.0 / sum(recorded_ns) FROM polletto_observed \
     WHERE EXISTS (SELECT 1 FROM probed)) AS INTEGER), ns), \
     'is_exact', EXISTS (SELECT 1 FROM probed)) AS object FROM recorded";

impl Span {
    /// In which polls were observed, never none.
    pub fn seconds(self) -> f64 {
        self.observed_ns.max(1) as f64 / 1e9
    }

    /// For how much of the time polls were observed, in words.
    pub fn told(self) -> String {
        if !self.is_exact {
            return "polls were told by samples and switches alone".to_owned();
        }
        let (share, seconds) =
            (self.observed_ns as f64 / self.recorded_ns.max(1) as f64, self.recorded_ns as f64 / 1e9);
        format!("polls were observed for {:.1} % of the {seconds:.1} s", 100.0 * share)
    }

    /// For how much of the time polls were observed, where that is worth a word: of the rest findings may be missing.
    pub fn gap(self) -> Option<Gap> {
        /// Probes are not there in a recording's first moments.
        const NEARLY_ALL: f64 = 0.95;
        let share = self.observed_ns as f64 / self.recorded_ns.max(1) as f64;
        (self.is_exact && share < NEARLY_ALL).then_some(Gap { share, of: self })
    }
}

/// Polls were observed for some of the time only.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Gap {
    share: f64,
    of: Span,
}

impl fmt::Display for Gap {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (percent, seconds) = (100.0 * self.share, self.of.recorded_ns as f64 / 1e9);
        write!(
            out,
            "polls were observed for {percent:.1} % of the {seconds:.1} s, and of the rest only what samples and switches \
             tell"
        )
    }
}

/// SQLite has no booleans.
pub fn zero_or_one<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    u8::deserialize(deserializer).map(|number| number != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_observed_is_told_where_it_is_worth_a_word() {
        let gap = |observed_ns, is_exact| {
            let span = Span { recorded_ns: 5_000_000_000, observed_ns, is_exact };
            span.gap().map(|gap| gap.to_string())
        };
        let told = "polls were observed for 1.5 % of the 5.0 s, and of the rest only what samples and switches tell";
        assert_eq!(gap(75_000_000, true).as_deref(), Some(told));
        assert_eq!(gap(4_950_000_000, true), None);
        assert_eq!(gap(75_000_000, false), None, "samples and switches tell of polls all the time");
        assert_eq!(Span::default().gap(), None);
    }
}
