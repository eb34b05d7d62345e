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
    timeline::{Code, Counted, Fault, Finding, Group, RuntimeFinding, Seen, Timeline, path_of},
};

/// What was found in a recording.
#[derive(Clone, Debug)]
pub struct FindingSummary {
    /// What lasted as long as that is told.
    pub threshold: Duration,
    /// How many of each kind there are.
    pub counts: Vec<(Fault, Counted)>,
    /// Those that are alike, by the function that they are in once that has a name: first what tells of the program, of
    /// each cause the group that took most first.
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
    /// The first of its callers, or itself, that is the program's own. Of this, or else of the innermost, the line is the one in
    /// which most of the time went by.
    pub own: Option<Function>,
    /// How long they lasted that were in each line of that function, nanoseconds.
    pub lines: BTreeMap<u32, u64>,
    /// For how much of the longest it slept there for that: in the function that is its own, or with the callstack where that
    /// has no name. Nanoseconds; none if it is no poll that slept.
    pub slept_there_ns: Option<u64>,
    /// Of a lock convoy: where the lock's holder was in its longest turn, for most of it, if that has a name.
    pub held_in: Option<Function>,
    /// How long they lasted whose callstacks are about something, by that; None is nothing that is known.
    about: BTreeMap<Option<Arc<str>>, u64>,
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

    /// The function that it is told by.
    fn function(&mut self) -> Option<&mut Function> {
        self.own.as_mut().or(self.innermost.as_mut())
    }

    fn take_heaviest_line(&mut self) {
        let heaviest = self.lines.iter().max_by_key(|(_, ns)| **ns).map(|(line, _)| *line);
        if let Some((function, line)) = self.function().zip(heaviest) {
            function.line = Some(line);
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
            Place {
                group: group.clone(),
                innermost: None,
                own: None,
                lines: BTreeMap::new(),
                slept_there_ns: group.longest.slept_there_ns(),
                about: BTreeMap::new(),
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
        FindingSummary { threshold, counts, places, runtimes, runtimes_not_kept, convoys_cut_short }
    }

    /// Puts those together that are alike for all that is known, once no more names will be. What has none is told by its future
    /// alone, however many callstacks it has.
    pub fn put_together(&mut self) {
        let mut together = FxHashMap::<_, Place>::default();
        for place in std::mem::take(&mut self.places) {
            let finding = &place.group.longest;
            let function = place.own.as_ref().or(place.innermost.as_ref());
            let at = function.map(|function| (function.name.clone(), function.file.clone()));
            match together.entry((finding.fault, finding.cause(), Arc::clone(&finding.future), at)) {
                Entry::Vacant(new) => {
                    new.insert(place);
                }
                Entry::Occupied(mut alike) => alike.get_mut().add(place),
            }
        }
        self.places = together.into_values().collect();
        self.places.iter_mut().for_each(Place::take_heaviest_line);
        let key = |place: &Place| {
            let Group { total_ns, longest, .. } = &place.group;
            (longest.cause(), Reverse(*total_ns), longest.since_ns)
        };
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
            let of_holder = named(&place.held_with);
            place.held_in = own(&of_holder).or(of_holder.first()).cloned();
            let is_same = |other: &Function| place.own.as_ref().is_some_and(|own| own.name == other.name);
            let there = |(frames, _): &&(Frames, u64)| own(&named(frames)).is_some_and(is_same);
            let slept_ns: u64 = place.slept_with.iter().filter(there).map(|(_, slept_ns)| slept_ns).sum();
            place.slept_there_ns = place.slept_there_ns.map(|own_ns| own_ns + slept_ns);
            let category = self.categories.of_callstack(&callers).map(|category| self.categories.name(category).into());
            let line = place.function().and_then(|function| function.line);
            place.lines = line.map(|line| (line, place.group.total_ns)).into_iter().collect();
            place.about = BTreeMap::from([(category, place.group.total_ns)]);
        }
        self.findings.put_together();
    }
}

#[cfg(test)]
mod tests {
    use polletto_common::id::{Tgid, Tid};

    use super::*;
    use crate::{
        symbols::Symbols,
        timeline::{Extent, Future, Module, Poller, Wait},
        trace::Weights,
    };

    const PATH: &str = "/bin/app";

    /// What slept for a lock with such callstacks, each of one address, and for how long with each: for most with the first.
    fn place(future: &Arc<Future>, slept_with: &[(u64, u64)]) -> Place {
        let code = Code::File(Arc::new(Module { path: PATH.into(), build_id: Vec::new(), load_bias: 0 }));
        let frames = |address: u64| vec![(code.clone(), address)];
        let off_cpu_ns = slept_with.iter().map(|(_, slept_ns)| slept_ns).sum();
        let longest = Finding {
            fault: Fault::Slept(Wait::Lock),
            since_ns: 0,
            extent: Extent::Exact,
            poller: Poller::Thread { tgid: Tgid(1), tid: Tid(1) },
            tid: Tid(1),
            task: 7,
            future: Arc::clone(future),
            weights: Weights { off_cpu_ns, ..Weights::default() },
            callstack: Some(slept_with[0].0),
            slept_with: slept_with.to_vec(),
            meanwhile: None,
            convoy: None,
        };
        let others = slept_with[1..].iter().map(|&(address, slept_ns)| (frames(address), slept_ns));
        Place {
            slept_there_ns: longest.slept_there_ns(),
            group: Group { count: 1, total_ns: off_cpu_ns, longest },
            innermost: None,
            own: None,
            lines: BTreeMap::new(),
            about: BTreeMap::new(),
            frames: frames(slept_with[0].0),
            slept_with: others.collect(),
            held_in: None,
            held_with: Vec::new(),
        }
    }

    fn located(places: Vec<Place>, names: &[(u64, &str, u32)]) -> Vec<Place> {
        let mut summary = FindingSummary {
            threshold: Duration::from_millis(5),
            counts: Vec::new(),
            places,
            runtimes: Vec::new(),
            runtimes_not_kept: 0,
            convoys_cut_short: 0,
        };
        let function = |name: &str, line| Function {
            name: name.to_owned(),
            file: Some("/home/user/app/src/main.rs".to_owned()),
            line: Some(line),
        };
        let symbols = |&(address, name, line)| Symbols { address, functions: vec![function(name, line)] };
        let categories = Categories::default();
        let mut locator = Locator::new(&mut summary, &categories);
        let path = PATH.to_owned();
        locator.learn(&Answer { path, build_id: None, symbols: names.iter().map(symbols).collect() });
        locator.locate();
        summary.places
    }

    fn future() -> Arc<Future> {
        Arc::new(Future::example("f"))
    }

    #[test]
    fn what_was_found_in_one_function_is_one_place_by_the_line_that_weighs_most() {
        let future = future();
        let places = [(1, 30), (2, 25), (3, 10), (4, 7)].map(|of| place(&future, &[of])).to_vec();
        let names = [(1, "app::work", 12), (2, "app::work", 14), (3, "app::work", 14), (4, "app::other", 40)];
        let told: Vec<_> = located(places, &names)
            .into_iter()
            .map(|place| (place.own.unwrap().name, place.group.count, place.group.total_ns, place.lines))
            .collect();
        let expected = [
            ("app::work".to_owned(), 3, 65, BTreeMap::from([(12, 30), (14, 35)])),
            ("app::other".to_owned(), 1, 7, BTreeMap::from([(40, 7)])),
        ];
        assert_eq!(told, expected);
        let places = [(1, 30), (2, 25), (3, 10)].map(|of| place(&future, &[of])).to_vec();
        assert_eq!(located(places, &names)[0].own.as_ref().unwrap().line, Some(14));
    }

    #[test]
    fn all_sleeps_of_the_longest_in_one_function_are_slept_there() {
        let names = [(1, "app::work", 12), (2, "app::work", 14), (3, "app::other", 40)];
        let longest = [(1, 30), (2, 25), (3, 10), (9, 5)];
        let places = located(vec![place(&future(), &longest), place(&future(), &[(2, 8)])], &names);
        assert_eq!(places.iter().map(|place| place.slept_there_ns).collect::<Vec<_>>(), [Some(55)]);
        let unnamed = located(vec![place(&future(), &longest)], &[]);
        assert_eq!(unnamed[0].slept_there_ns, Some(30));
    }

    #[test]
    fn what_has_no_name_is_one_place_for_each_future() {
        let [one, other] = ["f", "g"].map(|name| Arc::new(Future::example(name)));
        let places = vec![place(&one, &[(1, 30)]), place(&one, &[(2, 25)]), place(&other, &[(1, 10)])];
        let told: Vec<_> = located(places, &[])
            .into_iter()
            .map(|place| (place.group.longest.future.name.clone(), place.group.count, place.slept_there_ns))
            .collect();
        assert_eq!(told, [("f".to_owned(), 2, Some(30)), ("g".to_owned(), 1, Some(10))]);
    }
}
