//! Closures that may block, and polls that block in place, beside what a program says of its own.
//!
//! These scenarios need root and a kernel that takes BPF programs. They fail where it does not.

use std::collections::BTreeMap;

use polletto_tests::{
    check::sql,
    oracle::{Build, NEWEST, Poll, Truth},
    recorder::Outcome,
    trace::{Event, EventKind, Tid, Trace, TrackSlice, Value, number, text, the_number, the_text},
    turn::Turn,
};

/// The package of SQL has as many closures that ran, and stretches without a worker, as the summary counts.
fn is_counted_as_in_sql(outcome: &Outcome) {
    let summary = outcome.summary();
    let count = |of: &str| {
        let query = format!("INCLUDE PERFETTO MODULE polletto.closures; SELECT count() FROM {of}");
        let rows = sql(&outcome.output, &query)?;
        rows.first()?.first()?.parse::<u64>().ok()
    };
    let told = |name: &str| summary[name].as_u64().expect("a count");
    for (name, of) in [
        ("closures_run", "polletto_closures WHERE poll_id IS NOT NULL"),
        ("blocking_spawns", "polletto_closures WHERE spawn_id IS NOT NULL"),
        ("without_worker", "polletto_blocks_in_place"),
        ("workers_gone_unseen", "polletto_blocks_in_place WHERE is_whole_poll"),
    ] {
        if let Some(count) = count(of) {
            assert_eq!(count, told(name), "{name}");
        }
    }
}

fn tid(arguments: &BTreeMap<String, Value>) -> Tid {
    Tid::try_from(the_number(arguments, "tid")).expect("an id")
}

/// A recording, beside what the program says.
struct Beside<'t> {
    build: Build,
    truth: &'t Truth,
    trace: &'t Trace,
    polls: Vec<TrackSlice<'t>>,
    /// What threads did without their workers.
    in_place: Vec<TrackSlice<'t>>,
}

impl<'t> Beside<'t> {
    fn new(build: Build, truth: &'t Truth, trace: &'t Trace) -> Beside<'t> {
        let mut polls: Vec<TrackSlice<'t>> = trace.slices_of("poll").collect();
        polls.sort_by_key(|poll| poll.begin);
        let in_place = trace.slices_of("block in place").filter(|slice| slice.end > slice.begin).collect();
        Beside { build, truth, trace, polls, in_place }
    }

    fn instants(&self, name: &str) -> Vec<&'t Event> {
        self.trace.events.iter().filter(|event| event.name == name && event.kind == EventKind::Instant).collect()
    }

    fn track(&self, slice: &TrackSlice<'_>) -> &'t str {
        &self.trace.tracks[&slice.track].name
    }

    /// Slices of a thread and task that have begun before it did.
    fn around<'s>(&self, slices: &'s [TrackSlice<'t>], poll: &Poll, id: u64) -> Option<&'s TrackSlice<'t>> {
        let of_task = slices.iter().filter(|slice| number(slice.arguments, "task_id") == Some(id));
        let before = of_task.filter(|slice| slice.begin <= poll.begin && tid(slice.arguments) == poll.tid);
        before.max_by_key(|slice| slice.begin)
    }

    /// Every closure is told where it was spawned, and leads to the poll that ran it, which says how long it had waited.
    fn check_closures(&self) {
        let spawns = self.instants("spawn blocking");
        for (closure, told) in &self.truth.closures {
            let is_it = |event: &&&Event| number(&event.arguments, "task_id") == Some(told.id);
            let found: Vec<&&Event> = spawns.iter().filter(is_it).collect();
            let [event] = found[..] else { panic!("{:?}: {told:?} is told once: {found:?}", self.build) };
            assert!((told.begin..=told.end).contains(&event.at), "{:?}: {told:?}: {event:?}", self.build);
            assert_eq!(number(&event.arguments, "parent"), self.truth.id_of(told.parent), "{:?}: {told:?}", self.build);
            let ran = told.ran.unwrap_or_else(|| panic!("{closure} ran"));
            let poll = self.around(&self.polls, &ran, told.id).unwrap_or_else(|| panic!("{told:?} is shown"));
            assert!(ran.end <= poll.end, "{:?}: {told:?}: {poll:?}", self.build);
            assert_eq!(
                (the_text(poll.arguments, "extent"), the_text(poll.arguments, "kind")),
                ("exact", "blocking closure")
            );
            assert_eq!(number(poll.arguments, "queued_ns"), Some(poll.begin - event.at), "{:?}: {told:?}", self.build);
            assert_eq!(self.track(poll), format!("thread {}", ran.tid));
            assert!(event.flows.len() == 1 && poll.flows == event.flows, "{event:?} leads to {poll:?}");
        }
        assert!(self.truth.closures.len() >= 80, "{} closures", self.truth.closures.len());
    }

    /// Every block in place is told once, on the worker's track, and what the poll did then is on the thread's, unless it got
    /// its worker back.
    fn check_in_place(&self) -> usize {
        let told = self.instants("block in place");
        assert_eq!(told.len(), self.truth.in_place.len(), "{:?}", self.build);
        let mut without = 0;
        for block in &self.truth.in_place {
            let id = self.truth.id_of(block.number).expect("a task blocks");
            let is_it =
                |event: &&&Event| tid(&event.arguments) == block.tid && (block.begin..=block.end).contains(&event.at);
            let found: Vec<&&Event> = told.iter().filter(is_it).collect();
            let [event] = found[..] else { panic!("{:?}: {block:?} is told once: {found:?}", self.build) };
            assert_eq!(number(&event.arguments, "task_id"), Some(id), "{:?}: {block:?}", self.build);
            let polls = self.truth.polls.iter().filter(|poll| poll.number == block.number && poll.tid == block.tid);
            let poll = polls.into_iter().find(|poll| poll.begin <= block.begin && block.end <= poll.end);
            let poll = poll.expect("it blocks in a poll");
            let shown = self.around(&self.polls, poll, id).unwrap_or_else(|| panic!("{poll:?} is shown"));
            assert!(self.track(shown).starts_with("worker "), "{shown:?}");
            assert_eq!(event.track, shown.track, "{:?}: {block:?}", self.build);
            if the_text(shown.arguments, "extent") == "exact" {
                assert!(poll.end <= shown.end, "{:?}: {poll:?}: {shown:?}", self.build);
                continue;
            }
            assert_eq!(
                (the_text(shown.arguments, "extent"), shown.end),
                ("until block in place", event.at),
                "{:?}",
                self.build
            );
            let rest = self.in_place.iter().find(|slice| slice.begin == event.at && tid(slice.arguments) == block.tid);
            let rest = rest.unwrap_or_else(|| panic!("{:?}: the rest of {poll:?} is shown", self.build));
            assert!(
                poll.end <= rest.end && the_text(rest.arguments, "extent") == "exact",
                "{:?}: {poll:?}: {rest:?}",
                self.build
            );
            assert_eq!(self.track(rest), format!("thread {}", block.tid));
            without += 1;
        }
        assert_eq!(self.in_place.len(), without, "{:?}", self.build);
        without
    }

    /// A worker polls one task after another, and is another thread's only after its own has blocked in place.
    fn check_workers(&self) -> usize {
        let mut workers = BTreeMap::<&str, Vec<&TrackSlice<'t>>>::new();
        for poll in &self.polls {
            workers.entry(self.track(poll)).or_default().push(poll);
        }
        workers.retain(|name, _| name.starts_with("worker "));
        assert_eq!(workers.keys().copied().collect::<Vec<_>>(), ["worker 0", "worker 1"], "{:?}", self.build);
        let mut moved = 0;
        for polls in workers.values() {
            for pair in polls.windows(2) {
                let (one, next) = (pair[0], pair[1]);
                assert!(one.end <= next.begin, "{:?}: {one:?} and {next:?}", self.build);
                let (from, to) = (tid(one.arguments), tid(next.arguments));
                if from == to {
                    continue;
                }
                let is_between = |block: &Poll| (one.begin..=next.begin).contains(&block.begin);
                let blocked = self.truth.in_place.iter().any(|block| block.tid == from && is_between(block));
                assert!(blocked, "{:?}: {from} has not blocked between {one:?} and {next:?}", self.build);
                moved += 1;
            }
        }
        moved
    }

    /// Polls of workers are on workers' tracks.
    fn check_tracks(&self) {
        for poll in &self.truth.polls {
            let id = self.truth.id(poll);
            let shown = self.around(&self.polls, poll, id).unwrap_or_else(|| panic!("{poll:?} is shown"));
            assert!(poll.begin <= shown.end, "{:?}: {poll:?}: {shown:?}", self.build);
            let track = self.track(shown);
            assert!(track.starts_with("worker ") || track == "current thread", "{:?}: {shown:?}", self.build);
        }
    }
}

fn every_closure_and_every_block_in_place_is_told(build: Build) {
    let _turn = Turn::alone();
    let (outcome, truth) = build.recorded_with_blocking(&["--polls", "all", "--no-symbols"]);
    let (summary, trace) = (outcome.summary(), outcome.trace());
    println!(
        "{build:?}: {} closures, {} by {}",
        summary["blocking_spawns"], summary["blocks_in_place"], summary["poll_probes"]
    );
    let beside = Beside::new(build, &truth, &trace);
    beside.check_closures();
    let without = beside.check_in_place();
    let moved = beside.check_workers();
    beside.check_tracks();
    assert_eq!(summary["blocks_in_place"], truth.in_place.len());
    assert_eq!(summary["workers_gone_unseen"], 0);
    is_counted_as_in_sql(&outcome);
    // Its workers are threads of which each is another's at other times.
    assert_eq!(summary["findings"]["runtimes"], serde_json::json!([]), "{build:?}");
    let (closures, blocks) = (truth.closures.len(), truth.in_place.len());
    println!(
        "{build:?}: {closures} closures; {blocks} blocks in place, {without} of which ended without a worker; {moved} moves"
    );
    assert!(without > 20 && moved > 20, "{build:?}: {without} without a worker, which moved {moved} times");
}

#[test]
fn polls_that_gave_their_worker_away_nobody_knows_when_are_on_their_threads_tracks() {
    let _turn = Turn::alone();
    // In debug builds, where closures are spawned is not recognised.
    let build = Build { profile: "dev", tokio: NEWEST };
    let (outcome, truth) = build.recorded_with_blocking(&["--polls", "all", "--no-symbols"]);
    let (summary, trace) = (outcome.summary(), outcome.trace());
    let refused = summary["poll_probes"]["refused"].as_object().expect("reasons").keys();
    assert_eq!(refused.filter(|reason| reason.contains("closures are spawned that may block")).count(), 1, "{summary}");
    assert_eq!((&summary["blocking_spawns"], &summary["blocks_in_place"]), (&0.into(), &0.into()));
    let beside = Beside::new(build, &truth, &trace);
    let without: Vec<&TrackSlice<'_>> =
        beside.polls.iter().filter(|poll| text(poll.arguments, "kind") == Some("blocked in place")).collect();
    assert_eq!(summary["workers_gone_unseen"], without.len());
    assert!(summary["closures_run"].as_u64() >= Some(80), "{summary}");
    is_counted_as_in_sql(&outcome);
    for poll in &without {
        let blocked = truth
            .in_place
            .iter()
            .any(|block| block.tid == tid(poll.arguments) && poll.begin <= block.begin && block.end <= poll.end);
        assert!(blocked && beside.track(poll).starts_with("thread "), "{poll:?}");
    }
    let moved = beside.check_workers();
    println!("{build:?}: {} of {} polls gave their worker away; {moved} moves", without.len(), truth.in_place.len());
    assert!(without.len() > 20 && moved > 20, "{} without a worker, which moved {moved} times", without.len());
}

#[test]
fn every_closure_of_an_ordinary_program_is_told() {
    every_closure_and_every_block_in_place_is_told(Build { profile: "release", tokio: NEWEST });
}

#[test]
fn every_closure_of_a_stripped_program_is_told() {
    every_closure_and_every_block_in_place_is_told(Build { profile: "stripped", tokio: NEWEST });
}

#[test]
fn every_closure_of_a_program_that_was_optimized_as_a_whole_is_told() {
    every_closure_and_every_block_in_place_is_told(Build { profile: "fat", tokio: NEWEST });
}

#[test]
fn every_closure_of_a_small_program_is_told() {
    every_closure_and_every_block_in_place_is_told(Build { profile: "small", tokio: NEWEST });
}

#[test]
fn every_closure_is_told_whatever_tokio_it_is() {
    for tokio in ["~1.38", "~1.42", "~1.46", "~1.50"] {
        every_closure_and_every_block_in_place_is_told(Build { profile: "release", tokio });
    }
}
