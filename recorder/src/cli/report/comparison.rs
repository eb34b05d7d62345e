//! What got better and worse from one trace to another.
//!
//! Places are the same if their kind, future, function and file are: lines move from build to build, and addresses with
//! each. What is compared is the time that a place took of each second in which polls were observed, since traces differ
//! in length.
//!
//! A difference is a change if it is neither noise nor small:
//!
//! - Findings come at random, as those who call a server do. If they come independently of each other, a sum of their
//!   durations has a variance of about the sum of their squares, however different they are. A difference of at least
//!   [`DEVIATIONS`] standard deviations is not left to chance: of findings of the same length in traces of the same
//!   length, that is 9 against none, or 137 against 90.
//! - It is at least by a [`RATIO`], since machines are not equally fast all day.
//! - It is so as well for what lasts [`MARGIN`] of the threshold: polls of 5.1 ms where there were as many of 4.9 ms are
//!   no news.

mod telling;
#[cfg(test)]
mod tests;

use std::{
    cmp::{Ordering, Reverse},
    collections::BTreeMap,
    path::Path,
};

use anyhow::Result;
use serde::{Deserialize, Serialize};

use super::{
    asking::Processor,
    found::{self, Found},
};

/// Of the noise, what a difference must be to be a change.
const DEVIATIONS: f64 = 3.0;

/// Of one to the other, likewise.
const RATIO: f64 = 1.5;

/// Of the threshold, how long what nearly reaches it lasts.
const MARGIN: f64 = 0.75;

/// A trace, as far as it is compared.
#[derive(Debug, Default)]
pub struct Recording {
    /// Everything that lasts as long as was asked, whether it is compared or not.
    pub found: Vec<Found>,
    futures: Vec<Polls>,
    span: Span,
}

/// For how long a trace tells what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
struct Span {
    /// The recording, nanoseconds.
    recorded_ns: u64,
    /// For how much of that polls were observed.
    observed_ns: u64,
    /// Polls were told exactly then, by probes.
    #[serde(deserialize_with = "zero_or_one")]
    is_exact: bool,
}

/// All polls of a future, which may be findings or not.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
struct Polls {
    #[serde(skip_serializing)]
    future: String,
    #[serde(skip_serializing)]
    name: String,
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
}

/// SQLite has no booleans.
fn zero_or_one<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    u8::deserialize(deserializer).map(|number| number != 0)
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
            }
        }
        Ok(recording)
    }

    /// Where probes tell of polls, those that samples tell of are not as many as there were.
    fn is_compared(&self, found: &Found) -> bool {
        !self.span.is_exact || found.extent.as_deref() != Some("at least")
    }
}

fn query(least_ns: u64) -> String {
    let found = found::query(least_ns);
    format!(
        "INCLUDE PERFETTO MODULE polletto.findings; \
         WITH probed AS (SELECT DISTINCT upid FROM polletto_polls WHERE extent = 'exact'), \
         told AS (SELECT * FROM polletto_polls \
         WHERE extent = 'exact' OR NOT EXISTS (SELECT 1 FROM probed)), \
         futures AS (SELECT json_object('future', future, 'name', max(name), 'polls', count(), \
         'total_ns', sum(dur), 'p50_ns', CAST(percentile(dur, 50) AS INTEGER), \
         'p99_ns', CAST(percentile(dur, 99) AS INTEGER), 'longest_ns', max(dur)) AS object \
         FROM told GROUP BY future), \
         recorded AS (SELECT coalesce((SELECT CAST(value AS INTEGER) FROM polletto_overhead \
         WHERE name = 'recorded'), trace_dur()) AS ns), \
         span AS (SELECT json_object('recorded_ns', ns, 'observed_ns', \
         coalesce((SELECT max(recorded_ns - unobserved_ns) FROM polletto_observed JOIN probed USING (upid)), ns), \
         'is_exact', EXISTS (SELECT 1 FROM probed)) AS object FROM recorded), \
         found AS ({found}) \
         SELECT hex(json_object('found', json(object))) AS digits FROM found \
         UNION ALL SELECT hex(json_object('polls', json(object))) FROM futures \
         UNION ALL SELECT hex(json_object('span', json(object))) FROM span"
    )
}

/// What two traces differ in. Its fields are what `--json` prints.
#[derive(Debug, Serialize)]
pub struct Comparison {
    threshold_ns: u64,
    before: Span,
    after: Span,
    /// What changed, by how much time it takes, the most first: what got worse, what got better, then the rest.
    places: Vec<Change>,
    /// All polls, by future, whose time changed most first.
    futures: Vec<PollsOfFuture>,
}

/// What became of a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    Worse,
    Better,
    /// Nothing, or too little to tell.
    Same,
}

/// Findings of one kind, in one place, before and after.
#[derive(Debug, Serialize)]
struct Change {
    verdict: Verdict,
    #[serde(flatten)]
    place: Place,
    /// The future's name in the trace where it was seen last, whole and short.
    future: String,
    #[serde(skip)]
    name: String,
    /// None if it is new.
    before: Option<Side>,
    /// None if it is gone.
    after: Option<Side>,
}

/// What tells a place from others, in every build.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
struct Place {
    kind: String,
    /// What a sleep was for.
    waited_for: Option<String>,
    #[serde(skip)]
    future: String,
    /// The first function of the program's own code, if that is known.
    function: Option<String>,
    /// The file that it is in, without folders.
    file: Option<String>,
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

impl Place {
    fn of(found: &Found) -> Place {
        let file = found.own_source.as_deref().map(|source| {
            let path = source.rsplit_once(':').map_or(source, |(path, _)| path);
            path.rsplit_once('/').map_or(path, |(_, name)| name).to_owned()
        });
        Place {
            kind: found.kind.clone(),
            waited_for: found.waited_for().map(str::to_owned),
            future: in_every_build(&found.future),
            function: found.own_function.as_deref().map(in_every_build),
            file: file.filter(|_| found.own_function.is_some()),
        }
    }
}

/// A name without what changes when the program is only edited elsewhere, or built again: the numbers of lines, of
/// closures, and addresses.
fn in_every_build(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    let mut rest = name;
    while let Some(at) = rest.find(['#', ':', 'x']) {
        let (before, from) = rest.split_at(at);
        let (mark, behind) = from.split_at(1);
        let is_digit = |letter: char| if mark == "x" { letter.is_ascii_hexdigit() } else { letter.is_ascii_digit() };
        let end = behind.find(|letter| !is_digit(letter)).unwrap_or(behind.len());
        let is_number = end > 0 && (mark != "x" || before.ends_with(" 0"));
        out.push_str(before);
        if !is_number {
            out.push_str(mark);
        }
        rest = if is_number { &behind[end..] } else { behind };
    }
    out + rest
}

/// Findings in a place, summed.
#[derive(Clone, Debug, Default)]
struct Sum {
    count: u64,
    total_ns: u64,
    /// Of durations in nanoseconds.
    squares: f64,
    longest: Option<Found>,
}

impl Sum {
    fn add(&mut self, found: &Found) {
        self.count += 1;
        self.total_ns += found.dur;
        self.squares += (found.dur as f64).powi(2);
        if self.longest.as_ref().is_none_or(|longest| found.dur > longest.dur) {
            self.longest = Some(found.clone());
        }
    }

    fn side(&self, seconds: f64) -> Option<Side> {
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
}

/// Before and after.
type Pair<T> = [T; 2];

fn verdict(sums: Pair<&Sum>, seconds: Pair<f64>) -> Verdict {
    let rate = |at: usize| sums[at].total_ns as f64 / seconds[at];
    let (before, after) = (rate(0), rate(1));
    let variance = |at: usize| sums[at].squares / seconds[at].powi(2);
    let deviation = (variance(0) + variance(1)).sqrt();
    if (after - before).abs() < DEVIATIONS * deviation || before.max(after) < RATIO * before.min(after) {
        Verdict::Same
    } else {
        match after.total_cmp(&before) {
            Ordering::Greater => Verdict::Worse,
            Ordering::Less => Verdict::Better,
            Ordering::Equal => Verdict::Same,
        }
    }
}

/// Time in which polls were observed, never none.
fn seconds(span: Span) -> f64 {
    span.observed_ns.max(1) as f64 / 1e9
}

impl Comparison {
    /// Compares what lasts as long as the threshold. Both must have been asked for [`least_ns`] of that, or less.
    pub fn new(before: &Recording, after: &Recording, threshold_ns: u64) -> Comparison {
        let recordings = [before, after];
        let times = recordings.map(|recording| seconds(recording.span));
        let places = places(recordings, threshold_ns);
        // What nearly reaches the threshold is only there to tell by.
        let least = self::places(recordings, least_ns(threshold_ns));
        let mut changes: Vec<Change> = places
            .into_iter()
            .map(|(place, [before, after])| {
                let of_all = &least[&place];
                let told = verdict([&before, &after], times);
                let agrees = told == verdict([&of_all[0], &of_all[1]], times);
                let last = after.longest.as_ref().or(before.longest.as_ref());
                let future = last.map(|found| found.future.clone()).unwrap_or_default();
                Change {
                    verdict: if agrees { told } else { Verdict::Same },
                    name: last.and_then(|found| found.name.clone()).unwrap_or_else(|| future.clone()),
                    future,
                    place,
                    before: before.side(times[0]),
                    after: after.side(times[1]),
                }
            })
            .collect();
        changes.sort_by(|a, b| {
            a.verdict.cmp(&b.verdict).then(b.difference().total_cmp(&a.difference())).then(a.place.cmp(&b.place))
        });
        Comparison {
            threshold_ns,
            before: before.span,
            after: after.span,
            places: changes,
            futures: futures(recordings, times),
        }
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

fn places(recordings: Pair<&Recording>, least_ns: u64) -> BTreeMap<Place, Pair<Sum>> {
    let mut places = BTreeMap::<Place, Pair<Sum>>::new();
    for (at, recording) in recordings.into_iter().enumerate() {
        for found in recording.found.iter().filter(|found| found.dur >= least_ns && recording.is_compared(found)) {
            places.entry(Place::of(found)).or_default()[at].add(found);
        }
    }
    places
}

fn futures(recordings: Pair<&Recording>, seconds: Pair<f64>) -> Vec<PollsOfFuture> {
    let mut futures = BTreeMap::<String, Pair<Option<Polls>>>::new();
    for (at, recording) in recordings.into_iter().enumerate() {
        for polls in &recording.futures {
            let known = &mut futures.entry(in_every_build(&polls.future)).or_default()[at];
            // Of several that only differ in a number, the one that takes most.
            if known.as_ref().is_none_or(|known| known.total_ns < polls.total_ns) {
                *known = Some(polls.clone());
            }
        }
    }
    let name = |pair: &Pair<Option<Polls>>| {
        let last = pair[1].as_ref().or(pair[0].as_ref());
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
