//! Closures that may block, and polls whose thread gives its worker away to block.

use polletto_common::record::{Poll, PollLeft, Spawn};

use super::{
    polls::{BLOCKING_VTABLE, PROCESS, RUNTIME, VTABLE, exact, recording},
    recording::Recording,
    wakes::{Event, awaits},
    *,
};

/// Of a closure that has no name: a worker may go on in it.
const WORKER_VTABLE: u64 = BLOCKING_VTABLE + 0x80;

fn with_worker(task: u64, began_ns: u64) -> Polled {
    let awaits = awaits(task, began_ns);
    Polled { tick: awaits.tick | Polled::WITH_WORKER, ..awaits }
}

impl Recording {
    fn gives(&mut self, time_ns: u64, more: u32, vtable: u64, task: u64, polled: Polled) {
        let header = header::<Spawn>(time_ns, flags::MAY_BLOCK | more);
        self.push(Record::Spawn(Spawn { header, tid: Tid(10), tgid: PROCESS, vtable, task, polled }));
    }

    fn ends_at(&mut self, time_ns: u64, flags: u32, polled: Polled) {
        self.ends_on(10, time_ns, flags, VTABLE, polled);
    }

    fn ends_on(&mut self, tid: u32, time_ns: u64, flags: u32, vtable: u64, polled: Polled) {
        let header = header::<Poll>(time_ns, flags);
        self.push(Record::Poll(Poll { header, tid: Tid(tid), tgid: PROCESS, vtable, polled }));
    }

    /// Time, name and track of everything but `blocked`.
    fn brief(&mut self) -> Vec<(u64, String, String)> {
        let told = self.told().into_iter().filter(|event| event.name != "blocked");
        told.map(|Event { time_ns, name, track, .. }| (time_ns, name, track)).collect()
    }
}

fn on<const N: usize>(expected: [(u64, &str, &str); N]) -> Vec<(u64, String, String)> {
    expected.map(|(time_ns, name, track)| (time_ns, name.to_owned(), track.to_owned())).to_vec()
}

#[test]
fn a_closure_leads_from_where_it_was_spawned_to_where_it_ran_and_tells_how_long_it_waited() {
    let mut recording = recording();
    recording.gives(120, 0, BLOCKING_VTABLE, 8, with_worker(7, 100));
    recording.ends_at(150, 0, with_worker(7, 100));
    let ran = Polled { runtime: 0, worker: 0, ..exact(8, 180) };
    recording.ends_on(11, 300, 0, BLOCKING_VTABLE, ran);
    let told = recording.told();
    let names: Vec<_> = told.iter().map(|event| (event.time_ns, &*event.name, &*event.track)).collect();
    let expected = [(100, "handler", "worker 3"), (120, "spawn blocking", "worker 3"), (180, "blocking", "thread 11")];
    assert_eq!(names, expected);
    assert_eq!((told[1].numbers["task_id"], told[1].numbers["parent"]), (8, 7));
    assert_eq!((told[2].numbers["queued_ns"], told[2].numbers["parent"]), (60, 7));
    assert!(told[1].flows.len() == 1 && told[1].flows == told[2].flows);
    let seen = recording.timeline.seen();
    assert_eq!((seen.spawns, seen.blocking_spawns, seen.blocks_in_place, seen.tasks), (0, 1, 0, 1));
    assert_eq!((seen.closures_run, seen.without_worker), (1, 0));
}

#[test]
fn what_a_poll_does_without_its_worker_is_on_its_threads_track() {
    let mut recording = recording();
    let polled = with_worker(7, 100);
    recording.polls(110, 1, polled);
    recording.gives(150, flags::GAVE_WORKER_AWAY, WORKER_VTABLE, 8, polled);
    // Another thread is the worker meanwhile.
    recording.ends_on(11, 250, 0, VTABLE, with_worker(9, 200));
    recording.polls(300, 1, polled);
    // What it spawns and wakes from now on is not within a poll of the worker's.
    recording.gives(310, flags::GAVE_WORKER_AWAY, BLOCKING_VTABLE, 6, polled);
    recording.wakes(320, 0, 9, polled);
    recording.ends_at(400, flags::WORKER_GONE, polled);
    let expected = on([
        (100, "handler", "worker 3"),
        (150, "block in place", "worker 3"),
        (150, "block in place", "thread 10"),
        (200, "handler", "worker 3"),
        (310, "spawn blocking", "thread 10"),
        (320, "wake", "thread 10"),
    ]);
    assert_eq!(recording.brief(), expected);
    let seen = recording.timeline.seen();
    assert_eq!((seen.blocking_spawns, seen.blocks_in_place, seen.workers_gone_unseen), (1, 1, 0));
    assert_eq!((seen.closures_run, seen.without_worker), (0, 1));
}

#[test]
fn a_poll_that_gets_its_worker_back_is_the_workers_as_a_whole() {
    let mut recording = recording();
    let polled = with_worker(7, 100);
    recording.gives(150, flags::GAVE_WORKER_AWAY, WORKER_VTABLE, 8, polled);
    // It does so again, with what is known to be a worker by then.
    recording.gives(200, flags::GAVE_WORKER_AWAY, WORKER_VTABLE, 9, polled);
    recording.ends_at(400, 0, polled);
    recording.ends_at(500, 0, with_worker(7, 450));
    let expected =
        on([(100, "handler", "worker 3"), (150, "block in place", "worker 3"), (450, "handler", "worker 3")]);
    assert_eq!(recording.brief(), expected);
    assert_eq!(recording.timeline.seen().blocks_in_place, 2);
}

#[test]
fn a_poll_that_gave_its_worker_away_nobody_knows_when_is_on_its_threads_track() {
    let mut recording = recording();
    recording.ends_at(400, flags::WORKER_GONE, with_worker(7, 100));
    assert_eq!(recording.brief(), on([(100, "handler", "thread 10")]));
    let seen = recording.timeline.seen();
    assert_eq!((seen.workers_gone_unseen, seen.without_worker), (1, 1));
}

#[test]
fn what_a_poll_without_a_worker_takes_is_no_long_poll() {
    for (gone, expected) in [(flags::WORKER_GONE, 0), (0, 1)] {
        let mut recording = recording();
        recording.timeline.find(std::time::Duration::from_nanos(100));
        let polled = with_worker(7, 100);
        recording.gives(150, flags::GAVE_WORKER_AWAY, WORKER_VTABLE, 8, polled);
        recording.ends_at(400, gone, polled);
        assert_eq!(recording.timeline.findings().counts().map(|(_, of)| of.all).sum::<u64>(), expected, "{gone}");
    }
}

#[test]
fn a_worker_without_ticks_among_others_with_ticks_is_none_meanwhile() {
    let shown = Polled { task: 7, runtime: RUNTIME, worker: 3, tick: 40 };
    let mut recording = recording();
    recording.polls(100, 1, shown);
    recording.polls(150, 1, shown);
    let left = |time_ns| {
        let header = header::<PollLeft>(time_ns, flags::FELL_ASLEEP);
        Record::PollLeft(PollLeft { header, tid: Tid(10), tgid: PROCESS, polled: Polled { tick: 0, ..shown } })
    };
    recording.push(left(200));
    recording.push(switch(300, 0, 0, 10, flags::NEXT_RECORDED));
    assert_eq!(recording.brief(), on([(100, "handler", "worker 3"), (200, "block in place", "thread 10")]));
}

#[test]
fn a_closure_whose_name_says_what_it_is_is_no_worker() {
    let mut recording = recording();
    recording.gives(150, flags::GAVE_WORKER_AWAY, BLOCKING_VTABLE, 8, with_worker(7, 100));
    recording.ends_at(400, 0, with_worker(7, 100));
    assert_eq!(recording.brief(), on([(100, "handler", "worker 3"), (150, "spawn blocking", "worker 3")]));
}

#[test]
fn a_poll_within_one_that_has_no_worker_any_more_is_none_of_the_workers() {
    let mut recording = recording();
    let polled = with_worker(7, 100);
    recording.gives(150, flags::GAVE_WORKER_AWAY, WORKER_VTABLE, 8, polled);
    recording.ends_at(80, 0, with_worker(9, 60));
    recording.ends_at(250, flags::NESTED, awaits(9, 200));
    recording.ends_at(400, flags::WORKER_GONE, polled);
    let expected = on([
        (60, "handler", "worker 3"),
        (100, "handler", "worker 3"),
        (150, "block in place", "worker 3"),
        (150, "block in place", "thread 10"),
        (200, "handler", "thread 10"),
    ]);
    assert_eq!(recording.brief(), expected);
}

impl Recording {
    fn leaves_at(&mut self, time_ns: u64, more: u32, polled: Polled) {
        let header = header::<PollLeft>(time_ns, flags::FELL_ASLEEP | more);
        self.push(Record::PollLeft(PollLeft { header, tid: Tid(10), tgid: PROCESS, polled }));
    }

    fn findings_at(&mut self, end_ns: u64) -> u64 {
        self.timeline.finish(end_ns, &mut self.out);
        self.timeline.findings().counts().map(|(_, counted)| counted.all).sum()
    }
}

fn finding() -> Recording {
    let mut recording = recording();
    recording.timeline.find(std::time::Duration::from_nanos(100));
    recording
}

#[test]
fn a_poll_that_blocks_in_place_when_the_recording_ends_is_no_long_poll() {
    // In debug builds it is not seen when a worker is given away, but it is seen that it is gone.
    for flags in [flags::STILL_POLLING | flags::WORKER_GONE, flags::STILL_POLLING] {
        let mut recording = finding();
        recording.ends_at(400, flags, with_worker(7, 100));
        assert_eq!(recording.findings_at(500), u64::from(flags & flags::WORKER_GONE == 0));
    }
}

#[test]
fn a_poll_whose_end_is_never_told_is_no_long_poll_once_it_has_given_its_worker_away() {
    for (gone, expected) in [(flags::WORKER_GONE, 0), (0, 1)] {
        let mut recording = finding();
        // What a thread polls is learnt from a stack.
        recording.polls(110, 1, with_worker(7, 100));
        recording.leaves_at(150, gone, with_worker(7, 100));
        assert_eq!(recording.findings_at(900), expected, "{gone}");
        assert_eq!(recording.timeline.seen().workers_gone_unseen, u64::from(gone != 0));
    }
}

#[test]
fn of_a_poll_whose_end_is_never_told_the_part_with_its_worker_is_the_workers() {
    let mut recording = finding();
    let polled = with_worker(7, 100);
    recording.polls(110, 1, polled);
    recording.gives(150, flags::GAVE_WORKER_AWAY, WORKER_VTABLE, 8, polled);
    recording.polls(300, 1, polled);
    recording.leaves_at(400, flags::WORKER_GONE, polled);
    assert_eq!(recording.findings_at(900), 0);
    let expected =
        on([(100, "handler", "worker 3"), (150, "block in place", "worker 3"), (150, "block in place", "thread 10")]);
    assert_eq!(recording.brief(), expected);
}

#[test]
fn a_worker_without_ticks_among_others_with_ticks_has_no_long_poll() {
    let shown = Polled { task: 7, runtime: RUNTIME, worker: 3, tick: 40 };
    let mut recording = finding();
    recording.polls(100, 1, shown);
    recording.polls(150, 1, shown);
    recording.leaves_at(200, 0, Polled { tick: 0, ..shown });
    recording.push(switch(400, 0, 0, 10, flags::NEXT_RECORDED));
    assert_eq!(recording.findings_at(900), 0);
    let seen = recording.timeline.seen();
    assert_eq!((seen.without_worker, seen.workers_gone_unseen), (1, 0));
}
