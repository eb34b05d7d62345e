//! What is wrong with polls, as the recorder finds it.

use polletto_protos::track_event::Type;

use super::{
    polls::{BLOCKING_VTABLE, VTABLE, exact, polled, recording},
    recording::Recording,
    *,
};
use crate::trace::Weights;

/// What is found when everything that takes 50 ns or more is.
fn found(recording: &Recording) -> Vec<(Fault, u64, u64, Weights)> {
    let of = |Group { longest, .. }: &Group| (longest.fault, longest.since_ns, longest.task, longest.weights);
    let mut found: Vec<_> = recording.timeline.findings().groups().map(of).collect();
    found.sort_unstable_by_key(|(fault, since_ns, ..)| (*since_ns, *fault));
    found
}

fn finding_recording() -> Recording {
    let mut recording = recording();
    recording.timeline.find(Duration::from_nanos(50));
    recording
}

#[test]
fn a_poll_that_takes_long_is_found_with_what_it_took() {
    let mut recording = finding_recording();
    let polled = exact(7, 100);
    recording.falls_asleep(110, polled);
    recording.is_woken(170);
    recording.comes_back(180);
    recording.leaves(190, polled);
    recording.comes_back(220);
    recording.polled(250, 0, VTABLE, polled);
    // What is there to block, and what is short, is not.
    recording.polled(400, 0, BLOCKING_VTABLE, exact(8, 300));
    recording.polled(549, 0, VTABLE, exact(7, 500));
    let weights = Weights { cpu_ns: 50, off_cpu_ns: 60, run_queue_ns: 40 };
    assert_eq!(found(&recording), [(Fault::Slept(Wait::NotSeen), 100, 7, weights)]);
}

#[test]
fn a_poll_that_runs_or_makes_room_is_told_from_one_that_sleeps() {
    let mut recording = finding_recording();
    recording.polls(120, 1, exact(7, 100));
    recording.polled(150, 0, VTABLE, exact(7, 100));
    recording.leaves(210, exact(7, 200));
    recording.comes_back(280);
    recording.polled(290, 0, VTABLE, exact(7, 200));
    let ran = Weights { cpu_ns: 50, ..Weights::default() };
    let made_room = Weights { cpu_ns: 20, run_queue_ns: 70, ..Weights::default() };
    assert_eq!(found(&recording), [(Fault::LongPoll, 100, 7, ran), (Fault::Preempted, 200, 7, made_room)]);
    // Each is an instant within its poll; only of the one that ran is it known where.
    let read = recording.read();
    let instants = read.events.iter().filter(|(_, event)| event.r#type() == Type::Instant);
    let instants = instants.filter(|(_, event)| read.tracks[&event.track_uuid()].name() == "worker 3");
    let callstacks: Vec<_> = instants.map(|(time_ns, event)| (*time_ns, event.callstack_iid.is_some())).collect();
    assert_eq!(callstacks, [(100, true), (200, false)]);
}

#[test]
fn a_poll_that_sleeps_until_the_recording_ends_is_found() {
    let mut recording = finding_recording();
    recording.polls(100, 1, polled(7, 41));
    recording.falls_asleep(120, polled(7, 41));
    recording.timeline.finish(1_000, &mut recording.out);
    let weights = Weights { cpu_ns: 20, off_cpu_ns: 880, run_queue_ns: 0 };
    assert_eq!(found(&recording), [(Fault::Slept(Wait::NotSeen), 100, 7, weights)]);
}

#[test]
fn a_poll_whose_thread_came_back_unseen_slept_all_the_same() {
    let mut recording = finding_recording();
    recording.falls_asleep(120, exact(7, 100));
    recording.is_woken(180);
    recording.polled(200, 0, VTABLE, exact(7, 100));
    let weights = Weights { cpu_ns: 20, off_cpu_ns: 60, run_queue_ns: 20 };
    assert_eq!(found(&recording), [(Fault::Slept(Wait::NotSeen), 100, 7, weights)]);
}

#[test]
fn a_thread_that_came_back_unseen_was_away_until_it_is_found_on_a_cpu() {
    let mut recording = finding_recording();
    let polled = exact(7, 100);
    recording.leaves(120, polled);
    // The timer finds it running.
    recording.polls(150, 1, polled);
    recording.leaves(160, polled);
    recording.comes_back(170);
    recording.leaves(180, polled);
    // It must have run to leave.
    recording.leaves(200, polled);
    recording.comes_back(220);
    recording.polled(250, 0, VTABLE, polled);
    let weights = Weights { cpu_ns: 70, off_cpu_ns: 0, run_queue_ns: 80 };
    assert_eq!(found(&recording), [(Fault::Preempted, 100, 7, weights)]);
}

#[test]
fn a_task_that_is_woken_and_not_polled_is_found() {
    let mut recording = finding_recording();
    recording.wakes(100, 0, 7, Polled::default());
    recording.wakes(120, 0, 7, Polled::default());
    recording.polled(160, 0, VTABLE, exact(7, 155));
    let weights = Weights { run_queue_ns: 55, ..Weights::default() };
    assert_eq!(found(&recording), [(Fault::Starved, 100, 7, weights)]);
}

#[test]
fn of_a_task_that_starves_it_is_told_what_its_worker_did_meanwhile() {
    // Until when the worker has no CPU, while the task waits from 400 to 510.
    for (until_ns, expected) in [(490, Doing::NoCpu), (420, Doing::Runs)] {
        let mut recording = finding_recording();
        recording.polled(20, 0, VTABLE, exact(9, 10));
        recording.makes_room(390);
        recording.wakes(400, 0, 7, Polled::default());
        recording.comes_back(until_ns);
        recording.polled(520, 0, VTABLE, exact(7, 510));
        let starved = recording.timeline.findings().groups().next().unwrap().longest.clone();
        assert_eq!((starved.fault, starved.meanwhile), (Fault::Starved, Some(Meanwhile::Did(expected))), "{until_ns}");
    }
}

#[test]
fn nothing_is_found_where_nothing_is_asked_for() {
    let mut recording = recording();
    recording.polled(9_000_000_000, 0, VTABLE, exact(7, 100));
    assert_eq!(found(&recording), []);
}
