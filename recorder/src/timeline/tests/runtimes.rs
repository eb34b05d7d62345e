//! What was read from a process's memory.

use polletto_protos::track_event::Type;

use super::{recording::Recording, *};

const PROCESS: Tgid = Tgid(10);
const ONE: u64 = 0x1000;
const OTHER: u64 = 0x2000;

fn walked(time_ns: u64, runtimes: &[(u64, &[(RuntimeCounter, u64)])]) -> WalkedProcess {
    let runtime = |&(address, counters): &(u64, &[(RuntimeCounter, u64)])| WalkedRuntime {
        address,
        counters: counters.to_vec(),
        tasks: Vec::new(),
        listed_since_ns: None,
    };
    let runtimes = runtimes.iter().map(runtime).collect();
    WalkedProcess { tgid: PROCESS, time_ns, runtimes, ..WalkedProcess::default() }
}

impl Recording {
    fn walked(&mut self, walked: &WalkedProcess) {
        self.timeline.walked(walked, &mut self.out);
    }

    /// Time, value, track and group of each counter.
    fn counted(&mut self) -> Vec<(u64, i64, String, String)> {
        let read = self.read();
        let is_theirs = |track: u64| read.tracks.get(&track).is_some_and(|track| track.uuid() >> 40 == 0x74_6f6b);
        let counters = read.events.iter().filter(|(_, event)| event.r#type() == Type::Counter);
        let theirs = counters.filter(|(_, event)| is_theirs(event.track_uuid()));
        let told = |(time_ns, event): &(u64, polletto_protos::TrackEvent)| {
            let track = &read.tracks[&event.track_uuid()];
            let group = read.tracks[&track.parent_uuid()].name().to_owned();
            (*time_ns, event.counter_value(), track.name().to_owned(), group)
        };
        theirs.map(told).collect()
    }
}

fn counted(time_ns: u64, value: i64, track: &str, group: &str) -> (u64, i64, String, String) {
    (time_ns, value, track.to_owned(), group.to_owned())
}

#[test]
fn a_number_is_shown_at_the_beginning_and_when_it_has_changed() {
    let mut recording = Recording::new();
    for (time_ns, live, queued) in [(100, 5, 0), (200, 5, 0), (300, 6, 0), (400, 6, 2)] {
        let counters = [(RuntimeCounter::LiveTasks, live), (RuntimeCounter::WorkerQueue(1), queued)];
        recording.walked(&walked(time_ns, &[(ONE, &counters)]));
    }
    let expected = [
        counted(100, 5, "live tasks", "Tokio workers"),
        counted(100, 0, "worker 1 queue", "Tokio workers"),
        counted(300, 6, "live tasks", "Tokio workers"),
        counted(400, 2, "worker 1 queue", "Tokio workers"),
    ];
    assert_eq!(recording.counted(), expected);
}

#[test]
fn a_runtime_has_numbers_of_its_own_until_it_ends() {
    let mut recording = Recording::new();
    let live = [(RuntimeCounter::LiveTasks, 5)];
    recording.walked(&walked(100, &[(ONE, &live), (OTHER, &live)]));
    recording.walked(&WalkedProcess { ended: vec![ONE], ..walked(200, &[(OTHER, &live)]) });
    recording.walked(&walked(300, &[(OTHER, &live)]));
    let expected = [
        counted(100, 5, "live tasks", "Tokio workers"),
        counted(100, 5, "live tasks", "Tokio workers, runtime 2"),
        counted(200, 0, "live tasks", "Tokio workers"),
    ];
    assert_eq!(recording.counted(), expected);
}

#[test]
fn of_a_process_that_is_not_recorded_nothing_is_shown() {
    let mut recording = Recording::new();
    let live = [(RuntimeCounter::LiveTasks, 5)];
    recording.walked(&WalkedProcess { tgid: Tgid(11), ..walked(100, &[(ONE, &live)]) });
    assert_eq!(recording.counted(), []);
}

#[test]
fn a_walk_that_is_cut_short_is_marked_and_counted() {
    let mut recording = Recording::new();
    for time_ns in [100, 200] {
        recording.walked(&WalkedProcess { is_cut_short: true, ..walked(time_ns, &[]) });
    }
    assert_eq!(recording.timeline.seen().walks_cut_short, 2);
    let read = recording.read();
    let instants = read.events.iter().filter(|(_, event)| event.r#type() == Type::Instant);
    let tracks: Vec<_> = instants.map(|(time_ns, event)| (*time_ns, read.tracks[&event.track_uuid()].name())).collect();
    assert_eq!(tracks, [(100, "task walks cut short"), (200, "task walks cut short")]);
}
