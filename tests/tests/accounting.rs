//! What a trace says about time, against what the kernel has counted itself.
//!
//! These scenarios need root and a kernel that takes BPF programs. They fail where it does not.

use std::ops::Range;

use polletto_tests::{
    program,
    program::{DEADLINE, Program, until},
    recorder::{Outcome, Record},
    trace::{Nanoseconds, State, Tid, Trace},
    turn::Turn,
    workload::boottime,
};
use serde_json::Value;

/// By how much the kernel's split of one wake-up into waiting and running may differ from its own tracepoints'.
///
/// When it wakes a thread on an idle CPU it lets the run begin at the wake-up (it skips the clock's update in
/// `__schedule`), while `sched_switch` comes when the CPU has left its idle state: 10 to 20 µs later in a virtual machine.
/// The sum of waiting and running is the same on both sides.
const WAKING_NS: u64 = 30_000;

/// Slices so long that this is well below one percent of them.
const LONG_SLICES: [&str; 4] = ["--spin-us", "5000", "--sleep-us", "1000"];

/// A thread's truth, as `token-ring` prints it.
struct Truth {
    tid: Tid,
    cpu: u32,
    handovers: u64,
    sleep_ns: u64,
    spin_ns: u64,
    section: Range<Nanoseconds>,
    run_ns: u64,
    wait_ns: u64,
}

impl Truth {
    fn read(line: &Value) -> Truth {
        let number =
            |path: &str| line.pointer(path).and_then(Value::as_u64).unwrap_or_else(|| panic!("{line}: {path}"));
        Truth {
            tid: Tid::try_from(number("/tid")).expect("an id"),
            cpu: u32::try_from(number("/cpu")).expect("a CPU"),
            handovers: number("/handovers"),
            sleep_ns: number("/sleep_ns"),
            spin_ns: number("/spin_ns"),
            section: number("/begin/at")..number("/end/at"),
            run_ns: number("/end/run_ns") - number("/begin/run_ns"),
            wait_ns: number("/end/wait_ns") - number("/begin/wait_ns"),
        }
    }

    /// Neither running nor waiting for a CPU.
    fn blocked_ns(&self) -> u64 {
        self.section.end - self.section.start - self.run_ns - self.wait_ns
    }
}

/// Records a token ring from before its section until after it.
fn recorded_ring(arguments: &[&str]) -> (Outcome, Trace, Vec<Truth>) {
    let mut ring = Program::start(program!("token-ring"), arguments);
    let recording = Record::new().process(ring.pid()).start();
    ring.begin();
    ring.wait_for("done");
    let outcome = recording.stop().expect_success();
    let truths = ring.truth().iter().map(Truth::read).collect();
    let trace = outcome.trace();
    (outcome, trace, truths)
}

/// Within one percent, or within `floor` nanoseconds.
fn assert_agree(what: &str, traced: u64, counted: u64, floor: u64) {
    let allowed = (counted / 100).max(floor);
    let apart = traced.abs_diff(counted);
    assert!(apart <= allowed, "{what}: {traced} ns in the trace, {counted} ns by the kernel, {apart} ns apart");
}

/// Every kind of time, for threads with long slices.
fn assert_times_agree(trace: &Trace, truths: &[Truth]) {
    for truth in truths {
        let Truth { tid, section, handovers, .. } = truth;
        let thread = trace.thread(*tid);
        // It wakes from its sleep and for the token.
        let waking = WAKING_NS * 2 * handovers;
        assert_agree(&format!("thread {tid} ran"), thread.ran_in_slices_ending_in(section), truth.run_ns, 0);
        let waited = thread.waited_in_intervals_ending_in(section);
        assert_agree(&format!("thread {tid} waited"), waited, truth.wait_ns, waking);
        let blocked = thread.blocked_in_intervals_ending_in(section);
        assert_agree(&format!("thread {tid} was blocked"), blocked, truth.blocked_ns(), waking);
        assert!(blocked >= handovers * truth.sleep_ns, "thread {tid} slept less than it asked for");
        assert!(truth.run_ns + truth.wait_ns >= handovers * truth.spin_ns, "thread {tid} spun less than it should");
    }
}

#[test]
fn running_waiting_and_sleeping_times_are_the_kernels_own() {
    let _turn = Turn::alone();
    for by in ["pipe", "condvar"] {
        let ring = ["--threads", "4", "--rounds", "25", "--by", by];
        let (_, trace, truths) = recorded_ring(&[&ring[..], &LONG_SLICES].concat());
        assert_eq!(truths.len(), 4);
        assert_times_agree(&trace, &truths);
        assert_eq!(trace.marked_loss(), None);
    }
}

#[test]
fn time_in_the_run_queue_of_a_busy_cpu_is_the_kernels_own() {
    let _turn = Turn::alone();
    let spinner = Program::start(program!("spinner"), &["--cpu", "0"]);
    let ring = ["--threads", "2", "--cpus", "0", "--rounds", "25"];
    let (_, trace, truths) = recorded_ring(&[&ring[..], &LONG_SLICES].concat());
    assert_times_agree(&trace, &truths);
    let waited: u64 = truths.iter().map(|truth| truth.wait_ns).sum();
    assert!(waited > 10_000_000, "the CPU was not busy: its threads waited {waited} ns in all");
    drop(spinner);
}

#[test]
fn time_from_wake_up_to_sleep_is_the_kernels_own_however_short() {
    let _turn = Turn::alone();
    let (_, trace, truths) = recorded_ring(&["--threads", "4", "--rounds", "250"]);
    for Truth { tid, section, run_ns, wait_ns, .. } in &truths {
        let thread = trace.thread(*tid);
        let awake = thread.ran_in_slices_ending_in(section) + thread.waited_in_intervals_ending_in(section);
        assert_agree(&format!("thread {tid} was awake"), awake, run_ns + wait_ns, 0);
    }
}

#[test]
fn threads_run_where_they_are_pinned() {
    let _turn = Turn::with_others();
    let (_, trace, truths) = recorded_ring(&["--threads", "3", "--cpus", "1,0", "--rounds", "50"]);
    for Truth { tid, cpu, section, .. } in truths {
        let own = trace.slices.iter().filter(|slice| slice.tid == tid && section.contains(&slice.start));
        assert!(own.into_iter().all(|slice| slice.cpu == cpu), "thread {tid} left CPU {cpu}");
    }
}

#[test]
fn a_thread_is_woken_by_the_one_before_it_in_the_ring() {
    let _turn = Turn::with_others();
    let (outcome, trace, truths) = recorded_ring(&["--threads", "3", "--rounds", "200"]);
    for (index, truth) in truths.iter().enumerate() {
        // Lines come in the order in which threads finish, which is their order in the ring.
        let before = &truths[(index + truths.len() - 1) % truths.len()];
        let woken = |waker: Tid| {
            let by = |state| matches!(state, State::Runnable { waker: Some(other) } if other == waker);
            let intervals = trace.thread(truth.tid).iter();
            u64::try_from(intervals.filter(|interval| by(interval.state)).count()).expect("a small number")
        };
        // A reader that comes late finds the token there and does not sleep.
        let count = woken(before.tid);
        assert!(count * 100 >= truth.handovers * 98, "{} woke {} {count} times", before.tid, truth.tid);
        let query = format!(
            "select count(*) from thread_state join thread using (utid) \
             join thread waker on waker.utid = thread_state.waker_utid \
             where thread.tid = {} and waker.tid = {}",
            truth.tid, before.tid
        );
        if let Some(rows) = outcome.sql(&query) {
            assert_eq!(rows, [[count.to_string()]], "trace_processor counts other wake-ups than our reader");
        }
    }
}

#[test]
fn nobody_runs_again_without_being_woken() {
    let _turn = Turn::with_others();
    let (_, trace, truths) = recorded_ring(&["--threads", "4", "--rounds", "200"]);
    for Truth { tid, .. } in truths {
        let intervals: Vec<_> = trace.thread(tid).iter().collect();
        let unexplained = intervals
            .windows(2)
            .filter(|pair| matches!((pair[0].state, pair[1].state), (State::Blocked(_), State::Running { .. })));
        assert_eq!(unexplained.count(), 0, "thread {tid} went from sleeping to running");
    }
}

#[test]
fn trace_processor_finds_the_same_slices_and_states() {
    let _turn = Turn::with_others();
    let (outcome, trace, truths) = recorded_ring(&["--threads", "2", "--rounds", "100"]);
    for Truth { tid, section, .. } in &truths {
        let Range { start, end } = section;
        let within = format!("tid = {tid} and ts + dur >= {start} and ts + dur < {end}");
        let thread = trace.thread(*tid);
        let cases = [
            (
                format!("select sum(dur) from sched_slice join thread using (utid) where {within}"),
                thread.ran_in_slices_ending_in(section),
            ),
            (
                format!(
                    "select sum(dur) from thread_state join thread using (utid) where state = 'Running' and {within}"
                ),
                thread.ran_in_slices_ending_in(section),
            ),
            (
                format!("select sum(dur) from thread_state join thread using (utid) where state = 'S' and {within}"),
                thread.blocked_in_intervals_ending_in(section),
            ),
        ];
        for (query, ours) in cases {
            if let Some(rows) = outcome.sql(&query) {
                assert_eq!(rows, [[ours.to_string()]], "{query}");
            }
        }
    }
}

#[test]
fn a_thread_that_never_blocks_runs_all_the_time() {
    let _turn = Turn::alone();
    let spinner = Program::start(program!("spinner"), &["--cpu", "1"]);
    let tid = spinner.announced_tid();
    let recording = Record::new().process(spinner.pid()).start();
    let begin = boottime();
    until(DEADLINE, "a second to pass", || (boottime() > begin + 1_000_000_000).then_some(()));
    let end = boottime();
    let outcome = recording.stop().expect_success();
    let ran = outcome.trace().thread(tid).ran_within(&(begin..end));
    assert!(ran > (end - begin) / 10 * 9, "it ran {ran} of {} ns in the trace", end - begin);
}
