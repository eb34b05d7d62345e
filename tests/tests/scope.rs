//! What is recorded, and what is nobody's business.
//!
//! These scenarios need root and a kernel that takes BPF programs. They fail where it does not.

use std::process::Command;

use polletto_tests::{
    program,
    program::{DEADLINE, Guard, Program, until},
    recorder::{Outcome, Record},
    trace::{FIRST_PSEUDO_TID, Slice, Trace},
    turn::Turn,
};

/// A process of its own, which renames itself so that nothing else can carry its name, and works on both CPUs.
struct Stranger(Program);

impl Stranger {
    const NAME: &str = "stranger-7c1f";

    fn start() -> Stranger {
        let mut program = Program::start(
            program!("shape-shifter"),
            &["wait", "exec", Stranger::NAME, "thread", Stranger::NAME, "spin", "60000"],
        );
        program.begin();
        program.wait_for("spin");
        Stranger(program)
    }
}

/// A ring of two threads, recorded as a whole while a stranger works beside it.
fn recorded_beside(stranger: &Stranger, record: impl FnOnce(&Program, Record) -> Record) -> (Outcome, Trace, i32) {
    assert_ne!(stranger.0.pid(), 0);
    let mut ring = Program::start(program!("token-ring"), &["--threads", "2", "--rounds", "100"]);
    let recording = record(&ring, Record::new()).start();
    ring.begin();
    ring.wait_for("done");
    let outcome = recording.stop().expect_success();
    let trace = outcome.trace();
    (outcome, trace, ring.pid())
}

fn slices_of(trace: &Trace, tid: i32) -> impl Iterator<Item = &Slice> {
    trace.slices.iter().filter(move |slice| slice.tid == tid)
}

#[test]
fn a_recording_of_one_process_names_no_other() {
    let _turn = Turn::with_others();
    let stranger = Stranger::start();
    let (_, trace, pid) = recorded_beside(&stranger, |ring, record| record.process(ring.pid()));
    assert!(!trace.mentions(Stranger::NAME), "another program's name is in the trace");
    let own = |tid: i32| trace.tasks.threads.get(&tid).is_some_and(|thread| thread.process == Some(pid));
    for slice in &trace.slices {
        assert!(
            slice.tid == 0 || slice.tid >= FIRST_PSEUDO_TID || own(slice.tid),
            "thread {} is none of ours, and is in the trace by its id",
            slice.tid
        );
    }
    assert_eq!(slices_of(&trace, stranger.0.pid()).count(), 0);
    for tid in trace.tasks.threads.keys().filter(|tid| **tid >= FIRST_PSEUDO_TID) {
        // Their process has an id too, and no thread of its own.
        assert!(trace.tasks.threads[tid].names.iter().all(|name| name == "other"), "{:?}", trace.tasks.threads[tid]);
    }
    let others = trace.slices.iter().filter(|slice| slice.tid >= FIRST_PSEUDO_TID).count();
    assert!(others > 0, "that something else ran is missing, so its CPU looks idle");
}

#[test]
fn a_recording_of_the_system_names_everybody() {
    let _turn = Turn::with_others();
    let stranger = Stranger::start();
    let (_, trace, pid) = recorded_beside(&stranger, |_, record| record.arguments(["--system"]));
    for (tid, name) in [(stranger.0.pid(), Stranger::NAME), (pid, "token-ring")] {
        assert!(trace.tasks.named(name).contains(&tid), "{name} is not named");
        assert!(trace.tasks.processes.contains_key(&tid), "{name} is no process");
    }
    assert!(slices_of(&trace, stranger.0.pid()).count() > 0);
    let names: Vec<_> = trace.tasks.of_process(pid).flat_map(|(_, thread)| &thread.names).collect();
    assert!(names.iter().any(|name| *name == "ring-1"), "{names:?}");
    assert!(trace.tasks.named("other").is_empty());
}

#[test]
fn threads_that_lived_before_and_those_that_start_later_are_all_there() {
    let _turn = Turn::with_others();
    let mut shifter = Program::start(
        program!("shape-shifter"),
        &["thread", "shape-early", "sleep", "60", "wait", "thread", "shape-late", "rename", "shape-new", "sleep", "60"],
    );
    let recording = Record::new().process(shifter.pid()).start();
    shifter.begin();
    let outcome = recording.wait().expect_success();
    let trace = outcome.trace();
    let late = trace.tasks.named("shape-late");
    assert_eq!(late.len(), 1, "the thread that started while recording");
    let ran = trace.thread(late[0]).ran_within(&(0..u64::MAX));
    assert!(ran > 15_000_000, "it spun for 20 ms, and {ran} ns are in the trace");
    let names = &trace.tasks.threads[&shifter.pid()].names;
    assert!(names.iter().any(|name| name == "shape-new"), "a new name is missing: {names:?}");
}

#[test]
fn children_are_recorded_only_when_followed() {
    let _turn = Turn::with_others();
    for follow in [true, false] {
        let mut shifter = Program::start(
            program!("shape-shifter"),
            &["wait", "fork", "rename", "child-5e2a", "spin", "30", "join", "sleep", "20"],
        );
        let recording = Record::new().process(shifter.pid()).arguments(follow.then_some("--follow")).start();
        shifter.begin();
        let outcome = recording.wait().expect_success();
        let trace = outcome.trace();
        // Its name stands on its parent's command line, so looking for the text alone would not do.
        assert_eq!(trace.tasks.named("child-5e2a").len(), usize::from(follow), "--follow: {follow}");
        if follow {
            let child = trace.tasks.named("child-5e2a")[0];
            assert_eq!(trace.tasks.processes[&child].parent, Some(shifter.pid()));
            assert!(trace.thread(child).ran_within(&(0..u64::MAX)) > 25_000_000);
        }
    }
}

#[test]
fn a_child_is_one_process_also_when_it_replaces_its_program() {
    let _turn = Turn::with_others();
    let script = "for i in 1 2 3 4 5 6 7 8; do sleep 0.01; done";
    let outcome = Record::new().arguments(["--follow", "--", "sh", "-c", script]).run().expect_success();
    assert_eq!(outcome.trace().tasks.named("sleep").len(), 8);
    let twice = "select pid, count(*) from process group by pid having count(*) > 1";
    assert_eq!(outcome.sql(twice).unwrap_or_default(), Vec::<Vec<String>>::new());
}

#[test]
fn followed_children_are_recorded_to_their_end() {
    let _turn = Turn::with_others();
    let outcome = Record::new().arguments(["--follow", "--", "sh", "-c", "sleep 0.5 & exit 3"]).run();
    assert_eq!(outcome.status.code(), Some(3), "{}", outcome.stderr);
    assert!(outcome.summary()["seconds"].as_f64().is_some_and(|seconds| seconds >= 0.5), "{}", outcome.stdout);
    outcome.trace();
}

#[test]
fn following_on_one_cpu_ends_though_threads_end_on_another() {
    let _turn = Turn::with_others();
    let command = ["--cpu", "1", "--follow", "--", "taskset", "-c", "0", "sleep", "0.1"];
    Record::new().arguments(command).run().expect_success().trace();
}

#[test]
fn children_that_run_already_are_followed_too() {
    let _turn = Turn::with_others();
    let parent = Guard::start(Command::new("sh").args(["-c", "sleep 1 & wait"]));
    let children = format!("/proc/{0}/task/{0}/children", parent.pid());
    until(DEADLINE, "the shell starts its child", || {
        std::fs::read_to_string(&children).ok().filter(|children| !children.is_empty())
    });
    let outcome = Record::new().process(parent.pid()).arguments(["--follow"]).run().expect_success();
    assert_eq!(outcome.trace().tasks.named("sleep").len(), 1);
}

#[test]
fn one_thread_alone_can_be_recorded() {
    let _turn = Turn::with_others();
    let mut ring = Program::start(program!("token-ring"), &["--threads", "2", "--rounds", "100"]);
    let threads: Vec<i32> = std::fs::read_dir(format!("/proc/{}/task", ring.pid()))
        .expect("it lives")
        .map(|entry| entry.expect("it lives").file_name().into_string().expect("digits").parse().expect("digits"))
        .collect();
    let comm = |tid: &&i32| {
        let comm = std::fs::read_to_string(format!("/proc/{}/task/{tid}/comm", ring.pid())).expect("it lives");
        comm.trim() == "ring-1"
    };
    let wanted = *threads.iter().find(comm).expect("there is a second thread");
    let recording = Record::new().arguments(["-t", &wanted.to_string()]).start();
    ring.begin();
    ring.wait_for("done");
    let outcome = recording.stop().expect_success();
    let trace = outcome.trace();
    assert!(slices_of(&trace, wanted).count() >= 100);
    for other in threads.iter().filter(|tid| **tid != wanted) {
        assert_eq!(slices_of(&trace, *other).count(), 0, "thread {other} was not asked for");
    }
}

/// Starts a program that gets this id, which is nobody's now.
fn start_with_id(pid: i32, arguments: &[&str]) -> Program {
    until(DEADLINE, "a process with an id that was another's", || {
        // The kernel counts on from there; somebody else may be faster.
        std::fs::write("/proc/sys/kernel/ns_last_pid", (pid - 1).to_string()).expect("the last id can be set");
        Some(Program::start(program!("shape-shifter"), arguments)).filter(|program| program.pid() == pid)
    })
}

#[test]
fn a_thread_that_has_ended_leaves_its_id_to_programs_that_are_not_recorded() {
    let _turn = Turn::with_others();
    let start = || Program::start(program!("shape-shifter"), &["wait", "spin", "20"]);
    let (mut ended, other) = (start(), start());
    let pid = ended.pid();
    let recording = Record::new().arguments(["-t", &pid.to_string(), "-t", &other.pid().to_string()]).start();
    ended.begin();
    assert!(ended.finish().0.success());
    let mut stranger = start_with_id(pid, &["wait", "rename", Stranger::NAME, "spin", "50"]);
    stranger.begin();
    assert!(stranger.finish().0.success());
    let trace = recording.stop().expect_success().trace();
    assert!(slices_of(&trace, pid).count() > 0, "it was recorded until it ended");
    assert!(!trace.mentions(Stranger::NAME), "another program's name is in the trace");
}

#[test]
fn any_number_of_threads_is_followed_one_after_the_other() {
    let _turn = Turn::with_others();
    let steps = ["wait", "threads", "17000", "thread", "the-last", "sleep", "50"];
    let mut shifter = Program::start(program!("shape-shifter"), &steps);
    let recording = Record::new().arguments(["--follow", "-t", &shifter.pid().to_string()]).start();
    shifter.begin();
    let outcome = recording.wait().expect_success();
    assert_eq!(outcome.summary()["processes_not_followed"], 0);
    assert_eq!(outcome.trace().tasks.named("the-last").len(), 1);
}

#[test]
fn a_thread_is_recorded_on_when_it_starts_another_program() {
    let _turn = Turn::with_others();
    let steps = ["wait", "exec-from-thread", "exec-ed", "spin", "20", "rename", "later"];
    let mut shifter = Program::start(program!("shape-shifter"), &steps);
    let recording = Record::new().arguments(["--follow", "-t", &shifter.pid().to_string()]).start();
    shifter.begin();
    let trace = recording.wait().expect_success().trace();
    assert_eq!(trace.tasks.named("later"), [shifter.pid()]);
}

#[test]
fn one_cpu_alone_can_be_recorded() {
    let _turn = Turn::with_others();
    let stranger = Stranger::start();
    let (_, trace, _) = recorded_beside(&stranger, |ring, record| record.process(ring.pid()).arguments(["--cpu", "1"]));
    assert!(trace.slices.iter().all(|slice| slice.cpu == 1), "another CPU is in the trace");
    assert!(slices_of(&trace, trace.tasks.named("ring-1")[0]).count() >= 100);
}

#[test]
fn several_processes_can_be_recorded_at_once() {
    let _turn = Turn::with_others();
    let mut rings = [0, 1].map(|_| Program::start(program!("token-ring"), &["--threads", "2", "--rounds", "50"]));
    let recording = Record::new().process(rings[0].pid()).process(rings[1].pid()).start();
    for ring in &mut rings {
        ring.begin();
        ring.wait_for("done");
    }
    let outcome = recording.stop().expect_success();
    let trace = outcome.trace();
    for ring in &rings {
        let names: Vec<_> = trace.tasks.of_process(ring.pid()).flat_map(|(_, thread)| &thread.names).collect();
        assert!(names.iter().any(|name| *name == "ring-1"), "{names:?}");
    }
}
