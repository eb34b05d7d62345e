//! Where in a program's code that is what was found.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, hash_map::Entry},
    sync::Arc,
    time::Duration,
};

use rustc_hash::FxHashMap;

use crate::{
    symbols::{Answer, Categories, FrameKind, Function, kind_of},
    timeline::{Code, Fault, Finding, Group, RuntimeFinding, Seen, Timeline, path_of},
};

/// What was found in a recording.
#[derive(Clone, Debug)]
pub struct FindingSummary {
    /// What lasted as long as that is told.
    pub threshold: Duration,
    /// How many of each kind there are.
    pub counts: Vec<(Fault, u64)>,
    /// Those that are alike, by their place in the code once that has a name; the group that took most first.
    pub places: Vec<Place>,
    /// What is wrong with runtimes as a whole, what lasted longest first.
    pub runtimes: Vec<RuntimeFinding>,
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
    /// The function that its thread was in, if that has a name.
    pub innermost: Option<Function>,
    /// The first of its callers, or itself, that is the program's own.
    pub own: Option<Function>,
    /// For how much of the longest it slept there for that: in the function that is its own, or with the callstack where that
    /// has no name. Nanoseconds; none if it is no poll that slept.
    pub slept_there_ns: Option<u64>,
    /// How long they lasted whose callstacks are about something, by that; None is nothing that is known.
    about: BTreeMap<Option<Arc<str>>, u64>,
    /// The code that its callstack leads through, the innermost first.
    frames: Frames,
    /// The same of the other callstacks with which the longest slept for that, and for how long with each.
    slept_with: Vec<(Frames, u64)>,
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
        self.frames.iter().chain(self.slept_with.iter().flat_map(|(frames, _)| frames))
    }

    /// As one place with another.
    fn add(&mut self, other: Place) {
        if other.group.longest.duration_ns() > self.group.longest.duration_ns() {
            self.slept_there_ns = other.slept_there_ns;
        }
        self.group.add(&other.group);
        for (category, ns) in other.about {
            *self.about.entry(category).or_default() += ns;
        }
    }
}

impl FindingSummary {
    /// What the timeline has found, without any names yet.
    pub fn of(timeline: &Timeline, threshold: Duration) -> FindingSummary {
        let findings = timeline.findings();
        let longest = || findings.groups().map(|group| &group.longest);
        let slept_with = longest().flat_map(|finding| &finding.slept_with).map(|(callstack, _)| *callstack);
        let callstacks = longest().filter_map(|finding| finding.callstack).chain(slept_with).collect();
        let code = timeline.code_of(&callstacks);
        let frames = |callstack: u64| code.get(&callstack).cloned().unwrap_or_default();
        let place = |group: &Group| {
            let Finding { callstack, slept_with, .. } = &group.longest;
            let others = slept_with.iter().filter(|(other, _)| Some(*other) != *callstack);
            Place {
                group: group.clone(),
                innermost: None,
                own: None,
                slept_there_ns: group.longest.slept_there_ns(),
                about: BTreeMap::new(),
                frames: callstack.map(frames).unwrap_or_default(),
                slept_with: others.map(|&(callstack, slept_ns)| (frames(callstack), slept_ns)).collect(),
            }
        };
        let places = findings.groups().map(place).collect();
        let mut runtimes = timeline.runtime_findings().to_vec();
        runtimes.sort_by_key(|finding| Reverse(finding.duration_ns));
        let Seen { runtimes_not_kept, convoys_cut_short, .. } = timeline.seen();
        let counts = findings.counts().collect();
        let mut summary = FindingSummary { threshold, counts, places, runtimes, runtimes_not_kept, convoys_cut_short };
        summary.put_together();
        summary
    }

    /// Puts those together that are alike for all that is known.
    fn put_together(&mut self) {
        let mut together = FxHashMap::<_, Place>::default();
        for place in std::mem::take(&mut self.places) {
            let finding = &place.group.longest;
            let function = place.own.as_ref().or(place.innermost.as_ref());
            let at = function.map(|function| (function.name.clone(), function.file.clone(), function.line));
            // Without a name, each callstack is a place.
            let callstack = finding.callstack.filter(|_| at.is_none());
            match together.entry((finding.fault, Arc::clone(&finding.future), at, callstack)) {
                Entry::Vacant(new) => {
                    new.insert(place);
                }
                Entry::Occupied(mut alike) => alike.get_mut().add(place),
            }
        }
        self.places = together.into_values().collect();
        let key = |place: &Place| (Reverse(place.group.total_ns), place.group.longest.since_ns);
        self.places.sort_unstable_by_key(key);
    }
}

/// The first of these that is the program's own.
fn own(functions: &[Function]) -> Option<&Function> {
    functions.iter().find(|function| kind_of(&function.name, function.file.as_deref()).kind == FrameKind::User)
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
        for place in &mut self.findings.places {
            // If the first has no name, another is not it.
            place.innermost = place.frames.first().and_then(functions_at).and_then(<[Function]>::first).cloned();
            let callers = named(&place.frames);
            place.own = own(&callers).cloned();
            let is_same = |other: &Function| place.own.as_ref().is_some_and(|own| own.name == other.name);
            let there = |(frames, _): &&(Frames, u64)| own(&named(frames)).is_some_and(is_same);
            let slept_ns: u64 = place.slept_with.iter().filter(there).map(|(_, slept_ns)| slept_ns).sum();
            place.slept_there_ns = place.slept_there_ns.map(|own_ns| own_ns + slept_ns);
            let category = self.categories.of_callstack(&callers).map(|category| self.categories.name(category).into());
            place.about = BTreeMap::from([(category, place.group.total_ns)]);
        }
        self.findings.put_together();
    }
}
