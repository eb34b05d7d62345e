//! The demo server: each of its faults is found for what it is, and nothing where it has none.
//!
//! These scenarios need root and a kernel that takes BPF programs. They fail where it does not.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Command,
};

use polletto_tests::{
    check::trace_processor,
    faults::Fault,
    program,
    recorder::{Outcome, Record},
    report::json,
    served::Server,
    trace::{Event, Nanoseconds, Slice, Trace, Value as Argument, text},
    turn::Turn,
    workload::boottime,
};
use serde_json::Value;

/// Where the server's files lie: on a disk.
const DIRECTORY: &str = env!("CARGO_TARGET_TMPDIR");

/// Requests for one endpoint, a second long.
const RATE: &str = "20";

/// Of so many requests one must be found at least, but for those that waited longest for a CPU, which other programs had.
const FOUND_OF: u64 = 4;

/// Of polls that slept longest for something that is no fault, for instance for memory where that is short.
const MOST_OTHERS: u64 = 2;

/// Every endpoint of a healthy server, as often as leaves the CPUs time.
const HEALTHY_LOAD: [&str; 2] = ["--rate", "100"];

/// How often a healthy server is recorded until nothing is found. On a machine that is busy otherwise it may have to wait for
/// CPUs, and then it is right to say so: but not while one had nothing to do for more than such a part of the time. (The
/// kernel lets threads wait for a busy CPU beside an idle one for some milliseconds.)
const ATTEMPTS: usize = 3;
const MOST_IDLE: u64 = 2;

/// Polls of it that are told at least.
const LEAST_POLLS: u64 = 100;

/// When an endpoint was asked, and how many requests were answered.
struct Asked {
    endpoint: String,
    begin: Nanoseconds,
    end: Nanoseconds,
    answered: u64,
}

fn findings(trace: &Trace) -> Vec<&Event> {
    trace.events.iter().filter(|event| event.categories.iter().any(|of| of == "finding")).collect()
}

/// Records the server while one endpoint after another is asked.
fn recorded(server: &Path, faults: &[Fault]) -> (Outcome, Vec<Asked>) {
    let server = Server::demo(server, &["--directory", DIRECTORY]);
    let recording = Record::new().process(server.pid()).start();
    let mut endpoints: Vec<&str> = faults.iter().map(|fault| fault.endpoint.as_str()).collect();
    endpoints.dedup();
    let ask = |endpoint: &str| {
        let begin = boottime();
        let mix = format!("{endpoint}=1");
        let answers = server.asked(program!("demo-load"), &["--rate", RATE, "--mix", &mix], 1);
        Asked { endpoint: endpoint.to_owned(), begin, end: boottime(), answered: answers.answered }
    };
    let asked = endpoints.into_iter().map(ask).collect();
    (recording.stop().expect_success(), asked)
}

/// Each fault is found while its endpoint is asked, and of polls that slept hardly any is said to have slept for something
/// else.
fn assert_kinds_and_futures(outcome: &Outcome, asked: &[Asked], faults: &[Fault], is_stripped: bool) {
    let trace = outcome.trace();
    let findings = findings(&trace);
    for asked in asked {
        let of_endpoint: Vec<&Fault> = faults.iter().filter(|fault| fault.endpoint == asked.endpoint).collect();
        let found = findings.iter().filter(|event| (asked.begin..asked.end).contains(&event.at));
        let (mut counts, mut others) = (vec![0; of_endpoint.len()], BTreeMap::<_, u64>::new());
        for event in found {
            let future = text(&event.arguments, "future").unwrap_or_default();
            let is_it = |fault: &&Fault| {
                fault.kind == event.name
                    && fault.waited_for.as_deref() == text(&event.arguments, "waited_for")
                    && fault.is_future(future, is_stripped)
            };
            match of_endpoint.iter().position(is_it) {
                Some(index) => counts[index] += 1,
                None => *others.entry((&*event.name, text(&event.arguments, "waited_for"), future)).or_default() += 1,
            }
        }
        println!("{}: {} requests, {counts:?} as they should, and {others:?}", asked.endpoint, asked.answered);
        let of_kind =
            |kind: &str| others.iter().filter(|((of, ..), _)| *of == kind).map(|(_, count)| count).sum::<u64>();
        let own = asked.answered.saturating_sub(of_kind("preempted in poll"));
        for (fault, count) in of_endpoint.iter().zip(counts) {
            // As long as somebody stands at a lock, all are of one convoy.
            let least = if fault.kind == "lock convoy" { 1 } else { own.div_ceil(FOUND_OF).max(1) };
            assert!(count >= least, "{count} of {own} polls: {fault:?}");
        }
        assert!(of_kind("slept in poll") <= MOST_OTHERS, "{}: {others:?}", asked.endpoint);
    }
}

#[test]
fn each_fault_is_found_with_its_kind_its_future_and_its_line() {
    let _turn = Turn::alone();
    let faults = Fault::all();
    let (outcome, asked) = recorded(program!("demo-server"), &faults);
    assert_kinds_and_futures(&outcome, &asked, &faults, false);
    let summary = outcome.summary();
    for fault in &faults {
        assert!(fault.found(&summary).is_some(), "{fault:?} at line {}: {:#}", fault.line(), summary["findings"]);
    }
}

/// The server without its names.
fn stripped(directory: &Path) -> PathBuf {
    let stripped = directory.join("demo-server");
    let status = Command::new("objcopy").arg("--strip-all").arg(program!("demo-server")).arg(&stripped).status();
    assert!(status.is_ok_and(|status| status.success()), "objcopy fails");
    stripped
}

#[test]
fn each_fault_of_a_stripped_server_is_found_with_its_kind_and_its_future() {
    let _turn = Turn::alone();
    let directory = tempfile::tempdir().expect("a directory for the program");
    let faults = Fault::all();
    let (outcome, asked) = recorded(&stripped(directory.path()), &faults);
    assert_kinds_and_futures(&outcome, &asked, &faults, true);
    if trace_processor().is_some() {
        assert_told_alike(&outcome);
    }
}

/// Kind, cause, what was slept for, and future, of which there is one place where no function is the program's own.
type Alike = [Option<String>; 4];

/// How many there are, and the function in which they were mostly.
type There<'t> = (u64, Option<&'t str>);

/// The summary and a report tell what a stripped server does by the same places, but for what switches that were not reported
/// may have made of one or two.
fn assert_told_alike(outcome: &Outcome) {
    fn by_place<'t>(places: &'t Value, function: impl Fn(&'t Value) -> &'t Value) -> BTreeMap<Alike, There<'t>> {
        let mut told = BTreeMap::new();
        for place in places.as_array().expect("a list") {
            let alike = ["kind", "cause", "waited_for", "future"].map(|name| place[name].as_str().map(str::to_owned));
            let there = (place["count"].as_u64().expect("a count"), function(place).as_str());
            assert!(told.insert(alike, there).is_none(), "told twice: {place:#}");
        }
        told
    }
    let (summary, report) = (outcome.summary(), json(&outcome.output, &["--json"]));
    let told = by_place(&summary["findings"]["places"], |place| &place["innermost"]["function"]);
    let asked = by_place(&report["groups"], |group| &group["function"]);
    let unreported = summary["switches_not_reported"].as_u64().expect("a count");
    told.iter().for_each(|(alike, there)| println!("{alike:?}: {there:?} and {:?}", asked.get(alike)));
    for (alike, &(count, function)) in told.iter().chain(&asked) {
        let kind = alike[0].as_deref();
        // Which polls kept those that starved is not known to the summary in the same way.
        if count <= unreported + MOST_OTHERS || kind == Some("starved task") {
            continue;
        }
        let both = [&told, &asked].map(|of| of.get(alike));
        let [Some(one), Some(other)] = both else { panic!("{alike:?}: {both:?}") };
        assert!(one.0.abs_diff(other.0) <= unreported, "{alike:?}: {both:?}");
        assert!(one.1 == other.1 && function.is_none_or(|name| !name.contains('/')), "{alike:?}: {both:?}");
    }
}

/// What a stripped server calls by its line is what the server has there.
#[test]
fn a_stripped_server_is_compared_with_itself_by_the_lines_of_its_futures() {
    let _turn = Turn::alone();
    if trace_processor().is_none() {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory for the program");
    let faults: Vec<Fault> = Fault::all().into_iter().filter(|fault| fault.endpoint == "mutex").collect();
    let [(named, _), (stripped, _)] =
        [program!("demo-server"), &stripped(directory.path())].map(|of| recorded(of, &faults));
    for (before, after) in [(&named, &stripped), (&stripped, &named)] {
        let told = json(&after.output, &["--json", "--compare", before.output.to_str().expect("a path")]);
        assert_eq!(told["told_by"], "line", "{told:#}");
        let places = told["places"].as_array().expect("a list");
        for fault in &faults {
            let is_it = |place: &&Value| {
                place["kind"] == fault.kind.as_str()
                    && place["waited_for"].as_str() == fault.waited_for.as_deref()
                    && place["future"].as_str().is_some_and(|future| fault.is_future(future, false))
            };
            let [place] = places.iter().filter(is_it).collect::<Vec<_>>()[..] else { panic!("{fault:?}: {places:#?}") };
            let line = place["written_at"].as_str().expect("that is what they are told by");
            assert!(fault.is_future(line, true), "{place:#}");
            assert!(place["before"].is_object() && place["after"].is_object(), "{place:#}");
        }
    }
}

/// Whether others had the CPUs while a finding lasted.
fn is_for_others(trace: &Trace, finding: &Event) -> bool {
    let Some(Argument::Integer(lasted_ns)) = finding.arguments.get("duration_ns") else {
        panic!("no duration: {finding:?}")
    };
    let lasted_ns = u64::try_from(*lasted_ns).expect("a duration");
    // One is told where its poll begins, which is what a task starves until.
    let begin = if finding.name == "starved task" { finding.at - lasted_ns } else { finding.at };
    let end = begin + lasted_ns;
    let until = |slice: &Slice| slice.end.map_or(end, |(at, _)| at.min(end));
    let idle = trace.slices.iter().filter(|slice| slice.tid == 0);
    let idle_ns: u64 = idle.map(|slice| until(slice).saturating_sub(slice.start.max(begin))).sum();
    finding.name != "slept in poll" && idle_ns * MOST_IDLE < lasted_ns
}

#[test]
fn nothing_is_found_where_there_is_no_fault() {
    let _turn = Turn::alone();
    let server = Server::demo(program!("demo-server"), &["--healthy", "--directory", DIRECTORY]);
    for _ in 0..ATTEMPTS {
        let recording = Record::new().process(server.pid()).start();
        println!("{}", server.asked(program!("demo-load"), &HEALTHY_LOAD, 4).report);
        let outcome = recording.stop().expect_success();
        let polls = outcome.summary()["polls_exact"].as_u64();
        let trace = outcome.trace();
        let findings = findings(&trace);
        println!("{polls:?} polls, {} findings", findings.len());
        assert!(polls > Some(LEAST_POLLS), "{:#}", outcome.summary());
        if findings.is_empty() {
            return;
        }
        for finding in findings {
            assert!(is_for_others(&trace, finding), "CPUs had nothing to do: {finding:?}");
        }
    }
    println!("others had the CPUs each time");
}
