//! Workers that only their threads' names tell.

use super::{
    polls::{PROCESS, VTABLE, exact, recording},
    *,
};
use polletto_protos::track_event::Type;

/// A task that awaits was polled, by a thread of which nothing is known.
fn poll(tid: u32, began_ns: u64, task: u64) -> Record {
    let exact = exact(task, began_ns);
    let polled = Polled { runtime: 0, worker: 0, tick: exact.tick | Polled::AWAITS, ..exact };
    let header = header::<record::Poll>(began_ns + 10, 0);
    Record::Poll(record::Poll { header, tid: Tid(tid), tgid: PROCESS, vtable: VTABLE, polled })
}

#[test]
fn threads_with_such_names_have_tracks_of_workers_and_others_do_not() {
    let mut recording = recording();
    recording.timeline.name_workers(&["web".to_owned()]);
    for (tid, name) in [(11, "web-1"), (12, "web"), (13, "other")] {
        recording.push(task(tid, PROCESS.0, name));
    }
    recording.push(poll(12, 100, 1));
    recording.push(poll(11, 200, 2));
    recording.push(poll(13, 300, 3));
    // Another thread's name is a worker's from now on.
    let rename =
        record::Rename { header: header::<record::Rename>(400, 0), tid: Tid(13), tgid: PROCESS, comm: comm("web") };
    recording.push(Record::Rename(rename));
    recording.push(poll(13, 500, 4));
    recording.timeline.finish(1_000, &mut recording.out);
    let read = recording.read();
    let track = |uuid: u64| {
        format!("{} in {}", read.tracks[&uuid].name(), read.tracks[&read.tracks[&uuid].parent_uuid()].name())
    };
    let begins = read.events.iter().filter(|(_, event)| event.r#type() == Type::SliceBegin);
    let shown = begins.map(|(time_ns, event)| (*time_ns, track(event.track_uuid())));
    let mut polls: Vec<(u64, String)> =
        shown.filter(|(_, track)| !track.ends_with("Tokio tasks") && !track.ends_with("polletto")).collect();
    polls.sort();
    let on = |time_ns: u64, track: &str| (time_ns, track.to_owned());
    let expected = [
        on(100, "worker 0 in Tokio workers"),
        on(200, "worker 1 in Tokio workers"),
        on(300, "thread 13 in Tokio threads"),
        on(500, "worker 2 in Tokio workers"),
    ];
    assert_eq!(polls, expected);
    assert_eq!(recording.timeline.seen().workers_by_name, Some(3));
}
