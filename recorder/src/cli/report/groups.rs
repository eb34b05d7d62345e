//! Findings that are alike.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashMap},
    fmt,
};

use serde::Serialize;

use super::{
    super::summary::{AtLeast, InBrackets, MostlyIn, OtherLines, SleptThere, WrittenAt},
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
    /// In the program's own code if that is known, else in that crate, else the one that the thread was in, where that has a
    /// name: the one in which most of the time went by.
    function: Option<&'f str>,
    /// The line of the function, as `file:line`, in which most of the time went by.
    source: Option<&'f str>,
    /// How long they lasted that were in each line, nanoseconds.
    lines: BTreeMap<&'f str, u64>,
    #[serde(skip)]
    of_crates: BTreeMap<InCrate<'f>, u64>,
    /// Where nothing is of a crate either: how long they lasted whose threads were in a function; None is code without a name.
    #[serde(skip)]
    within: BTreeMap<Option<&'f str>, u64>,
    /// The future, short, as the summary and slices have it.
    #[serde(skip)]
    name: &'f str,
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
    /// In the program's own code.
    Function(&'f str),
    /// In a crate, and in no code of the program's own: what that is about, or else the crate. Functions of libraries are many,
    /// and inlined into each other.
    About(&'f str),
    /// In nothing that is known of either, as in a stripped program: a function of the C library is no place in the program.
    Future,
}

impl<'f> At<'f> {
    fn of(found: &'f Found) -> At<'f> {
        match (found.own_function.as_deref(), found.about()) {
            (Some(own), _) => At::Function(own),
            (None, Some(about)) => At::About(about),
            (None, None) => At::Future,
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

/// Code without a name is called `FILE+0xADDRESS` or, where it is of no file, for instance `[anon]`.
fn is_name(function: &str) -> bool {
    !function.contains("+0x") && !function.starts_with('[')
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
            within: BTreeMap::new(),
            name: found.name.as_deref().unwrap_or(&found.future),
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
        match (&found.own_function, &found.krate) {
            (Some(_), _) => {
                if let Some(source) = found.own_source.as_deref() {
                    *group.lines.entry(source).or_default() += found.dur;
                }
            }
            (None, Some(krate)) => {
                let (function, source) = (found.crate_function.as_deref(), found.crate_source.as_deref());
                *group.of_crates.entry(InCrate { krate, function, source }).or_default() += found.dur;
            }
            (None, None) => {
                let named = found.function.as_deref().filter(|function| is_name(function));
                *group.within.entry(named).or_default() += found.dur;
            }
        }
        *group.about.entry(found.category.as_deref()).or_default() += found.dur;
    }
    for group in groups.values_mut() {
        group.category = heaviest(group.about.iter().map(|(category, ns)| (*category, *ns))).flatten();
        match group.alike.at {
            At::Function(function) => group.function = Some(function),
            At::About(_) => group.take_heaviest_crate(),
            At::Future => group.function = heaviest(group.within.iter().map(|(name, ns)| (*name, *ns))).flatten(),
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
        writeln!(out, "{}: {}", InBrackets([alike.waited_for, *category]), self.name)?;
        let mostly_in = MostlyIn(self.krate);
        let told = function.filter(|_| alike.at != At::Future);
        match (told, source) {
            (Some(function), Some(source)) => {
                let others = OtherLines(self.lines.len().saturating_sub(1));
                writeln!(out, "{:35}in {mostly_in}{function} at {}{others}", "", told_place(source))?;
            }
            (Some(function), None) => writeln!(out, "{:35}in {mostly_in}{function}", "")?,
            (None, _) => {}
        }
        let has_line = source.is_some() && self.krate.is_none();
        if let Some(told) = WrittenAt::of(self.written_at.filter(|_| !has_line), self.name) {
            writeln!(out, "{:35}{told}", "")?;
        }
        if let (None, Some(function)) = (told, function) {
            writeln!(out, "{:35}mostly in {function}", "")?;
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
            writeln!(out, "{:35}{}", "", told_convoy(convoy))?;
        }
        Ok(())
    }
}

/// The last that it says is where the lock was held, if that is known: `…, in FUNCTION at FILE:LINE`.
fn told_convoy(convoy: &str) -> String {
    let told = convoy.rsplit_once(", in ").and_then(|(before, held)| {
        let (function, place) = held.rsplit_once(" at ")?;
        Some(format!("{before}, in {function} at {}", told_place(place)))
    });
    told.unwrap_or_else(|| convoy.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(kind: &str, dur: u64, own_source: Option<&str>) -> Found {
        Found::example(kind, dur, own_source)
    }

    #[test]
    fn where_no_function_is_the_program_s_own_they_are_one_place_by_their_future() {
        let at = |function: &str, dur| Found { function: Some(function.to_owned()), ..found("long poll", dur, None) };
        let address = |dur| at("/bin/app+0x115d6c", dur);
        for (all, expected) in [
            ([address(9), at("/bin/app+0x115d9b", 8), at("memcpy", 7), at("[anon]", 1)], None),
            ([address(9), at("memcpy", 20), at("clock_gettime", 15), at("clock_gettime", 8)], Some("clock_gettime")),
        ] {
            let groups = grouped(&all.iter().collect::<Vec<_>>());
            let [group] = &groups[..] else { panic!("one place: {groups:#?}") };
            assert_eq!(group.function, expected);
            let told: Vec<String> = group.to_string().lines().skip(1).map(|line| line.trim().to_owned()).collect();
            let mostly_in = expected.map(|function| format!("mostly in {function}"));
            assert_eq!(
                told,
                [Some("written at f.rs:7".to_owned()), mostly_in].into_iter().flatten().collect::<Vec<_>>()
            );
        }
    }

    #[test]
    fn a_future_is_called_as_in_the_summary_and_whole_with_json() {
        let (whole, short) = ("app::serve<app::Routes>::{async#0}".to_owned(), "serve::{async}".to_owned());
        let named = Found { future: whole.clone(), name: Some(short), ..found("long poll", 7_000_000, Some("f.rs:1")) };
        let groups = grouped(&[&named]);
        let told = groups[0].to_string();
        assert!(told.contains(" long poll (crypto): serve::{async}\n"), "{told}");
        assert_eq!(serde_json::to_value(&groups[0]).expect("JSON")["future"], whole);
    }

    #[test]
    fn a_future_that_is_called_by_its_place_has_it_told_once() {
        for (folder, place) in [
            ("/root/.cargo/registry/src/index.crates.io-1949cf8c6b5b557f/", "axum-0.8.9/src/serve/mod.rs:389"),
            ("", "server/src/main.rs:31"),
        ] {
            let whole = Some(format!("{folder}{place}"));
            let stripped = Found { future: place.to_owned(), written_at: whole, ..found("long poll", 7, None) };
            let told = grouped(&[&stripped])[0].to_string();
            assert_eq!(told.matches(".rs:").count(), 1, "{told}");
        }
    }

    #[test]
    fn of_where_a_lock_was_held_the_path_is_told_from_its_package_on() {
        let held = "3 threads at once, worker 7 held it for up to 12.3 ms, polling server/src/main.rs:31 #17";
        for (convoy, expected) in [
            (
                format!("{held}, in app::part at /home/user/app/src/part.rs:33"),
                format!("{held}, in app::part at src/part.rs:33"),
            ),
            (format!("{held}, in clock_nanosleep"), format!("{held}, in clock_nanosleep")),
            (held.to_owned(), held.to_owned()),
        ] {
            assert_eq!(told_convoy(&convoy), expected);
        }
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
