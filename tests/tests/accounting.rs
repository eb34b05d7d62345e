//! What a trace says about time, against what the kernel has counted itself.
//!
//! These scenarios need root and a kernel that takes BPF programs. They fail where it does not.

use std::{fs, ops::Range};

use polletto_tests::{
    program,
    program::{DEADLINE, Program, until},
    recorder::{Outcome, Record},
    trace::{Nanoseconds, State, Tid, Trace, Waking},
    turn::Turn,
    workload::boottime,
};
use serde_json::Value;

/// By how much the kernel's split of one wake-up into sleeping, waiting and running may differ from its tracepoints'.
///
/// `sched_waking` comes before another CPU hears of it and queues the thread. Where the thread takes a CPU at once the
/// kernel lets its run begin at the wake-up, by skipping its clock's update in `__schedule`, while `sched_switch` comes
/// when the CPU has left what it was in. In a virtual machine that is 10 to 20 µs, and can be milliseconds on an idle
/// CPU, which the hypervisor must first give back: see [`CpusKeptAwake`].
const WAKING_NS: u64 = 30_000;

/// Slices so long that this is below one percent of them.
const LONG_SLICES: [&str; 6] = ["--rounds", "20", "--spin-us", "8000", "--sleep-us", "4000"];

/// A hypervisor takes CPUs away without a trace in ours. What the recorder does wrong, it does every time.
const ATTEMPTS: usize = 3;

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

/// Whether a time in the trace is the kernel's, give or take one percent, or `allowed` nanoseconds if that is more.
fn agree(what: &str, traced: u64, counted: u64, allowed: u64) -> Result<(), String> {
    let apart = traced.abs_diff(counted);
    if apart <= (counted / 100).max(allowed) {
        return Ok(());
    }
    Err(format!("{what}: {traced} ns in the trace, {counted} ns by the kernel, {apart} ns apart"))
}

/// Compares every kind of time of every thread.
fn times_agree(trace: &Trace, truths: &[Truth]) -> Result<(), String> {
    for truth in truths {
        let Truth { tid, section, handovers, run_ns, wait_ns, .. } = truth;
        let thread = trace.thread(*tid);
        let ran = thread.ran_in_slices_ending_in(section);
        let waited = thread.waited_in_intervals_ending_in(section);
        let blocked = thread.blocked_in_intervals_ending_in(section);
        // It wakes from its sleep and for the token.
        let waking = WAKING_NS * 2 * handovers;
        agree(&format!("thread {tid} ran"), ran, *run_ns, 0)?;
        agree(&format!("thread {tid} was awake"), ran + waited, run_ns + wait_ns, 0)?;
        agree(&format!("thread {tid} was blocked"), blocked, truth.blocked_ns(), 0)?;
        agree(&format!("thread {tid} waited"), waited, *wait_ns, waking)?;
        assert!(blocked >= handovers * truth.sleep_ns, "thread {tid} slept less than it asked for");
        assert!(*run_ns >= handovers * truth.spin_ns, "thread {tid} spun less than it should");
    }
    Ok(())
}

/// Something to do for every CPU of the rings, of which nobody else notices anything.
struct CpusKeptAwake(#[expect(dead_code, reason = "they run until this is dropped")] [Program; 2]);

impl CpusKeptAwake {
    fn start() -> CpusKeptAwake {
        CpusKeptAwake(["0", "1"].map(|cpu| Program::start(program!("spinner"), &["--cpu", cpu, "--give-way"])))
    }
}

/// Records such a ring until its times agree, but not more than [`ATTEMPTS`] times.
fn assert_times_agree(arguments: &[&str]) {
    let mut attempt = 0;
    loop {
        let (_, trace, truths) = recorded_ring(arguments);
        assert_eq!(trace.marked_loss(), None);
        attempt += 1;
        match times_agree(&trace, &truths) {
            Ok(()) => return,
            Err(difference) if attempt == ATTEMPTS => panic!("{difference}"),
            Err(difference) => println!("again: {difference}"),
        }
    }
}

#[test]
fn running_waiting_and_sleeping_times_are_the_kernels_own() {
    let _turn = Turn::alone();
    let _awake = CpusKeptAwake::start();
    for by in ["pipe", "condvar"] {
        assert_times_agree(&[&["--threads", "4", "--by", by], &LONG_SLICES[..]].concat());
    }
}

#[test]
fn time_in_the_run_queue_of_a_busy_cpu_is_the_kernels_own() {
    let _turn = Turn::alone();
    let spinner = Program::start(program!("spinner"), &["--cpu", "0"]);
    assert_times_agree(&[&["--threads", "2", "--cpus", "0"], &LONG_SLICES[..]].concat());
    drop(spinner);
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
    for Truth { tid, section, .. } in truths {
        let intervals: Vec<_> = trace.thread(tid).iter().collect();
        for three in intervals.windows(3) {
            if let (State::Blocked(_), State::Running { .. }) = (three[1].state, three[2].state)
                && section.contains(&three[2].start)
            {
                // A waker on another CPU may be ahead of the switch to which it responds.
                let woken =
                    |waking: &&Waking| waking.tid == tid && (three[0].start..three[2].start).contains(&waking.at);
                assert!(trace.wakings.iter().any(|waking| woken(&waking)), "nobody woke thread {tid}: {three:?}");
            }
        }
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
fn a_thread_that_never_blocks_runs_as_long_as_the_kernel_says() {
    let _turn = Turn::alone();
    let spinner = Program::start(program!("spinner"), &["--cpu", "1"]);
    let tid = spinner.announced_tid();
    let counted = || {
        let sums = fs::read_to_string(format!("/proc/{tid}/schedstat")).expect("it lives");
        let run_ns: u64 = sums.split(' ').next().and_then(|sum| sum.parse().ok()).expect("a number");
        (boottime(), run_ns)
    };
    let recording = Record::new().process(spinner.pid()).start();
    // The kernel updates the count of a thread that runs 250 times in a second, or more often.
    let (begin, before) = counted();
    until(DEADLINE, "a second and a half to pass", || (boottime() > begin + 1_500_000_000).then_some(()));
    let (end, after) = counted();
    let outcome = recording.stop().expect_success();
    let ran = outcome.trace().thread(tid).ran_within(&(begin..end));
    agree("it ran", ran, after - before, 0).unwrap_or_else(|difference| panic!("{difference}"));
}
