//! What got better and worse from one trace to another.
//!
//! Places are the same if their kind, future, function and file are: lines move from build to build, and addresses with
//! each. What is compared is the time that a place took of each second in which polls were observed, since traces differ
//! in length.
//!
//! See [`chance`] for what is a change. It has to be one as well for what lasts [`MARGIN`] of the threshold: polls of
//! 5.1 ms where there were as many of 4.9 ms are no news.

mod chance;
mod telling;
#[cfg(test)]
mod tests;

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use anyhow::Result;
use serde::{Deserialize, Serialize};

use self::chance::{Sum, verdict};
use super::{
    asking::Processor,
    found::{self, Found, MODULES, file_of},
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

    /// Whether it tells of any poll.
    pub fn has_polls(&self) -> bool {
        !self.futures.is_empty()
    }

    /// Whether it is known where the program's own functions are written, as far as there is anything to be known.
    fn has_lines(&self) -> bool {
        self.found.is_empty() || self.found.iter().any(|found| found.own_source.is_some())
    }

    /// Whether the program's own functions are known, as far as there is anything to be known.
    fn has_functions(&self) -> bool {
        self.found.is_empty() || self.found.iter().any(|found| found.own_function.is_some())
    }

    /// Where probes tell of polls, those that samples tell of are not as many as there were.
    fn is_compared(&self, found: &Found) -> bool {
        !self.span.is_exact || found.extent.as_deref() != Some("at least")
    }
}

fn query(least_ns: u64) -> String {
    let found = found::query(least_ns);
    format!(
        "{MODULES} \
         WITH probed AS (SELECT DISTINCT upid FROM polletto_polls WHERE extent = 'exact'), \
         told AS (SELECT * FROM polletto_polls \
         WHERE extent = 'exact' OR NOT EXISTS (SELECT 1 FROM probed)), \
         futures AS (SELECT json_object('future', future, 'name', max(name), 'polls', count(), \
         'total_ns', sum(dur), 'p50_ns', CAST(percentile(dur, 50) AS INTEGER), \
         'p99_ns', CAST(percentile(dur, 99) AS INTEGER), 'longest_ns', max(dur)) AS object \
         FROM told GROUP BY future), \
         span AS ({}), \
         found AS ({found}) \
         SELECT hex(json_object('found', json(object))) AS digits FROM found \
         UNION ALL SELECT hex(json_object('polls', json(object))) FROM futures \
         UNION ALL SELECT hex(json_object('span', json(object))) FROM span",
        span::QUERY
    )
}

/// What two traces differ in. Its fields are what `--json` prints.
#[derive(Debug, Serialize)]
pub struct Comparison {
    threshold_ns: u64,
    before: Span,
    after: Span,
    told_by: ToldBy,
    /// What changed, by how much time it takes, the most first: what got worse, what got better, then the rest.
    places: Vec<Change>,
    /// All polls, by future, whose time changed most first.
    futures: Vec<PollsOfFuture>,
}

/// What both traces know of places, besides their kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum ToldBy {
    /// Futures, the program's own functions, and their files.
    Function,
    /// One of the traces has no files, as of a build without line tables.
    Name,
    /// One of the traces has no functions of the program's own, as of a stripped program.
    Future,
    /// Nor does one have the names that the other has for futures.
    Kind,
}

impl ToldBy {
    fn of(recordings: Pair<&Recording>) -> ToldBy {
        if recordings.iter().all(|recording| recording.has_functions()) {
            let have_lines = recordings.iter().all(|recording| recording.has_lines());
            return if have_lines { ToldBy::Function } else { ToldBy::Name };
        }
        let [before, after] = recordings.map(|recording| {
            recording.found.iter().map(|found| in_every_build(&found.future)).collect::<BTreeSet<String>>()
        });
        if before.is_disjoint(&after) { ToldBy::Kind } else { ToldBy::Future }
    }
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
    /// The future's name in the trace where it was seen last, whole and short. None if places are told by their kind.
    future: Option<String>,
    #[serde(skip)]
    name: Option<String>,
    /// What the callstacks are about that most of the time went to.
    category: Option<String>,
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
    /// What the callstack is about, where no function of the program's own is known.
    #[serde(skip)]
    category: Option<String>,
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
    fn of(found: &Found, by: ToldBy) -> Place {
        let kind = Place {
            kind: found.kind.clone(),
            waited_for: found.waited_for().map(str::to_owned),
            future: if by == ToldBy::Kind { String::new() } else { in_every_build(&found.future) },
            function: None,
            file: None,
            category: None,
        };
        if matches!(by, ToldBy::Future | ToldBy::Kind) {
            return kind;
        }
        let file = found.own_source.as_deref().map(|source| {
            let path = file_of(source);
            path.rsplit_once('/').map_or(path, |(_, name)| name).to_owned()
        });
        Place {
            function: found.own_function.as_deref().map(in_every_build),
            file: file.filter(|_| by == ToldBy::Function && found.own_function.is_some()),
            category: found.category.clone().filter(|_| found.own_function.is_none()),
            ..kind
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

/// Before and after.
type Pair<T> = [T; 2];

impl Comparison {
    /// Compares what lasts as long as the threshold. Both must have been asked for [`least_ns`] of that, or less.
    pub fn new(before: &Recording, after: &Recording, threshold_ns: u64) -> Comparison {
        let recordings = [before, after];
        let spans = recordings.map(|recording| recording.span);
        let [before_seconds, after_seconds] = spans.map(Span::seconds);
        let told_by = ToldBy::of(recordings);
        let places = places(recordings, threshold_ns, told_by);
        // What nearly reaches the threshold is only there to tell by.
        let least = self::places(recordings, least_ns(threshold_ns), told_by);
        let mut changes: Vec<Change> = places
            .into_iter()
            .map(|(place, [before, after])| {
                let of_all = &least[&place];
                let told = verdict([&before, &after], spans);
                let agrees = told == verdict([&of_all[0], &of_all[1]], spans);
                let last = after.longest().or(before.longest()).filter(|_| told_by != ToldBy::Kind);
                Change {
                    verdict: if agrees { told } else { Verdict::Same },
                    name: last.map(|found| found.name.as_ref().unwrap_or(&found.future).clone()),
                    future: last.map(|found| found.future.clone()),
                    place,
                    category: after.category().or_else(|| before.category()),
                    before: before.side(before_seconds),
                    after: after.side(after_seconds),
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
            told_by,
            places: changes,
            futures: futures(recordings),
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

fn places(recordings: Pair<&Recording>, least_ns: u64, by: ToldBy) -> BTreeMap<Place, Pair<Sum>> {
    let mut places = BTreeMap::<Place, Pair<Sum>>::new();
    for (at, recording) in recordings.into_iter().enumerate() {
        for found in recording.found.iter().filter(|found| found.kept_ns() >= least_ns && recording.is_compared(found))
        {
            places.entry(Place::of(found, by)).or_default()[at].add(found);
        }
    }
    places
}

fn futures(recordings: Pair<&Recording>) -> Vec<PollsOfFuture> {
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
    let seconds = recordings.map(|recording| recording.span.seconds());
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
