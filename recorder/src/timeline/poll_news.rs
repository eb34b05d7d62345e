//! What whoever attaches probes tells of polls, besides what the probes do.

use polletto_common::{id::Tgid, record::Poll};

/// What there is to tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PollNews {
    /// Not every poll of a process was told.
    Unobserved {
        /// The process.
        process: Tgid,
        /// From when, CLOCK_BOOTTIME nanoseconds.
        since_ns: u64,
        /// Until when.
        until_ns: u64,
        /// Why.
        why: Unobserved,
    },
    /// Every poll of a process is told from now on.
    ObservedFrom {
        /// The process.
        process: Tgid,
        /// When that began, CLOCK_BOOTTIME nanoseconds.
        time_ns: u64,
    },
    /// It is not any more.
    ObservedUntil {
        /// The process.
        process: Tgid,
        /// When that ended.
        time_ns: u64,
    },
    /// Polls that had begun, and had not ended when their ends were told no more.
    StillPolling(Vec<Poll>),
}

/// Why polls are not told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unobserved {
    /// There were no probes yet.
    NotYet,
    /// They would have taken more than was allowed.
    Budget,
}

impl Unobserved {
    /// The slice over the time in which it was so.
    pub fn name(self) -> &'static str {
        match self {
            Unobserved::NotYet => "polls not recorded: no probes yet",
            Unobserved::Budget => "polls not recorded: budget",
        }
    }
}
