//! Polls that are told from begin to end, beside what a program says that it polled.
//!
//! These scenarios need root and a kernel that takes BPF programs. They fail where it does not.

use std::{collections::BTreeMap, ops::RangeInclusive};

use polletto_tests::{
    oracle::{Build, NEWEST, Truth},
    program,
    program::Program,
    recorder::{Outcome, Record},
    trace::{Nanoseconds, Tid, Trace, Value},
    turn::Turn,
};
use serde_json::Value as Json;

/// Of polls of programs with symbols, the type of so many must be told, in percent.
const TYPED_PERCENT: u64 = 95;

/// By how much the times of a poll may differ from those that the program took just inside.
const SAME_NS: u64 = 20_000;

/// Of all polls; the others met an interrupt, or a machine that took the CPU away.
const MOST: f64 = 0.95;

/// Every CPU notices for itself that a window is over, and before one it takes a while until all probes are there.
const WINDOW_EDGES_NS: u64 = 20_000_000;

/// A poll, as either side tells it.
#[derive(Clone, Debug)]
struct Poll {
    task: u64,
    begin: Nanoseconds,
    end: Nanoseconds,
}

/// A poll as a trace shows it.
#[derive(Clone, Debug)]
struct Shown {
    poll: Poll,
    track: u64,
    future: String,
    tier: String,
}

/// What the program says of its own polls, by thread.
fn told(truth: &Truth) -> BTreeMap<Tid, Vec<Poll>> {
    let mut polls = BTreeMap::<Tid, Vec<Poll>>::new();
    for poll in &truth.polls {
        let own = Poll { task: truth.id(poll), begin: poll.begin, end: poll.end };
        polls.entry(poll.tid).or_default().push(own);
    }
    polls.values_mut().for_each(|polls| polls.sort_by_key(|poll| poll.begin));
    polls
}

/// The polls that a trace shows from begin to end, by thread.
fn shown(trace: &Trace) -> BTreeMap<Tid, Vec<Shown>> {
    let mut polls = BTreeMap::<Tid, Vec<Shown>>::new();
    for slice in trace.slices_of("poll") {
        if slice.arguments.get("extent") != Some(&Value::Text("exact".into())) {
            continue;
        }
        let number = |name: &str| match slice.arguments.get(name) {
            Some(Value::Integer(number)) => *number,
            other => panic!("{name} is {other:?} of {slice:?}"),
        };
        let task = u64::try_from(number("task_id")).expect("an id");
        let thread = Tid::try_from(number("tid")).expect("a thread");
        let text = |name: &str| match slice.arguments.get(name) {
            Some(Value::Text(text)) => text.clone(),
            other => panic!("{name} is {other:?} of {slice:?}"),
        };
        let poll = Poll { task, begin: slice.begin, end: slice.end };
        let (track, future, tier) = (slice.track, text("future"), text("name_tier"));
        polls.entry(thread).or_default().push(Shown { poll, track, future, tier });
    }
    polls
}

/// The time that most of these stay below.
fn usual(mut times: Vec<u64>) -> u64 {
    times.sort_unstable();
    times[((times.len() - 1) as f64 * MOST) as usize]
}

/// What polls are said to poll, beside what the program spawned.
#[derive(Debug, Default)]
struct Names {
    /// By task, what it was called when it was spawned.
    spawned: BTreeMap<u64, String>,
    /// By function of the program's source, its lines.
    lines: BTreeMap<String, RangeInclusive<u64>>,
    polls: u64,
    /// Whose type is told, and not only the place in the source.
    typed: u64,
    /// Of which several are named, since their code is the same.
    one_of_several: u64,
}

impl Names {
    fn new(truth: &Truth) -> Names {
        let spawned = truth.spawns.values().map(|spawn| (spawn.id, spawn.name.clone())).collect();
        let source = include_str!("../oracle/src/main.rs");
        let (mut lines, mut open) = (BTreeMap::new(), None);
        for (line, text) in (1..).zip(source.lines()) {
            if let Some((_, function)) = text.split_once("fn ").filter(|(before, _)| matches!(*before, "" | "async ")) {
                let name = function.split(['(', '<']).next().expect("a function has a name");
                open = Some((name.to_owned(), line));
            } else if text == "}"
                && let Some((name, first)) = open.take()
            {
                lines.insert(name, first..=line);
            }
        }
        Names { spawned, lines, ..Names::default() }
    }

    /// No name may be wrong.
    fn check(&mut self, shown: &Shown) {
        let spawned = self.spawned[&shown.poll.task].as_str();
        let functions: &[&str] = match spawned {
            "local" => &["hog"],
            "child" => &["parent"],
            // In a block of the one that awaits the other.
            "generic<u8>" | "generic<String>" => &["several", "generic"],
            function => &[function],
        };
        let is_right = |candidate: &str| {
            functions.iter().any(|function| match candidate.strip_prefix("src/main.rs:") {
                Some(line) => self.lines[*function].contains(&line.parse().expect("a line")),
                None => candidate.contains(&format!("::{function}::")),
            })
        };
        let mut candidates = shown.future.split(" | ");
        assert!(candidates.any(is_right), "{spawned} is no {shown:?}");
        self.polls += 1;
        self.typed += u64::from(["dwarf", "symbol", "drop-glue"].contains(&shown.tier.as_str()));
        self.one_of_several += u64::from(shown.future.contains(" | "));
    }
}

/// Where an unoptimized program's polls return to is only learnt from its first ones.
const LEARNING_NS: u64 = 300_000_000;

fn every_poll_is_told_from_its_begin_to_its_end(profile: &'static str) {
    every_poll_is_told_once_it_is_known_how(Build { profile, tokio: NEWEST }, 0);
}

/// Every poll that began so long after the first.
fn every_poll_is_told_once_it_is_known_how(build: Build, learning_ns: u64) {
    let _turn = Turn::alone();
    let (outcome, truth) = build.recorded(&["--polls", "all", "--no-symbols"]);
    let mut names = Names::new(&truth);
    let mut truth = told(&truth);
    let first = truth.values().flatten().map(|poll| poll.begin).min().expect("the program polls");
    let known_from = first + learning_ns;
    truth.values_mut().for_each(|polls| polls.retain(|poll| poll.begin >= known_from));
    let summary = outcome.summary();
    println!("{build:?}: {} of {}", summary["polls_exact"], summary["poll_probes"]);
    let trace = outcome.trace();
    let shown = shown(&trace);
    let (mut early, mut late, mut polls) = (Vec::new(), Vec::new(), 0);
    let mut workers = BTreeMap::new();
    for (thread, truth) in &truth {
        let shown = shown.get(thread).map(Vec::as_slice).unwrap_or_default();
        for poll in truth {
            polls += 1;
            let of_task = shown.iter().filter(|shown| shown.poll.task == poll.task);
            let around = of_task.filter(|shown| shown.poll.begin <= poll.begin);
            let own = around.max_by_key(|shown| shown.poll.begin).filter(|shown| shown.poll.end >= poll.end);
            let own = own.unwrap_or_else(|| panic!("thread {thread} has polled this: {poll:?}"));
            early.push(poll.begin - own.poll.begin);
            late.push(own.poll.end - poll.end);
            names.check(own);
            let worker = *workers.entry(*thread).or_insert(own.track);
            assert_eq!(worker, own.track, "{build:?}: thread {thread} is one worker: {own:?}");
        }
        let from = truth.first().map_or(Nanoseconds::MAX, |poll| poll.begin);
        let is_known =
            |Shown { poll: shown, .. }: &&Shown| truth.iter().any(|poll| poll.task == shown.task) && shown.end >= from;
        let shown_of_known = shown.iter().filter(is_known);
        assert_eq!(shown_of_known.count(), truth.len(), "{build:?}: thread {thread} has polled as often as it says");
    }
    assert!(polls > 1000, "{polls} polls");
    let (early, late) = (usual(early), usual(late));
    println!("{build:?}: {polls} polls, most from {early} ns before to {late} ns after what they do");
    assert!(early < SAME_NS && late < SAME_NS, "{build:?}: {early} ns early and {late} ns late");
    let mut workers: Vec<&str> = workers.values().map(|track| trace.tracks[track].name.as_str()).collect();
    workers.sort_unstable();
    assert_eq!(workers, ["current thread", "worker 0", "worker 1"], "{build:?}");
    let Names { polls, typed, one_of_several, .. } = names;
    println!("{build:?}: of {polls} polls {typed} have a type, {one_of_several} are one of several, none is wrong");
    assert!(
        build.profile == "stripped" || typed * 100 >= polls * TYPED_PERCENT,
        "{build:?}: {typed} of {polls} polls have a type"
    );
}

#[test]
fn every_poll_of_an_ordinary_program_is_told() {
    every_poll_is_told_from_its_begin_to_its_end("release");
}

#[test]
fn every_poll_of_a_debug_build_is_told_but_for_the_first() {
    every_poll_is_told_once_it_is_known_how(Build { profile: "dev", tokio: NEWEST }, LEARNING_NS);
}

#[test]
fn every_poll_is_told_whatever_tokio_it_is() {
    for tokio in ["~1.38", "~1.42", "~1.46", "~1.50"] {
        every_poll_is_told_once_it_is_known_how(Build { profile: "release", tokio }, 0);
    }
}

#[test]
fn every_poll_of_a_stripped_program_is_told() {
    every_poll_is_told_from_its_begin_to_its_end("stripped");
}

#[test]
fn every_poll_of_a_program_that_was_optimized_as_a_whole_is_told() {
    every_poll_is_told_from_its_begin_to_its_end("fat");
}

#[test]
fn every_poll_of_a_small_program_is_told() {
    every_poll_is_told_from_its_begin_to_its_end("small");
}

#[test]
fn workers_of_a_tokio_that_is_not_known_are_told_by_their_names() {
    let _turn = Turn::alone();
    let build = Build { profile: "release", tokio: "~1.37" };
    let recorded = |arguments: &[&str]| {
        let (outcome, truth) = build.recorded(&[&["--polls", "all", "--no-symbols"], arguments].concat());
        let trace = outcome.trace();
        let mut tracks = BTreeMap::<Tid, Vec<String>>::new();
        for (thread, polls) in shown(&trace) {
            // Those that the program has not written down are of code that may block.
            let own = polls.iter().filter(|shown| truth.spawns.values().any(|spawn| spawn.id == shown.poll.task));
            let mut names: Vec<String> = own.map(|shown| trace.tracks[&shown.track].name.clone()).collect();
            names.sort_unstable();
            names.dedup();
            tracks.insert(thread, names);
        }
        let polls = trace.slices_of("poll").count();
        assert!(polls >= truth.polls.len(), "{polls} of {} polls", truth.polls.len());
        let current =
            truth.polls.iter().find(|poll| truth.spawns[&poll.number].name == "local").expect("it is polled").tid;
        (outcome.summary()["workers_by_name"].clone(), tracks, current)
    };
    let (by_name, tracks, _) = recorded(&[]);
    assert_eq!(by_name, Json::Null);
    assert!(tracks.iter().all(|(thread, names)| *names == [format!("thread {thread}")]), "{tracks:?}");
    // What a thread is called that has no other name, and as much of it as the kernel keeps.
    for prefix in ["tokio-runtime-worker", "tokio-r"] {
        let (by_name, mut tracks, current) = recorded(&["--workers", prefix]);
        assert_eq!(by_name, 2, "{tracks:?}");
        assert_eq!(tracks.remove(&current), Some(vec![format!("thread {current}")]), "{tracks:?}");
        let workers: Vec<&[String]> = tracks.values().map(Vec::as_slice).collect();
        assert_eq!(workers, [["worker 0"], ["worker 1"]], "{tracks:?}");
    }
}

/// A recording of a program that polls more than anybody could record.
fn recorded_mill(arguments: &[&str]) -> Outcome {
    let program = Program::start(program!("poll-mill"), &["--workers", "2", "--tasks", "3"]);
    let recording = Record::new().process(program.pid()).arguments(["-d", "5", "--no-symbols"]).arguments(arguments);
    let outcome = recording.run().expect_success();
    let (status, _) = program.finish();
    assert!(status.success(), "{status}");
    outcome
}

/// Where the trace says that polls are not told because of the budget.
fn unobserved(trace: &Trace) -> Vec<(Nanoseconds, Nanoseconds)> {
    let slices = trace.slices_of("loss").filter(|slice| slice.name == "polls not recorded: budget");
    slices.map(|slice| (slice.begin, slice.end)).collect()
}

#[test]
fn more_polls_than_the_budget_allows_are_told_in_windows() {
    let _turn = Turn::alone();
    let outcome = recorded_mill(&["--budget", "2"]);
    let summary = outcome.summary();
    let probes = &summary["poll_probes"];
    let number = |name: &str| probes[name].as_f64().unwrap_or_else(|| panic!("{name} of {probes}"));
    let (observed, unobserved_ns) = (number("observed_ns"), number("unobserved_ns"));
    let taken = number("spent_ns") / (observed + unobserved_ns);
    println!("observed for {observed} ns of {}, which took {taken} of a CPU", observed + unobserved_ns);
    // What is overdrawn in one window is made up for by a later one: the last has none.
    assert!(taken > 0.005 && taken < 0.03, "{probes}");
    assert!(observed > 0.0 && unobserved_ns > observed, "{probes}");
    // Probes may take all of both workers, and count for a little more than they take.
    let enough = number("budget_for_all");
    assert!(enough > 2.0 && enough <= 300.0, "{enough} % of a CPU");
    let trace = outcome.trace();
    let unobserved = unobserved(&trace);
    assert!(unobserved.len() >= 2, "{unobserved:?}");
    let follow = |pair: &[(Nanoseconds, Nanoseconds)]| pair[0].1 <= pair[1].0;
    assert!(unobserved.windows(2).all(follow), "one ends before the next begins: {unobserved:?}");
    let shown: Vec<Poll> = shown(&trace).into_values().flatten().map(|shown| shown.poll).collect();
    assert!(shown.len() > 1000, "{} polls", shown.len());
    let within = |poll: &&Poll| {
        let is_far = |&(begin, end): &(Nanoseconds, Nanoseconds)| {
            poll.begin > begin + WINDOW_EDGES_NS && poll.end + WINDOW_EDGES_NS < end
        };
        unobserved.iter().any(is_far)
    };
    assert_eq!(shown.iter().find(within).map(|poll| poll.begin), None, "in {unobserved:?}");
}

#[test]
fn what_fits_the_budget_is_told_all_the_time() {
    let _turn = Turn::alone();
    let (outcome, truth) = Build { profile: "release", tokio: NEWEST }.recorded(&["--budget", "100", "--no-symbols"]);
    let polls: usize = told(&truth).values().map(Vec::len).sum();
    assert_eq!(outcome.summary()["polls_exact"], polls);
    assert_eq!(unobserved(&outcome.trace()), []);
}

#[test]
fn the_end_of_a_recording_is_not_the_budgets() {
    let _turn = Turn::with_others();
    let program = Program::start(program!("many-tasks"), &[]);
    let outcome = Record::new().process(program.pid()).arguments(["-d", "0.5", "--no-symbols"]).run().expect_success();
    assert!(outcome.summary()["poll_probes"]["begins"].as_u64().is_some_and(|begins| begins > 0));
    assert_eq!(unobserved(&outcome.trace()), []);
}

#[test]
fn where_that_is_not_wanted_no_poll_is_told_exactly() {
    let _turn = Turn::with_others();
    let (outcome, _) = Build { profile: "release", tokio: NEWEST }.recorded(&["--polls", "off", "--no-symbols"]);
    let summary = outcome.summary();
    assert_eq!((summary["polls_exact"].as_u64(), &summary["poll_probes"]), (Some(0), &Json::Null));
    assert!(shown(&outcome.trace()).is_empty());
}
