use super::{means::Mean, *};
use crate::cli::summary::OF_MACHINE;

const THRESHOLD: u64 = 5_000_000;

/// As many as said, each as long, in milliseconds.
fn found(kind: &str, function: &str, source: &str, count: usize, dur: f64) -> Vec<Found> {
    let cause = if kind == "preempted in poll" { "machine" } else { "program" };
    let found = serde_json::json!({
        "kind": kind, "detail": "timer", "cause": cause, "ts": 0, "dur": (dur * 1e6) as u64, "task_id": 7,
        "future": "app::serve", "extent": "exact", "function": "burn", "own_function": function, "own_source": source,
    });
    vec![serde_json::from_value(found).expect("a finding"); count]
}

/// Those of each place come evenly.
fn recording(seconds: u64, found: impl IntoIterator<Item = Vec<Found>>) -> Recording {
    let ns = seconds * 1_000_000_000;
    let evenly = |found: Vec<Found>| {
        let step = ns / found.len().max(1) as u64;
        found.into_iter().zip((0..).step_by(step as usize)).map(|(found, ts)| Found { ts, ..found })
    };
    Recording {
        found: found.into_iter().flat_map(evenly).collect(),
        futures: Vec::new(),
        span: Span::example(ns, ns),
        means: Means::default(),
    }
}

/// What becomes of `before`'s and `after`'s findings of one place, as counts and milliseconds, in ten seconds each.
fn told(before: (usize, f64), after: (usize, f64)) -> Verdict {
    let [before, after] = [before, after].map(|(count, dur)| {
        let found = found("long poll", "burn", "src/a.rs:1", count, dur);
        recording(10, [found])
    });
    let comparison = Comparison::new(&before, &after, THRESHOLD);
    comparison.places.first().map_or(Verdict::Same, |change| change.verdict)
}

#[test]
fn a_change_is_more_than_chance_and_not_small() {
    for (before, after, expected) in [
        ((100, 10.0), (200, 10.0), Verdict::Worse),
        ((100, 10.0), (50, 10.0), Verdict::Better),
        ((100, 10.0), (100, 30.0), Verdict::Worse),
        ((100, 10.0), (20, 50.0), Verdict::Same),
        ((0, 0.0), (9, 10.0), Verdict::Worse),
        ((9, 10.0), (0, 0.0), Verdict::Better),
        // Too few to tell.
        ((0, 0.0), (8, 10.0), Verdict::Same),
        ((4, 10.0), (8, 10.0), Verdict::Same),
        ((0, 0.0), (1, 900.0), Verdict::Same),
        // More than chance, but small.
        ((9000, 10.0), (12000, 10.0), Verdict::Same),
        // The others were there before, and a little shorter.
        ((100, 4.9), (100, 5.1), Verdict::Same),
        ((100, 3.0), (100, 5.1), Verdict::Worse),
    ] {
        assert_eq!(told(before, after), expected, "{before:?} and {after:?}");
    }
}

#[test]
fn what_comes_in_one_burst_is_no_change() {
    let mut burst = recording(10, [found("starved task", "", "", 60, 10.0)]);
    let none = recording(10, []);
    assert_eq!(Comparison::new(&none, &burst, THRESHOLD).count(Verdict::Worse), 1);
    burst.found.iter_mut().for_each(|found| found.ts = 7_000_000_000);
    assert_eq!(Comparison::new(&none, &burst, THRESHOLD).count(Verdict::Worse), 0);
}

#[test]
fn traces_may_differ_in_length() {
    let of = |count| found("long poll", "burn", "src/a.rs:1", count, 10.0);
    let comparison = Comparison::new(&recording(10, [of(50)]), &recording(60, [of(300)]), THRESHOLD);
    assert_eq!(comparison.places[0].verdict, Verdict::Same);
    let comparison = Comparison::new(&recording(10, [of(50)]), &recording(60, [of(50)]), THRESHOLD);
    assert_eq!(comparison.places[0].verdict, Verdict::Better);
    let after = comparison.places[0].after.as_ref().expect("a side");
    assert_eq!((after.count, after.total_ns), (50, 500_000_000));
}

#[test]
fn that_nothing_was_seen_in_little_time_is_no_change() {
    let some = recording(10, [found("long poll", "burn", "src/a.rs:1", 60, 10.0)]);
    for (observed_ms, expected) in [(400, Verdict::Same), (5_000, Verdict::Better)] {
        let mut none = recording(10, []);
        none.span.observed_ns = observed_ms * 1_000_000;
        let told = |before, after| Comparison::new(before, after, THRESHOLD).places[0].verdict;
        assert_eq!(told(&some, &none), expected, "{observed_ms} ms");
        assert_eq!(told(&none, &some), if expected == Verdict::Same { expected } else { Verdict::Worse });
    }
}

#[test]
fn a_place_is_the_same_wherever_its_line_and_its_sources_are() {
    let before = found("long poll", "{closure#1}", "/home/a/src/work.rs:10", 50, 10.0);
    let after = found("long poll", "{closure#2}", "/builds/7/src/work.rs:90", 50, 10.0);
    let comparison = Comparison::new(&recording(10, [before]), &recording(10, [after]), THRESHOLD);
    assert_eq!((comparison.places.len(), comparison.count(Verdict::Same)), (1, 1));
    for (name, expected) in [
        ("src/main.rs:66 | src/main.rs:217", "src/main.rs | src/main.rs"),
        ("app::serve::{async_fn#0}<[u8; 8]>", "app::serve::{async_fn}<[u8; 8]>"),
        ("vtable 0x80000", "vtable 0"),
        ("app::r#type::max8", "app::r#type::max8"),
        ("ü:", "ü:"),
    ] {
        assert_eq!(place::in_every_build(name), expected);
    }
}

#[test]
fn polls_that_only_samples_tell_of_are_not_counted_beside_exact_ones() {
    let at_least = || Some("at least".to_owned());
    let long = Found { extent: at_least(), ..found("long poll", "burn", "src/a.rs:1", 1, 10.0).remove(0) };
    // It is of more than one poll.
    let convoy = Found { extent: None, poll_extent: at_least(), ..found("lock convoy", "", "", 1, 10.0).remove(0) };
    for of in [long, convoy] {
        let mut sampled = recording(10, [vec![of]]);
        let none = recording(10, []);
        assert_eq!(Comparison::new(&sampled, &none, THRESHOLD).places.len(), 0);
        sampled.span.has_probes = false;
        assert_eq!(Comparison::new(&sampled, &none, THRESHOLD).places.len(), 1);
    }
}

#[test]
fn what_one_trace_could_not_have_told_is_neither_new_nor_gone() {
    let starving =
        || recording(10, [found("starved task", "", "", 60, 10.0), found("long poll", "burn", "a.rs:1", 9, 9.0)]);
    let mut blind = recording(10, [found("long poll", "burn", "a.rs:1", 9, 9.0)]);
    blind.means = Means::default().without(&[Mean::Wakes]);
    for (before, after, which, counts) in
        [(&blind, &starving(), "before", "0 → 60"), (&starving(), &blind, "after", "60 → 0")]
    {
        let comparison = Comparison::new(before, after, THRESHOLD);
        let verdicts: Vec<(&str, Verdict)> =
            comparison.places.iter().map(|change| (&*change.place.kind, change.verdict)).collect();
        assert_eq!(verdicts, [("long poll", Verdict::Same), ("starved task", Verdict::NotObserved)]);
        let told = comparison.to_string();
        let expected = format!("  starved task: {counts} × in 1 place; {which} has no wakes of tasks\n");
        assert!(told.contains(&expected) && !told.contains("new") && !told.contains("gone"), "{told}");
        let json = serde_json::to_value(&comparison).expect("JSON");
        assert_eq!(json["places"][1]["verdict"], "not observed");
        assert_eq!(json["places"][1]["lacking"], format!("{which} has no wakes of tasks"));
        assert_eq!(json[which]["means"]["wakes"], false);
    }
    let comparison = Comparison::new(&recording(10, []), &starving(), THRESHOLD);
    assert_eq!(comparison.count(Verdict::Worse), 2, "that nothing was there is known");
}

#[test]
fn which_polls_are_compared_is_said() {
    let polls = |future: &str| {
        let (future, name) = (future.to_owned(), future.to_owned());
        vec![Polls { future, name, written_at: None, polls: 90, total_ns: 9, p50_ns: 9, p99_ns: 9, longest_ns: 9 }]
    };
    let of = |polls_found, has_probes, future| {
        let mut recording = Recording { futures: polls(future), ..recording(10, []) };
        (recording.span.polls_found, recording.span.has_probes) = (polls_found, has_probes);
        if !has_probes {
            recording.means = Means::default().without(&[Mean::Probes]);
        }
        recording
    };
    let [whole, some] = [0, 4].map(|polls_found| of(polls_found, true, "app::serve"));
    let [sampled, renamed] = [(false, "app::serve"), (true, "src/main.rs:7")].map(|(probes, name)| of(7, probes, name));
    let left_out = |before, after| {
        format!(
            "those that probes told from begin to end; left out are {before} before and {after} after that are only known to \
             have lasted at least as long"
        )
    };
    let [by_probes, all] = ["those that probes told from begin to end", "all polls, by what changed most:"];
    let lacks = "since after has polls by samples and switches alone";
    for (before, after, compared, header, table) in [
        (&whole, &whole, "exact", by_probes.to_owned(), all),
        (&some, &whole, "exact", left_out(4, 0), all),
        (
            &sampled,
            &sampled,
            "at least",
            "those of which samples and switches tell that they lasted at least as long; starved tasks are not known"
                .to_owned(),
            "polls of which samples and switches tell, by what changed most:",
        ),
        (&whole, &sampled, "none", format!("none are compared, {lacks}"), &format!("all polls: not compared, {lacks}")),
        (
            &whole,
            &renamed,
            "exact",
            left_out(0, 7),
            "all polls: not compared, since no future has the same name in both",
        ),
    ] {
        let comparison = Comparison::new(before, after, THRESHOLD);
        let told = comparison.to_string();
        let lines: Vec<&str> = told.lines().collect();
        assert_eq!(lines[2], format!("polls:  {header}"));
        assert!(lines.contains(&table), "{told}");
        assert_eq!(serde_json::to_value(&comparison).expect("JSON")["polls_compared"], compared);
    }
}

#[test]
fn of_a_trace_that_could_not_have_told_any_poll_that_is_said() {
    let mut none = recording(10, []);
    (none.means, none.span.has_probes) = (Means::default().without(&[Mean::Polls, Mean::Probes]), false);
    let some = recording(10, [found("long poll", "burn", "a.rs:1", 90, 9.0)]);
    let comparison = Comparison::new(&none, &some, THRESHOLD);
    assert_eq!(comparison.count(Verdict::NotObserved), 1);
    let told = comparison.to_string();
    assert!(told.starts_with("before: 10.0 s, no poll told\n") && told.contains("before has no polls\n"), "{told}");
}

#[test]
fn what_tells_of_the_machine_stands_apart() {
    let sum = |count| {
        [found("preempted in poll", "burn", "a.rs:1", 3 * count, 9.0), found("long poll", "burn", "a.rs:1", count, 9.0)]
    };
    let comparison = Comparison::new(&recording(10, sum(20)), &recording(10, sum(90)), THRESHOLD);
    let told = comparison.to_string();
    let headings: Vec<&str> = told.lines().filter(|line| line.ends_with(':') && !line.starts_with(' ')).collect();
    assert_eq!(headings, ["worse:", "of the machine, since other threads had the CPUs meanwhile, worse:"]);
    let json = serde_json::to_value(&comparison).expect("JSON");
    let causes: Vec<&str> =
        json["places"].as_array().expect("a list").iter().filter_map(|of| of["cause"].as_str()).collect();
    assert_eq!(causes, ["program", "machine"]);
}

#[test]
fn tasks_that_starve_for_the_program_and_for_the_machine_are_two_places() {
    let starved = |cause: &str, count| {
        let all = found("starved task", "", "", count, 9.0);
        let of_cause = |of| Found { cause: cause.to_owned(), own_function: None, own_source: None, ..of };
        all.into_iter().map(of_cause).collect()
    };
    let both = |of_program, of_machine| recording(10, [starved("program", of_program), starved("machine", of_machine)]);
    let comparison = Comparison::new(&both(40, 20), &both(40, 90), THRESHOLD);
    let told: Vec<_> = comparison.places.iter().map(|of| (of.cause, of.verdict)).collect();
    assert_eq!(told, [("program", Verdict::Same), ("machine", Verdict::Worse)]);
    let told = comparison.to_string();
    assert!(told.contains(&format!("{OF_MACHINE}, worse:\n  starved task, app::serve\n      20 → 90 ×")), "{told}");
    let told = Comparison::new(&both(4, 0), &both(0, 4), THRESHOLD).to_string();
    let [gone, new] = ["gone", "new"].map(|mark| format!(" too few to tell:\n  {mark}: starved task"));
    let of_machine = format!("{OF_MACHINE}, new or gone, but{new}");
    assert!(told.contains(&gone) && told.contains(&of_machine), "{told}");
}

#[test]
fn where_one_trace_has_no_functions_places_are_told_by_kind_and_future() {
    let before = recording(
        10,
        [found("long poll", "burn", "src/a.rs:1", 20, 10.0), found("long poll", "hash", "src/b.rs:1", 30, 10.0)],
    );
    let mut after = recording(10, [found("long poll", "", "", 50, 10.0)]);
    after.found.iter_mut().for_each(|found| (found.own_function, found.own_source) = (None, None));
    let comparison = Comparison::new(&before, &after, THRESHOLD);
    assert_eq!((comparison.places.len(), comparison.count(Verdict::Same)), (1, 1));
    let told = comparison.to_string();
    let expected = "after, no functions of the program's own are known, as of a stripped program: places are told by kind and \
                    future alone\n";
    assert!(told.contains(expected), "{told}");
    after.found.iter_mut().for_each(|found| found.future = "src/main.rs:7".to_owned());
    let comparison = Comparison::new(&before, &after, THRESHOLD);
    assert_eq!((comparison.places.len(), comparison.count(Verdict::Same)), (1, 1));
    let told = comparison.to_string();
    let nothing = recording(10, []);
    assert_eq!(Comparison::new(&nothing, &after, THRESHOLD).told_by, ToldBy::Future);
    let expected = "stripped program, and no future has the same name in both: places are told by kind alone\n";
    assert!(told.contains(expected), "{told}");
}

/// Findings of a future of which no functions are known.
fn nameless(future: &str, written_at: Option<&str>, count: usize) -> Vec<Found> {
    let of_future = |of| Found {
        future: future.to_owned(),
        written_at: written_at.map(str::to_owned),
        own_function: None,
        own_source: None,
        ..of
    };
    found("long poll", "", "", count, 10.0).into_iter().map(of_future).collect()
}

#[test]
fn where_one_trace_has_lines_for_names_futures_are_told_by_these() {
    let of = |future: &str, line: &str, count| {
        let all = found("long poll", "burn", "src/a.rs:1", count, 10.0);
        let written_at = || Some(line.to_owned());
        all.into_iter().map(|of| Found { future: future.to_owned(), written_at: written_at(), ..of }).collect()
    };
    let named = |first, second| {
        let third = nameless("app::h | app::i", None, 30);
        recording(
            10,
            [of("app::f", "/home/a/src/main.rs:7", first), of("app::g", "/home/a/src/main.rs:9", second), third],
        )
    };
    let stripped = |first, second| {
        let line = |line, count| nameless(line, Some(line), count);
        let third = nameless("src/main.rs:20 | src/main.rs:30", None, 31);
        recording(10, [line("src/main.rs:7", first), line("src/main.rs:9", second), third])
    };
    for (before, after, which) in
        [(named(20, 90), stripped(90, 20), "after"), (stripped(20, 90), named(90, 20), "before")]
    {
        let comparison = Comparison::new(&before, &after, THRESHOLD);
        let futures: Vec<_> = comparison.places.iter().map(|of| (of.verdict, of.future.as_deref())).collect();
        assert_eq!(
            futures,
            [(Verdict::Worse, Some("app::f")), (Verdict::Better, Some("app::g")), (Verdict::Same, None)]
        );
        let told = comparison.to_string();
        let expected =
            format!("\n{which}, no functions of the program's own are known, as of a stripped program: places are");
        assert!(told.contains(&expected) && told.contains("by the line where that is written"), "{told}");
        assert!(told.contains("long poll, app::f, written at src/main.rs:7\n      20 → 90 ×"), "{told}");
        assert!(!told.contains("new") && !told.contains("gone"), "{told}");
        assert_eq!(serde_json::to_value(&comparison).expect("JSON")["told_by"], "line");
    }
    let polls = |future: &str, line: &str, total_ns| {
        let (future, name, written_at) = (future.to_owned(), future.to_owned(), Some(line.to_owned()));
        Polls { future, name, written_at, polls: 90, total_ns, p50_ns: 9, p99_ns: 9, longest_ns: 9 }
    };
    let before = Recording { futures: vec![polls("app::f", "/home/a/src/main.rs:7", 9)], ..recording(10, []) };
    let after = Recording { futures: vec![polls("src/main.rs:7", "src/main.rs:7", 9)], ..recording(10, []) };
    let told = Comparison::new(&before, &after, THRESHOLD).to_string();
    assert!(told.lines().any(|line| line.contains("9.0 → 9.0") && line.ends_with("  app::f")), "{told}");
    let types = vec![polls("app::f<A>", "src/main.rs:7", 9), polls("app::f<B>", "src/main.rs:7", 9)];
    let before = Recording { futures: types, ..recording(10, []) };
    let told = Comparison::new(&before, &after, THRESHOLD).to_string();
    assert!(told.contains("all polls: not compared"), "polls of one type are not those of both: {told}");
}

#[test]
fn where_functions_are_not_known_is_said_by_callstacks_alone() {
    let known = recording(10, [found("long poll", "burn", "src/a.rs:1", 20, 10.0)]);
    let mut starved = recording(10, [found("starved task", "", "", 20, 10.0)]);
    let no_callstack = |of: &mut Found| (of.function, of.own_function, of.own_source) = (None, None, None);
    starved.found.iter_mut().for_each(no_callstack);
    assert_eq!(Comparison::new(&known, &starved, THRESHOLD).told_by, ToldBy::Function);
    let mut without_lines = recording(10, [found("long poll", "burn", "", 20, 10.0)]);
    without_lines.found.iter_mut().for_each(|of| of.own_source = None);
    for (before, after, which) in [
        (&known, &without_lines, "after"),
        (&without_lines, &known, "before"),
        (&without_lines, &without_lines, "before and after"),
    ] {
        let comparison = Comparison::new(before, after, THRESHOLD);
        let expected = format!("\n{which}, lines are not known: places are told without their files\n");
        assert!(comparison.to_string().contains(&expected), "{comparison}");
    }
}

#[test]
fn what_is_in_no_code_of_the_program_s_own_is_one_place_by_what_it_is_about_or_by_its_crate() {
    let of_crate = |krate: &str, category: Option<&str>, count| {
        let mut all = found("long poll", "", "", count, 10.0);
        for of in &mut all {
            (of.own_function, of.own_source) = (None, None);
            (of.krate, of.category) = (Some(krate.to_owned()), category.map(str::to_owned));
        }
        all
    };
    let own = || found("long poll", "burn", "src/a.rs:1", 20, 10.0);
    let compression = Some("compression");
    let before = [own(), of_crate("flate2", compression, 40), of_crate("colours", None, 10)];
    let after = [own(), of_crate("miniz_oxide", compression, 40), of_crate("colours", None, 90)];
    let comparison = Comparison::new(&recording(10, before), &recording(10, after), THRESHOLD);
    let told: Vec<_> = comparison.places.iter().map(|of| (of.verdict, of.krate.as_deref())).collect();
    assert_eq!(told[0], (Verdict::Worse, Some("colours")));
    assert!(told[1..].contains(&(Verdict::Same, Some("miniz_oxide"))) && told.len() == 3, "{told:?}");
    let expected = "  long poll, app::serve, in no code of the program's own; mostly in colours\n";
    assert!(comparison.to_string().contains(expected), "{comparison}");
}

#[test]
fn what_got_worse_is_told_first_and_what_is_new_or_gone_is_marked() {
    let sleep = |count| found("slept in poll", "sleep", "src/s.rs:3", count, 8.0);
    let before = recording(
        10,
        [
            found("long poll", "burn", "src/a.rs:1", 20, 10.0),
            found("long poll", "less", "src/b.rs:1", 90, 10.0),
            found("long poll", "rare", "src/c.rs:1", 2, 10.0),
            sleep(60),
        ],
    );
    let after = recording(
        10,
        [
            found("long poll", "burn", "src/a.rs:2", 90, 10.0),
            found("long poll", "added", "src/d.rs:1", 30, 20.0),
            sleep(61),
        ],
    );
    let comparison = Comparison::new(&before, &after, THRESHOLD);
    let told = comparison.to_string();
    let lines: Vec<&str> = told.lines().map(str::trim).collect();
    assert_eq!(
        lines,
        [
            "before: 10.0 s, polls observed for 10.0 s of it",
            "after:  10.0 s, polls observed for 10.0 s of it",
            "polls:  those that probes told from begin to end",
            "",
            "worse:",
            "long poll, app::serve, in burn at src/a.rs:2",
            "20 → 90 × up to 10.0 → 10.0 ms; 2.00 → 9.00 a second; 20.0 → 90.0 ms of each second: 4.50 ×",
            "new: long poll, app::serve, in added at src/d.rs:1",
            "30 × up to 20.0 ms; 3.00 a second; 60.0 ms of each second",
            "",
            "better:",
            "gone: long poll, app::serve, in less at src/b.rs:1",
            "90 × up to 10.0 ms; 9.00 a second; 90.0 ms of each second",
            "",
            "no clear change in 2 places",
            "of which are new or gone, but too few to tell:",
            "gone: long poll, app::serve, in rare at src/c.rs:1",
            "2 × up to 10.0 ms; 0.20 a second; 2.0 ms of each second",
        ]
    );
    let json = serde_json::to_value(&comparison).expect("JSON");
    let verdicts: Vec<&str> =
        json["places"].as_array().expect("a list").iter().filter_map(|change| change["verdict"].as_str()).collect();
    assert_eq!(verdicts, ["worse", "worse", "better", "same", "same"]);
    assert_eq!(json["places"][1]["before"], serde_json::Value::Null);
    assert_eq!(json["places"][0]["after"]["source"], "src/a.rs:2");
}
