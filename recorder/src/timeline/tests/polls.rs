//! Polls that samples and switches tell of, and those that probes do.

use polletto_common::record::{Blocked, Poll, PollLeft, Sample, StackEnding};
use polletto_protos::{
    TrackEvent,
    track_event::{NameField, Type},
};

use super::{recording::Recording, *};
use crate::trace::Weights;

pub(super) const PROCESS: Tgid = Tgid(10);
/// In the program of the recordings, whose addresses are 0x4fffbe00 lower in its file.
pub(super) const HANDLER: u64 = 0x5000_1000;
const WORKER: u64 = 0x5000_2000;
const ELSEWHERE: u64 = 0x5000_3000;
const BIAS: u64 = 0x5000_0000 - 0x4200;

pub(super) const VTABLE: u64 = 0x5020_0000;
pub(super) const BLOCKING_VTABLE: u64 = 0x5020_0080;

pub(super) const RUNTIME: u64 = 0x7777;
/// The task that the worker is itself.
const OWN: u64 = 2;

pub(super) fn body(address: u64, name: &str, may_block: bool) -> PollBody {
    let future = Future::example(name);
    PollBody { addresses: address - BIAS..address - BIAS + 0x100, future: Arc::new(future), may_block }
}

pub(super) fn recording() -> Recording {
    let mut recording = Recording::new();
    let module = Module { path: "/usr/bin/tasks".into(), build_id: vec![1], load_bias: 0 };
    let module = Arc::new(module);
    recording.timeline.map(Mapped {
        tgid: PROCESS,
        start: 0x5000_0000,
        end: 0x5010_0000,
        file_offset: 0,
        module: Some(Arc::clone(&module)),
        bias: BIAS,
    });
    let bodies = vec![body(HANDLER, "handler", false), body(WORKER, "worker", true)];
    let vtables = vec![
        (VTABLE - BIAS, body(HANDLER, "handler", false)),
        (BLOCKING_VTABLE - BIAS, body(WORKER, "blocking", true)),
    ];
    recording.timeline.knows_task_code(module, Arc::new(TaskCode::new(bodies).with_vtables(vtables)));
    for (id, frames) in [(1, vec![ELSEWHERE, HANDLER + 8, WORKER + 8]), (2, vec![ELSEWHERE, WORKER + 8])] {
        recording.stack(id, PROCESS, &[], &frames, StackEnding::ROOT, 0);
    }
    recording
}

pub(super) fn polled(task: u64, tick: u64) -> Polled {
    Polled { task, runtime: RUNTIME, worker: 3, tick }
}

impl Recording {
    pub(super) fn polls(&mut self, time_ns: u64, stack: u64, polled: Polled) {
        let header = header::<Sample>(time_ns, 0);
        let tid = Tid(10);
        self.push(Record::Sample(Sample { header, stack, tid, tgid: PROCESS, period_ns: 1_000, polled }));
    }

    pub(super) fn leaves(&mut self, time_ns: u64, polled: Polled) {
        let header = header::<PollLeft>(time_ns, 0);
        self.push(Record::PollLeft(PollLeft { header, tid: Tid(10), tgid: PROCESS, polled }));
    }

    pub(super) fn falls_asleep(&mut self, time_ns: u64, polled: Polled) {
        let header = header::<PollLeft>(time_ns, flags::FELL_ASLEEP);
        self.push(Record::PollLeft(PollLeft { header, tid: Tid(10), tgid: PROCESS, polled }));
    }

    pub(super) fn is_woken(&mut self, time_ns: u64) {
        let header = header::<Waking>(time_ns, 0);
        self.push(Record::Waking(Waking { header, tid: Tid(10), prio: 120, target_cpu: 0 }));
    }

    pub(super) fn polled(&mut self, time_ns: u64, flags: u32, vtable: u64, polled: Polled) {
        let header = header::<Poll>(time_ns, flags);
        self.push(Record::Poll(Poll { header, tid: Tid(10), tgid: PROCESS, vtable, polled }));
    }

    pub(super) fn slept(&mut self, left_ns: u64, time_ns: u64, polled: Polled) {
        self.push(Record::Blocked(Blocked {
            header: header::<Blocked>(time_ns, 0),
            stack: 1,
            left_ns,
            woken_ns: 0,
            tid: Tid(10),
            tgid: PROCESS,
            waker_tid: Tid::IDLE,
            prev_state: 1,
            system_call: -1,
            reserved: 0,
            argument: 0,
            polled,
        }));
    }

    /// In no poll, and not to sleep.
    pub(super) fn makes_room(&mut self, time_ns: u64) {
        self.push(Record::Switch(Switch {
            header: header::<Switch>(time_ns, flags::PREV_RECORDED),
            prev_tid: Tid(10),
            next_tid: Tid::IDLE,
            prev_state: 0,
            prev_exit_state: 0,
            next_prio: 120,
        }));
    }

    pub(super) fn comes_back(&mut self, time_ns: u64) {
        self.push(Record::Switch(Switch {
            header: header::<Switch>(time_ns, flags::NEXT_RECORDED),
            prev_tid: Tid::IDLE,
            next_tid: Tid(10),
            prev_state: 0,
            prev_exit_state: 0,
            next_prio: 120,
        }));
    }

    /// Beginning, end, name and track of every poll that is shown.
    fn shown(&mut self) -> Vec<(u64, u64, String, String)> {
        self.timeline.finish(10_000, &mut self.out);
        let read = self.read();
        let name =
            |iid: u64| read.interned.event_names.iter().find(|name| name.iid() == iid).unwrap().name().to_owned();
        let is_shown = |event: &TrackEvent| {
            read.tracks[&event.track_uuid()].name().contains("worker") && event.r#type() != Type::Instant
        };
        let events = read.events.iter().filter(|(_, event)| is_shown(event));
        let mut shown: Vec<(u64, u64, String, String)> = Vec::new();
        let mut open = Vec::new();
        for (time_ns, event) in events {
            let track = read.tracks[&event.track_uuid()].name().to_owned();
            match (event.r#type(), &event.name_field) {
                (Type::SliceBegin, Some(NameField::NameIid(iid))) => {
                    open.push(shown.len());
                    shown.push((*time_ns, 0, name(*iid), track));
                }
                (Type::SliceEnd, None) => shown[open.pop().unwrap()].1 = *time_ns,
                other => panic!("{other:?}"),
            }
        }
        shown
    }
}

fn poll(begin: u64, end: u64) -> (u64, u64, String, String) {
    (begin, end, "handler".into(), "worker 3".into())
}

#[test]
fn a_poll_that_is_found_twice_lasts_from_the_first_time_to_the_last() {
    let mut recording = recording();
    for time_ns in [100, 200, 300] {
        recording.polls(time_ns, 1, polled(7, 40));
    }
    assert_eq!(recording.shown(), [poll(100, 300)]);
}

#[test]
fn another_tick_or_task_is_another_poll_and_found_once_it_has_no_length() {
    let mut recording = recording();
    for (time_ns, task, tick) in
        [(100, 7, 40), (200, 7, 41), (300, 7, 41), (400, 8, 42), (500, 7, 43), (600, 7, 0), (700, 7, 0)]
    {
        recording.polls(time_ns, 1, polled(task, tick));
    }
    assert_eq!(recording.shown(), [poll(200, 300)]);
}

#[test]
fn a_poll_that_leaves_its_cpu_lasts_until_it_is_back_whatever_its_tick() {
    let mut recording = recording();
    recording.polls(100, 1, polled(7, 0));
    recording.leaves(150, polled(7, 0));
    recording.comes_back(400);
    assert_eq!(recording.shown(), [poll(150, 400)]);
}

#[test]
fn a_worker_that_polls_nothing_is_no_poll_once_a_stack_has_told_so() {
    let mut recording = recording();
    recording.polls(100, 2, polled(OWN, 1));
    recording.leaves(150, polled(OWN, 1));
    recording.comes_back(400);
    assert_eq!(recording.timeline.take_own_tasks(), [(Tid(10), OWN)]);
    assert_eq!(recording.timeline.take_own_tasks(), []);
    assert_eq!(recording.shown(), []);
    assert_eq!(recording.timeline.seen().polls_unnamed, 0);
}

#[test]
fn a_worker_that_has_just_polled_is_no_poll_though_the_stack_still_shows_one() {
    let mut recording = recording();
    for time_ns in [100, 200] {
        recording.polls(time_ns, 1, polled(OWN, 40));
    }
    recording.polls(300, 1, polled(7, 41));
    recording.polls(400, 1, polled(7, 41));
    recording.polls(500, 2, polled(OWN, 42));
    assert_eq!(recording.shown(), [poll(300, 400)]);
}

#[test]
fn what_a_worker_polls_all_the_time_is_shown_though_it_is_never_found_idle() {
    let mut recording = recording();
    recording.polls(100, 1, polled(7, 41));
    recording.polls(900, 1, polled(7, 41));
    assert_eq!(recording.shown(), [poll(100, 900)]);
}

#[test]
fn a_poll_of_which_there_is_no_stack_is_counted_and_not_shown() {
    let mut recording = recording();
    recording.leaves(150, polled(9, 1));
    recording.comes_back(400);
    assert_eq!(recording.shown(), []);
    assert_eq!(recording.timeline.seen().polls_unnamed, 1);
}

#[test]
fn a_poll_without_a_stack_has_the_name_that_a_walk_found_until_its_task_is_gone() {
    let mut recording = recording();
    let walked = |time_ns, tasks, gone| WalkedProcess {
        tgid: PROCESS,
        time_ns,
        runtimes: vec![WalkedRuntime { address: RUNTIME, tasks, ..WalkedRuntime::default() }],
        gone,
        ..WalkedProcess::default()
    };
    let handler = Arc::new(body(HANDLER, "handler", false));
    recording.timeline.walked(&walked(100, vec![(9, handler)], Vec::new()), &mut recording.out);
    recording.leaves(150, polled(9, 1));
    recording.timeline.walked(&walked(200, Vec::new(), vec![9]), &mut recording.out);
    recording.comes_back(400);
    recording.leaves(450, polled(8, 2));
    recording.comes_back(500);
    assert_eq!(recording.shown(), [poll(150, 400)]);
    assert_eq!(recording.timeline.seen().tasks_walked, 1);
}

#[test]
fn the_workers_of_another_runtime_are_another_group() {
    let mut recording = recording();
    for (time_ns, runtime) in [(100, 5), (200, 5), (300, 6), (400, 6), (500, 0), (600, 0)] {
        recording.polls(time_ns, 1, Polled { runtime, ..polled(7, runtime + 1) });
    }
    recording.timeline.finish(10_000, &mut recording.out);
    let read = recording.read();
    let mut groups: Vec<_> = read
        .tracks
        .values()
        .filter(|track| track.name().contains("worker ") || track.name().contains("thread "))
        .map(|track| format!("{} in {}", track.name(), read.tracks[&track.parent_uuid()].name()))
        .collect();
    groups.sort();
    assert!(recording.timeline.has_several_runtimes(PROCESS));
    let expected = ["thread 10 in Tokio threads", "worker 3 in Tokio workers", "worker 3 in Tokio workers, runtime 2"];
    assert_eq!(groups, expected);
}

pub(super) fn exact(task: u64, began_ns: u64) -> Polled {
    Polled { tick: Polled::EXACT | began_ns, ..polled(task, 0) }
}

fn named(begin: u64, end: u64, name: &str) -> (u64, u64, String, String) {
    (begin, end, name.into(), "worker 3".into())
}

#[test]
fn a_poll_whose_end_is_told_is_shown_once_and_whole() {
    let mut recording = recording();
    recording.polls(150, 1, exact(7, 100));
    recording.leaves(200, exact(7, 100));
    recording.comes_back(300);
    recording.polls(320, 1, exact(7, 100));
    recording.polled(400, 0, VTABLE, exact(7, 100));
    recording.polled(460, 0, VTABLE, exact(7, 450));
    assert_eq!(recording.shown(), [poll(100, 400), poll(450, 460)]);
    let seen = recording.timeline.seen();
    assert_eq!((seen.polls_exact, seen.polls_found, seen.polls_unnamed), (2, 0, 0));
}

#[test]
fn what_a_thread_slept_in_a_poll_is_shown_within_it() {
    let mut recording = recording();
    for (left_ns, back_ns) in [(200, 300), (320, 350)] {
        recording.leaves(left_ns, exact(7, 100));
        recording.comes_back(back_ns);
        recording.slept(left_ns, back_ns, exact(7, 100));
    }
    recording.polled(400, 0, VTABLE, exact(7, 100));
    assert_eq!(recording.shown(), [poll(100, 400), named(200, 300, "blocked"), named(320, 350, "blocked")]);
}

#[test]
fn a_poll_within_a_poll_is_shown_within_it() {
    let mut recording = recording();
    recording.leaves(120, exact(7, 100));
    recording.comes_back(130);
    recording.slept(120, 130, exact(7, 100));
    recording.leaves(220, exact(8, 200));
    recording.comes_back(230);
    recording.slept(220, 230, exact(8, 200));
    recording.polled(300, flags::NESTED, VTABLE, exact(8, 200));
    recording.polled(400, 0, VTABLE, exact(7, 100));
    let mut shown = recording.shown();
    shown.sort();
    let expected = [poll(100, 400), named(120, 130, "blocked"), poll(200, 300), named(220, 230, "blocked")];
    assert_eq!(shown, expected);
}

#[test]
fn a_poll_whose_end_is_never_told_is_shown_as_far_as_it_was_found() {
    let mut recording = recording();
    recording.polls(150, 1, exact(7, 100));
    recording.polls(200, 1, exact(7, 100));
    recording.polled(400, 0, VTABLE, exact(7, 300));
    recording.polled(900, flags::STILL_POLLING, VTABLE, exact(7, 800));
    assert_eq!(recording.shown(), [poll(150, 200), poll(300, 400), poll(800, 900)]);
    let seen = recording.timeline.seen();
    assert_eq!((seen.polls_exact, seen.polls_found, seen.polls_unfinished), (1, 1, 1));
}

#[test]
fn a_poll_that_outlasts_its_window_is_shown_once() {
    let mut recording = recording();
    // Of the first it is told that it goes on before it is found again in a record from before, of the second after.
    recording.polls(150, 1, exact(7, 100));
    recording.polled(300, flags::STILL_POLLING, VTABLE, exact(7, 100));
    recording.polls(250, 1, exact(7, 100));
    recording.polls(280, 1, exact(7, 100));
    recording.polls(350, 1, polled(7, 3));
    recording.polls(550, 1, exact(8, 500));
    recording.polls(580, 1, exact(8, 500));
    recording.polls(620, 1, polled(8, 4));
    recording.polled(600, flags::STILL_POLLING, VTABLE, exact(8, 500));
    assert_eq!(recording.shown(), [poll(100, 300), poll(550, 580)]);
}

#[test]
fn what_comes_after_a_poll_was_told_no_more_is_not_told_of_it() {
    let mut recording = recording();
    recording.timeline.find(Duration::from_nanos(100));
    recording.falls_asleep(120, exact(7, 100));
    recording.comes_back(150);
    recording.slept(120, 150, exact(7, 100));
    recording.falls_asleep(400, exact(7, 100));
    recording.comes_back(900);
    recording.slept(400, 900, exact(7, 100));
    // It is told late that it was told until then.
    recording.polled(300, flags::STILL_POLLING, VTABLE, exact(7, 100));
    assert_eq!(recording.shown(), [poll(100, 300), named(120, 150, "blocked")]);
    let findings: Vec<Finding> = recording.timeline.findings().groups().map(|group| group.longest.clone()).collect();
    let [Finding { fault, weights, extent, .. }] = &findings[..] else { panic!("one: {findings:?}") };
    let expected = Weights { cpu_ns: 170, off_cpu_ns: 30, run_queue_ns: 0 };
    assert_eq!((*fault, *weights, *extent), (Fault::LongPoll, expected, Extent::AtLeast));
}

#[test]
fn where_polls_are_observed_and_where_not_is_shown() {
    let mut recording = recording();
    let process = PROCESS;
    for news in [
        PollNews::Unobserved { process, since_ns: 100, until_ns: 200, why: Unobserved::NotYet },
        PollNews::ObservedFrom { process, time_ns: 200 },
        PollNews::ObservedUntil { process, time_ns: 500 },
        PollNews::Unobserved { process, since_ns: 500, until_ns: 900, why: Unobserved::Budget },
        PollNews::ObservedFrom { process, time_ns: 900 },
    ] {
        recording.timeline.poll_news(&news, &mut recording.out);
    }
    let read = recording.read();
    let on_track = |event: &TrackEvent| read.tracks[&event.track_uuid()].name() == "polls of process 10";
    let events = read.events.iter().filter(|(_, event)| on_track(event));
    let shown: Vec<_> = events.map(|(time_ns, event)| (*time_ns, event.r#type(), event.name_field.clone())).collect();
    let name = |name: &str| Some(NameField::Name(name.to_owned()));
    let expected = [
        (100, Type::SliceBegin, name("polls not recorded: no probes yet")),
        (200, Type::SliceEnd, None),
        (200, Type::SliceBegin, name("polls recorded")),
        (500, Type::SliceEnd, None),
        (500, Type::SliceBegin, name("polls not recorded: budget")),
        (900, Type::SliceEnd, None),
        (900, Type::SliceBegin, name("polls recorded")),
    ];
    assert_eq!(shown, expected);
}

#[test]
fn a_vtable_of_which_nothing_is_known_is_shown_by_its_address() {
    let mut recording = recording();
    recording.polled(200, 0, 0x1234, exact(7, 100));
    recording.polled(400, 0, BLOCKING_VTABLE, exact(8, 300));
    assert_eq!(recording.shown(), [named(100, 200, "vtable 0x1234"), named(300, 400, "blocking")]);
}

#[test]
fn the_task_that_a_worker_is_itself_is_no_poll_though_its_end_is_told() {
    let mut recording = recording();
    recording.polls(100, 2, polled(OWN, 1));
    recording.polled(400, 0, BLOCKING_VTABLE, exact(OWN, 50));
    assert_eq!(recording.shown(), []);
}

#[test]
fn a_task_that_awaits_is_not_the_worker_whose_stack_it_is_on() {
    let mut recording = recording();
    let awaits = |task, began_ns| Polled { tick: Polled::EXACT | Polled::AWAITS | began_ns, ..polled(task, 0) };
    // Its own code is not on the stack yet.
    recording.polls(1_000, 2, awaits(7, 990));
    recording.polled(2_000, 0, VTABLE, awaits(7, 990));
    recording.polled(3_000, 0, VTABLE, awaits(7, 2_500));
    assert_eq!(recording.shown(), [named(990, 2_000, "handler"), named(2_500, 3_000, "handler")]);
}

#[test]
fn a_task_that_may_block_and_polls_others_is_a_worker() {
    let mut recording = recording();
    recording.polled(200, 0, VTABLE, exact(7, 100));
    for (time_ns, tick) in [(300, 0), (400, 0)] {
        recording.polls(time_ns, 2, Polled { runtime: 0, ..polled(OWN, tick) });
    }
    recording.leaves(500, Polled { runtime: 0, ..polled(OWN, 0) });
    recording.comes_back(600);
    assert_eq!(recording.timeline.take_own_tasks(), [(Tid(10), OWN)]);
    assert_eq!(recording.shown(), [poll(100, 200)]);
}

#[test]
fn a_task_of_a_process_that_has_ended_is_not_that_of_one_that_gets_its_id() {
    let mut recording = recording();
    recording.polls(100, 1, polled(7, 1));
    recording.push(current(150, 10, OURS));
    recording.push(switch(160, 10, DEAD, 0, flags::PREV_RECORDED));
    recording.push(task(10, 10, "another"));
    recording.polls(200, 1, polled(7, 1));
    let read = recording.read();
    let tasks = &read.interned.stack_sample_async_context_descriptors;
    assert_eq!(tasks.iter().map(|task| task.iid()).collect::<Vec<_>>(), [1, 2]);
    let of = |at: usize| read.task(&read.samples[at].1).async_id();
    assert_eq!([of(0), of(1)], [1, 2]);
}
