//! The recorder's own tracks: what it used, and where it saw nothing.
//!
//! Absence of data must never look like absence of activity.

use std::ops::Range;

use polletto_common::{
    id::Tgid,
    record::{self, flags},
};
use polletto_protos::{
    CounterDescriptor, DebugAnnotation, TrackDescriptor, TrackEvent, counter_descriptor::Unit, debug_annotation,
    trace_packet::Data, track_descriptor::ChildTracksOrdering, track_event, track_event::Type,
};

use super::{poll_news::Unobserved, runtimes::WalkedProcess};
use crate::trace::PacketBuffer;

/// "polletto" in ASCII. Other tracks count up from here.
const GROUP: u64 = 0x706f_6c6c_6574_746f;
const RECORDING: u64 = GROUP + 1;
const LOST: u64 = GROUP + 2;
const BYTES: u64 = GROUP + 3;
const CPU_TIME: u64 = GROUP + 4;
const WALKS_CUT_SHORT: u64 = GROUP + 5;
/// Plus the CPU's number.
const LOST_ON_CPU: u64 = GROUP + 0x1_0000;
/// Plus the CPU's number.
const SAMPLES_LOST_ON_CPU: u64 = GROUP + 0x2_0000;
/// Plus the process's id.
const POLLS_OF_PROCESS: u64 = GROUP + 0x1_0000_0000;

/// What is on a process's track of polls, for who sees it.
const OBSERVED: &str =
    "Whether the process's polls were observed. Where they were not, only samples and switches tell of them.";

/// What a recording has cost so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RecorderCounters {
    /// Bytes in the trace file.
    pub bytes_written: u64,
    /// CPU time of the recorder, user and system, nanoseconds.
    pub cpu_ns: u64,
}

/// Writes the group `polletto`.
#[derive(Debug)]
pub struct RecorderTrack {
    /// Tracks of losses.
    described: Vec<u64>,
}

impl RecorderTrack {
    /// Describes the tracks and begins the slice that lasts as long as the recording.
    pub fn new(began_ns: u64, out: &mut PacketBuffer) -> RecorderTrack {
        let group = TrackDescriptor {
            uuid: Some(GROUP),
            name: Some("polletto".into()),
            description: Some("The recorder itself: what it used and what it could not see".into()),
            child_ordering: Some(ChildTracksOrdering::Explicit as i32),
            ..TrackDescriptor::default()
        };
        describe(group, began_ns, out);
        describe(child(RECORDING, "recording", 0), began_ns, out);
        for (uuid, name, unit) in [
            (LOST, "records lost", Unit::Count),
            (BYTES, "trace size", Unit::SizeBytes),
            (CPU_TIME, "recorder CPU time", Unit::TimeNs),
        ] {
            let counter = CounterDescriptor { unit: Some(unit as i32) };
            describe(TrackDescriptor { counter: Some(counter), ..child(uuid, name, 1) }, began_ns, out);
        }
        out.push(Some(began_ns), event(RECORDING, Type::SliceBegin, Some("recording")));
        let mut track = RecorderTrack { described: Vec::new() };
        track.count(began_ns, RecorderCounters::default(), 0, out);
        track
    }

    /// Shows counters as they are at `now_ns`.
    pub fn count(&mut self, now_ns: u64, counters: RecorderCounters, lost: u64, out: &mut PacketBuffer) {
        for (uuid, value) in [(LOST, lost), (BYTES, counters.bytes_written), (CPU_TIME, counters.cpu_ns)] {
            let event = TrackEvent {
                r#type: Some(Type::Counter as i32),
                track_uuid: Some(uuid),
                counter_value: Some(i64::try_from(value).unwrap_or(i64::MAX)),
                ..TrackEvent::default()
            };
            out.push(Some(now_ns), Data::TrackEvent(event));
        }
    }

    /// Marks where records of one CPU are missing.
    pub fn lost(&mut self, lost: &record::Lost, out: &mut PacketBuffer) {
        let record::Header { time_ns, cpu, flags, .. } = lost.header;
        let (first_track, name) = if flags & flags::SAMPLES_LOST != 0 {
            (SAMPLES_LOST_ON_CPU, "samples lost")
        } else {
            (LOST_ON_CPU, "records lost")
        };
        let uuid = self.cpu_track(first_track, time_ns, cpu, out);
        let begin = TrackEvent {
            r#type: Some(Type::SliceBegin as i32),
            track_uuid: Some(uuid),
            name_field: Some(track_event::NameField::Name(name.into())),
            categories: vec!["loss".into()],
            debug_annotations: vec![number("cpu", u64::from(cpu)), number("records", lost.count)],
            ..TrackEvent::default()
        };
        out.push(Some(time_ns), Data::TrackEvent(begin));
        out.push(Some(lost.until_ns.max(time_ns)), event(uuid, Type::SliceEnd, None));
    }

    /// Marks where the kernel did not report a switch: the next one of this CPU, at `time_ns`, contradicts the last.
    pub fn unreported(&mut self, time_ns: u64, cpu: u16, out: &mut PacketBuffer) {
        let uuid = self.cpu_track(LOST_ON_CPU, time_ns, cpu, out);
        let instant = TrackEvent {
            r#type: Some(Type::Instant as i32),
            track_uuid: Some(uuid),
            name_field: Some(track_event::NameField::Name("switch not reported".into())),
            categories: vec!["loss".into()],
            ..TrackEvent::default()
        };
        out.push(Some(time_ns), Data::TrackEvent(instant));
    }

    /// Marks where lists of tasks were longer than a walk could follow them.
    pub fn walk_cut_short(&mut self, walked: &WalkedProcess, out: &mut PacketBuffer) {
        if !self.described.contains(&WALKS_CUT_SHORT) {
            self.described.push(WALKS_CUT_SHORT);
            describe(child(WALKS_CUT_SHORT, "task walks cut short", 2), walked.time_ns, out);
        }
        let instant = TrackEvent {
            r#type: Some(Type::Instant as i32),
            track_uuid: Some(WALKS_CUT_SHORT),
            name_field: Some(track_event::NameField::Name("task walk cut short".into())),
            categories: vec!["loss".into()],
            debug_annotations: vec![number("pid", u64::from(walked.tgid.0))],
            ..TrackEvent::default()
        };
        out.push(Some(walked.time_ns), Data::TrackEvent(instant));
    }

    /// Marks where polls of a process were not told from their begin to their end.
    pub fn polls_unobserved(&mut self, process: Tgid, time_ns: Range<u64>, why: Unobserved, out: &mut PacketBuffer) {
        let track = self.begin_of_polls(process, time_ns.start, "loss", why.name(), out);
        out.push(Some(time_ns.end), event(track, Type::SliceEnd, None));
    }

    /// Shows that every poll of a process is told from now on. If the recorder is killed, it is until then.
    pub fn polls_observed_from(&mut self, process: Tgid, time_ns: u64, out: &mut PacketBuffer) {
        self.begin_of_polls(process, time_ns, "observed", "polls recorded", out);
    }

    /// It is not any more.
    pub fn polls_observed_until(&mut self, process: Tgid, time_ns: u64, out: &mut PacketBuffer) {
        out.push(Some(time_ns), event(polls_track(process), Type::SliceEnd, None));
    }

    /// Begins a slice of how much is told of a process's polls, on that track.
    fn begin_of_polls(
        &mut self,
        process: Tgid,
        time_ns: u64,
        category: &str,
        name: &str,
        out: &mut PacketBuffer,
    ) -> u64 {
        let uuid = polls_track(process);
        if !self.described.contains(&uuid) {
            self.described.push(uuid);
            let track = child(uuid, &format!("polls of process {process}"), 2);
            describe(TrackDescriptor { description: Some(OBSERVED.to_owned()), ..track }, time_ns, out);
        }
        let begin = TrackEvent {
            r#type: Some(Type::SliceBegin as i32),
            track_uuid: Some(uuid),
            name_field: Some(track_event::NameField::Name(name.into())),
            categories: vec![category.into()],
            debug_annotations: vec![number("pid", u64::from(process.0))],
            ..TrackEvent::default()
        };
        out.push(Some(time_ns), Data::TrackEvent(begin));
        uuid
    }

    /// The track of what is missing on this CPU, described when it is first needed. Samples have one of their own, since
    /// slices of different losses may overlap.
    fn cpu_track(&mut self, first: u64, time_ns: u64, cpu: u16, out: &mut PacketBuffer) -> u64 {
        let uuid = first + u64::from(cpu);
        if !self.described.contains(&uuid) {
            self.described.push(uuid);
            let what = if first == SAMPLES_LOST_ON_CPU { "samples lost" } else { "lost" };
            describe(child(uuid, &format!("{what} on CPU {cpu}"), 2), time_ns, out);
        }
        uuid
    }

    /// The recording ends.
    pub fn finish(&mut self, now_ns: u64, out: &mut PacketBuffer) {
        out.push(Some(now_ns), event(RECORDING, Type::SliceEnd, None));
    }
}

fn polls_track(process: Tgid) -> u64 {
    POLLS_OF_PROCESS + u64::from(process.0)
}

fn child(uuid: u64, name: &str, rank: i32) -> TrackDescriptor {
    TrackDescriptor {
        uuid: Some(uuid),
        parent_uuid: Some(GROUP),
        name: Some(name.to_owned()),
        sibling_order_rank: Some(rank),
        ..TrackDescriptor::default()
    }
}

fn describe(track: TrackDescriptor, now_ns: u64, out: &mut PacketBuffer) {
    out.push(Some(now_ns), Data::TrackDescriptor(track));
}

fn number(name: &str, value: u64) -> DebugAnnotation {
    DebugAnnotation {
        name_field: Some(debug_annotation::NameField::Name(name.to_owned())),
        value: Some(debug_annotation::Value::UintValue(value)),
    }
}

fn event(uuid: u64, kind: Type, name: Option<&str>) -> Data {
    Data::TrackEvent(TrackEvent {
        r#type: Some(kind as i32),
        track_uuid: Some(uuid),
        name_field: name.map(|name| track_event::NameField::Name(name.to_owned())),
        ..TrackEvent::default()
    })
}
