//! What a trace says about time, against what the kernel has counted itself.
//!
//! These scenarios need root and a kernel that takes BPF programs. They fail where it does not.

use std::{fs, ops::Range};

use polletto_tests::{
    program,
    program::{DEADLINE, Program, until},
    recorder::{Outcome, Record},
    trace::{Nanoseconds, Slice, State, ThreadIntervals, Tid, Trace, Waking},
    turn::Turn,
    workload::{Accounting, boottime, read_schedstat},
};
use serde_json::Value;

/// By how much the kernel's split of one wake-up into sleeping, waiting and running may differ from its tracepoints'.
///
/// `sched_waking` comes before another CPU hears of it and queues the thread. Where the thread takes a CPU at once the
/// kernel lets its run begin at the wake-up, by skipping its clock's update in `__schedule`, while `sched_switch` comes
/// when the CPU has left what it was in. In a virtual machine that is 10 to 40 µs, 70 on a busy host, and can be
/// milliseconds on an idle CPU, which the hypervisor must first give back: see [`CpusKeptAwake`].
const WAKING_NS: u64 = 75_000;

/// Slices so long that this is below one percent of them.
const LONG_SLICES: [&str; 6] = ["--rounds", "60", "--spin-us", "8000", "--sleep-us", "4000"];

/// The share of rounds whose times must agree, in percent.
///
/// What a hypervisor takes from a thread that spins is known, and what it takes around a wake-up is not. What the recorder
/// does wrong, it does in all.
const UNDISTURBED_PERCENT: usize = 75;

/// A thread's truth, as `token-ring` prints it.
struct Truth {
    tid: Tid,
    cpu: u32,
    handovers: u64,
    sleep_ns: u64,
    spin_ns: u64,
    /// What a hypervisor took while it spun, by round.
    stolen_ns: Vec<u64>,
    samples: Vec<Accounting>,
}

impl Truth {
    fn read(line: &Value) -> Truth {
        let number = |of: &Value, name: &str| of[name].as_u64().unwrap_or_else(|| panic!("{of}: {name}"));
        Truth {
            tid: Tid::try_from(number(line, "tid")).expect("an id"),
            cpu: u32::try_from(number(line, "cpu")).expect("a CPU"),
            handovers: number(line, "handovers"),
            sleep_ns: number(line, "sleep_ns"),
            spin_ns: number(line, "spin_ns"),
            stolen_ns: serde_json::from_value(line["stolen_ns"].clone()).expect("a number for every round"),
            samples: line["samples"].as_array().expect("samples").iter().map(Accounting::read).collect(),
        }
    }

    /// From the first sample to the last.
    fn section(&self) -> Range<Nanoseconds> {
        self.samples[0].at..self.samples[self.samples.len() - 1].at
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

/// Compares every kind of time that a thread spent between two samples, in which a hypervisor took some from it.
///
/// A trace shows who has a CPU, whether or not the hypervisor lets it run.
fn round_agrees(thread: &ThreadIntervals, begin: &Accounting, end: &Accounting, stolen_ns: u64) -> Result<(), String> {
    let round = begin.at..end.at;
    let (run_ns, wait_ns) = (end.run_ns - begin.run_ns + stolen_ns, end.wait_ns - begin.wait_ns);
    let ran = thread.ran_in_slices_ending_in(&round);
    let waited = thread.waited_in_intervals_ending_in(&round);
    let blocked = thread.blocked_in_intervals_ending_in(&round);
    // It wakes twice: from its sleep and for the token.
    agree("ran", ran, run_ns, 2 * WAKING_NS)?;
    agree("was awake", ran + waited, run_ns + wait_ns, 2 * WAKING_NS)?;
    agree("waited", waited, wait_ns, 2 * WAKING_NS)?;
    agree("was blocked", blocked, (end.at - begin.at).saturating_sub(run_ns + wait_ns), 2 * WAKING_NS)
}

/// Records such a ring, with long slices, and compares every round of every thread.
fn assert_times_agree(arguments: &[&str]) {
    let (_, trace, truths) = recorded_ring(&[arguments, &LONG_SLICES[..]].concat());
    assert_eq!(trace.marked_loss(), None);
    for Truth { tid, handovers, sleep_ns, spin_ns, stolen_ns, samples, .. } in &truths {
        // The last pair of samples is not about a round: in it the thread only waits.
        let rounds: Vec<_> = samples[..samples.len() - 1].windows(2).collect();
        let thread = trace.thread(*tid);
        assert_eq!(rounds.len(), stolen_ns.len());
        let compared =
            rounds.iter().zip(stolen_ns).map(|(pair, &stolen)| round_agrees(thread, &pair[0], &pair[1], stolen));
        let apart: Vec<_> = compared.filter_map(Result::err).collect();
        let disturbed = rounds.len() * (100 - UNDISTURBED_PERCENT) / 100;
        println!("thread {tid}: {} of {} rounds disagree", apart.len(), rounds.len());
        assert!(apart.len() <= disturbed, "thread {tid}, in {} of {} rounds: {apart:#?}", apart.len(), rounds.len());
        let section = samples[0].at..samples[rounds.len()].at;
        assert!(thread.blocked_in_intervals_ending_in(&section) >= handovers * sleep_ns, "thread {tid} slept less");
        let run_ns = samples[rounds.len()].run_ns - samples[0].run_ns;
        let wait_ns = samples[rounds.len()].wait_ns - samples[0].wait_ns;
        let slept_ns = (section.end - section.start).saturating_sub(run_ns + wait_ns);
        // Over all rounds, disturbed ones included.
        println!(
            "thread {tid}: ran {} ns in the trace and {run_ns} by the kernel, of which {} stolen, slept {} ns and {slept_ns}",
            thread.ran_in_slices_ending_in(&section),
            stolen_ns.iter().sum::<u64>(),
            thread.blocked_in_intervals_ending_in(&section),
        );
        assert!(run_ns >= handovers * spin_ns, "thread {tid} spun less than it should");
    }
}

/// Something to do for every CPU of the rings, of which nobody else notices anything.
struct CpusKeptAwake(#[expect(dead_code, reason = "they run until this is dropped")] [Program; 2]);

impl CpusKeptAwake {
    fn start() -> CpusKeptAwake {
        CpusKeptAwake(["0", "1"].map(|cpu| Program::start(program!("spinner"), &["--cpu", cpu, "--give-way"])))
    }
}

#[test]
fn running_waiting_and_sleeping_times_are_the_kernels_own() {
    let _turn = Turn::alone();
    let _awake = CpusKeptAwake::start();
    for by in ["pipe", "condvar"] {
        assert_times_agree(&["--threads", "4", "--by", by]);
    }
}

#[test]
fn time_in_the_run_queue_of_a_busy_cpu_is_the_kernels_own() {
    let _turn = Turn::alone();
    let spinner = Program::start(program!("spinner"), &["--cpu", "0"]);
    assert_times_agree(&["--threads", "2", "--cpus", "0"]);
    drop(spinner);
}

#[test]
fn threads_run_where_they_are_pinned() {
    let _turn = Turn::with_others();
    let (_, trace, truths) = recorded_ring(&["--threads", "3", "--cpus", "1,0", "--rounds", "50"]);
    for truth in truths {
        let (Truth { tid, cpu, .. }, section) = (&truth, truth.section());
        let own = trace.slices.iter().filter(|slice| slice.tid == *tid && section.contains(&slice.start));
        assert!(own.into_iter().all(|slice| slice.cpu == *cpu), "thread {tid} left CPU {cpu}");
    }
}

#[test]
fn a_thread_is_woken_by_the_one_before_it_in_the_ring() {
    let _turn = Turn::with_others();
    let (outcome, trace, truths) = recorded_ring(&["--threads", "3", "--rounds", "200"]);
    // Of sleeps that the machine hides there is no end, and each hidden one is noticed by a later record.
    let hidden = outcome.summary()["switches_not_reported"].as_u64().expect("a count");
    for (index, truth) in truths.iter().enumerate() {
        let before = &truths[(index + truths.len() - 1) % truths.len()];
        let woken = |waker: Tid| {
            let by = |state| matches!(state, State::Runnable { waker: Some(other) } if other == waker);
            let intervals = trace.thread(truth.tid).iter();
            u64::try_from(intervals.filter(|interval| by(interval.state)).count()).expect("a small number")
        };
        // A reader that comes late finds the token there and does not sleep.
        let count = woken(before.tid);
        let told = format!("{} woke {} {count} times, {hidden} switches are hidden", before.tid, truth.tid);
        assert!((count + hidden) * 100 >= truth.handovers * 98, "{told}");
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
    for truth in truths {
        let (tid, section) = (truth.tid, truth.section());
        let intervals: Vec<_> = trace.thread(tid).iter().collect();
        let unwoken = intervals.windows(3).filter(|three| {
            // A waker on another CPU may be ahead of the switch to which it responds.
            let woken = |waking: &Waking| waking.tid == tid && (three[0].start..three[2].start).contains(&waking.at);
            matches!((three[1].state, three[2].state), (State::Blocked(_), State::Running { .. }))
                && section.contains(&three[2].start)
                && !trace.was_not_reported(three[2].start)
                && !trace.wakings.iter().any(woken)
        });
        // This machine can keep from the recorder what an interrupt does in the middle of certain threads.
        let unwoken: Vec<_> = unwoken.collect();
        assert!(unwoken.len() <= 1, "nobody woke thread {tid}: {unwoken:?}");
    }
}

#[test]
fn a_slice_whose_beginning_was_missed_is_admitted() {
    let _turn = Turn::alone();
    let (outcome, trace, truths) = recorded_ring(&["--threads", "4", "--rounds", "250"]);
    let repaired = |slice: &&Slice| {
        let truth = truths.iter().find(|truth| truth.tid == slice.tid);
        truth.is_some_and(|truth| truth.section().contains(&slice.start))
            && slice.end.is_some_and(|(end, _)| end == slice.start)
    };
    let repaired = trace.slices.iter().filter(repaired).count();
    let admitted = outcome.summary()["switches_not_reported"].as_u64().expect("a count");
    assert!(
        admitted >= u64::try_from(repaired).expect("a number"),
        "{repaired} slices have no length, {admitted} admitted"
    );
}

#[test]
fn trace_processor_finds_the_same_slices_and_states() {
    let _turn = Turn::with_others();
    let (outcome, trace, truths) = recorded_ring(&["--threads", "2", "--rounds", "100"]);
    for truth in &truths {
        let (tid, section) = (truth.tid, &truth.section());
        let Range { start, end } = section;
        let within = format!("tid = {tid} and ts + dur >= {start} and ts + dur < {end}");
        let thread = trace.thread(tid);
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
        let (run_ns, wait_ns) = read_schedstat(format!("/proc/{tid}/schedstat")).expect("it lives");
        (boottime(), run_ns, wait_ns, stolen_ns(1))
    };
    let recording = Record::new().process(spinner.pid()).start();
    // The kernel updates the count of a thread that runs 250 times in a second, or more often.
    let begin = counted();
    until(DEADLINE, "a second and a half to pass", || (boottime() > begin.0 + 1_500_000_000).then_some(()));
    let end = counted();
    let outcome = recording.stop().expect_success();
    let ran = outcome.trace().thread(tid).ran_within(&(begin.0..end.0));
    agree("it ran while it did not wait", ran, end.0 - begin.0 - (end.2 - begin.2), 0)
        .unwrap_or_else(|difference| panic!("{difference}"));
    // Besides, the kernel counts what was stolen in ticks.
    agree("it ran", ran, end.1 - begin.1, end.3 - begin.3 + 2 * TICK_NS)
        .unwrap_or_else(|difference| panic!("{difference}"));
}

/// The unit of `/proc/stat`.
const TICK_NS: u64 = 10_000_000;

/// What a hypervisor has taken from a CPU so far.
fn stolen_ns(cpu: usize) -> u64 {
    let stat = fs::read_to_string("/proc/stat").expect("the kernel counts");
    let line = stat.lines().find_map(|line| line.strip_prefix(&format!("cpu{cpu} "))).expect("the CPU is there");
    let ticks: u64 = line.split(' ').nth(7).and_then(|ticks| ticks.parse().ok()).expect("a number");
    ticks * TICK_NS
}
