//! Where in a program's code that is what was found.

mod of_crates;
#[cfg(test)]
mod tests;

use std::{
    cmp::Reverse,
    collections::{BTreeMap, hash_map::Entry},
    sync::Arc,
    time::Duration,
};

use rustc_hash::FxHashMap;

use self::of_crates::{At, Heaviest, OfCrates};
use crate::{
    symbols::{Answer, Categories, Evidence, FrameKind, Function, dependency_of},
    timeline::{Code, Counted, Fault, Finding, Group, Meanwhile, RuntimeFinding, Seen, Timeline, path_of},
};

/// What was found in a recording.
#[derive(Clone, Debug)]
pub struct FindingSummary {
    /// What lasted as long as that is told.
    pub threshold: Duration,
    /// How many of each kind there are.
    pub counts: Vec<(Fault, Counted)>,
    /// Those that are alike, by the function of the program's own that they are in once that has a name: first what tells of the
    /// program, of each cause the group that took most first.
    pub places: Vec<Place>,
    /// What is wrong with runtimes as a whole, what lasted longest first.
    pub runtimes: Vec<RuntimeFinding>,
    /// What there was too much of.
    pub left_out: LeftOut,
}

/// What is not told of findings, since there was too much of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct LeftOut {
    /// Findings of which it is only known that they are, and how long the longest was: where that was, those of the same
    /// future are told.
    pub findings_crowded: u64,
    /// How often a runtime, or a worker's thread, was one too many to be judged.
    pub runtimes_not_kept: u64,
    /// How often lock convoys may have been told in parts, or not at all, since there were too many sleeps at locks.
    pub convoys_cut_short: u64,
}

/// Findings in one place.
#[derive(Clone, Debug)]
pub struct Place {
    /// How many, and the longest.
    pub group: Group,
    /// Where nothing is the program's own: the function in which most of the time went by. If something is of a crate, one of
    /// this; else the one that its thread was in, without its line, if that has a name.
    pub innermost: Option<Function>,
    /// The first of its callers, or itself, that is the program's own, with the line in which most of the time went by.
    pub own: Option<Function>,
    /// Where nothing is the program's own: the crate in which most of the time went by.
    pub krate: Option<String>,
    /// How long they lasted that were in each line of that function, nanoseconds.
    pub lines: BTreeMap<u32, u64>,
    /// For how much of the longest it slept there for that: in the function that is its own, or with the callstack where that
    /// has no name. Nanoseconds; none if it is no poll that slept.
    pub slept_there_ns: Option<u64>,
    /// Of a lock convoy: where the lock's holder was in its longest turn, for most of it, if that has a name.
    pub held_in: Option<Function>,
    /// How long they lasted whose callstacks are about something, by that; None is nothing that is known.
    about: BTreeMap<Option<Arc<str>>, u64>,
    /// Where nothing is of a crate either: how long they lasted whose threads were in a function, by its name; None is code
    /// without one.
    within: BTreeMap<Option<String>, u64>,
    of_crates: OfCrates,
    /// The code that its callstack leads through, the innermost first.
    frames: Frames,
    /// The same of the other callstacks with which the longest slept for that, and for how long with each.
    slept_with: Vec<(Frames, u64)>,
    /// The same of the longest's holder.
    held_with: Frames,
}

/// Code, and the addresses there.
type Frames = Vec<(Code, u64)>;

impl Place {
    /// What most of the time went to.
    pub fn category(&self) -> Option<&str> {
        self.about.iter().max_by_key(|(_, ns)| **ns)?.0.as_deref()
    }

    /// All code of which the names are wanted.
    fn code(&self) -> impl Iterator<Item = &(Code, u64)> {
        let of_others = self.slept_with.iter().flat_map(|(frames, _)| frames);
        self.frames.iter().chain(of_others).chain(&self.held_with)
    }

    /// What it is told by, which those have in common that are alike.
    fn at(&self) -> At {
        match (&self.own, &self.krate, self.category()) {
            (Some(function), ..) => At::Function(function.name.clone(), function.file.clone()),
            (None, Some(_), Some(category)) => At::Category(category.to_owned()),
            (None, Some(krate), None) => At::Crate(krate.clone()),
            (None, None, _) => At::Future,
        }
    }

    fn take_heaviest(&mut self) {
        if let Some(own) = &mut self.own {
            let heaviest = self.lines.iter().max_by_key(|(_, ns)| **ns);
            own.line = heaviest.map_or(own.line, |(line, _)| Some(*line));
        } else if let Some(Heaviest { krate, function, lines }) = self.of_crates.heaviest() {
            (self.krate, self.innermost, self.lines) = (Some(krate), Some(function), lines);
        } else {
            let heaviest = self.within.iter().max_by_key(|(_, ns)| **ns).and_then(|(name, _)| name.clone());
            self.innermost = heaviest.map(|name| Function { name, ..Function::default() });
        }
    }

    /// As one place with another.
    fn add(&mut self, other: Place) {
        if other.group.longest.duration_ns() > self.group.longest.duration_ns() {
            self.slept_there_ns = other.slept_there_ns;
            self.held_in = other.held_in;
        }
        self.group.add(&other.group);
        for (line, ns) in other.lines {
            *self.lines.entry(line).or_default() += ns;
        }
        for (category, ns) in other.about {
            *self.about.entry(category).or_default() += ns;
        }
        for (function, ns) in other.within {
            *self.within.entry(function).or_default() += ns;
        }
        self.of_crates.add(other.of_crates);
    }
}

impl FindingSummary {
    /// What the timeline has found, without any names yet.
    pub fn of(timeline: &Timeline, threshold: Duration) -> FindingSummary {
        let findings = timeline.findings();
        let longest = || findings.groups().map(|group| &group.longest);
        let slept_with = longest().flat_map(|finding| &finding.slept_with).map(|(callstack, _)| *callstack);
        let held_with = |finding: &Finding| finding.convoy.as_ref()?.held.callstack;
        let of_holders = longest().filter_map(held_with);
        let callstacks =
            longest().filter_map(|finding| finding.callstack).chain(slept_with).chain(of_holders).collect();
        let code = timeline.code_of(&callstacks);
        let frames = |callstack: u64| code.get(&callstack).cloned().unwrap_or_default();
        let place = |group: &Group| {
            let Finding { callstack, slept_with, .. } = &group.longest;
            let others = slept_with.iter().filter(|(other, _)| Some(*other) != *callstack);
            let mut own = group.clone();
            if let Some(Meanwhile::Polled(keeper)) = &mut own.longest.meanwhile
                && !timeline.has_several_runtimes(keeper.poller.tgid())
            {
                keeper.runtime = None;
            }
            Place {
                group: own,
                innermost: None,
                own: None,
                krate: None,
                of_crates: OfCrates::default(),
                lines: BTreeMap::new(),
                slept_there_ns: group.longest.slept_there_ns(),
                about: BTreeMap::new(),
                within: BTreeMap::new(),
                frames: callstack.map(frames).unwrap_or_default(),
                slept_with: others.map(|&(callstack, slept_ns)| (frames(callstack), slept_ns)).collect(),
                held_in: None,
                held_with: held_with(&group.longest).map(frames).unwrap_or_default(),
            }
        };
        let places = findings.groups().map(place).collect();
        let mut runtimes = timeline.runtime_findings().to_vec();
        runtimes.sort_by_key(|finding| Reverse(finding.duration_ns));
        let Seen { runtimes_not_kept, convoys_cut_short, .. } = timeline.seen();
        let counts = findings.counts().collect();
        let left_out = LeftOut { findings_crowded: findings.crowded(), runtimes_not_kept, convoys_cut_short };
        FindingSummary { threshold, counts, places, runtimes, left_out }
    }

    /// Puts those together that are alike for all that is known, once no more names will be. Where nothing is known to be the
    /// program's own or a crate's, as in a stripped program, they are told by their future alone, however many callstacks they
    /// have: a function of the C library is no place in the program.
    pub fn put_together(&mut self) {
        let mut together = FxHashMap::<_, Place>::default();
        for place in std::mem::take(&mut self.places) {
            let finding = &place.group.longest;
            match together.entry((finding.fault, finding.cause(), Arc::clone(&finding.future), place.at())) {
                Entry::Vacant(new) => {
                    new.insert(place);
                }
                Entry::Occupied(mut alike) => alike.get_mut().add(place),
            }
        }
        self.places = together.into_values().collect();
        self.places.iter_mut().for_each(Place::take_heaviest);
        let key = |place: &Place| {
            let Group { total_ns, longest, .. } = &place.group;
            (longest.cause(), Reverse(*total_ns), longest.since_ns)
        };
        self.places.sort_unstable_by_key(key);
    }
}

/// The first of these that is the program's own, or else that may be, as far as its name tells.
fn own(functions: &[Function]) -> Option<&Function> {
    let of_user = || functions.iter().filter(|function| function.told().kind == FrameKind::User);
    of_user().find(|function| function.told().evidence > Evidence::Guess).or_else(|| of_user().next())
}

/// Keeps the names of what was found, while all of a recording's go by.
pub struct Locator<'f> {
    findings: &'f mut FindingSummary,
    categories: &'f Categories,
    /// By module, as traces call it, and address.
    functions: FxHashMap<(String, u64), Option<Vec<Function>>>,
}

impl<'f> Locator<'f> {
    pub fn new(findings: &'f mut FindingSummary, categories: &'f Categories) -> Locator<'f> {
        let frames = findings.places.iter().flat_map(Place::code);
        let functions = frames.map(|(code, address)| ((path_of(code).into_owned(), *address), None)).collect();
        Locator { findings, categories, functions }
    }

    /// These functions have names.
    pub fn learn(&mut self, answer: &Answer) {
        for symbols in &answer.symbols {
            if let Some(functions) = self.functions.get_mut(&(answer.path.clone(), symbols.address)) {
                *functions = Some(symbols.functions.clone());
            }
        }
    }

    /// All names are known that will be.
    pub fn locate(self) {
        let functions = &self.functions;
        let functions_at = |(code, address): &(Code, u64)| {
            functions.get(&(path_of(code).into_owned(), *address)).and_then(Option::as_deref)
        };
        let named = |frames: &[(Code, u64)]| -> Vec<Function> {
            frames.iter().flat_map(functions_at).flatten().cloned().collect()
        };
        // If the first has no name, another is not it.
        let innermost = |frames: &[(Code, u64)]| -> Option<Function> {
            let Function { name, .. } = frames.first().and_then(functions_at)?.first()?;
            Some(Function { name: name.clone(), ..Function::default() })
        };
        for place in &mut self.findings.places {
            let callers = named(&place.frames);
            place.own = own(&callers).cloned();
            place.held_in = own(&named(&place.held_with)).cloned().or_else(|| innermost(&place.held_with));
            let is_same = |other: &Function| place.own.as_ref().is_some_and(|own| own.name == other.name);
            let there = |(frames, _): &&(Frames, u64)| own(&named(frames)).is_some_and(is_same);
            let slept_ns: u64 = place.slept_with.iter().filter(there).map(|(_, slept_ns)| slept_ns).sum();
            place.slept_there_ns = place.slept_there_ns.map(|own_ns| own_ns + slept_ns);
            let category = self.categories.of_callstack(&callers).map(|category| self.categories.name(category).into());
            let ns = place.group.total_ns;
            place.about = BTreeMap::from([(category, ns)]);
            if let Some(own) = &place.own {
                place.lines = own.line.map(|line| (line, ns)).into_iter().collect();
            } else if let Some(of) = dependency_of(&callers) {
                (place.krate, place.of_crates) = (Some(of.krate.clone()), OfCrates::one(of, ns));
            } else {
                place.within = BTreeMap::from([(innermost(&place.frames).map(|function| function.name), ns)]);
            }
        }
        self.findings.put_together();
    }
}
