//! What a trace could tell at all, whatever there was.
//!
//! What only one of two traces could tell is neither new nor gone, nor worse or better. So findings of a kind are compared
//! where both traces had the same means to find them: all of those that [`needed`] lists, or the same of them.

use std::fmt;

use serde::{Deserialize, Serialize, Serializer};

use super::{super::span::zero_or_one, Pair};
use crate::timeline::{Fault, Wait};

/// Since that one, it is known which system calls threads sleep in, and so at which locks.
const KERNEL_WITH_CALLS: (u32, u32) = (5, 17);

/// Something that a trace tells, or does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mean {
    /// Polls, in whatever way.
    Polls,
    /// Polls from begin to end, by probes.
    Probes,
    /// Who woke tasks, by probes.
    Wakes,
    /// The callstacks with which threads go to sleep.
    Sleeps,
    /// The locks at which they do.
    Locks,
    /// Callstacks of threads that run.
    Samples,
}

/// What a trace has.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct Means {
    #[serde(deserialize_with = "zero_or_one")]
    polls: bool,
    #[serde(deserialize_with = "zero_or_one")]
    probes: bool,
    #[serde(deserialize_with = "zero_or_one")]
    wakes: bool,
    #[serde(deserialize_with = "zero_or_one")]
    sleeps: bool,
    #[serde(deserialize_with = "zero_or_one")]
    locks: bool,
    #[serde(deserialize_with = "zero_or_one")]
    samples: bool,
    /// The kernel's release, if the trace says so.
    #[serde(skip_serializing)]
    kernel: Option<String>,
}

/// Of a trace that has nothing to say so, what it tells says what it could.
impl Default for Means {
    fn default() -> Means {
        Means { polls: true, probes: true, wakes: true, sleeps: true, locks: true, samples: true, kernel: None }
    }
}

/// Asks for it: a table with the column `object`, of a query that has [`PROBED`](super::super::span::PROBED) as `probed`.
/// Takes the modules `polletto.findings` and `polletto.overhead`. Where there were probes, no poll may have been made; but
/// where there was a poll, somebody woke its task.
pub const QUERY: &str = "WITH woken AS (SELECT 1 FROM slice WHERE category = 'wake') \
     SELECT json_object(\
     'polls', EXISTS (SELECT 1 FROM polletto_polls) OR EXISTS (SELECT 1 FROM probed), \
     'probes', EXISTS (SELECT 1 FROM probed), \
     'wakes', EXISTS (SELECT 1 FROM woken) \
     OR EXISTS (SELECT 1 FROM probed) AND NOT EXISTS (SELECT 1 FROM polletto_polls), \
     'sleeps', EXISTS (SELECT 1 FROM polletto_settings WHERE name = 'min_block_ns') \
     OR EXISTS (SELECT 1 FROM slice WHERE category = 'blocked'), \
     'locks', EXISTS (SELECT 1 FROM _polletto_arguments WHERE lock IS NOT NULL), \
     'samples', EXISTS (SELECT 1 FROM polletto_settings WHERE name = 'frequency_hz') \
     OR EXISTS (SELECT 1 FROM _polletto_samples_in_polls WHERE cpu_ns > 0), \
     'kernel', (SELECT str_value FROM metadata WHERE name = 'system_release')) AS object";

impl Means {
    /// Whether it does.
    pub fn has(&self, mean: Mean) -> bool {
        match mean {
            Mean::Polls => self.polls,
            Mean::Probes => self.probes,
            Mean::Wakes => self.wakes,
            Mean::Sleeps => self.sleeps,
            // That nobody slept at a lock does not mean that nobody would have seen it.
            Mean::Locks => self.locks || self.sleeps && self.kernel.as_deref().is_some_and(tells_calls),
            Mean::Samples => self.samples,
        }
    }

    /// Whether it tells of polls, if there are any.
    pub fn tell_polls(&self) -> bool {
        self.polls
    }
}

#[cfg(test)]
impl Means {
    /// The same without these.
    pub fn without(mut self, missing: &[Mean]) -> Means {
        for mean in missing {
            let has = match mean {
                Mean::Polls => &mut self.polls,
                Mean::Probes => &mut self.probes,
                Mean::Wakes => &mut self.wakes,
                Mean::Sleeps => &mut self.sleeps,
                Mean::Locks => &mut self.locks,
                Mean::Samples => &mut self.samples,
            };
            *has = false;
        }
        self
    }
}

/// In words, of a trace that lacks it.
impl fmt::Display for Mean {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Mean::Polls => "no polls",
            Mean::Probes => "polls by samples and switches alone",
            Mean::Wakes => "no wakes of tasks",
            Mean::Sleeps => "no callstacks of sleeps",
            Mean::Locks => "no locks at which threads sleep",
            Mean::Samples => "no callstacks of what ran",
        })
    }
}

/// `6.18.1-generic` is 5.17 or later.
fn tells_calls(release: &str) -> bool {
    let mut numbers = release.split(|letter: char| !letter.is_ascii_digit()).map(str::parse::<u32>);
    let version = (numbers.next(), numbers.next());
    matches!(version, (Some(Ok(major)), Some(Ok(minor))) if (major, minor) >= KERNEL_WITH_CALLS)
}

/// What findings of a kind are found by.
fn needed(kind: &str) -> &'static [Mean] {
    let is = |fault: Fault| kind == fault.name();
    if is(Fault::Starved) {
        &[Mean::Polls, Mean::Probes, Mean::Wakes]
    } else if is(Fault::Convoy) {
        &[Mean::Polls, Mean::Probes, Mean::Sleeps, Mean::Locks]
    } else if is(Fault::Slept(Wait::Other)) {
        &[Mean::Polls, Mean::Probes, Mean::Sleeps]
    } else {
        &[Mean::Polls, Mean::Probes, Mean::Samples]
    }
}

/// What one trace lacks of what another has to find a kind by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Lacking {
    /// Which one: 0 before, 1 after.
    pub at: usize,
    /// The first thing that it lacks.
    pub mean: Mean,
}

/// `before has no polls`
impl fmt::Display for Lacking {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} has {}", ["before", "after"][self.at], self.mean)
    }
}

impl Serialize for Lacking {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Why a kind can't be compared between two traces; none if it can.
pub fn lacking(kind: &str, means: Pair<&Means>) -> Option<Lacking> {
    first_lacking(needed(kind), means)
}

/// The first of these means that one trace has and the other lacks.
pub fn first_lacking(needed: &[Mean], means: Pair<&Means>) -> Option<Lacking> {
    needed.iter().find_map(|&mean| match means.map(|means| means.has(mean)) {
        [false, true] => Some(Lacking { at: 0, mean }),
        [true, false] => Some(Lacking { at: 1, mean }),
        [true, true] | [false, false] => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_trace_alone_could_tell_is_not_compared() {
        let whole = || Means::default();
        let lacks = |missing: &[Mean], kind: &str| {
            let less = whole().without(missing);
            assert_eq!(lacking(kind, [&less, &less]), None, "both lack it");
            let [before, after] = [[&less, &whole()], [&whole(), &less]].map(|of| lacking(kind, of));
            assert_eq!(before.map(|of| of.mean), after.map(|of| of.mean), "{kind}");
            assert!(before.is_none_or(|of| of.at == 0) && after.is_none_or(|of| of.at == 1), "{kind}");
            before.map(|of| of.mean)
        };
        let kinds = ["long poll", "slept in poll", "preempted in poll", "starved task", "lock convoy"];
        for (missing, expected) in [
            (Mean::Polls, [true, true, true, true, true]),
            (Mean::Probes, [true, true, true, true, true]),
            (Mean::Wakes, [false, false, false, true, false]),
            (Mean::Sleeps, [false, true, false, false, true]),
            (Mean::Locks, [false, false, false, false, true]),
            (Mean::Samples, [true, false, true, false, false]),
        ] {
            let told = kinds.map(|kind| lacks(&[missing], kind) == Some(missing));
            assert_eq!(told, expected, "{missing:?}");
        }
        assert_eq!(lacks(&[Mean::Wakes, Mean::Probes], "starved task"), Some(Mean::Probes), "the first is told");
    }

    #[test]
    fn that_nobody_slept_at_a_lock_is_not_that_nobody_would_have_seen_it() {
        for (release, expected) in
            [("6.18.44-fc", true), ("5.17.0", true), ("5.15.0-91-generic", false), ("6", false), ("", false)]
        {
            let means = Means { kernel: Some(release.to_owned()), ..Means::default().without(&[Mean::Locks]) };
            assert_eq!(means.has(Mean::Locks), expected, "{release}");
            assert!(!means.without(&[Mean::Sleeps]).has(Mean::Locks), "{release}");
        }
        assert!(!Means::default().without(&[Mean::Locks]).has(Mean::Locks));
    }
}
