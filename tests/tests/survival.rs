//! Whatever ends a recording, its file opens and holds what was recorded until then.
//!
//! These scenarios need root and a kernel that takes BPF programs. They fail where it does not.

use std::{path::Path, thread, time::Duration};

use polletto_tests::{
    check, program,
    program::{DEADLINE, Program, until},
    recorder::Record,
    trace::{State, Tid, Trace},
    turn::Turn,
    workload::boottime,
};
use rustix::{
    mount::{MountFlags, UnmountFlags, mount, unmount},
    process::Signal,
};
use tempfile::TempDir;

/// What a recorder that is killed may take with it.
const LOST_AT_MOST_NS: u64 = 200_000_000;

/// A ring that goes on until it is stopped, with some thousand switches in a second.
fn endless_ring() -> Program {
    let mut ring = Program::start(
        program!("token-ring"),
        &["--threads", "2", "--rounds", "1000000", "--sleep-us", "200", "--spin-us", "50"],
    );
    ring.begin();
    ring
}

#[test]
fn killed_at_random_moments_it_leaves_all_but_the_last_moment() {
    let _turn = Turn::alone();
    let ring = endless_ring();
    for attempt in 1..=20 {
        let recording = Record::new().process(ring.pid()).start();
        thread::sleep(Duration::from_millis(fastrand::u64(0..700)));
        let killed = boottime();
        recording.signal(Signal::KILL);
        let outcome = recording.wait();
        let trace = outcome.trace();
        let last = trace.span().map(|(_, last)| last);
        let missing = killed.saturating_sub(last.unwrap_or_default());
        assert!(
            missing <= LOST_AT_MOST_NS || last.is_none() && first_moment(&outcome.output, killed),
            "attempt {attempt}: the last {} ms are missing",
            missing / 1_000_000
        );
    }
}

/// Whether the recording had lasted so short that it may hold nothing: its clocks were read just before.
fn first_moment(trace: &Path, killed: u64) -> bool {
    let begin = Trace::open(trace).clock_snapshots.first().and_then(|clocks| clocks.get(&6).copied());
    begin.is_none_or(|begin| killed - begin <= LOST_AT_MOST_NS)
}

/// A file system with little room.
struct SmallDisk(TempDir);

impl SmallDisk {
    fn mount(kibibytes: u32) -> SmallDisk {
        let directory = tempfile::tempdir().expect("a directory to mount on");
        let size = std::ffi::CString::new(format!("size={kibibytes}k")).expect("no zero in it");
        mount("polletto-small", directory.path(), "tmpfs", MountFlags::empty(), size.as_c_str())
            .expect("root may mount");
        SmallDisk(directory)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // A failure leaves a mount behind; a panic while panicking would hide why.
        if let Err(error) = unmount(self.0.path(), UnmountFlags::DETACH) {
            eprintln!("{}: {error}", self.0.path().display());
        }
    }
}

#[test]
fn a_full_disk_ends_the_recording_with_a_clear_message_and_a_file_that_opens() {
    let _turn = Turn::with_others();
    let disk = SmallDisk::mount(256);
    let output = disk.0.path().join("full.perfetto-trace");
    let mut storm = Program::start(program!("ping-pong"), &["--seconds", "20", "--wait"]);
    let recording = Record::to(output.clone(), tempfile::tempdir().expect("a directory")).process(storm.pid()).start();
    storm.begin();
    let outcome = recording.wait();
    assert!(!outcome.status.success(), "a recording without its end is a failure");
    assert!(outcome.stderr.contains("No space left on device"), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("full.perfetto-trace"), "{}", outcome.stderr);
    let trace = outcome.trace();
    assert!(trace.switches.len() > 1000, "only {} switches were kept", trace.switches.len());
}

#[test]
fn a_target_that_is_killed_ends_the_recording_well() {
    let _turn = Turn::with_others();
    let ring = endless_ring();
    let recording = Record::new().process(ring.pid()).start();
    thread::sleep(Duration::from_millis(100));
    let killed = boottime();
    ring.signal(Signal::KILL);
    let outcome = recording.wait_at_most(Duration::from_secs(5)).expect_success();
    let trace = outcome.trace();
    let (_, last) = trace.span().expect("it holds switches");
    assert!(last + 50_000_000 > killed, "the end is missing");
    for tid in trace.tasks.of_process(ring.pid()).map(|(tid, _)| tid) {
        let last = trace.thread(tid).iter().last().map(|interval| interval.state);
        assert!(matches!(last, Some(State::Dead) | None), "thread {tid} did not end: {last:?}");
    }
}

/// Whoever started it has not asked for its exit status yet, so its id is still there.
#[test]
fn a_target_that_has_ended_before_it_is_recorded_ends_the_recording_at_once() {
    let _turn = Turn::with_others();
    for options in [&[][..], &["--follow"], &["--polls", "all", "--follow"]] {
        let ring = endless_ring();
        ring.signal(Signal::KILL);
        let stat = format!("/proc/{}/stat", ring.pid());
        let has_ended = || std::fs::read_to_string(&stat).is_ok_and(|stat| stat.contains(") Z ")).then_some(());
        until(DEADLINE, "the target to end", has_ended);
        let recording = Record::new().process(ring.pid()).arguments(options).start_without_waiting();
        let outcome = recording.wait_at_most(Duration::from_secs(5)).expect_success();
        assert_eq!(outcome.summary()["switches"], 0, "{options:?}");
        check::check(&outcome.output, check::Loss::None);
    }
}

#[test]
fn a_target_that_is_not_there_is_a_clear_failure() {
    let _turn = Turn::with_others();
    let ring = endless_ring();
    let pid = ring.pid();
    ring.finish();
    let outcome = Record::new().process(pid).run();
    assert!(!outcome.status.success());
    assert!(outcome.stderr.contains(&pid.to_string()), "{}", outcome.stderr);
    assert!(!outcome.output.exists(), "nothing was recorded, yet there is a file");
}

#[test]
fn a_target_that_executes_another_program_is_recorded_on() {
    let _turn = Turn::with_others();
    for step in ["exec", "exec-from-thread"] {
        let mut shifter = Program::start(
            program!("shape-shifter"),
            &[
                "wait",
                "spin",
                "20",
                step,
                "shape-after",
                "spin",
                "30",
                "sleep",
                "5",
                "thread",
                "shape-late",
                "sleep",
                "60",
            ],
        );
        let pid = shifter.pid();
        let recording = Record::new().process(pid).start();
        shifter.begin();
        let outcome = recording.wait().expect_success();
        let trace = outcome.trace();
        let names = &trace.tasks.threads[&pid].names;
        assert!(names.iter().any(|name| name == "shape-shifter"), "{step}: {names:?}");
        assert!(names.iter().any(|name| name == "shape-after"), "{step}: {names:?}");
        assert_eq!(trace.tasks.named("shape-late").len(), 1, "{step}: a thread after it is missing");
        let ran: u64 = trace.thread(pid).iter().map(running_ns).sum();
        assert!(ran > 40_000_000, "{step}: the process's first thread ran only {ran} ns");
        let (status, _) = shifter.finish();
        assert!(status.success());
    }
}

fn running_ns(interval: &polletto_tests::trace::Interval) -> u64 {
    match interval.state {
        State::Running { .. } => interval.end.map_or(0, |end| end - interval.start),
        _ => 0,
    }
}

#[test]
fn a_thread_that_dies_in_mid_slice_ends_there() {
    let _turn = Turn::with_others();
    let spinner = Program::start(program!("spinner"), &["--cpu", "1", "--exit-after-ms", "1500", "--code", "3"]);
    let (pid, tid) = (spinner.pid(), spinner.announced_tid());
    let outcome = Record::new().process(pid).start().wait().expect_success();
    let trace = outcome.trace();
    let said: Vec<_> = spinner.truth();
    let ended = said[0]["at"].as_u64().expect("it says when it ended");
    let last = trace.thread(tid).iter().last().cloned().expect("it ran");
    assert_eq!(last.state, State::Dead);
    assert!(last.start >= ended && last.start < ended + 50_000_000, "it ended at {}, not at {ended}", last.start);
}

#[test]
fn ten_thousand_threads_are_all_there_by_name() {
    let _turn = Turn::alone();
    let mut many = Program::start(program!("many-threads"), &["--threads", "10000", "--seconds", "2.5"]);
    let pid = many.pid();
    let recording = Record::new().process(pid).start();
    many.begin();
    let outcome = recording.wait().expect_success();
    let started = many.truth()[0]["started"].as_u64().expect("it says how many it started");
    assert!(started > 10_500, "it replaced only {} threads", started - 10_000);
    let trace = outcome.trace();
    let named = |(_, thread): &(Tid, &_)| names_many(thread);
    let seen = trace.tasks.of_process(pid).filter(named).count();
    assert_eq!(u64::try_from(seen).expect("a small number"), started, "threads are missing, or not named");
    assert_eq!(trace.marked_loss(), None);
}

fn names_many(thread: &polletto_tests::trace::Thread) -> bool {
    thread.names.iter().any(|name| name.starts_with("many-") && name != "many-threads")
}

#[test]
fn a_second_ctrl_c_ends_it_at_once_and_the_file_opens() {
    let _turn = Turn::with_others();
    let ring = endless_ring();
    let recording = Record::new().process(ring.pid()).start();
    thread::sleep(Duration::from_millis(300));
    recording.signal(Signal::INT);
    recording.signal(Signal::INT);
    let outcome = recording.wait_at_most(Duration::from_secs(2));
    check::check(&outcome.output, check::Loss::None);
    Trace::open(&outcome.output).assert_well_formed();
    drop(ring);
}

#[test]
fn ctrl_c_and_sigterm_end_it_well_and_soon() {
    let _turn = Turn::with_others();
    let ring = endless_ring();
    for signal in [Signal::INT, Signal::TERM] {
        let recording = Record::new().process(ring.pid()).start();
        let begin = boottime();
        until(DEADLINE, "some switches", || (boottime() > begin + 200_000_000).then_some(()));
        let asked = boottime();
        recording.signal(signal);
        let outcome = recording.wait_at_most(Duration::from_secs(3)).expect_success();
        let trace = outcome.trace();
        assert_eq!(trace.truncated_bytes, 0);
        let (_, last) = trace.span().expect("it holds switches");
        assert!(last + 20_000_000 > asked, "what happened just before {signal:?} is missing");
        assert_eq!(outcome.summary()["records_lost"], 0);
    }
}
