//! For how long a trace tells of polls, and by what.

use serde::{Deserialize, Serialize};

/// For how long a trace tells what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct Span {
    /// The recording, nanoseconds.
    pub recorded_ns: u64,
    /// For how much of that probes told of every poll, 0 without probes: for as large a share as the summary says, of all
    /// processes that poll.
    pub observed_ns: u64,
    /// Probes told of polls, at least at some time. Of the rest, only samples and switches tell.
    #[serde(deserialize_with = "zero_or_one")]
    pub has_probes: bool,
    /// Polls in the trace, long or not.
    pub polls: u64,
    /// Those whose begin and end the probes told.
    pub polls_exact: u64,
    /// Those that are only known to have lasted at least as long.
    pub polls_found: u64,
}

/// Asks whether there were probes: a row if there were. Takes the module `polletto.findings`.
pub const PROBED: &str = "SELECT 1 FROM polletto_observed WHERE share > 0 \
     UNION ALL SELECT 1 FROM polletto_polls WHERE extent = 'exact'";

/// Asks for it: a table with the column `object`, of a query that has [`PROBED`] as `probed`. Takes the same module.
pub const QUERY: &str = "WITH recorded AS (SELECT coalesce((SELECT CAST(value AS INTEGER) FROM polletto_overhead \
     WHERE name = 'recorded'), trace_dur()) AS ns), \
     share AS (SELECT 1.0 - sum(unobserved_ns) * 1.0 / sum(recorded_ns) AS observed FROM polletto_observed) \
     SELECT json_object('recorded_ns', ns, \
     'observed_ns', iif(EXISTS (SELECT 1 FROM probed), coalesce(CAST(ns * observed AS INTEGER), ns), 0), \
     'has_probes', EXISTS (SELECT 1 FROM probed), \
     'polls', (SELECT count() FROM polletto_polls), \
     'polls_exact', (SELECT count() FROM polletto_polls WHERE extent = 'exact'), \
     'polls_found', (SELECT count() FROM polletto_polls WHERE extent = 'at least')) AS object FROM recorded, share";

impl Span {
    /// In which polls are told in the way that [`Span::has_probes`] says, never none.
    pub fn seconds(self) -> f64 {
        let told_ns = if self.has_probes { self.observed_ns } else { self.recorded_ns };
        told_ns.max(1) as f64 / 1e9
    }

    /// For how much of the recording probes told of polls, from 0 to 1.
    pub fn share(self) -> f64 {
        self.observed_ns as f64 / self.recorded_ns.max(1) as f64
    }

    /// For how much of the time polls were observed, in words.
    pub fn told(self) -> String {
        if !self.has_probes {
            return "polls were told by samples and switches alone".to_owned();
        }
        let (percent, seconds) = (100.0 * self.share(), self.recorded_ns as f64 / 1e9);
        format!("polls were observed for {percent:.1} % of the {seconds:.1} s")
    }

    /// What the trace can't tell of its polls, in words, where that is worth one.
    pub fn missing(self) -> Option<String> {
        /// Probes are not there in a recording's first moments.
        const NEARLY_ALL: f64 = 0.95;
        let told = self.told();
        if !self.has_probes {
            Some(format!(
                "{told}: each lasted at least as long, some of them and lock convoys may be missing, and all starved tasks are"
            ))
        } else if self.share() < NEARLY_ALL {
            Some(format!("{told}, and of the rest only what samples and switches tell"))
        } else {
            None
        }
    }
}

/// SQLite has no booleans.
pub fn zero_or_one<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    u8::deserialize(deserializer).map(|number| number != 0)
}

#[cfg(test)]
impl Span {
    /// One with probes, and without if they observed nothing.
    pub fn example(recorded_ns: u64, observed_ns: u64) -> Span {
        Span { recorded_ns, observed_ns, has_probes: observed_ns > 0, polls: 9, polls_exact: 9, polls_found: 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_observed_is_told_where_it_is_worth_a_word() {
        let missing = |observed_ns| Span::example(5_000_000_000, observed_ns).missing();
        let told = "polls were observed for 1.5 % of the 5.0 s, and of the rest only what samples and switches tell";
        assert_eq!(missing(75_000_000).as_deref(), Some(told));
        assert_eq!(missing(4_950_000_000), None);
        let told = "polls were told by samples and switches alone: each lasted at least as long, some of them and lock \
                    convoys may be missing, and all starved tasks are";
        assert_eq!(missing(0).as_deref(), Some(told));
    }

    #[test]
    fn what_comes_a_second_is_of_the_time_in_which_it_could_be_told() {
        assert_eq!(Span::example(5_000_000_000, 2_000_000_000).seconds(), 2.0);
        assert_eq!(Span::example(5_000_000_000, 0).seconds(), 5.0, "samples and switches tell all the time");
    }
}
