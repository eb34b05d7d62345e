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
    timeline::{Code, Fault, Group, RuntimeFinding, Seen, Timeline, path_of},
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
    /// How long they lasted whose callstacks are about something, by that; None is nothing that is known.
    about: BTreeMap<Option<Arc<str>>, u64>,
    /// The code that its callstack leads through, the innermost first.
    frames: Vec<(Code, u64)>,
}

impl Place {
    /// What most of the time went to.
    pub fn category(&self) -> Option<&str> {
        self.about.iter().max_by_key(|(_, ns)| **ns)?.0.as_deref()
    }

    /// As one place with another.
    fn add(&mut self, other: Place) {
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
        let callstacks = findings.groups().filter_map(|group| group.longest.callstack).collect();
        let code = timeline.code_of(&callstacks);
        let place = |group: &Group| {
            let frames = group.longest.callstack.and_then(|callstack| code.get(&callstack)).cloned();
            let frames = frames.unwrap_or_default();
            Place { group: group.clone(), innermost: None, own: None, about: BTreeMap::new(), frames }
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

/// Keeps the names of what was found, while all of a recording's go by.
pub struct Locator<'f> {
    findings: &'f mut FindingSummary,
    categories: &'f Categories,
    /// By module, as traces call it, and address.
    functions: FxHashMap<(String, u64), Option<Vec<Function>>>,
}

impl<'f> Locator<'f> {
    pub fn new(findings: &'f mut FindingSummary, categories: &'f Categories) -> Locator<'f> {
        let frames = findings.places.iter().flat_map(|place| &place.frames);
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
        for place in &mut self.findings.places {
            let keys = place.frames.iter().map(|(code, address)| (path_of(code).into_owned(), *address));
            let mut named = keys.map(|key| self.functions.get(&key).and_then(Option::as_deref)).peekable();
            // If the first has no name, another is not it.
            place.innermost = named.peek().copied().flatten().and_then(<[Function]>::first).cloned();
            let is_own =
                |function: &&Function| kind_of(&function.name, function.file.as_deref()).kind == FrameKind::User;
            let named: Vec<&Function> = named.flatten().flatten().collect();
            place.own = named.iter().copied().find(is_own).cloned();
            let category = self.categories.of_callstack(named).map(|category| self.categories.name(category).into());
            place.about = BTreeMap::from([(category, place.group.total_ns)]);
        }
        self.findings.put_together();
    }
}
