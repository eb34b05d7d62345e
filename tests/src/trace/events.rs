//! Track events and the tracks that they are on.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use perfetto_protos::{
    debug_annotation::{DebugAnnotation, debug_annotation},
    interned_data::InternedData,
    trace_packet::{TracePacket, trace_packet},
    track_descriptor::TrackDescriptor,
    track_event::{TrackEvent, track_event},
};

use super::{Arguments, BOOTTIME, Nanoseconds, STATE_CLEARED, Tid, callstacks::Callstack};

/// A description of a track.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Track {
    /// Its name: its own, the thread's or the process's.
    pub name: String,
    /// The track that it is shown under.
    pub parent: Option<u64>,
    /// Whether it holds values of a counter.
    pub is_counter: bool,
    /// The thread that it is of.
    pub thread: Option<Tid>,
}

/// Something on a track.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// When.
    pub at: Nanoseconds,
    /// The track's uuid.
    pub track: u64,
    /// What.
    pub kind: EventKind,
    /// Its name. Ends of slices and counters have none.
    pub name: String,
    /// Its categories.
    pub categories: Vec<String>,
    /// Debug annotations by their name.
    pub arguments: Arguments,
    /// The stack that it came from.
    pub stack: Option<Arc<Callstack>>,
    /// Numbers of the arrows that begin, go through or end here.
    pub flows: Vec<u64>,
}

/// What an event does.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum EventKind {
    /// A slice begins.
    Begin,
    /// The innermost slice of the track ends.
    End,
    /// A moment.
    Instant,
    /// A counter has this value from now on.
    Counter(f64),
}

/// The value of a debug annotation.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Yes or no.
    Bool(bool),
    /// A whole number.
    Integer(i128),
    /// A fractional number.
    Float(f64),
    /// A text.
    Text(String),
}

/// Reads packets in the order of the file.
#[derive(Default)]
pub(super) struct Reader {
    sequences: HashMap<u32, Sequence>,
    tracks: BTreeMap<u64, Track>,
    events: Vec<Event>,
}

/// What one writer has told before.
#[derive(Default)]
struct Sequence {
    clock: Option<u32>,
    default_track: u64,
    categories: HashMap<u64, String>,
    event_names: HashMap<u64, String>,
    annotation_names: HashMap<u64, String>,
    strings: HashMap<u64, String>,
}

impl Reader {
    /// `stack` is what the packet's event refers to.
    pub fn take(&mut self, packet: &TracePacket, stack: Option<Arc<Callstack>>) {
        let sequence = self.sequences.entry(packet.trusted_packet_sequence_id()).or_default();
        if packet.sequence_flags() & STATE_CLEARED != 0 {
            *sequence = Sequence::default();
        }
        if let Some(defaults) = packet.trace_packet_defaults.as_ref() {
            sequence.clock = defaults.timestamp_clock_id;
            sequence.default_track = defaults.track_event_defaults.track_uuid();
        }
        if let Some(interned) = packet.interned_data.as_ref() {
            sequence.learn(interned);
        }
        match &packet.data {
            Some(trace_packet::Data::TrackDescriptor(track)) => {
                self.tracks.insert(track.uuid(), described(track));
            }
            Some(trace_packet::Data::TrackEvent(event)) => {
                let clock = packet.timestamp_clock_id.or(sequence.clock).unwrap_or(BOOTTIME);
                assert_eq!(clock, BOOTTIME, "an event's time is of another clock");
                self.events.push(Event { stack, ..sequence.event(packet.timestamp(), event) });
            }
            _ => {}
        }
    }

    /// Tracks, and events in the order of their time.
    pub fn finish(mut self) -> (BTreeMap<u64, Track>, Vec<Event>) {
        self.events.sort_by_key(|event| event.at);
        (self.tracks, self.events)
    }
}

impl Sequence {
    fn learn(&mut self, interned: &InternedData) {
        self.categories.extend(interned.event_categories.iter().map(|entry| (entry.iid(), entry.name().to_owned())));
        self.event_names.extend(interned.event_names.iter().map(|entry| (entry.iid(), entry.name().to_owned())));
        self.annotation_names
            .extend(interned.debug_annotation_names.iter().map(|entry| (entry.iid(), entry.name().to_owned())));
        let strings = interned.debug_annotation_string_values.iter();
        self.strings.extend(strings.map(|entry| (entry.iid(), String::from_utf8_lossy(entry.str()).into_owned())));
    }

    fn event(&self, at: Nanoseconds, event: &TrackEvent) -> Event {
        let kind = match event.type_() {
            track_event::Type::TYPE_SLICE_BEGIN => EventKind::Begin,
            track_event::Type::TYPE_SLICE_END => EventKind::End,
            track_event::Type::TYPE_INSTANT => EventKind::Instant,
            track_event::Type::TYPE_COUNTER => EventKind::Counter(match &event.counter_value_field {
                Some(track_event::Counter_value_field::CounterValue(value)) => *value as f64,
                Some(track_event::Counter_value_field::DoubleCounterValue(value)) => *value,
                other => panic!("a counter without a value: {other:?}"),
            }),
            other => panic!("a track event of type {other:?}"),
        };
        let name = match &event.name_field {
            Some(track_event::Name_field::Name(name)) => name.clone(),
            Some(track_event::Name_field::NameIid(iid)) => known(&self.event_names, *iid),
            _ => String::new(),
        };
        let track = event.track_uuid.unwrap_or(self.default_track);
        let arguments = event.debug_annotations.iter().map(|annotation| self.argument(annotation)).collect();
        let interned = event.category_iids.iter().map(|iid| known(&self.categories, *iid));
        let categories = event.categories.iter().cloned().chain(interned).collect();
        let flows = event.flow_ids.clone();
        Event { at, track, kind, name, categories, arguments, stack: None, flows }
    }

    fn argument(&self, annotation: &DebugAnnotation) -> (String, Value) {
        let name = match &annotation.name_field {
            Some(debug_annotation::Name_field::Name(name)) => name.clone(),
            Some(debug_annotation::Name_field::NameIid(iid)) => known(&self.annotation_names, *iid),
            other => panic!("an argument without a name: {other:?}"),
        };
        let value = match &annotation.value {
            Some(debug_annotation::Value::BoolValue(value)) => Value::Bool(*value),
            Some(debug_annotation::Value::UintValue(value) | debug_annotation::Value::PointerValue(value)) => {
                Value::Integer(i128::from(*value))
            }
            Some(debug_annotation::Value::IntValue(value)) => Value::Integer(i128::from(*value)),
            Some(debug_annotation::Value::DoubleValue(value)) => Value::Float(*value),
            Some(debug_annotation::Value::StringValue(value)) => Value::Text(value.clone()),
            Some(debug_annotation::Value::StringValueIid(iid)) => Value::Text(known(&self.strings, *iid)),
            other => panic!("the argument {name} has no value that we read: {other:?}"),
        };
        (name, value)
    }
}

fn known(table: &HashMap<u64, String>, iid: u64) -> String {
    table.get(&iid).unwrap_or_else(|| panic!("nothing was interned as {iid}")).clone()
}

fn described(track: &TrackDescriptor) -> Track {
    let name = match (track.thread.as_ref(), track.process.as_ref()) {
        _ if !track.name().is_empty() => track.name(),
        _ if !track.static_name().is_empty() => track.static_name(),
        (Some(thread), _) => thread.thread_name(),
        (None, Some(process)) => process.process_name(),
        (None, None) => "",
    };
    let thread = track.thread.as_ref().map(|thread| thread.tid());
    Track { name: name.to_owned(), parent: track.parent_uuid, is_counter: track.counter.is_some(), thread }
}

#[cfg(test)]
mod tests {
    use perfetto_protos::{
        debug_annotation::DebugAnnotationName,
        track_event::{EventCategory, EventName},
    };

    use super::*;

    fn instant(at: u64, name: track_event::Name_field) -> TracePacket {
        let mut packet = TracePacket::new();
        packet.set_timestamp(at);
        let event = packet.mut_track_event();
        event.set_type(track_event::Type::TYPE_INSTANT);
        event.set_track_uuid(5);
        event.name_field = Some(name);
        packet
    }

    #[test]
    fn interned_names_and_arguments_are_looked_up() {
        let mut packet = instant(20, track_event::Name_field::NameIid(1));
        let interned = packet.interned_data.mut_or_insert_default();
        let (mut event_name, mut argument_name) = (EventName::new(), DebugAnnotationName::new());
        event_name.set_iid(1);
        event_name.set_name("lost".to_owned());
        argument_name.set_iid(1);
        argument_name.set_name("records".to_owned());
        interned.event_names.push(event_name);
        interned.debug_annotation_names.push(argument_name);
        let mut category = EventCategory::new();
        category.set_iid(1);
        category.set_name("recorder".to_owned());
        interned.event_categories.push(category);
        let mut argument = DebugAnnotation::new();
        argument.set_name_iid(1);
        argument.set_uint_value(3);
        let event = packet.mut_track_event();
        event.debug_annotations.push(argument);
        event.category_iids.push(1);

        let mut reader = Reader::default();
        reader.take(&packet, None);
        reader.take(&instant(10, track_event::Name_field::Name("before".to_owned())), None);
        let (_, events) = reader.finish();
        assert_eq!(events.iter().map(|event| event.name.as_str()).collect::<Vec<_>>(), ["before", "lost"]);
        assert_eq!(events[1].arguments["records"], Value::Integer(3));
        assert_eq!(events[1].categories, ["recorder"]);
    }

    #[test]
    #[should_panic(expected = "nothing was interned as 1")]
    fn a_cleared_sequence_forgets() {
        let mut first = instant(1, track_event::Name_field::Name("a".to_owned()));
        let mut name = EventName::new();
        name.set_iid(1);
        first.interned_data.mut_or_insert_default().event_names.push(name);
        let mut second = instant(2, track_event::Name_field::NameIid(1));
        second.set_sequence_flags(STATE_CLEARED);
        let mut reader = Reader::default();
        reader.take(&first, None);
        reader.take(&second, None);
    }
}
