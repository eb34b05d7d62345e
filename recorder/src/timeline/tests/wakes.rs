//! Wakes and spawns that probes tell of, and the polls to which they lead.

use std::collections::BTreeMap;

use polletto_common::record::{Poll, Spawn, Wake};
use polletto_protos::{debug_annotation, track_event::Type};

use super::{
    polls::{PROCESS, VTABLE, exact, polled, recording},
    recording::Recording,
    *,
};

pub(super) const NOTHING: Polled = Polled { task: 0, runtime: 0, worker: 0, tick: 0 };

pub(super) fn awaits(task: u64, began_ns: u64) -> Polled {
    let exact = exact(task, began_ns);
    Polled { tick: exact.tick | Polled::AWAITS, ..exact }
}

/// A wake, a spawn or a poll as the trace has it.
#[derive(Debug, PartialEq)]
pub(super) struct Event {
    pub(super) time_ns: u64,
    pub(super) name: String,
    pub(super) track: String,
    pub(super) flows: Vec<u64>,
    pub(super) numbers: BTreeMap<String, u64>,
}

impl Recording {
    pub(super) fn wakes(&mut self, time_ns: u64, flags: u32, task: u64, polled: Polled) {
        let header = header::<Wake>(time_ns, flags);
        self.push(Record::Wake(Wake { header, tid: Tid(10), tgid: PROCESS, vtable: VTABLE, task, polled }));
    }

    pub(super) fn spawns(&mut self, time_ns: u64, task: u64, polled: Polled) {
        let header = header::<Spawn>(time_ns, 0);
        self.push(Record::Spawn(Spawn { header, tid: Tid(10), tgid: PROCESS, vtable: VTABLE, task, polled }));
    }

    pub(super) fn polls_from_to(&mut self, task: u64, began_ns: u64, ended_ns: u64) {
        self.polls_with(ended_ns, 0, awaits(task, began_ns));
    }

    fn polls_with(&mut self, time_ns: u64, flags: u32, polled: Polled) {
        let header = header::<Poll>(time_ns, flags);
        self.push(Record::Poll(Poll { header, tid: Tid(10), tgid: PROCESS, vtable: VTABLE, polled }));
    }

    /// In the order of their times.
    pub(super) fn told(&mut self) -> Vec<Event> {
        self.timeline.finish(10_000, &mut self.out);
        let read = self.read();
        let find = |names: &[(u64, String)], iid: u64| {
            names.iter().find(|(known, _)| *known == iid).map(|(_, name)| name.clone()).unwrap()
        };
        let interned = &read.interned;
        let events: Vec<_> = interned.event_names.iter().map(|name| (name.iid(), name.name().to_owned())).collect();
        let arguments: Vec<_> =
            interned.debug_annotation_names.iter().map(|name| (name.iid(), name.name().to_owned())).collect();
        let number = |annotation: &polletto_protos::DebugAnnotation| {
            let Some(debug_annotation::NameField::NameIid(name)) = annotation.name_field else { return None };
            match annotation.value {
                Some(debug_annotation::Value::UintValue(value)) => Some((find(&arguments, name), value)),
                _ => None,
            }
        };
        let mut told: Vec<Event> = Vec::new();
        for (time_ns, event) in &read.events {
            let Some(NameField::NameIid(name)) = event.name_field else { continue };
            assert!(matches!(event.r#type(), Type::SliceBegin | Type::Instant));
            let group = read.tracks.get(&read.tracks[&event.track_uuid()].parent_uuid());
            if group.is_some_and(|group| group.name() == "Tokio tasks") {
                continue;
            }
            told.push(Event {
                time_ns: *time_ns,
                name: find(&events, name),
                track: read.tracks[&event.track_uuid()].name().to_owned(),
                flows: event.flow_ids.clone(),
                numbers: event.debug_annotations.iter().filter_map(number).collect(),
            });
        }
        told.sort_by_key(|event| event.time_ns);
        told
    }

    /// The times of wakes and spawns, and those of the polls that they lead to.
    fn flows(&mut self) -> Vec<(u64, Option<u64>)> {
        let told = self.told();
        let (polls, others): (Vec<&Event>, Vec<&Event>) = told.iter().partition(|event| event.name == "handler");
        let flow = |event: &&Event| {
            let [flow] = event.flows[..] else { panic!("one flow begins with {event:?}") };
            let to = polls.iter().find(|poll| poll.flows.contains(&flow));
            (event.time_ns, to.map(|poll| poll.time_ns))
        };
        others.iter().map(flow).collect()
    }
}

#[test]
fn a_wake_in_a_poll_is_on_its_workers_track_and_says_who_it_was() {
    let mut recording = recording();
    recording.wakes(120, 0, 8, awaits(7, 100));
    recording.polls_from_to(7, 100, 150);
    recording.polls_from_to(8, 200, 250);
    let told = recording.told();
    let names: Vec<_> = told.iter().map(|event| (event.time_ns, &*event.name, &*event.track)).collect();
    assert_eq!(names, [(100, "handler", "worker 3"), (120, "wake", "worker 3"), (200, "handler", "worker 3")]);
    assert_eq!((told[1].numbers["task_id"], told[1].numbers["waker_task_id"]), (8, 7));
    assert!(told[0].flows.is_empty() && told[1].flows.len() == 1);
    assert_eq!(told[1].flows, told[2].flows);
    let seen = recording.timeline.seen();
    assert_eq!((seen.wakes, seen.wakes_polled, seen.spawns), (1, 1, 0));
}

#[test]
fn a_wake_outside_of_polls_is_on_its_threads_track() {
    let between_polls = Polled { tick: exact(7, 100).tick, ..polled(2, 0) };
    for (claim, polled) in [("of a thread that polls nothing", NOTHING), ("of a worker between polls", between_polls)] {
        let mut recording = recording();
        recording.wakes(120, 0, 8, polled);
        let told = recording.told();
        assert_eq!((&*told[0].name, &*told[0].track), ("wake", "thread 10"), "{claim}");
        assert_eq!(told[0].numbers.get("waker_task_id"), None, "{claim}");
    }
}

#[test]
fn a_wake_of_code_that_may_block_is_its_tasks() {
    let mut recording = recording();
    recording.wakes(120, 0, 8, Polled { runtime: 0, ..exact(7, 100) });
    let told = recording.told();
    assert_eq!((&*told[0].track, told[0].numbers["waker_task_id"]), ("thread 10", 7));
}

#[test]
fn all_wakes_before_a_poll_lead_there_and_those_in_it_to_the_next() {
    let mut recording = recording();
    recording.wakes(80, 0, 7, NOTHING);
    recording.wakes(90, 0, 7, NOTHING);
    recording.wakes(120, flags::WHILE_POLLED, 7, awaits(7, 100));
    recording.wakes(130, flags::WHILE_POLLED, 7, NOTHING);
    recording.polls_from_to(7, 100, 150);
    recording.polls_from_to(7, 160, 170);
    recording.wakes(180, 0, 7, NOTHING);
    let expected = [(80, Some(100)), (90, Some(100)), (120, Some(160)), (130, Some(160)), (180, None)];
    assert_eq!(recording.flows(), expected);
}

#[test]
fn a_poll_on_another_worker_that_is_told_first_takes_no_wake_of_the_one_before() {
    let mut recording = recording();
    recording.wakes(80, 0, 7, NOTHING);
    recording.wakes(120, flags::WHILE_POLLED, 7, awaits(7, 100));
    recording.polls_from_to(7, 125, 130);
    recording.polls_from_to(7, 100, 140);
    assert_eq!(recording.flows(), [(80, Some(100)), (120, Some(125))]);
}

#[test]
fn a_wake_whose_poll_is_not_told_leads_nowhere() {
    let mut recording = recording();
    recording.wakes(80, 0, 7, NOTHING);
    recording.polls_with(100, flags::END_UNSEEN, Polled { task: 7, ..NOTHING });
    recording.wakes(110, 0, 7, NOTHING);
    recording.polls_from_to(7, 120, 130);
    recording.wakes(140, 0, 7, NOTHING);
    let lost = Lost { header: header::<Lost>(150, flags::SAMPLES_LOST), until_ns: 160, count: 1 };
    recording.push(Record::Lost(lost));
    recording.polls_from_to(7, 180, 190);
    assert_eq!(recording.flows(), [(80, None), (110, Some(120)), (140, None)]);
}

#[test]
fn a_spawned_task_has_its_parent_and_its_first_poll() {
    let mut recording = recording();
    recording.spawns(50, 7, NOTHING);
    recording.polls_from_to(7, 100, 110);
    recording.spawns(120, 8, awaits(7, 115));
    recording.polls_from_to(7, 115, 130);
    recording.polls_from_to(8, 200, 210);
    recording.polls_from_to(8, 220, 230);
    let told = recording.told();
    let parents: Vec<_> = told.iter().map(|event| (event.time_ns, event.numbers.get("parent").copied())).collect();
    assert_eq!(parents, [(50, None), (100, None), (115, None), (120, Some(7)), (200, Some(7)), (220, Some(7))]);
    assert_eq!((&*told[3].name, &*told[3].track), ("spawn", "worker 3"));
    assert_eq!(recording.timeline.seen().spawns, 2);
}

#[test]
fn a_spawn_leads_to_the_first_poll_and_no_other() {
    let mut recording = recording();
    recording.spawns(50, 7, NOTHING);
    recording.polls_from_to(7, 100, 110);
    recording.polls_from_to(7, 120, 130);
    assert_eq!(recording.flows(), [(50, Some(100))]);
}

#[test]
fn samples_of_a_task_tell_whom_it_descends_from() {
    let mut recording = recording();
    recording.spawns(50, 8, awaits(7, 40));
    recording.spawns(60, 9, awaits(8, 55));
    // However often a program's memory says so.
    recording.spawns(70, 7, awaits(9, 65));
    recording.polls(100, 1, awaits(9, 90));
    let read = recording.read();
    let contexts = &read.interned.stack_sample_async_context_descriptors;
    let of = |name: &str| contexts.iter().find(|context| context.name().ends_with(name)).unwrap();
    assert_eq!(of("#9").parent_iid, of("#8").iid);
    assert_eq!(of("#8").parent_iid, of("#7").iid);
    assert_eq!(contexts.len(), 3);
}

#[test]
fn a_task_that_may_have_been_polled_unobserved_has_not_starved() {
    for (until_ns, expected) in [(600, 0), (500, 1)] {
        let mut recording = recording();
        recording.timeline.find(std::time::Duration::from_nanos(100));
        let why = Unobserved::Budget;
        let news = PollNews::Unobserved { process: PROCESS, since_ns: 400, until_ns, why };
        recording.timeline.poll_news(&news, &mut recording.out);
        // Probes were there already, but not all of them.
        recording.wakes(500, 0, 8, NOTHING);
        recording.polls_from_to(8, 950, 960);
        let starved = recording.told().iter().filter(|event| event.name == "starved task").count();
        assert_eq!(starved, expected, "not observed until {until_ns}");
    }
}

#[test]
fn of_a_starved_task_it_is_told_which_long_poll_took_most_of_the_time_meanwhile() {
    let mut recording = recording();
    recording.timeline.find(std::time::Duration::from_nanos(100));
    recording.wakes(500, 0, 8, NOTHING);
    for (task, began_ns, ended_ns) in [(5, 100, 250), (6, 300, 620), (7, 650, 890), (9, 900, 930), (8, 950, 960)] {
        recording.polls_from_to(task, began_ns, ended_ns);
    }
    let told = recording.told();
    let starved: Vec<_> = told.iter().filter(|event| event.name == "starved task").collect();
    let [starved] = starved[..] else { panic!("{told:?}") };
    assert_eq!((starved.numbers["duration_ns"], starved.numbers["kept_by_ns"]), (450, 240));
    let meanwhile = recording.timeline.findings().groups().find_map(|group| group.longest.meanwhile.clone()).unwrap();
    assert_eq!(meanwhile.to_string(), "worker 3 polled handler for 0.0 ms (Tokio workers)");
    assert!(!recording.timeline.has_several_runtimes(PROCESS), "which is not told then");
}
