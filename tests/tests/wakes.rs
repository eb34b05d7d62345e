//! Who woke and who spawned which task, and to which poll that led, beside what a program says that it did.
//!
//! These scenarios need root and a kernel that takes BPF programs. They fail where it does not.

use std::collections::HashMap;

use polletto_tests::{
    oracle::{Build, NEWEST, Poll, Truth, Wake},
    recorder::Outcome,
    trace::{Event, Nanoseconds, Tid, Trace, TrackSlice, Value, number, the_number, the_text},
    turn::Turn,
};

/// The instants of a category.
fn instants<'t>(trace: &'t Trace, category: &str) -> Vec<&'t Event> {
    trace.events.iter().filter(|event| event.categories.iter().any(|of| of == category)).collect()
}

/// The polls that a trace shows from begin to end, by task, in the order in which they begin.
fn polls(trace: &Trace) -> HashMap<u64, Vec<TrackSlice<'_>>> {
    let mut polls = HashMap::<u64, Vec<TrackSlice<'_>>>::new();
    for poll in trace.slices_of("poll") {
        if poll.arguments.get("extent") == Some(&Value::Text("exact".into())) {
            polls.entry(the_number(poll.arguments, "task_id")).or_default().push(poll);
        }
    }
    polls.values_mut().for_each(|polls| polls.sort_by_key(|poll| poll.begin));
    polls
}

/// The thread that did it.
fn event_tid(event: &Event) -> Tid {
    Tid::try_from(the_number(&event.arguments, "tid")).expect("an id")
}

/// A recording, beside what the program says.
struct Beside<'t> {
    build: Build,
    truth: &'t Truth,
    trace: &'t Trace,
    polls: HashMap<u64, Vec<TrackSlice<'t>>>,
}

impl Beside<'_> {
    /// The poll that an instant's flow leads to, and no other does.
    fn led_to(&self, instant: &Event) -> Option<&TrackSlice<'_>> {
        let [flow] = instant.flows[..] else { panic!("one flow begins with {instant:?}") };
        let mut ends = self.polls.values().flatten().filter(|poll| poll.flows.contains(&flow));
        let end = ends.next();
        assert!(ends.next().is_none(), "{:?}: flow {flow} leads to one poll", self.build);
        end
    }

    /// The first poll of a task that begins after this moment.
    fn next_poll(&self, task: u64, at: Nanoseconds) -> Option<&TrackSlice<'_>> {
        self.polls.get(&task)?.iter().find(|poll| poll.begin >= at)
    }

    /// The poll that a trace shows for this one; none if its end was not seen.
    fn shown(&self, poll: &Poll) -> Option<&TrackSlice<'_>> {
        // A poll has given its task away before it ends: another thread's may lie within it.
        let polls = self.polls.get(&self.truth.id(poll))?.iter();
        let of_thread = polls.filter(|shown| number(shown.arguments, "tid") == u64::try_from(poll.tid).ok());
        let around = of_thread.filter(|shown| shown.begin <= poll.begin && poll.end <= shown.end);
        around.max_by_key(|shown| shown.begin)
    }

    /// Whether a task was polled by a thread at that moment, in a poll whose end was not seen.
    fn is_unseen(&self, number: u64, tid: Tid, at: Nanoseconds) -> bool {
        let mut polls = self.truth.polls.iter().filter(|poll| poll.number == number && poll.tid == tid);
        polls.any(|poll| (poll.begin..=poll.end).contains(&at) && self.shown(poll).is_none())
    }

    /// A wake or a spawn leads to this poll, which the program says is the next of its task, unless its end was not seen.
    /// Whether it was.
    fn check_led_to(&self, instant: &Event, next: &Poll) -> bool {
        let (led_to, shown) = (self.led_to(instant), self.shown(next));
        assert_eq!(led_to, shown, "{:?}: {instant:?} leads to {next:?}", self.build);
        assert!(shown.is_none_or(|shown| instant.at <= shown.begin), "{:?}: {instant:?} before {next:?}", self.build);
        shown.is_some()
    }

    /// Every wake that the program made is told with its waker, and leads to the task's next poll.
    fn check_wakes(&self, without_end: u64) {
        let told = instants(self.trace, "wake");
        let by_thread = told.iter().fold(HashMap::<Tid, Vec<&Event>>::new(), |mut by_thread, event| {
            by_thread.entry(event_tid(event)).or_default().push(event);
            by_thread
        });
        let (mut delays, mut own, mut unseen, mut unseen_wakers) = (Vec::new(), 0, 0, 0);
        for wake in &self.truth.wakes {
            let Wake { number: woken, by, tid, begin, end } = *wake;
            let id = self.truth.id_of(woken).expect("a task is woken");
            let is_it =
                |event: &&&Event| (begin..=end).contains(&event.at) && number(&event.arguments, "task_id") == Some(id);
            let found: Vec<&&Event> = by_thread.get(&tid).into_iter().flatten().filter(is_it).collect();
            let [event] = found[..] else { panic!("{:?}: {wake:?} is told once: {found:?}", self.build) };
            let waker = number(&event.arguments, "waker_task_id");
            if waker.is_none() && self.is_unseen(by, tid, begin) {
                unseen_wakers += 1;
            } else {
                assert_eq!(waker, self.truth.id_of(by), "{:?}: {wake:?}", self.build);
            }
            // Where the program's own time says that it began, just inside the poll.
            let polls = self.truth.polls.iter().filter(|poll| poll.number == woken && poll.begin >= begin);
            let next = polls.min_by_key(|poll| poll.begin).expect("a task that is woken is polled");
            unseen += u64::from(!self.check_led_to(event, next));
            delays.push(event.at - begin);
            own += usize::from(woken == by);
        }
        assert!(unseen <= without_end, "{:?}: {unseen} polls are not shown", self.build);
        assert!(unseen_wakers <= without_end, "{:?}: {unseen_wakers} wakes have no waker", self.build);
        assert!(delays.len() > 500 && own > 200, "{} wakes, {own} of themselves", delays.len());
        delays.sort_unstable();
        let (count, usual) = (delays.len(), delays[delays.len() / 2]);
        println!("{:?}: {count} known wakes of {}, told {usual} ns after their begin", self.build, told.len());
    }

    /// All flows of all wakes lead to the next poll that is shown, or to none.
    fn check_flows(&self) {
        let (mut ended, mut all) = (0, 0);
        for event in instants(self.trace, "wake").into_iter().chain(instants(self.trace, "spawn")) {
            let task = the_number(&event.arguments, "task_id");
            all += 1;
            if let Some(led_to) = self.led_to(event) {
                let next = self.next_poll(task, event.at).map(|poll| (poll.track, poll.begin));
                assert_eq!(Some((led_to.track, led_to.begin)), next, "{:?}: {event:?}", self.build);
                ended += 1;
            }
        }
        println!("{:?}: {ended} of {all} wakes and spawns lead to a poll", self.build);
    }

    /// Every spawn is told with its parent, and leads to the first poll; every poll of a task says who spawned it.
    fn check_spawns(&self, without_end: u64) {
        let told = instants(self.trace, "spawn");
        let by_task = told.iter().fold(HashMap::<u64, Vec<&Event>>::new(), |mut by_task, event| {
            by_task.entry(the_number(&event.arguments, "task_id")).or_default().push(event);
            by_task
        });
        let (mut children, mut unseen, mut unseen_parents) = (0, 0, 0);
        for (&number_of, spawn) in &self.truth.spawns {
            let [event] = by_task.get(&spawn.id).map(Vec::as_slice).unwrap_or_default() else {
                panic!("{:?}: {spawn:?} is told once", self.build)
            };
            let parent = self.truth.id_of(spawn.parent);
            let told = number(&event.arguments, "parent");
            if told.is_none() && self.is_unseen(spawn.parent, event_tid(event), spawn.at) {
                unseen_parents += 1;
                continue;
            }
            assert_eq!(told, parent, "{:?}: {spawn:?}", self.build);
            assert!(spawn.at <= event.at, "{:?}: {spawn:?}", self.build);
            let polls = self.truth.polls.iter().filter(|poll| poll.number == number_of);
            let first = polls.min_by_key(|poll| poll.begin).expect("a task that is spawned is polled");
            unseen += u64::from(!self.check_led_to(event, first));
            for poll in self.polls.get(&spawn.id).into_iter().flatten() {
                assert_eq!(number(poll.arguments, "parent"), parent, "{:?}: {spawn:?}", self.build);
            }
            children += usize::from(parent.is_some());
        }
        assert!(unseen <= without_end, "{:?}: {unseen} polls are not shown", self.build);
        assert!(unseen_parents <= without_end, "{:?}: {unseen_parents} spawns have no parent", self.build);
        assert!(children + unseen_parents as usize >= 20, "{children} tasks were spawned by others");
        println!("{:?}: {} spawns, {children} of them by tasks", self.build, self.truth.spawns.len());
    }

    /// Every task that was spawned is shown once, from its spawn to the end of its last poll.
    fn check_lives(&self, without_end: u64) {
        let mut by_task = HashMap::<u64, Vec<TrackSlice<'_>>>::new();
        for life in self.trace.slices_of("task") {
            by_task.entry(the_number(life.arguments, "task_id")).or_default().push(life);
        }
        let spawned: HashMap<u64, &Event> = instants(self.trace, "spawn")
            .into_iter()
            .map(|event| (the_number(&event.arguments, "task_id"), event))
            .collect();
        let mut unseen = 0;
        for (&number_of, spawn) in &self.truth.spawns {
            let [life] = by_task.get(&spawn.id).map(Vec::as_slice).unwrap_or_default() else {
                panic!("{:?}: {spawn:?} is shown once: {:?}", self.build, by_task.get(&spawn.id))
            };
            assert_eq!(
                (life.begin, the_text(life.arguments, "begin")),
                (spawned[&spawn.id].at, "spawned"),
                "{:?}: {life:?}",
                self.build
            );
            let parent = number(&spawned[&spawn.id].arguments, "parent");
            assert_eq!(number(life.arguments, "parent"), parent, "{:?}: {life:?}", self.build);
            let polls = self.polls.get(&spawn.id).into_iter().flatten();
            assert!(polls.into_iter().all(|poll| poll.name == life.name), "{:?}: {life:?}", self.build);
            let polls = self.truth.polls.iter().filter(|poll| poll.number == number_of);
            let last = polls.max_by_key(|poll| poll.end).expect("a task that is spawned is polled");
            match self.shown(last) {
                Some(shown) => {
                    assert_eq!(
                        (life.end, the_text(life.arguments, "end")),
                        (shown.end, "last poll"),
                        "{:?}: {spawn:?}",
                        self.build
                    );
                }
                None => unseen += 1,
            }
        }
        assert!(unseen <= without_end, "{:?}: the last polls of {unseen} tasks are not shown", self.build);
    }
}

fn recorded(build: Build) -> (Outcome, Truth) {
    let (outcome, truth) = build.recorded_with_wakes(&["--polls", "all", "--no-symbols"]);
    let summary = outcome.summary();
    println!("{build:?}: {} and {} by {}", summary["wakes"], summary["spawns"], summary["poll_probes"]);
    (outcome, truth)
}

fn every_wake_and_spawn_is_told(build: Build) {
    let _turn = Turn::alone();
    let (outcome, truth) = recorded(build);
    let trace = outcome.trace();
    let beside = Beside { build, truth: &truth, trace: &trace, polls: polls(&trace) };
    // Where polls return to is learnt from the first that do, if the calls do not look like those of polls.
    let without_end = outcome.summary()["polls_without_end"].as_u64().expect("a count");
    beside.check_wakes(without_end);
    beside.check_flows();
    beside.check_spawns(without_end);
    beside.check_lives(without_end);
}

#[test]
fn every_wake_and_spawn_of_an_ordinary_program_is_told() {
    every_wake_and_spawn_is_told(Build { profile: "release", tokio: NEWEST });
}

#[test]
fn every_wake_and_spawn_of_a_stripped_program_is_told() {
    every_wake_and_spawn_is_told(Build { profile: "stripped", tokio: NEWEST });
}

#[test]
fn every_wake_and_spawn_of_a_program_that_was_optimized_as_a_whole_is_told() {
    every_wake_and_spawn_is_told(Build { profile: "fat", tokio: NEWEST });
}

#[test]
fn every_wake_and_spawn_of_a_small_program_is_told() {
    every_wake_and_spawn_is_told(Build { profile: "small", tokio: NEWEST });
}

#[test]
fn every_wake_and_spawn_of_a_program_that_nobody_optimized_is_told() {
    every_wake_and_spawn_is_told(Build { profile: "dev", tokio: NEWEST });
}

#[test]
fn every_wake_and_spawn_of_a_program_with_an_old_tokio_is_told() {
    every_wake_and_spawn_is_told(Build { profile: "release", tokio: "~1.38" });
}

#[test]
fn every_wake_and_spawn_is_told_whatever_tokio_it_is() {
    for tokio in ["~1.42", "~1.46", "~1.50"] {
        every_wake_and_spawn_is_told(Build { profile: "release", tokio });
    }
}

#[test]
fn where_that_is_not_wanted_no_wake_is_told() {
    let _turn = Turn::with_others();
    let (outcome, _) = Build { profile: "release", tokio: NEWEST }.recorded(&["--polls", "off", "--no-symbols"]);
    let trace = outcome.trace();
    assert!(instants(&trace, "wake").is_empty() && instants(&trace, "spawn").is_empty());
}
