//! What `polletto report` and the package of SQL say of traces, beside what the recorder said while it recorded.
//!
//! These scenarios need root and a kernel that takes BPF programs. They fail where it does not. Traces are asked where
//! there is a `trace_processor_shell`.

use std::{
    collections::{HashMap, HashSet},
    fs,
    io::{BufRead, BufReader},
    os::unix::{
        fs::PermissionsExt,
        process::{CommandExt, ExitStatusExt},
    },
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use polletto_tests::{
    check::{sql, trace_processor, workspace},
    oracle::{Build, NEWEST},
    program,
    program::Program,
    recorder::{Record, polletto},
    report::{json, report},
    served::Server,
    turn::Turn,
};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// How many there are of a kind.
fn count(report: &Value, kind: &str) -> usize {
    let findings = report["findings"].as_array().expect("a list");
    findings.iter().filter(|finding| finding["kind"] == kind).count()
}

#[test]
fn a_report_has_what_the_summary_counted_and_can_be_asked_again() {
    let _turn = Turn::alone();
    let build = Build { profile: "release", tokio: NEWEST };
    let (outcome, _) = build.recorded(&["--polls", "all", "-F", "499", "--no-symbols"]);
    if trace_processor().is_none() {
        return;
    }
    let told = json(&outcome.output, &["--json"]);
    let summary = outcome.summary();
    for kind in ["long poll", "slept in poll", "preempted in poll"] {
        let counts = summary["findings"]["counts"].as_array().expect("a list").iter();
        let counted: u64 = counts.filter(|of| of["kind"] == kind).filter_map(|of| of["count"].as_u64()).sum();
        // A switch that the kernel did not report is told in another way by the threads' states.
        let unreported = summary["switches_not_reported"].as_u64().expect("a count");
        let difference = counted.abs_diff(count(&told, kind) as u64);
        assert!(difference <= unreported, "{kind}: {counted}, {told:#}");
    }
    machine_comes_last(&summary, &told);
    whose_worker_it_was_is_told(&summary, &told);
    let more = json(&outcome.output, &["--json", "--threshold", "1"]);
    let all = |report: &Value| report["findings"].as_array().map_or(0, Vec::len);
    assert!(all(&more) > all(&told), "{} and {}", all(&more), all(&told));
    for (fail_on, code, verdict) in [("slept-in-poll=8ms", 3, "failed"), ("slept-in-poll=60000", 0, "passed")] {
        let output = report(&outcome.output, &["--fail-on", fail_on]);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{fail_on}: {errors}");
        assert!(String::from_utf8_lossy(&output.stdout).contains("slept in poll (timer)"));
        assert_eq!(errors.contains("polls were observed for "), code == 0, "{errors}");
        let output = report(&outcome.output, &["--fail-on", fail_on, "--json"]);
        let told: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        let (judged, number) = (&told["fail_on"], |name: &str| told[name].as_f64().expect(name));
        assert_eq!((output.status.code(), &judged["verdict"]), (Some(code), &verdict.into()), "{judged}");
        let share = judged["observed_share"].as_f64().expect("a share");
        assert!((share - number("observed_ns") / number("recorded_ns")).abs() < 1e-6, "{judged}");
    }
    assert!(told["fail_on"].is_null(), "nothing was asked");
    compared(&outcome.output);
    let (blind, _) = build.recorded(&["--polls", "off", "--no-symbols"]);
    for (of, code) in [(&outcome, 0), (&blind, 1)] {
        let output = report(&of.output, &["--fail-on", "slept-in-poll=60000", "--min-observed", "50"]);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!((output.status.code(), errors.contains("--min-observed")), (Some(code), code == 1), "{errors}");
    }
    compared_with_less(&outcome.output, &blind.output);
}

/// A program, and the same without probes: that tasks starve is not known there, and of polls less.
fn compared_with_less(whole: &Path, less: &Path) {
    let [told_of_whole, told_of_less] = [whole, less].map(|trace| json(trace, &["--json"]));
    assert!(told_of_whole["has_probes"] == true && told_of_whole["missing"].is_null(), "{told_of_whole:#}");
    let none = (&false.into(), &0.into(), &0.into());
    assert_eq!((&told_of_less["has_probes"], &told_of_less["observed_ns"], &told_of_less["polls_exact"]), none);
    let missing = told_of_less["missing"].as_str().expect("words");
    assert!(missing.starts_with("polls were told by samples and switches alone"), "{missing}");
    assert!(String::from_utf8_lossy(&report(less, &[]).stdout).contains(missing), "{missing}");
    for [before, after] in [[less, whole], [whole, less]] {
        let compare = ["--compare", before.to_str().expect("a path")];
        let told = json(after, &[&compare[..], &["--json"]].concat());
        let places = told["places"].as_array().expect("a list");
        assert!(!places.is_empty() && places.iter().all(|place| place["verdict"] == "not observed"), "{told:#}");
        let lacking =
            format!("{} has polls by samples and switches alone", if before == less { "before" } else { "after" });
        assert!(
            places.iter().all(|place| place["lacking"] == *lacking) && told["polls_compared"] == "none",
            "{told:#}"
        );
        let output = report(after, &[&compare[..], &["--fail-on", "worse"]].concat());
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success() && text.contains(&format!("polls:  none are compared, since {lacking}")),
            "{text}"
        );
        assert!(text.contains("all polls: not compared") && !text.contains("all polls, by"), "{text}");
    }
    for (trace, compared) in [(whole, "exact"), (less, "at least")] {
        let told = json(trace, &["--json", "--compare", trace.to_str().expect("a path")]);
        assert_eq!(told["polls_compared"], compared);
    }
}

/// What tells of the machine is told by both after all that tells of the program.
fn machine_comes_last(summary: &Value, report: &Value) {
    for places in [&summary["findings"]["places"], &report["groups"]] {
        let causes: Vec<&str> =
            places.as_array().expect("a list").iter().filter_map(|of| of["cause"].as_str()).collect();
        let is_either = causes.iter().all(|cause| ["program", "machine"].contains(cause));
        assert!(!causes.is_empty() && is_either && causes.is_sorted_by_key(|cause| *cause == "machine"), "{causes:?}");
    }
    for counted in summary["findings"]["counts"].as_array().expect("a list") {
        let [all, of_machine] = ["count", "of_machine"].map(|name| counted[name].as_u64().expect(name));
        match counted["kind"].as_str().expect("a kind") {
            "preempted in poll" => assert_eq!(of_machine, all, "{counted}"),
            "starved task" => assert!(of_machine <= all, "{counted}"),
            _ => assert_eq!(of_machine, 0, "{counted}"),
        }
    }
}

/// Of the two runtimes that the program has, which one's polls kept a task from its own.
fn whose_worker_it_was_is_told(summary: &Value, report: &Value) {
    let places = summary["findings"]["places"].as_array().expect("a list").iter();
    let findings = report["findings"].as_array().expect("a list").iter().filter(|of| of["kind"] == "starved task");
    let all = places.map(|place| &place["longest"]["meanwhile"]).chain(findings.map(|found| &found["detail"]));
    for meanwhile in all.filter_map(Value::as_str).filter(|told| told.contains(" polled ")) {
        assert!(meanwhile.contains(" ms (Tokio workers") && meanwhile.ends_with(')'), "{meanwhile}");
    }
}

/// Lets the signals end a program that end it in a terminal. What runs in the background may ignore some, and so do those
/// that it starts.
fn as_from_a_terminal(command: &mut Command) {
    let by_default = || {
        for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
            // SAFETY: a system call, by which no code of ours is to be run.
            unsafe { libc::signal(signal, libc::SIG_DFL) };
        }
        Ok(())
    };
    // SAFETY: it makes system calls, and takes neither memory nor locks.
    unsafe { command.pre_exec(by_default) };
}

fn within_seconds(seconds: u64, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(seconds);
    while !is_so() {
        assert!(Instant::now() < deadline, "it takes longer than {seconds} s");
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_report_that_is_ended_leaves_nothing_behind() {
    let directory = tempfile::tempdir().expect("a directory");
    let [slow, trace] = ["slow", "trace"].map(|name| directory.path().join(name));
    fs::write(&slow, "#!/bin/sh\necho $$ > \"$TMPDIR/reads\"\nexec sleep 600\n").expect("a script");
    fs::set_permissions(&slow, fs::Permissions::from_mode(0o755)).expect("a program");
    fs::write(&trace, "anything").expect("a file");
    let signals = [Signal::INT, Signal::TERM, Signal::HUP, Signal::KILL];
    let started = signals.map(|signal| {
        let room = directory.path().join(format!("{signal:?}"));
        fs::create_dir(&room).expect("a directory");
        let mut command = Command::new(polletto());
        command.arg("report").arg(&trace).arg("--trace-processor").arg(&slow).env("TMPDIR", &room);
        as_from_a_terminal(&mut command);
        (signal, room, command.stderr(Stdio::piped()).spawn().expect("polletto starts"))
    });
    for (signal, room, mut reporting) in started {
        let mut told = String::new();
        BufReader::new(reporting.stderr.as_mut().expect("a pipe")).read_line(&mut told).expect("words");
        assert!(told.contains("still reads it"), "{told}");
        let reads: i32 = fs::read_to_string(room.join("reads")).expect("it runs").trim().parse().expect("a number");
        fs::remove_file(room.join("reads")).expect("it is there");
        kill_process(Pid::from_child(&reporting), signal).expect("it runs");
        within_seconds(5, || reporting.try_wait().expect("it is a child").is_some());
        assert_eq!(reporting.wait().expect("it ends").signal(), Some(signal.as_raw()));
        // Who has ended has no arguments, even if nobody asked how it ended.
        within_seconds(5, || !fs::read(format!("/proc/{reads}/cmdline")).is_ok_and(|words| !words.is_empty()));
        let left = fs::read_dir(&room).expect("a directory").count();
        // Of what ends it on the spot nobody can tidy up but the processes.
        assert_eq!(left, usize::from(signal == Signal::KILL), "{signal:?}");
    }
}

#[test]
fn a_trace_that_cannot_be_read_is_told_in_words_of_our_own() {
    if trace_processor().is_none() {
        return;
    }
    for (trace, reason) in [("/nowhere", "No such file or directory"), ("/", "is a directory")] {
        let output = report(Path::new(trace), &[]);
        let told = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{told}");
        assert!(told.starts_with(&format!("polletto: {trace} can't be read: {reason}")), "{told}");
    }
}

/// A program that blocks, with itself and with one that does not.
fn compared(blocking: &Path) {
    let program = Program::start(program!("many-tasks"), &[]);
    let other = Record::new().process(program.pid()).arguments(["-d", "1", "--no-symbols"]).run().expect_success();
    let verdicts = |before: &Path, after: &Path| -> Vec<String> {
        let told = json(after, &["--json", "--compare", before.to_str().expect("a path")]);
        let places = told["places"].as_array().expect("a list");
        places.iter().filter_map(|place| place["verdict"].as_str()).map(str::to_owned).collect()
    };
    let with_itself = verdicts(blocking, blocking);
    assert!(!with_itself.is_empty() && with_itself.iter().all(|verdict| verdict == "same"), "{with_itself:?}");
    // Where no poll was told at all, nobody knows whether it is better.
    for (before, after, expected, code) in [
        (blocking, &*other.output, "better", 1),
        (&*other.output, blocking, "worse", 3),
        (blocking, blocking, "same", 0),
    ] {
        let verdicts = verdicts(before, after);
        assert_eq!(verdicts.first().map(String::as_str), Some(expected), "{verdicts:?}");
        let output = report(after, &["--compare", before.to_str().expect("a path"), "--fail-on", "worse"]);
        assert_eq!(output.status.code(), Some(code), "{}", String::from_utf8_lossy(&output.stdout));
    }
    let output = report(blocking, &["--fail-on", "worse"]);
    assert_eq!(output.status.code(), Some(2), "worse than nothing");
}

#[test]
fn for_how_much_of_the_time_polls_were_observed_is_the_same_for_all() {
    let _turn = Turn::alone();
    let program = Program::start(program!("poll-mill"), &["--workers", "2", "--tasks", "3"]);
    let recording = Record::new().process(program.pid()).arguments(["-d", "2", "--no-symbols"]);
    let outcome = recording.run().expect_success();
    drop(program);
    let probes = outcome.summary()["poll_probes"].clone();
    let [observed_ns, unobserved_ns] = ["observed_ns", "unobserved_ns"].map(|name| probes[name].as_f64().expect(name));
    let expected = observed_ns / (observed_ns + unobserved_ns);
    assert!(expected > 0.0 && expected < 0.9, "{probes}");
    let query = "INCLUDE PERFETTO MODULE polletto.overhead; SELECT recorded_ns, unobserved_ns FROM polletto_observed";
    let Some(rows) = sql(&outcome.output, query) else { return };
    assert_eq!(rows, [[(observed_ns + unobserved_ns).to_string(), unobserved_ns.to_string()]]);
    let told = json(&outcome.output, &["--json"]);
    let [told_ns, of_ns] = ["observed_ns", "recorded_ns"].map(|name| told[name].as_f64().expect(name));
    assert!((told_ns / of_ns - expected).abs() < 1e-6, "{told_ns} of {of_ns}, {probes}");
}

/// A poll that had not ended when the recording did is one with those before it in the same place.
#[test]
fn a_poll_that_is_cut_off_is_told_where_it_was_by_all() {
    let _turn = Turn::alone();
    let mut program = Program::start(program!("smol-mill"), &["--blocked", "300"]);
    let recording = Record::new().process(program.pid()).start();
    program.begin();
    thread::sleep(Duration::from_millis(1_000));
    let outcome = recording.stop().expect_success();
    drop(program);
    let summary = outcome.summary();
    assert!(summary["polls_unfinished"].as_u64() > Some(0), "{summary:#}");
    let places = summary["findings"]["places"].as_array().expect("a list");
    let of_sleep = |found: &&Value| found["kind"] == "slept in poll" && found["waited_for"] == "timer";
    let [sleeping] = places.iter().filter(of_sleep).collect::<Vec<_>>()[..] else { panic!("one place: {places:#?}") };
    assert!(sleeping["own"]["function"].is_string(), "{sleeping:#}");
    if trace_processor().is_none() {
        return;
    }
    let told = json(&outcome.output, &["--json"]);
    let groups = told["groups"].as_array().expect("a list");
    let [group] = groups.iter().filter(of_sleep).collect::<Vec<_>>()[..] else { panic!("one place: {groups:#?}") };
    assert_eq!((&group["count"], &group["function"]), (&sleeping["count"], &sleeping["own"]["function"]), "{group:#}");
    let query = "INCLUDE PERFETTO MODULE polletto.findings; SELECT kind, detail, own_function FROM polletto_default_findings \
                 WHERE extent = 'at least' AND kind = 'slept in poll'";
    let rows = sql(&outcome.output, query).expect("there is one to ask");
    let function = sleeping["own"]["function"].as_str().expect("a name");
    assert_eq!(rows, [["slept in poll", "timer", function]], "{summary:#}");
}

/// By the file of the program's own code.
fn categories(places: &Value, file: impl Fn(&Value) -> Option<String>) -> HashMap<String, String> {
    let places = places.as_array().expect("a list").iter();
    places.filter_map(|place| Some((file(place)?, place["category"].as_str()?.to_owned()))).collect()
}

#[test]
fn the_summary_and_a_report_say_what_findings_are_about() {
    let _turn = Turn::alone();
    let directory = tempfile::tempdir().expect("a directory");
    let own = directory.path().join("categories.txt");
    fs::write(&own, "naps function:*nanosleep*\n").expect("a file can be written");
    let own = own.to_str().expect("a path");
    let server = Server::demo(program!("demo-server"), &[]);
    let recording = Record::new().process(server.pid()).arguments(["-F", "499", "--categories", own]).start();
    server.asked(program!("demo-load"), &["--mix", "ok=1,compress=9,sleep=9", "--rate", "30"], 3);
    drop(server);
    let outcome = recording.wait().expect_success();
    let file_name = |path: &str| path.rsplit('/').next().map(str::to_owned);
    let told = categories(&outcome.summary()["findings"]["places"], |place| file_name(place["own"]["file"].as_str()?));
    for (file, category) in [("compress.rs", "compression"), ("sleep.rs", "naps")] {
        assert_eq!(told.get(file).map(String::as_str), Some(category), "{file}: {told:?}");
    }
    if trace_processor().is_none() {
        return;
    }
    let report = json(&outcome.output, &["--json", "--categories", own]);
    let source = |place: &Value| file_name(place["source"].as_str()?.rsplit_once(':')?.0);
    let asked = categories(&report["groups"], source);
    for file in ["compress.rs", "sleep.rs"] {
        assert_eq!(asked.get(file), told.get(file), "{file}: {asked:?} and {told:?}");
    }
    answered_by_notebook(&outcome.output);
}

fn answered_by_notebook(trace: &Path) {
    let python = workspace().join("target/python/bin/python3");
    if !python.is_file() {
        println!("not run: {} is not there, which has Perfetto's Python API", python.display());
        return;
    }
    let notebook = workspace().join("tools/notebooks/what_blocks.py");
    let output = Command::new(python).arg(notebook).arg(trace).output().expect("python starts");
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{told}{}", String::from_utf8_lossy(&output.stderr));
    assert!(told.contains("compression") && told.contains("gzip"), "{told}");
}

/// What libraries do in a poll is in one function of theirs or another, and one place.
#[test]
fn what_is_in_no_code_of_the_program_s_own_is_one_place_by_its_crate() {
    let _turn = Turn::alone();
    let mut program = Program::start(program!("borrowed-code"), &[]);
    let recording = Record::new().process(program.pid()).arguments(["-F", "999"]).start();
    program.begin();
    program.wait_for("done");
    let outcome = recording.stop().expect_success();
    is_in_one_crate(&outcome.summary()["findings"]["places"]);
    if trace_processor().is_some() {
        is_in_one_crate(&json(&outcome.output, &["--json"])["groups"]);
    }
}

/// Of what runs there, most is one place. A poll may have been seen in what calls it alone.
fn is_in_one_crate(places: &Value) {
    let all: Vec<&Value> = places.as_array().expect("a list").iter().filter(|of| of["kind"] == "long poll").collect();
    let crates: Vec<&str> = all.iter().filter_map(|of| of["crate"].as_str()).collect();
    let known = |krate: &&str| ["fastrand", "futures_lite", "tokio"].contains(krate);
    assert!(crates.len() == all.len() && crates.iter().all(known), "{all:#?}");
    let distinct: HashSet<&str> = crates.iter().copied().collect();
    assert_eq!((crates.first(), distinct.len()), (Some(&"fastrand"), crates.len()), "one place each: {all:#?}");
    let count = |of: &&Value| of["count"].as_u64().expect("a count");
    assert!(2 * count(&all[0]) > all.iter().map(count).sum(), "{all:#?}");
}

#[test]
fn categories_that_cant_be_followed_are_an_error_in_their_line() {
    let manifest = workspace().join("Cargo.toml");
    let output = report(&manifest, &["--categories", manifest.to_str().expect("a path")]);
    assert_eq!(output.status.code(), Some(2));
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(told.contains("line 1: "), "{told}");
}

#[test]
fn without_trace_processor_it_is_said_how_to_get_it() {
    let trace = workspace().join("Cargo.toml");
    let output = Command::new(polletto()).arg("report").arg(&trace).env("PATH", "").output().expect("polletto starts");
    assert_eq!(output.status.code(), Some(1));
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(told.contains("trace_processor is not on the PATH") && told.contains("curl"), "{told}");
}

#[test]
fn what_is_no_trace_is_an_error() {
    if trace_processor().is_none() {
        return;
    }
    for trace in ["Cargo.toml", "nowhere"] {
        let output = report(&workspace().join(trace), &[]);
        assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stdout));
        assert!(!output.stderr.is_empty());
    }
    let empty = tempfile::NamedTempFile::new().expect("a file");
    let output = report(empty.path(), &[]);
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(1) && told.contains("it is empty"), "{told}");
}
