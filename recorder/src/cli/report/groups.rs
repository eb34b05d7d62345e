//! Findings that are alike.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashMap},
    fmt,
};

use serde::Serialize;

use super::{
    super::summary::{AtLeast, InBrackets, MostlyIn, OtherLines, SleptThere},
    found::{Found, file_of},
};
use crate::{symbols::told_place, timeline::Cause};

/// Findings of one kind and cause, in one function.
#[derive(Debug, Serialize)]
pub struct Group<'f> {
    count: u64,
    longest_ns: u64,
    /// `exact` if both ends of that were seen, `at least` if it lasted longer, maybe; null if it is about no single
    /// poll.
    extent: Option<&'f str>,
    /// For how much of the longest it slept there for that; null if they are no polls that slept.
    slept_there_ns: Option<u64>,
    total_ns: u64,
    /// What the callstacks are about that most of this went to.
    category: Option<&'f str>,
    #[serde(skip)]
    about: BTreeMap<Option<&'f str>, u64>,
    /// Of lock convoys: how many threads stood there in the longest, and who held the lock.
    convoy: Option<&'f str>,
    /// Of starved tasks: what kept the worker while the one waited that did so longest.
    meanwhile: Option<&'f str>,
    /// Where the future is written, as `file:line`, if that is known.
    written_at: Option<&'f str>,
    /// Where nothing is the program's own: the crate in which most of the time went by.
    #[serde(rename = "crate")]
    krate: Option<&'f str>,
    /// In the program's own code if that is known, else in that crate, else wherever the thread was.
    function: Option<&'f str>,
    /// The line of the function, as `file:line`, in which most of the time went by.
    source: Option<&'f str>,
    /// How long they lasted that were in each line, nanoseconds.
    lines: BTreeMap<&'f str, u64>,
    #[serde(skip)]
    of_crates: BTreeMap<InCrate<'f>, u64>,
    #[serde(flatten)]
    alike: Alike<'f>,
}

/// What makes findings alike.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Alike<'f> {
    kind: &'f str,
    /// `program` or `machine`: what they tell of.
    cause: &'f str,
    /// What a sleep was for.
    waited_for: Option<&'f str>,
    future: &'f str,
    #[serde(skip)]
    at: At<'f>,
    /// Where the function is written, if it is the program's own.
    file: Option<&'f str>,
}

/// Where findings are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum At<'f> {
    /// In the program's own code if that is known, else wherever the thread was.
    Function(Option<&'f str>),
    /// In a crate, and in no code of the program's own: what that is about, or else the crate. Functions of libraries are many,
    /// and inlined into each other.
    About(&'f str),
}

impl<'f> At<'f> {
    fn of(found: &'f Found) -> At<'f> {
        match (found.own_function.as_deref(), found.about()) {
            (Some(own), _) => At::Function(Some(own)),
            (None, Some(about)) => At::About(about),
            (None, None) => At::Function(found.function.as_deref().map(without_address)),
        }
    }
}

/// A line of a function of a crate, where nothing is the program's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct InCrate<'f> {
    krate: &'f str,
    function: Option<&'f str>,
    source: Option<&'f str>,
}

/// A program without names has `FILE+0xADDRESS` for each of its functions, which are many where a name is one.
fn without_address(function: &str) -> &str {
    function.split_once("+0x").map_or(function, |(file, _)| file)
}

/// Puts those together that are alike.
pub fn grouped<'f>(found: &[&'f Found]) -> Vec<Group<'f>> {
    let mut groups = HashMap::<Alike<'f>, Group<'f>>::new();
    for found in found {
        let alike = Alike {
            kind: &found.kind,
            cause: &found.cause,
            waited_for: found.waited_for(),
            future: &found.future,
            at: At::of(found),
            file: found.own_source.as_deref().map(file_of),
        };
        let group = groups.entry(alike.clone()).or_insert_with(|| Group {
            count: 0,
            longest_ns: 0,
            extent: None,
            slept_there_ns: None,
            total_ns: 0,
            category: None,
            about: BTreeMap::new(),
            convoy: None,
            meanwhile: None,
            written_at: found.written_at.as_deref(),
            krate: None,
            function: None,
            source: None,
            lines: BTreeMap::new(),
            of_crates: BTreeMap::new(),
            alike,
        });
        group.count += 1;
        group.total_ns += found.dur;
        if found.dur >= group.longest_ns {
            group.longest_ns = found.dur;
            group.extent = found.extent.as_deref();
            group.slept_there_ns = found.slept_there_ns;
            group.convoy = found.convoy();
            group.meanwhile = found.meanwhile();
        }
        if let Some(in_crate) = found.krate.as_deref().filter(|_| found.own_function.is_none()).map(|krate| InCrate {
            krate,
            function: found.crate_function.as_deref(),
            source: found.crate_source.as_deref(),
        }) {
            *group.of_crates.entry(in_crate).or_default() += found.dur;
        } else if let Some(source) = found.own_source.as_deref() {
            *group.lines.entry(source).or_default() += found.dur;
        }
        *group.about.entry(found.category.as_deref()).or_default() += found.dur;
    }
    for group in groups.values_mut() {
        group.category = heaviest(group.about.iter().map(|(category, ns)| (*category, *ns))).flatten();
        match group.alike.at {
            At::Function(function) => group.function = function,
            At::About(_) => group.take_heaviest_crate(),
        }
        group.source = heaviest(group.lines.iter().map(|(source, ns)| (*source, *ns)));
    }
    let mut groups: Vec<Group<'f>> = groups.into_values().collect();
    // The same order every time.
    groups.sort_by(|a, b| {
        let key = |of: &Group<'f>| (of.is_of(Cause::Machine), Reverse(of.total_ns), of.alike.future, of.source);
        key(a).cmp(&key(b))
    });
    groups
}

/// What weighs most of all that weigh something.
fn heaviest<K: Ord>(weights: impl IntoIterator<Item = (K, u64)>) -> Option<K> {
    let mut sums = BTreeMap::new();
    weights.into_iter().for_each(|(key, ns)| *sums.entry(key).or_insert(0) += ns);
    sums.into_iter().max_by_key(|(_, ns)| *ns).map(|(key, _)| key)
}

impl Group<'_> {
    /// The crate, and of this the function, in which most of the time went by.
    fn take_heaviest_crate(&mut self) {
        let all = || self.of_crates.iter().map(|(of, ns)| (*of, *ns));
        let krate = heaviest(all().map(|(of, ns)| (of.krate, ns)));
        let of_it = || all().filter(|(of, _)| Some(of.krate) == krate);
        let function = heaviest(of_it().map(|(of, ns)| (of.function, ns))).flatten();
        let lines = of_it().filter(|(of, _)| of.function == function);
        self.lines = lines.filter_map(|(of, ns)| Some((of.source?, ns))).collect();
        (self.krate, self.function) = (krate, function);
    }

    /// Whether that is what they tell of.
    pub fn is_of(&self, cause: Cause) -> bool {
        self.alike.cause == cause.name()
    }
}

/// In several lines, each with its end.
impl fmt::Display for Group<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let milliseconds = |nanoseconds: u64| format!("{:.1} ms", nanoseconds as f64 / 1e6);
        let Group { count, longest_ns, slept_there_ns, total_ns, category, convoy, function, source, alike, .. } = self;
        write!(out, "{count:>7} {:>12} {:>12}  {}", milliseconds(*longest_ns), milliseconds(*total_ns), alike.kind)?;
        writeln!(out, "{}: {}", InBrackets([alike.waited_for, *category]), alike.future)?;
        let mostly_in = MostlyIn(self.krate);
        match (function, source) {
            (Some(function), Some(source)) => {
                let others = OtherLines(self.lines.len().saturating_sub(1));
                writeln!(out, "{:35}in {mostly_in}{function} at {}{others}", "", told_place(source))?;
            }
            (Some(function), None) => writeln!(out, "{:35}in {mostly_in}{function}", "")?,
            (None, _) => {}
        }
        // Where nothing else is known of a future, this is its name.
        if let (None, Some(place)) = (source, self.written_at.filter(|at| *at != alike.future)) {
            writeln!(out, "{:35}written at {}", "", told_place(place))?;
        }
        if let Some(told) = self.extent.and_then(AtLeast::of) {
            writeln!(out, "{:35}{told}", "")?;
        }
        if let Some(told) = slept_there_ns.and_then(|slept_ns| SleptThere::of(slept_ns, *longest_ns)) {
            writeln!(out, "{:35}{told}", "")?;
        }
        if let Some(meanwhile) = self.meanwhile {
            writeln!(out, "{:35}meanwhile {meanwhile}", "")?;
        }
        if let Some(convoy) = convoy {
            // The last that it says is where the lock was held.
            let told = convoy.rsplit_once(" at ").map(|(held, place)| format!("{held} at {}", told_place(place)));
            writeln!(out, "{:35}{}", "", told.as_deref().unwrap_or(convoy))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(kind: &str, dur: u64, own_source: Option<&str>) -> Found {
        Found::example(kind, dur, own_source)
    }

    #[test]
    fn addresses_are_of_one_place_where_there_are_no_names() {
        let at = |address| Found { function: Some(format!("/bin/app+0x{address}")), ..found("long poll", 7, None) };
        let all = [at("115d6c"), at("115d9b")];
        let findings: Vec<&Found> = all.iter().collect();
        assert_eq!(grouped(&findings).len(), 1);
        assert_eq!(grouped(&findings)[0].function, Some("/bin/app"));
    }

    #[test]
    fn what_is_in_no_code_of_the_program_s_own_is_told_by_what_it_is_about_or_by_its_crate() {
        let of_crate = |krate: &str, function: &str, category: Option<&str>, dur: u64| Found {
            krate: Some(krate.to_owned()),
            crate_function: Some(function.to_owned()),
            crate_source: Some(format!("{krate}-1.0.0/src/lib.rs:{dur}")),
            category: category.map(str::to_owned),
            function: Some(format!("core::slice::{dur}")),
            ..found("long poll", dur * 1_000_000, None)
        };
        let compression = Some("compression");
        let all = [
            of_crate("miniz_oxide", "find_match", compression, 30),
            of_crate("miniz_oxide", "flush_block", compression, 25),
            of_crate("miniz_oxide", "find_match", compression, 10),
            of_crate("flate2", "run", compression, 36),
            of_crate("colours", "mix", None, 9),
            of_crate("colours", "blend", None, 8),
        ];
        let groups = grouped(&all.iter().collect::<Vec<_>>());
        let told: Vec<String> = groups.iter().map(ToString::to_string).collect();
        let [one, other] = &told[..] else { panic!("{told:?}") };
        let expected = "in no code of the program's own; mostly in miniz_oxide: find_match at src/lib.rs:30 (and 1";
        assert!(one.contains(expected) && one.contains("      4 "), "{one}");
        assert!(other.contains("mostly in colours: mix at src/lib.rs:9\n"), "{other}");
        let json = serde_json::to_value(&groups[0]).expect("JSON");
        assert_eq!((&json["crate"], &json["function"]), (&"miniz_oxide".into(), &"find_match".into()));
    }

    #[test]
    fn of_convoys_it_is_told_who_held_the_lock_in_the_longest() {
        let convoy = |dur, holder: &str| {
            let detail = Some(format!("3 threads at once, {holder} held it for 7.0 ms"));
            Found { detail, ..found("lock convoy", dur, None) }
        };
        let all = [convoy(5, "one"), convoy(9, "other"), convoy(7, "third")];
        let findings: Vec<&Found> = all.iter().collect();
        assert_eq!(grouped(&findings)[0].convoy, Some("3 threads at once, other held it for 7.0 ms"));
        assert_eq!(grouped(&[&found("long poll", 7, None)])[0].convoy, None);
    }

    #[test]
    fn a_task_that_starves_for_one_reason_and_for_another_is_two_groups() {
        let starved = found("starved task", 7_000_000, None);
        let by_machine = Found { cause: "machine".to_owned(), dur: 9_000_000, ..starved.clone() };
        let groups: Vec<(bool, u64)> = grouped(&[&by_machine, &starved, &by_machine])
            .iter()
            .map(|of| (of.is_of(Cause::Machine), of.count))
            .collect();
        assert_eq!(groups, [(false, 1), (true, 2)]);
    }
}
