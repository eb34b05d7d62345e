//! Tasks from their beginnings to their ends, by what polls, spawns and the lists of runtimes tell.

use polletto_protos::{
    TrackEvent, debug_annotation,
    track_descriptor::ChildTracksOrdering,
    track_event::{NameField, Type},
};

use super::{
    polls::{HANDLER, PROCESS, RUNTIME, body, polled, recording},
    recording::Recording,
    wakes::NOTHING,
    *,
};

/// Id, beginning and end of a task, and how these are known.
type Told = (u64, (u64, &'static str), (u64, &'static str));

const NAMES: [&str; 5] = ["spawned", "first seen", "last poll", "last seen", "alive"];

/// Lists that were read from end to end.
fn listed(since_ns: u64, tasks: &[u64], gone: &[u64]) -> WalkedProcess {
    let handler = Arc::new(body(HANDLER, "handler", false));
    let tasks = tasks.iter().map(|&id| (id, Arc::clone(&handler))).collect();
    WalkedProcess {
        tgid: PROCESS,
        time_ns: since_ns + 10,
        runtimes: vec![WalkedRuntime {
            address: RUNTIME,
            tasks,
            listed_since_ns: Some(since_ns),
            ..WalkedRuntime::default()
        }],
        gone: gone.to_vec(),
        ..WalkedProcess::default()
    }
}

impl Recording {
    fn lists(&mut self, walked: &WalkedProcess) {
        self.timeline.walked(walked, &mut self.out);
    }

    /// What is told, in that order.
    fn lives(&mut self) -> Vec<Told> {
        let read = self.read();
        let texts = &read.interned.debug_annotation_string_values;
        let names = &read.interned.debug_annotation_names;
        let argument = |event: &TrackEvent, name: &str| {
            let is_it = |annotation: &&polletto_protos::DebugAnnotation| {
                let Some(debug_annotation::NameField::NameIid(iid)) = annotation.name_field else { return false };
                names.iter().any(|known| known.iid() == iid && known.name() == name)
            };
            event.debug_annotations.iter().find(is_it).and_then(|annotation| annotation.value.clone()).unwrap()
        };
        let text = |event: &TrackEvent, name: &str| match argument(event, name) {
            debug_annotation::Value::StringValueIid(iid) => {
                let text = texts.iter().find(|text| text.iid() == iid).unwrap();
                NAMES.into_iter().find(|name| name.as_bytes() == text.str()).unwrap()
            }
            other => panic!("{other:?}"),
        };
        let mut lives: Vec<Told> = Vec::new();
        let mut open: FxHashMap<u64, usize> = FxHashMap::default();
        for (time_ns, event) in &read.events {
            let track = &read.tracks[&event.track_uuid()];
            let Some(group) = read.tracks.get(&track.parent_uuid()).filter(|group| group.name() == "Tokio tasks")
            else {
                continue;
            };
            assert_eq!((track.name(), group.child_ordering()), ("handler", ChildTracksOrdering::Lexicographic));
            match event.r#type() {
                Type::SliceBegin => {
                    assert!(matches!(event.name_field, Some(NameField::NameIid(_))));
                    let debug_annotation::Value::UintValue(id) = argument(event, "task_id") else { panic!("no id") };
                    open.insert(event.track_uuid(), lives.len());
                    lives.push((id, (*time_ns, text(event, "begin")), (0, text(event, "end"))));
                }
                Type::SliceEnd => lives[open.remove(&event.track_uuid()).unwrap()].2.0 = *time_ns,
                other => panic!("{other:?}"),
            }
        }
        assert!(open.is_empty());
        lives
    }

    /// How many are told so far.
    fn told_so_far(&self) -> u64 {
        self.timeline.seen().tasks
    }

    fn ends(&mut self) -> Vec<Told> {
        self.timeline.finish(10_000, &mut self.out);
        self.lives()
    }
}

#[test]
fn a_task_lives_from_its_spawn_to_the_poll_after_which_it_is_in_no_list() {
    let mut recording = recording();
    recording.spawns(50, 9, NOTHING);
    recording.polls_from_to(9, 60, 70);
    recording.lists(&listed(100, &[9], &[]));
    recording.polls_from_to(9, 150, 160);
    recording.lists(&listed(200, &[], &[9]));
    assert_eq!(recording.told_so_far(), 0, "what happened before the last walk may not all be known");
    recording.polls_from_to(9, 170, 180);
    recording.lists(&listed(300, &[], &[]));
    assert_eq!(recording.told_so_far(), 1);
    assert_eq!(recording.ends(), [(9, (50, "spawned"), (180, "last poll"))]);
}

#[test]
fn a_task_that_vanishes_without_a_poll_was_last_seen_in_the_list_before() {
    let mut recording = recording();
    recording.polls_from_to(9, 60, 70);
    for (since_ns, tasks, gone) in [(100, vec![9], vec![]), (200, vec![], vec![]), (300, vec![], vec![9])] {
        recording.lists(&listed(since_ns, &tasks, &gone));
    }
    assert_eq!(recording.ends(), [(9, (60, "first seen"), (200, "last seen"))]);
}

#[test]
fn a_task_that_is_still_listed_is_alive_at_the_end() {
    let mut recording = recording();
    recording.lists(&listed(100, &[9], &[]));
    recording.lists(&listed(200, &[], &[]));
    assert_eq!(recording.ends(), [(9, (110, "first seen"), (10_000, "alive"))]);
}

#[test]
fn a_short_life_between_two_readings_is_over_if_tasks_of_its_kind_are_listed() {
    let mut recording = recording();
    recording.lists(&listed(100, &[9], &[]));
    recording.polls_from_to(8, 150, 160);
    recording.lists(&listed(200, &[], &[]));
    // It was polled while the lists were read, and may be in none for that.
    recording.polls_from_to(7, 190, 205);
    recording.lists(&listed(300, &[], &[]));
    assert_eq!(recording.told_so_far(), 1);
    recording.lists(&listed(400, &[], &[]));
    let lives = recording.lives();
    assert_eq!(lives, [(8, (150, "first seen"), (160, "last poll")), (7, (190, "first seen"), (205, "last poll"))]);
}

#[test]
fn a_task_of_a_kind_that_is_in_no_list_is_not_taken_to_be_over() {
    let mut recording = recording();
    recording.polls_from_to(8, 150, 160);
    for since_ns in [200, 300, 400] {
        recording.lists(&listed(since_ns, &[], &[]));
    }
    recording.polls_from_to(8, 450, 460);
    assert_eq!(recording.told_so_far(), 0);
    assert_eq!(recording.ends(), [(8, (150, "first seen"), (460, "last poll"))]);
}

#[test]
fn lists_that_were_not_read_to_their_ends_say_nothing_of_who_is_missing() {
    let mut recording = recording();
    recording.lists(&listed(100, &[9], &[]));
    recording.polls_from_to(8, 150, 160);
    for since_ns in [200, 300] {
        let mut walked = listed(since_ns, &[], &[]);
        walked.runtimes[0].listed_since_ns = None;
        recording.lists(&walked);
    }
    assert_eq!(recording.told_so_far(), 0);
}

#[test]
fn tasks_share_a_track_where_they_do_not_meet() {
    let mut recording = recording();
    for (task, began_ns, ended_ns) in [(1, 100, 200), (2, 150, 250), (3, 201, 300), (4, 250, 400)] {
        recording.polls_from_to(task, began_ns, ended_ns);
    }
    recording.timeline.finish(10_000, &mut recording.out);
    assert_eq!(recording.told_so_far(), 4);
    let tracks = recording.read().tracks;
    // The fourth begins in the moment in which the second ends.
    assert_eq!(tracks.values().filter(|track| track.name() == "handler").count(), 3);
}

#[test]
fn a_task_that_samples_find_is_told_without_its_polls() {
    let mut recording = recording();
    for time_ns in [100, 200, 900] {
        recording.polls(time_ns, 1, polled(7, 41));
    }
    assert_eq!(recording.ends(), [(7, (100, "first seen"), (900, "last seen"))]);
}

#[test]
fn tasks_end_with_their_process() {
    let mut recording = recording();
    recording.lists(&listed(100, &[9], &[]));
    recording.polls_from_to(9, 150, 160);
    recording.push(Record::Exec(record::Exec {
        header: header::<record::Exec>(500, 0),
        tid: Tid(10),
        old_tid: Tid(10),
        exec_id: 2,
    }));
    assert_eq!(recording.told_so_far(), 1);
    assert_eq!(recording.ends(), [(9, (110, "first seen"), (160, "last poll"))]);
}

#[test]
fn a_task_that_hung_until_its_process_ended_was_seen_last_in_its_list() {
    let mut recording = recording();
    recording.polls_from_to(9, 60, 70);
    for (since_ns, tasks) in [(100, vec![8, 9]), (200, vec![]), (300, vec![])] {
        recording.lists(&listed(since_ns, &tasks, &[]));
    }
    recording.push(Record::Exec(record::Exec {
        header: header::<record::Exec>(500, 0),
        tid: Tid(10),
        old_tid: Tid(10),
        exec_id: 2,
    }));
    assert_eq!(
        recording.ends(),
        [(9, (60, "first seen"), (300, "last seen")), (8, (110, "first seen"), (300, "last seen"))]
    );
}
