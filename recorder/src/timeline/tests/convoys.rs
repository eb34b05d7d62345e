//! Threads that stand at one lock.

use std::collections::HashMap;

use polletto_common::record::{Blocked, Poll, PollLeft, Waking};
use polletto_protos::{
    TrackEvent,
    debug_annotation::{NameField, Value},
    track_event::Type,
};

use super::{
    polls::{PROCESS, RUNTIME, VTABLE, recording},
    recording::{Read, Recording},
    *,
};

const MS: u64 = 1_000_000;
const LOCK: u64 = 0x7f00_1234_5678;
const FUTEX: i32 = libc::SYS_futex as i32;
const NANOSLEEP: i32 = libc::SYS_nanosleep as i32;

fn exact(task: u64, began_ns: u64) -> Polled {
    Polled { task, runtime: RUNTIME, worker: 3, tick: Polled::EXACT | Polled::AWAITS | began_ns }
}

impl Recording {
    fn stands(&mut self, tid: u32, call: i32, times_ms: (u64, u64), waker: u32, polled: Polled) {
        self.stands_at(LOCK, tid, call, times_ms, waker, polled);
    }

    fn stands_at(
        &mut self,
        lock: u64,
        tid: u32,
        call: i32,
        (left_ms, woken_ms): (u64, u64),
        waker: u32,
        polled: Polled,
    ) {
        let (left_ns, woken_ns) = (left_ms * MS, woken_ms * MS);
        if polled.task != 0 {
            let header = header::<PollLeft>(left_ns, flags::FELL_ASLEEP);
            self.push(Record::PollLeft(PollLeft { header, tid: Tid(tid), tgid: PROCESS, polled }));
        }
        self.push(Record::Blocked(Blocked {
            header: header::<Blocked>(woken_ns + 5, 0),
            stack: 1,
            left_ns,
            woken_ns,
            tid: Tid(tid),
            tgid: PROCESS,
            waker_tid: Tid(waker),
            prev_state: 1,
            system_call: call,
            reserved: 0,
            argument: lock,
            polled,
        }));
    }

    fn ends_in_poll(&mut self, tid: u32, polled: Polled, ends_ms: u64) {
        let header = header::<Poll>(ends_ms * MS, 0);
        self.push(Record::Poll(Poll { header, tid: Tid(tid), tgid: PROCESS, vtable: VTABLE, polled }));
    }

    fn read_at(&mut self, end_ms: u64) -> Read {
        self.timeline.finish(end_ms * MS, &mut self.out);
        self.read()
    }
}

/// What an event's arguments say that are numbers or addresses.
fn numbers(read: &Read, event: &TrackEvent) -> HashMap<String, u64> {
    let name = |field: &Option<NameField>| {
        let Some(NameField::NameIid(iid)) = field else { panic!("{field:?}") };
        let names = &read.interned.debug_annotation_names;
        names.iter().find(|name| name.iid() == *iid).unwrap().name().to_owned()
    };
    let told = event.debug_annotations.iter().filter_map(|annotation| match annotation.value {
        Some(Value::UintValue(number) | Value::PointerValue(number)) => Some((name(&annotation.name_field), number)),
        _ => None,
    });
    told.collect()
}

/// Begin, group and arguments of what stands on tracks of findings.
fn found(read: &Read) -> Vec<(u64, String, HashMap<String, u64>)> {
    let begins = read.events.iter().filter(|(_, event)| event.r#type() == Type::SliceBegin);
    let on_track = |event: &TrackEvent| read.tracks.get(&event.track_uuid()).filter(|track| track.name() == "findings");
    let told = begins.filter_map(|(time_ns, event)| {
        let group = read.tracks[&on_track(event)?.parent_uuid()].name().to_owned();
        Some((*time_ns / MS, group, numbers(read, event)))
    });
    told.collect()
}

fn finding_recording() -> Recording {
    let mut recording = recording();
    recording.timeline.find(Duration::from_millis(5));
    recording
}

#[test]
fn a_convoy_is_a_slice_as_long_as_somebody_stands_there() {
    let mut recording = finding_recording();
    // Who holds it sleeps, lets it go, and goes on with its poll.
    recording.stands(9, NANOSLEEP, (2, 14), 0, exact(6, MS / 2));
    recording.stands(10, FUTEX, (1, 15), 9, exact(7, 1));
    recording.stands(11, FUTEX, (2, 25), 10, Polled::default());
    recording.stands(12, FUTEX, (3, 35), 11, Polled::default());
    recording.ends_in_poll(9, exact(6, MS / 2), 20);
    // Too short to keep anybody.
    recording.stands(10, FUTEX, (40, 43), 9, exact(7, 39 * MS));
    let read = recording.read_at(100);
    let [(begin, group, arguments)] = &found(&read)[..] else { panic!("{:?}", found(&read)) };
    assert_eq!((*begin, group.as_str()), (1, "Tokio workers"));
    let expected = [
        ("lock", LOCK),
        ("threads", 3),
        ("at_once", 3),
        ("held_by", 9),
        ("held_ns", 14 * MS),
        ("held_by_task_id", 6),
        ("task_id", 7),
        ("tid", 10),
        ("threshold_ns", 5 * MS),
        ("duration_ns", 34 * MS),
    ];
    assert_eq!(*arguments, expected.map(|(name, value)| (name.to_owned(), value)).into());
    let of = |group: &Group| (group.longest.fault, group.longest.task, group.longest.duration_ns());
    let convoys: Vec<_> =
        recording.timeline.findings().groups().map(of).filter(|(fault, ..)| *fault == Fault::Convoy).collect();
    assert_eq!(convoys, [(Fault::Convoy, 7, 34 * MS)]);
    let convoy = recording.timeline.findings().groups().find_map(|group| group.longest.convoy.as_ref()).unwrap();
    assert!(convoy.held.callstack.is_some(), "{convoy:?}");
}

#[test]
fn who_slept_at_the_lock_before_the_recording_held_it_from_when_it_was_woken() {
    let mut recording = finding_recording();
    let header = header::<Waking>(26 * MS, 0);
    recording.push(task(9, PROCESS.0, "b"));
    recording.push(Record::Waking(Waking { header, tid: Tid(9), prio: 120, target_cpu: 0 }));
    // It ends before those tell of it that it has woken.
    recording.timeline.thread_ended(35 * MS, 0, Tid(9), &mut recording.out);
    recording.stands(10, FUTEX, (1, 34), 9, exact(7, 1));
    recording.stands(11, FUTEX, (2, 35), 10, Polled::default());
    recording.stands(12, FUTEX, (3, 36), 11, Polled::default());
    let read = recording.read_at(100);
    let [(_, _, arguments)] = &found(&read)[..] else { panic!("{:?}", found(&read)) };
    assert_eq!((arguments["held_by"], arguments["held_ns"]), (9, 8 * MS));
}

#[test]
fn convoys_that_overlap_stand_on_tracks_beside_each_other() {
    let mut recording = finding_recording();
    for (first, lock) in [(1, LOCK), (6, LOCK + 8)] {
        for (at, tid) in [(0, 10), (1, 11), (2, 12)] {
            let tid = if lock == LOCK { tid } else { tid + 10 };
            recording.stands_at(lock, tid, FUTEX, (first + at, first + 20), 9, exact(u64::from(tid), first + at));
        }
    }
    let read = recording.read_at(100);
    let on_tracks: Vec<u64> = read
        .events
        .iter()
        .filter(|(_, event)| event.r#type() == Type::SliceBegin)
        .map(|(_, event)| event.track_uuid())
        .filter(|track| read.tracks.get(track).is_some_and(|track| track.name() == "findings"))
        .collect();
    assert!(matches!(on_tracks[..], [one, other] if one != other), "{on_tracks:?}");
}

#[test]
fn the_lock_stands_at_a_sleep_s_slice_and_what_is_no_lock_has_none() {
    let mut recording = finding_recording();
    recording.stands(10, FUTEX, (1, 15), 9, Polled::default());
    recording.stands(11, NANOSLEEP, (2, 16), 9, Polled::default());
    let read = recording.read_at(100);
    let blocked = read.events.iter().filter(|(_, event)| event.r#type() == Type::SliceBegin);
    let locks: Vec<Option<u64>> = blocked
        .map(|(_, event)| numbers(&read, event))
        .filter(|arguments| arguments.contains_key("sleep_ns"))
        .map(|arguments| arguments.get("lock").copied())
        .collect();
    assert_eq!(locks, [Some(LOCK), None]);
    assert_eq!(found(&read), []);
}
