//! As many switches as the machine can do: nothing is lost, or every loss is counted and marked.
//!
//! These scenarios need root and a kernel that takes BPF programs. They fail where it does not.

use polletto_tests::{
    program,
    program::Program,
    recorder::{Outcome, Record},
    trace::{Slice, Trace},
    turn::Turn,
};
use serde_json::Value;

/// Room on disk for a switch and its wake-up.
const BYTES_PER_SWITCH: u64 = 6;

fn assert_no_hidden_loss(outcome: &Outcome, trace: &Trace, switches: u64, expected: u64) {
    let lost = outcome.summary()["records_lost"].as_u64().expect("the summary says what was lost");
    println!("{switches} switches in the trace, {expected} by the kernel, {lost} records lost");
    let marked = trace.marked_loss().map(|records| u64::try_from(records).expect("a number"));
    assert_eq!(marked, (lost > 0).then_some(lost), "what the trace marks as lost is not what the summary counts");
    if lost == 0 {
        assert!(switches >= expected, "{} of {expected} switches are missing without a word", expected - switches);
    } else {
        assert!(switches + lost >= expected, "{switches} switches and {lost} lost are not the {expected} there were");
    }
}

/// How often threads of this name left a CPU.
fn switched_out(trace: &Trace, names: &[&str]) -> u64 {
    let tids: Vec<_> = names.iter().flat_map(|name| trace.tasks.named(name)).collect();
    let ended = trace.slices.iter().filter(|slice| slice.end.is_some() && tids.contains(&slice.tid));
    u64::try_from(ended.count()).expect("a number")
}

#[test]
fn no_switch_of_a_messaging_storm_is_lost_in_silence() {
    let _turn = Turn::alone();
    let storm = program!("switch-storm").to_str().expect("a plain path");
    let outcome = Record::new().arguments(["--", storm, "--seconds", "2"]).run().expect_success();
    // The storm prints to the recorder's standard output, before the summary.
    let line = outcome.stdout.lines().find(|line| line.contains("messages")).expect("the storm's truth");
    let truth: Value = serde_json::from_str(line).expect("the storm's truth");
    let expected = truth["voluntary"].as_u64().expect("a count") + truth["involuntary"].as_u64().expect("a count");
    let trace = outcome.trace();
    let switches = switched_out(&trace, &["storm-send", "storm-receive"]);
    assert_no_hidden_loss(&outcome, &trace, switches, expected);
}

#[test]
fn no_switch_of_both_cpus_at_full_speed_is_lost_in_silence() {
    let _turn = Turn::alone();
    let mut pairs =
        ["0", "1"].map(|cpu| Program::start(program!("ping-pong"), &["--cpu", cpu, "--seconds", "2", "--wait"]));
    let recording = Record::new().process(pairs[0].pid()).process(pairs[1].pid()).start();
    for pair in &mut pairs {
        pair.begin();
    }
    let outcome = recording.wait().expect_success();
    let truths = pairs.map(Program::truth);
    let expected: u64 = truths.iter().map(|truth| truth[0]["switches"].as_u64().expect("a count")).sum();
    let trace = outcome.trace();
    let switches = switched_out(&trace, &["ping-pong"]);
    assert_no_hidden_loss(&outcome, &trace, switches, expected);
    let bytes = std::fs::metadata(&outcome.output).expect("there is a file").len();
    assert!(bytes <= switches * BYTES_PER_SWITCH, "{bytes} bytes for {switches} switches");
}

#[test]
fn rings_that_are_too_small_lose_records_and_the_trace_says_where() {
    let _turn = Turn::alone();
    let mut pair = Program::start(program!("ping-pong"), &["--cpu", "0", "--seconds", "1", "--wait"]);
    let recording = Record::new().process(pair.pid()).arguments(["--ring-kib", "4"]).start();
    pair.begin();
    let outcome = recording.wait().expect_success();
    let truth = pair.truth();
    let expected = truth[0]["switches"].as_u64().expect("a count");
    let trace = outcome.trace_with_loss();
    let lost = outcome.summary()["records_lost"].as_u64().expect("the summary says what was lost");
    assert!(lost > expected / 2, "a page holds a fraction of a millisecond, but only {lost} of {expected} were lost");
    assert_no_hidden_loss(&outcome, &trace, switched_out(&trace, &["ping-pong"]), expected);
    let unobserved = trace.tasks.named("records lost");
    let length = |slice: &Slice| slice.end.map_or(0, |(end, _)| end - slice.start);
    let gaps = trace.slices.iter().filter(|slice| unobserved.contains(&slice.tid)).map(length);
    let longest = gaps.max().expect("nobody is shown as running while records were lost");
    assert!(longest > 1_000_000, "a ring stays full until it is drained again, but the longest gap is {longest} ns");
}
