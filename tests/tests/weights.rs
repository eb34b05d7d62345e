//! What samples stand for, against the scheduler's data in the same trace and against the kernel's own accounting.
//!
//! These scenarios need root and a kernel that takes BPF programs. They fail where it does not.

use polletto_tests::{
    duties::{Absence, Duty, recorded},
    program,
    recorder::Record,
    turn::Turn,
};

/// Threads that share two CPUs: they run for dozens of milliseconds at once, so that of their share of the timer's ticks
/// hardly any is chance. After 30 s it is less than half a percent of what each of them ran.
const DUTIES: &str = "0:20:20,0:30:50,1:15:45,1:40:10";

/// What samples may be off by, in percent of what the thread ran.
const RAN_PERCENT: u64 = 3;
/// What blocked stretches may be off by, in percent of what the thread slept.
const SLEPT_PERCENT: u64 = 1;

fn assert_within(percent: u64, what: &str, sampled: u64, counted: u64) {
    println!("{what}: {sampled} ns sampled, {counted} ns counted");
    assert!(
        sampled.abs_diff(counted) * 100 <= counted * percent,
        "{what}: {sampled} ns by samples, {counted} ns counted, more than {percent} % apart"
    );
}

#[test]
fn for_thirty_seconds_samples_weigh_what_threads_ran_and_slept() {
    let _turn = Turn::alone();
    let (_, trace, duties) = recorded(program!("weights"), "30", DUTIES, &["-F", "997", "--min-block", "0"]);
    assert_eq!(duties.len(), 4);
    for duty in &duties {
        let Duty { tid, .. } = *duty;
        let thread = trace.thread(tid);
        let section = duty.section();
        let ran: u64 = duty.timer_samples(&trace).map(|sample| sample.weight("cpu-time")).sum();
        let wall: u64 = duty.timer_samples(&trace).map(|sample| sample.weight("wall-time")).sum();
        assert_eq!(wall, ran, "while a thread runs, time by the clock is time on a CPU");
        assert_within(RAN_PERCENT, &format!("{tid} ran, by switches"), ran, thread.ran_within(&section));
        assert_within(RAN_PERCENT, &format!("{tid} ran, by the kernel"), ran, duty.ran_ns());

        let slept: u64 = duty.blocked(&trace).map(|sample| sample.weight("off-cpu-time")).sum();
        let absences = duty.absences(&trace);
        let in_states: u64 = absences.iter().map(Absence::slept).sum();
        assert_within(SLEPT_PERCENT, &format!("{tid} slept, by states"), slept, in_states);
        // The trace says where it does not know when a thread came back. Of those sleeps there are no samples.
        let unknown = thread.blocked_in_intervals_ending_in(&section) - in_states;
        assert!(unknown * 20 <= in_states, "{tid}: {unknown} ns of sleeping without an end");
        // What a hypervisor takes from a thread that runs, the kernel counts neither as running nor as waiting.
        let stolen = thread.ran_within(&section).saturating_sub(duty.ran_ns());
        assert_within(SLEPT_PERCENT, &format!("{tid} slept, by the kernel"), slept, duty.slept_ns() - stolen - unknown);
        let away: u64 = duty.blocked(&trace).map(|sample| sample.weight("wall-time")).sum();
        let absent: u64 = absences.iter().map(Absence::length).sum();
        assert_within(SLEPT_PERCENT, &format!("{tid} was away, by states"), away, absent);
        for sample in duty.blocked(&trace) {
            let parts = sample.weight("off-cpu-time") + sample.weight("run-queue-time");
            assert_eq!((sample.weight("wall-time"), sample.weight("cpu-time")), (parts, 0));
        }
    }
}

#[test]
fn a_timer_sample_weighs_one_period_and_says_where_it_was() {
    let _turn = Turn::alone();
    let (_, trace, duties) = recorded(program!("weights"), "1", "0:100:0,1:100:0", &["-F", "250"]);
    for duty in &duties {
        let (count, periods) = (duty.timer_samples(&trace).count() as u64, duty.ran_ns() / 4_000_000);
        assert!(periods > 20 && count * 10 >= periods * 9, "{count} samples in {periods} periods");
        for sample in duty.timer_samples(&trace) {
            let weights = ["wall-time", "cpu-time", "off-cpu-time", "run-queue-time"].map(|name| sample.weight(name));
            assert_eq!(weights, [4_000_000, 4_000_000, 0, 0]);
            assert_eq!(sample.execution.expect("a timer sample ran").cpu, duty.cpu);
        }
    }
}

#[test]
fn samples_come_as_often_as_asked() {
    let _turn = Turn::alone();
    for (arguments, hertz) in [(&["-F", "49"][..], 49), (&[], 99), (&["--frequency", "1999"], 1999)] {
        let (_, trace, duties) = recorded(program!("weights"), "2", "0:100:0,1:100:0", arguments);
        for duty in &duties {
            let ran = trace.thread(duty.tid).ran_within(&duty.section());
            let count = duty.timer_samples(&trace).count() as u64;
            let expected = ran * hertz / 1_000_000_000;
            println!("{hertz} Hz: {count} samples, {expected} expected");
            assert!(expected > 0, "it ran");
            // One more or less at either end; and chance, where the thread shares its CPU with something else.
            let allowed = expected * RAN_PERCENT / 100 + 2 + expected.isqrt();
            assert!(count.abs_diff(expected) <= allowed, "{hertz} Hz: {count}, not {expected}");
        }
    }
}

#[test]
fn a_frequency_out_of_range_is_refused() {
    let _turn = Turn::with_others();
    for frequency in ["0", "10000", "-1", "many"] {
        let argument = format!("--frequency={frequency}");
        let outcome = Record::new().arguments([argument.as_str(), "--", "true"]).run();
        assert_eq!(outcome.status.code(), Some(2), "{frequency}: {}", outcome.stderr);
    }
}

#[test]
fn a_mode_leaves_out_what_is_of_the_other() {
    let _turn = Turn::with_others();
    for (mode, timer, blocked) in [("cpu", true, false), ("offcpu", false, true), ("wall", true, true)] {
        let (outcome, trace, _) = recorded(program!("weights"), "1", "0:10:10,1:10:10", &["--mode", mode]);
        let summary = outcome.summary();
        for (name, wanted, is_blocked) in [("samples", timer, false), ("blocked", blocked, true)] {
            let count = trace.samples.iter().filter(|sample| sample.is_blocked() == is_blocked).count();
            assert_eq!(count > 20, wanted, "--mode {mode}: {count} {name}");
            assert!(wanted || count == 0, "--mode {mode}: {count} {name}");
            assert_eq!(summary[name].as_u64(), Some(count as u64), "--mode {mode}: {name}");
        }
        let slices = trace.events.iter().filter(|event| event.name.starts_with("blocked")).count();
        assert_eq!(slices > 0, blocked, "--mode {mode}: {slices} slices");
        assert!(!trace.switches.is_empty(), "switches are recorded in every mode");
    }
}

#[test]
fn user_and_kernel_parts_are_recorded_as_asked() {
    use polletto_tests::trace::FrameKind;
    let _turn = Turn::with_others();
    for (arguments, kernel, user) in [
        (&[][..], false, true),
        (&["--kernel-stacks"], true, true),
        (&["--kernel-only"], true, false),
        (&["--user-only"], false, true),
    ] {
        let (outcome, trace, duties) = recorded(program!("weights"), "1", "0:5:5", arguments);
        let blocked: Vec<_> = duties[0].blocked(&trace).collect();
        let turns = duties[0].turns;
        let hidden = outcome.summary()["switches_not_reported"].as_u64().expect("a count");
        assert!(turns >= 10 && blocked.len() as u64 + hidden >= turns, "{arguments:?}: {} stretches", blocked.len());
        for sample in blocked {
            let frames = sample.stack.frames();
            let of_kernel = frames.iter().take_while(|frame| frame.kind == FrameKind::Kernel).count();
            let named = |part: &str| {
                frames[..of_kernel].iter().any(|frame| frame.name.as_deref().is_some_and(|name| name.contains(part)))
            };
            assert_eq!(of_kernel > 0, kernel, "{arguments:?}: {frames:?}");
            assert_eq!(frames.len() > of_kernel, user, "{arguments:?}: {frames:?}");
            assert!(!kernel || (named("schedule") && named("sleep")), "{arguments:?}: it slept: {frames:?}");
            let above = &frames[of_kernel..];
            assert!(
                above.iter().all(|frame| frame.kind != FrameKind::Kernel),
                "the kernel's part is inside: {frames:?}"
            );
        }
    }
}
