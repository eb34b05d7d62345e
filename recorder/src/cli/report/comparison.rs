//! What got better and worse from one trace to another.
//!
//! Places are the same if their kind, future, function and file are: lines move from build to build, and addresses with
//! each. What is compared is the time that a place took of each second in which polls were observed, since traces differ
//! in length.
//!
//! What one of the traces could not have told, whatever there was, is not compared: see [`means`].
//!
//! See [`chance`] for what is a change. It has to be one as well for what lasts [`MARGIN`] of the threshold: polls of
//! 5.1 ms where there were as many of 4.9 ms are no news.

mod chance;
mod common;
mod futures;
mod means;
mod place;
mod telling;
#[cfg(test)]
mod tests;

use std::{cmp::Reverse, collections::BTreeMap, path::Path};

use anyhow::Result;
use serde::{Deserialize, Serialize};

use self::{
    chance::{Sum, verdict},
    common::{ComparedPolls, ToldBy, Which},
    futures::{Called, SameFutures},
    means::{Lacking, Means, lacking},
    place::Place,
};
use super::{
    asking::Processor,
    found::{self, Found, MODULES},
    span::{self, Span},
};

/// Of the threshold, how long what nearly reaches it lasts.
const MARGIN: f64 = 0.75;

/// A trace, as far as it is compared.
#[derive(Debug, Default)]
pub struct Recording {
    /// Everything that lasts as long as was asked, whether it is compared or not.
    pub found: Vec<Found>,
    futures: Vec<Polls>,
    span: Span,
    means: Means,
}

/// All polls of a future, which may be findings or not.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
struct Polls {
    #[serde(skip_serializing)]
    future: String,
    #[serde(skip_serializing)]
    name: String,
    /// Where it is written, if that is one line: `file:line`.
    #[serde(default, skip_serializing)]
    written_at: Option<String>,
    polls: u64,
    total_ns: u64,
    p50_ns: u64,
    p99_ns: u64,
    longest_ns: u64,
}

/// A row of the answer.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Row {
    Found(Box<Found>),
    Polls(Polls),
    Span(Span),
    Means(Means),
}

/// What must be asked for to compare what lasts that long.
pub fn least_ns(threshold_ns: u64) -> u64 {
    (threshold_ns as f64 * MARGIN) as u64
}

impl Recording {
    /// Reads a trace.
    pub fn read(processor: &Processor, trace: &Path, least_ns: u64) -> Result<Recording> {
        let mut recording = Recording::default();
        for row in processor.ask(trace, &query(least_ns))? {
            match row {
                Row::Found(found) => recording.found.push(*found),
                Row::Polls(polls) => recording.futures.push(polls),
                Row::Span(span) => recording.span = span,
                Row::Means(means) => recording.means = means,
            }
        }
        Ok(recording)
    }

    /// For how long it tells of polls.
    pub fn span(&self) -> Span {
        self.span
    }

    /// Whether it tells of any poll.
    pub fn has_polls(&self) -> bool {
        self.span.polls > 0
    }

    /// Whether it would tell of any.
    pub fn tells_polls(&self) -> bool {
        self.means.tell_polls()
    }

    /// Whether it is known where functions are written, as far as there is anything to be known.
    fn has_lines(&self) -> bool {
        self.has_any(|found| found.own_source.is_some() || found.crate_source.is_some())
    }

    /// Whether functions are known, the program's own or a crate's, as far as there is anything to be known.
    fn has_functions(&self) -> bool {
        self.has_any(|found| found.own_function.is_some() || found.krate.is_some())
    }

    /// Whether that is so of any finding with a callstack, if there is one.
    fn has_any(&self, is_so: impl Fn(&Found) -> bool) -> bool {
        let mut with_callstacks = self.found.iter().filter(|found| found.function.is_some()).peekable();
        with_callstacks.peek().is_none() || with_callstacks.any(is_so)
    }

    /// Where probes tell of polls, those that samples tell of are not as many as there were, and not of the time that counts.
    fn is_compared(&self, found: &Found) -> bool {
        let extents = [&found.extent, &found.poll_extent];
        !self.span.has_probes || extents.iter().all(|extent| extent.as_deref() != Some("at least"))
    }
}

fn query(least_ns: u64) -> String {
    let found = found::query(least_ns);
    format!(
        "{MODULES} \
         WITH probed AS ({}), \
         told AS (SELECT * FROM polletto_polls \
         WHERE extent = 'exact' OR NOT EXISTS (SELECT 1 FROM probed)), \
         futures AS (SELECT json_object('future', future, 'name', max(name), 'polls', count(), \
         'written_at', iif(min(written_at) = max(written_at) AND count(written_at) = count(), max(written_at), NULL), \
         'total_ns', sum(dur), 'p50_ns', CAST(percentile(dur, 50) AS INTEGER), \
         'p99_ns', CAST(percentile(dur, 99) AS INTEGER), 'longest_ns', max(dur)) AS object \
         FROM told GROUP BY future), \
         span AS ({}), means AS ({}), \
         found AS ({found}) \
         SELECT hex(json_object('found', json(object))) AS digits FROM found \
         UNION ALL SELECT hex(json_object('polls', json(object))) FROM futures \
         UNION ALL SELECT hex(json_object('span', json(object))) FROM span \
         UNION ALL SELECT hex(json_object('means', json(object))) FROM means",
        span::PROBED,
        span::QUERY,
        means::QUERY
    )
}

/// What two traces differ in. Its fields are what `--json` prints.
#[derive(Debug, Serialize)]
pub struct Comparison {
    threshold_ns: u64,
    before: Told,
    after: Told,
    /// Which polls are compared, and so which findings: `exact`, `at least`, or `none` if the traces tell of them in different
    /// ways.
    polls_compared: ComparedPolls,
    told_by: ToldBy,
    /// Of which trace no more is known.
    #[serde(skip)]
    told_less: Option<Which>,
    /// What changed, by how much time it takes, the most first: what got worse, what got better, then the rest; first what
    /// tells of the program, then what tells of the machine.
    places: Vec<Change>,
    /// All polls that each trace tells of, by future, whose time changed most first.
    futures: Vec<PollsOfFuture>,
}

/// For how long a trace tells what.
#[derive(Debug, Serialize)]
struct Told {
    #[serde(flatten)]
    span: Span,
    means: Means,
}

/// What became of a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    Worse,
    Better,
    /// Nothing, or too little to tell.
    Same,
    /// One of the traces could not have told it.
    #[serde(rename = "not observed")]
    NotObserved,
}

/// Findings of one kind, in one place, before and after.
#[derive(Debug, Serialize)]
struct Change {
    verdict: Verdict,
    /// `program` or `machine`: what it tells of.
    cause: &'static str,
    /// What one of the traces lacks to tell it, in words.
    lacking: Option<Lacking>,
    #[serde(flatten)]
    place: Place,
    /// The future's name in the trace where it was seen last, of those that have one, whole and short. None if the place is told by
    /// its kind.
    future: Option<String>,
    #[serde(skip)]
    name: Option<String>,
    /// Where it is written, `file:line`, if that tells that it is the same in both: one of them has no name for it.
    written_at: Option<String>,
    /// What the callstacks are about that most of the time went to.
    category: Option<String>,
    /// Where nothing is the program's own: the crate in which most of the time went by.
    #[serde(rename = "crate")]
    krate: Option<String>,
    /// None if it is new, or could not be told.
    before: Option<Side>,
    /// None if it is gone, or could not be told.
    after: Option<Side>,
}

/// A place in one of the traces.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
struct Side {
    count: u64,
    total_ns: u64,
    longest_ns: u64,
    /// Of each second in which polls were observed.
    count_per_second: f64,
    ns_per_second: f64,
    /// The line of the longest, as `file:line`.
    source: Option<String>,
}

/// What polls of a future took, before and after.
#[derive(Debug, Serialize)]
struct PollsOfFuture {
    future: String,
    #[serde(skip)]
    name: String,
    before: Option<Polls>,
    after: Option<Polls>,
}

/// Before and after.
type Pair<T> = [T; 2];

impl Comparison {
    /// Compares what lasts as long as the threshold. Both must have been asked for [`least_ns`] of that, or less.
    pub fn new(before: &Recording, after: &Recording, threshold_ns: u64) -> Comparison {
        let recordings = [before, after];
        let means = recordings.map(|recording| &recording.means);
        let spans = recordings.map(|recording| recording.span);
        let [before_seconds, after_seconds] = spans.map(Span::seconds);
        let same = SameFutures::of(recordings);
        let (told_by, told_less) = ToldBy::of(recordings, &same);
        let places = places(recordings, threshold_ns, told_by, &same);
        // What nearly reaches the threshold is only there to tell by.
        let least = self::places(recordings, least_ns(threshold_ns), told_by, &same);
        let mut changes: Vec<Change> = places
            .into_iter()
            .map(|(place, [before, after])| {
                let of_all = &least[&place];
                let told = verdict([&before, &after], spans);
                let agrees = told == verdict([&of_all[0], &of_all[1]], spans);
                let lacking = lacking(&place.kind, means);
                let is_in_crate = matches!(told_by, ToldBy::Function | ToldBy::Name) && place.function.is_none();
                let longest = [(1, after.longest()), (0, before.longest())];
                let seen = || longest.into_iter().filter_map(|(at, found)| Some((at, found?)));
                let last = seen().find(|(_, found)| Called::from(*found).is_named()).or_else(|| seen().next());
                let last = last.filter(|_| !place.future.is_empty());
                let written_at = last.and_then(|(at, found)| same.line(at, found.into()));
                let last = last.map(|(_, found)| found);
                Change {
                    verdict: match lacking {
                        Some(_) => Verdict::NotObserved,
                        None if agrees => told,
                        None => Verdict::Same,
                    },
                    cause: place.cause.name(),
                    lacking,
                    name: last.map(|found| found.name.as_ref().unwrap_or(&found.future).clone()),
                    future: last.map(|found| found.future.clone()),
                    written_at: written_at.map(str::to_owned),
                    place,
                    category: after.category().or_else(|| before.category()),
                    krate: after.krate().or_else(|| before.krate()).filter(|_| is_in_crate),
                    before: before.side(before_seconds),
                    after: after.side(after_seconds),
                }
            })
            .collect();
        changes.sort_by(|a, b| {
            let by_cause = a.place.cause.cmp(&b.place.cause);
            by_cause
                .then(a.verdict.cmp(&b.verdict))
                .then(b.difference().total_cmp(&a.difference()))
                .then(a.place.cmp(&b.place))
        });
        Comparison {
            threshold_ns,
            before: Told { span: before.span, means: before.means.clone() },
            after: Told { span: after.span, means: after.means.clone() },
            polls_compared: ComparedPolls::of(means),
            told_by,
            told_less,
            places: changes,
            futures: polls_of_futures(recordings, &same),
        }
    }

    /// Why nothing is compared, in words; none where something is.
    pub fn nothing_for(&self) -> Option<String> {
        self.polls_compared.none_for()
    }

    /// How many places there are of a verdict.
    pub fn count(&self, verdict: Verdict) -> usize {
        self.places.iter().filter(|change| change.verdict == verdict).count()
    }
}

impl Change {
    /// Of each second, nanoseconds.
    fn difference(&self) -> f64 {
        let rate = |side: &Option<Side>| side.as_ref().map_or(0.0, |side| side.ns_per_second);
        (rate(&self.after) - rate(&self.before)).abs()
    }
}

fn places(
    recordings: Pair<&Recording>,
    least_ns: u64,
    by: ToldBy,
    same: &SameFutures<'_>,
) -> BTreeMap<Place, Pair<Sum>> {
    let mut places = BTreeMap::<Place, Pair<Sum>>::new();
    for (at, recording) in recordings.into_iter().enumerate() {
        for found in recording.found.iter().filter(|found| found.kept_ns() >= least_ns && recording.is_compared(found))
        {
            places.entry(Place::of(found, by, by.future(same, at, found))).or_default()[at].add(found);
        }
    }
    places
}

fn polls_of_futures(recordings: Pair<&Recording>, same: &SameFutures<'_>) -> Vec<PollsOfFuture> {
    let mut futures = BTreeMap::<String, Pair<Option<Polls>>>::new();
    for (at, recording) in recordings.into_iter().enumerate() {
        for polls in &recording.futures {
            let known = &mut futures.entry(same.key_of_one(at, polls.into())).or_default()[at];
            // Of several that only differ in a number, the one that takes most.
            if known.as_ref().is_none_or(|known| known.total_ns < polls.total_ns) {
                *known = Some(polls.clone());
            }
        }
    }
    let seconds = recordings.map(|recording| recording.span.seconds());
    let name = |pair: &Pair<Option<Polls>>| {
        let seen = || [&pair[1], &pair[0]].into_iter().flatten();
        let last = seen().find(|polls| Called::from(*polls).is_named()).or_else(|| seen().next());
        last.map(|polls| (polls.future.clone(), polls.name.clone())).unwrap_or_default()
    };
    let mut futures: Vec<PollsOfFuture> = futures
        .into_values()
        .map(|pair| {
            let (future, name) = name(&pair);
            let [before, after] = pair;
            PollsOfFuture { future, name, before, after }
        })
        .collect();
    let rate =
        |polls: &Option<Polls>, at: usize| polls.as_ref().map_or(0.0, |polls| polls.total_ns as f64 / seconds[at]);
    let difference = |of: &PollsOfFuture| (rate(&of.after, 1) - rate(&of.before, 0)).abs() as u64;
    futures.sort_by_cached_key(|of| Reverse(difference(of)));
    futures
}
