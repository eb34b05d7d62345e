//! What is found to be wrong with runtimes as a whole.

use polletto_common::record::{Poll, Spawn};
use polletto_protos::{
    debug_annotation,
    track_event::{NameField, Type},
};

use super::{
    polls::{PROCESS, RUNTIME, VTABLE, recording},
    recording::Recording,
    *,
};

const MS: u64 = 1_000_000;
const WORKER: u64 = 3;
const OURS_LEAVES: u32 = flags::PREV_RECORDED;

fn exact(began_ns: u64) -> Polled {
    Polled { task: 7, runtime: RUNTIME, worker: WORKER, tick: Polled::EXACT | Polled::AWAITS | began_ns }
}

fn finding_recording() -> Recording {
    let mut recording = recording();
    recording.timeline.find(Duration::from_millis(5));
    recording.observed(0);
    recording
}

impl Recording {
    /// There were no probes before `until_ns`.
    fn observed(&mut self, until_ns: u64) {
        let news = PollNews::Unobserved { process: PROCESS, since_ns: 0, until_ns, why: Unobserved::NotYet };
        self.timeline.poll_news(&news, &mut self.out);
    }

    fn polled_from(&mut self, began_ns: u64, end_ns: u64) {
        let header = header::<Poll>(end_ns, 0);
        let polled = exact(began_ns);
        self.push(Record::Poll(Poll { header, tid: Tid(10), tgid: PROCESS, vtable: VTABLE, polled }));
    }

    /// The worker's thread sleeps outside of polls.
    fn parks(&mut self, since_ns: u64, until_ns: u64) {
        self.push(switch(since_ns, 10, SLEEPS, 0, OURS_LEAVES));
        self.push(switch(until_ns, 0, 0, 10, flags::NEXT_RECORDED));
    }

    fn walks(&mut self, time_ns: u64, counters: &[(RuntimeCounter, u64)]) {
        let runtime = WalkedRuntime { address: RUNTIME, counters: counters.to_vec(), ..WalkedRuntime::default() };
        let walked = WalkedProcess { tgid: PROCESS, time_ns, runtimes: vec![runtime], ..WalkedProcess::default() };
        self.timeline.walked(&walked, &mut self.out);
    }

    fn has_workers(&mut self, count: u64) {
        let queues: Vec<_> = (0..count).map(|index| (RuntimeCounter::WorkerQueue(index), 0)).collect();
        self.walks(2, &queues);
    }

    fn pool(&mut self, time_ns: u64, queued: u64, idle: u64) {
        self.walks(time_ns, &[(RuntimeCounter::BlockingQueue, queued), (RuntimeCounter::IdleBlockingThreads, idle)]);
    }

    /// Kind, worker and how long, in milliseconds.
    fn found(&mut self, end_ns: u64) -> Vec<(&'static str, Option<u64>, u64)> {
        self.timeline.finish(end_ns, &mut self.out);
        let of = |found: &RuntimeFinding| (found.fault.name(), found.worker, found.duration_ns / MS);
        self.timeline.runtime_findings().iter().map(of).collect()
    }

    /// Time, name, track, group and length of what is shown, in milliseconds.
    fn shown_findings(&mut self) -> Vec<(u64, String, String, String, u64)> {
        let read = self.read();
        let text =
            |iid: u64| read.interned.event_names.iter().find(|name| name.iid() == iid).unwrap().name().to_owned();
        let begins = read.events.iter().filter(|(_, event)| event.r#type() == Type::SliceBegin);
        let told = begins.filter_map(|(time_ns, event)| {
            let track = read.tracks.get(&event.track_uuid()).filter(|track| track.name() == "findings")?;
            let Some(NameField::NameIid(name)) = event.name_field else { panic!("{event:?}") };
            let lasted_ns = event.debug_annotations.iter().find_map(|annotation| match annotation.value {
                Some(debug_annotation::Value::UintValue(number)) if number > MS => Some(number),
                _ => None,
            });
            let group = read.tracks[&track.parent_uuid()].name().to_owned();
            Some((time_ns / MS, text(name), track.name().to_owned(), group, lasted_ns.unwrap() / MS))
        });
        told.collect()
    }
}

#[test]
fn a_worker_that_is_never_at_rest_is_found() {
    for (parked_ms, expected) in [
        (0, vec!["worker never parks", "one busy worker"]),
        (100, vec!["one busy worker"]),
        // Then it has a tenth of the time to itself.
        (201, vec![]),
    ] {
        let mut recording = finding_recording();
        recording.has_workers(4);
        recording.polled_from(1, 1000 * MS);
        if parked_ms > 0 {
            recording.parks(1000 * MS, (1000 + parked_ms) * MS);
        }
        recording.polled_from((1000 + parked_ms) * MS, 2000 * MS);
        let expected: Vec<_> = expected.into_iter().map(|kind| (kind, Some(WORKER), 1999)).collect();
        assert_eq!(recording.found(2000 * MS), expected, "{parked_ms} ms");
    }
}

#[test]
fn what_is_found_of_a_runtime_is_a_slice_in_its_group() {
    let mut recording = finding_recording();
    recording.polled_from(1, 2000 * MS);
    recording.pool(500 * MS, 2, 0);
    recording.pool(1600 * MS, 0, 0);
    recording.found(2000 * MS);
    let shown =
        |time, name: &str, lasted| (time, name.to_owned(), "findings".to_owned(), "Tokio workers".to_owned(), lasted);
    assert_eq!(
        recording.shown_findings(),
        [shown(500, "blocking pool full", 1100), shown(0, "worker never parks", 1999)]
    );
}

#[test]
fn a_worker_s_sleep_in_a_poll_is_no_rest_unless_it_was_given_away_before() {
    for (gives_away, expected) in [(false, vec![("worker never parks", Some(WORKER), 1999)]), (true, vec![])] {
        let mut recording = finding_recording();
        recording.polled_from(1, 1000 * MS);
        let polled = exact(1000 * MS);
        if gives_away {
            let header = header::<Spawn>(1400 * MS, flags::MAY_BLOCK | flags::GAVE_WORKER_AWAY);
            // Of a closure that nothing is known of.
            let spawn = Spawn { header, tid: Tid(10), tgid: PROCESS, vtable: 0, task: 8, polled };
            recording.push(Record::Spawn(spawn));
        }
        let header = header::<record::PollLeft>(1500 * MS, flags::FELL_ASLEEP);
        recording.push(switch(1500 * MS, 10, SLEEPS, 0, OURS_LEAVES));
        recording.push(Record::PollLeft(record::PollLeft { header, tid: Tid(10), tgid: PROCESS, polled }));
        recording.push(switch(1900 * MS, 0, 0, 10, flags::NEXT_RECORDED));
        recording.polled_from(1000 * MS, 2000 * MS);
        assert_eq!(recording.found(2000 * MS), expected, "{gives_away}");
    }
}

#[test]
fn a_process_that_has_ended_is_judged_by_all_of_the_recording() {
    for (ended_ms, expected) in [(1950, vec![("one busy worker", Some(WORKER), 1999)]), (1500, vec![])] {
        let mut recording = finding_recording();
        recording.has_workers(2);
        recording.polled_from(1, ended_ms * MS);
        recording.push(switch(ended_ms * MS, 10, DEAD, 0, OURS_LEAVES));
        assert!(!recording.timeline.has_process(PROCESS));
        assert_eq!(recording.found(2000 * MS), expected, "{ended_ms} ms");
    }
}

#[test]
fn a_pool_is_full_while_closures_wait_and_no_thread_is_idle() {
    let mut recording = finding_recording();
    for (time_ms, queued, idle) in
        [(0, 0, 0), (500, 2, 0), (1000, 4, 0), (1600, 1, 1), (2000, 1, 0), (2900, 0, 0), (3000, 3, 0)]
    {
        recording.pool(time_ms * MS, queued, idle);
    }
    let found = recording.found(4500 * MS);
    assert_eq!(found, [("blocking pool full", None, 1100), ("blocking pool full", None, 1500)]);
    let [first, last] = recording.timeline.runtime_findings() else { panic!("{found:?}") };
    assert_eq!((first.since_ns, first.fault), (Some(500 * MS), RuntimeFault::PoolFull { waiting: 4 }));
    assert_eq!((last.since_ns, last.fault), (Some(3000 * MS), RuntimeFault::PoolFull { waiting: 3 }));
}

#[test]
fn a_pool_is_full_until_its_process_ends() {
    let mut recording = finding_recording();
    recording.pool(500 * MS, 2, 0);
    recording.push(switch(1700 * MS, 10, DEAD, 0, OURS_LEAVES));
    assert_eq!(recording.found(9000 * MS), [("blocking pool full", None, 1200)]);
}

#[test]
fn nothing_is_found_that_is_not_looked_for_or_was_not_observed() {
    let busy = |recording: &mut Recording, end_ns| {
        recording.polled_from(1, end_ns);
        recording.found(end_ns)
    };
    // For too short a time.
    assert_eq!(busy(&mut finding_recording(), 999 * MS), []);
    let mut unwanted = recording();
    unwanted.observed(0);
    assert_eq!(busy(&mut unwanted, 2000 * MS), []);
    let mut unobserved = recording();
    unobserved.timeline.find(Duration::from_millis(5));
    assert_eq!(busy(&mut unobserved, 2000 * MS), []);
}
