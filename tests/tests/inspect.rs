//! `polletto tasks`, beside what a program says of its own tasks.
//!
//! These scenarios need root and a kernel that takes BPF programs. They fail where it does not.

use std::{collections::BTreeMap, path::Path, process::Command, thread, time::Duration};

use polletto_tests::{
    awaiting::{self, Waiting},
    program,
    program::Program,
    recorder::{Record, polletto},
    served::Server,
    trace::{Event, Trace, Value as Argument},
    turn::Turn,
};
use serde_json::Value;

/// Tasks that the program has at least.
const TASKS: usize = 10_000;

/// What `polletto tasks` prints.
fn asked(program: &Program, arguments: &[&str]) -> String {
    told_of(&program.pid().to_string(), arguments)
}

fn told_of(process: &str, arguments: &[&str]) -> String {
    let mut command = Command::new(polletto());
    command.args(["tasks", "-p", process]).args(arguments);
    let output = command.output().expect("polletto starts");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}: {errors}", output.status);
    String::from_utf8(output.stdout).expect("text")
}

fn listed(program: &Program, arguments: &[&str]) -> Value {
    let printed = asked(program, &[arguments, &["--json"]].concat());
    serde_json::from_str(&printed).unwrap_or_else(|error| panic!("{error}: {printed}"))
}

fn tasks(listed: &Value) -> &Vec<Value> {
    listed["tasks"].as_array().expect("a list")
}

#[test]
fn every_task_is_listed_once_with_what_it_says_that_it_waits_for() {
    let _turn = Turn::with_others();
    let program = Program::start(&awaiting::program(), &["--tasks", &TASKS.to_string()]);
    let began = std::time::Instant::now();
    let listed = listed(&program, &[]);
    println!("{} tasks: {:?}, of which memory was read for {} ms", TASKS, began.elapsed(), listed["took_ms"]);
    let grouped = asked(&program, &[]);
    let truth: Vec<Waiting> = program.truth().iter().map(Waiting::read).collect();
    assert!(truth.len() >= TASKS);
    assert!(listed["no_awaits"].is_null() && listed["lists_given_up"] == 0 && listed["cut_short"] == false);
    let by_id: BTreeMap<u64, &Value> =
        tasks(&listed).iter().map(|task| (task["id"].as_u64().expect("an id"), task)).collect();
    assert_eq!(by_id.len(), tasks(&listed).len(), "some are listed twice");
    assert_eq!(by_id.len(), truth.len());
    for told in &truth {
        let task = by_id.get(&told.id).unwrap_or_else(|| panic!("{told:?} is not listed"));
        assert_eq!(task["state"], "idle", "{task}");
        let awaits = task["awaits"].as_array().expect("a list");
        let what = |at: &Value| at["what"].as_str().expect("a name").to_owned();
        let own: Vec<(String, u64)> = awaits
            .iter()
            .filter_map(|at| Some((what(at).strip_prefix("awaiting::")?.to_owned(), at["line"].as_u64()?)))
            .collect();
        assert_eq!(own, told.chain, "{task}");
        assert_eq!(awaits.last().map(what), Some(told.waits_for.clone()), "{task}");
        assert!(awaits[0]["file"].as_str().is_some_and(|file| file.ends_with("tests/awaiting/src/main.rs")), "{task}");
    }
    // Those that are alike are told together.
    assert!(grouped.lines().count() < 200, "{grouped}");
    assert!(grouped.contains("tokio::sync::batch_semaphore::Acquire"), "{grouped}");
}

/// What `truth` says in the words of a trace's chain, without files.
fn assert_chain(awaits: &str, truth: &Waiting) {
    let steps: Vec<&str> = awaits.split(" → ").collect();
    let own = |step: &&str| {
        let (function, place) = step.strip_prefix("awaiting::")?.split_once(" (")?;
        let (_, line) = place.trim_end_matches(')').rsplit_once(':')?;
        Some((function.to_owned(), line.parse::<u64>().ok()?))
    };
    assert_eq!(steps.iter().filter_map(own).collect::<Vec<_>>(), truth.chain, "{awaits}");
    // Behind it, it may say why no more is known.
    let last = steps.last().and_then(|step| step.split(" (").next());
    assert_eq!(last, Some(&*truth.waits_for), "{awaits}");
}

#[test]
fn a_recording_has_what_every_task_waits_for_while_it_lasts_and_when_it_ends() {
    let _turn = Turn::with_others();
    let program = Program::start(&awaiting::program(), &["--tasks", "500"]);
    let record = || Record::new().process(program.pid());
    let often = record().arguments(["--await-stacks", "10"]).start();
    thread::sleep(Duration::from_secs(3));
    let often = often.stop().expect_success();
    let at_the_end = record().arguments(["-d", "1"]).start().wait().expect_success();
    let never = record().arguments(["-d", "1", "--await-stacks", "never"]).start().wait().expect_success();
    let truth: Vec<Waiting> = program.truth().iter().map(Waiting::read).collect();
    let of_category = |trace: &Trace, category: &str| -> BTreeMap<i128, Event> {
        let events = trace.events.iter().filter(|event| event.categories.iter().any(|of| of == category));
        let id = |event: &Event| match event.arguments["task_id"] {
            Argument::Integer(id) => id,
            ref other => panic!("{other:?}"),
        };
        events.filter(|event| event.arguments.contains_key("task_id")).map(|event| (id(event), event.clone())).collect()
    };
    for (outcome, is_often) in [(&often, true), (&at_the_end, false)] {
        let trace = outcome.trace();
        let (tasks, awaits) = (of_category(&trace, "task"), of_category(&trace, "await"));
        assert_eq!((tasks.len(), awaits.len()), (truth.len(), if is_often { truth.len() } else { 0 }));
        for told in &truth {
            let id = i128::from(told.id);
            let of_task = [Some(&tasks[&id]), awaits.get(&id)];
            for event in of_task.into_iter().flatten() {
                let Argument::Text(chain) = &event.arguments["awaits"] else { panic!("{event:?}") };
                assert_chain(chain, told);
                assert_eq!(event.arguments["waits_for"], Argument::Text(told.waits_for.clone()));
            }
            assert_eq!(tasks[&id].arguments["end"], Argument::Text("alive".to_owned()));
        }
        let told = &outcome.summary()["awaits"];
        assert_eq!((told["tasks"].as_u64(), &told["refused"]), (Some(truth.len() as u64), &Value::Array(Vec::new())));
        assert_eq!(told["looks"].as_u64().is_some_and(|looks| looks > 2), is_often, "{told}");
    }
    assert!(never.summary()["awaits"].is_null());
    assert!(of_category(&never.trace(), "task").values().all(|task| !task.arguments.contains_key("awaits")));
}

#[test]
fn without_debug_information_every_task_is_listed_and_it_is_said_what_is_missing() {
    let _turn = Turn::with_others();
    let program = Program::start(program!("many-tasks"), &["--tasks", "1000"]);
    let listed = listed(&program, &[]);
    assert_eq!((tasks(&listed).len(), listed["runtimes"].as_u64()), (1007, Some(2)));
    assert!(listed["no_awaits"].as_str().is_some_and(|reason| reason.contains("debug = true")), "{listed}");
    let is_named = |task: &&Value, name: &str| task["future"].as_str().is_some_and(|of| of.contains(name));
    let named = |name: &str| tasks(&listed).iter().filter(|task| is_named(task, name)).count();
    assert_eq!((named("waits_for_news"), named("sleeps_for_long")), (500, 507));
    assert!(asked(&program, &[]).contains("what they wait for is not known"));
    assert_eq!(tasks(&self::listed(&program, &["--no-awaits"])).len(), 1007);
}

/// Of an async function that awaits another, the compiler may make one.
#[test]
fn a_task_has_the_line_where_it_is_written_or_the_reason_why_not() {
    let _turn = Turn::with_others();
    let server = Server::demo(program!("demo-server"), &[]);
    server.asked(program!("demo-load"), &["--mix", "ok=1,hang=9", "--rate", "40"], 1);
    let process = server.pid().to_string();
    let listed: Value = serde_json::from_str(&told_of(&process, &["--json"])).expect("JSON");
    let is_hanging = |task: &&Value| task["future"].as_str().is_some_and(|of| of.contains("hang::settle"));
    assert!(tasks(&listed).iter().any(|task| is_hanging(&task)), "{listed:#}");
    for task in tasks(&listed) {
        assert!(task["written_at"].is_null() != task["no_line_for"].is_null(), "{task:#}");
    }
    let told = told_of(&process, &[]);
    for reason in tasks(&listed).iter().filter_map(|task| task["no_line_for"].as_str()) {
        assert!(told.contains(&format!("  (no line: {reason})")), "{told}");
    }
}

#[test]
fn what_has_no_tasks_is_an_error_that_says_so() {
    let _turn = Turn::with_others();
    let program = Program::start(program!("spinner"), &[]);
    let told = |arguments: &[&str]| {
        let output = Command::new(polletto()).arg("tasks").args(arguments).output().expect("polletto starts");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (code, errors) = told(&["-p", &program.pid().to_string()]);
    assert!(code == Some(1) && errors.contains("has no tasks of Tokio's"), "{errors}");
    let (code, errors) = told(&["-p", "2147483646"]);
    assert!(code == Some(1) && errors.contains("2147483646"), "{errors}");
    let (code, errors) = told(&["no-program-has-this-name"]);
    assert!(code == Some(2) && errors.contains("no-program-has-this-name"), "{errors}");
    assert!(Path::new(&format!("/proc/{}", program.pid())).exists());
}
