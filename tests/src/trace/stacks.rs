//! `StackSample`s: where threads ran and where they waited.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use perfetto_protos::trace_packet::{TracePacket, trace_packet};
use protobuf::{UnknownFields, UnknownValueRef};

use super::{
    BOOTTIME, Nanoseconds, STATE_CLEARED, Tid,
    callstacks::{Callstack, Interned},
    wire::Message,
};

/// `TracePacket.stack_sample`.
const STACK_SAMPLE: u32 = 135;
/// `TracePacketDefaults.stack_sample_defaults`.
const STACK_SAMPLE_DEFAULTS: u32 = 100;
/// `InternedData.stack_sample_task_contexts` and `.stack_sample_execution_contexts`.
const TASK_CONTEXTS: u32 = 48;
const EXECUTION_CONTEXTS: u32 = 49;
/// `InternedData.stack_sample_async_context_descriptors`.
const ASYNC_CONTEXTS: u32 = 51;
/// `TrackEvent.callstack_iid`.
const CALLSTACK_IID: u32 = 56;

/// What a counter of samples counts in.
const UNIT_NANOSECONDS: u64 = 1;

/// Where the code ran that a timer found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mode {
    /// Nobody says.
    Unknown,
    /// In the program.
    User,
    /// In the kernel.
    Kernel,
}

/// The CPU that a timer found a thread on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Execution {
    /// Which.
    pub cpu: u32,
    /// In what it was.
    pub mode: Mode,
}

/// A thread's stack at one moment, and what it stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StackSample {
    /// When the timer found it, or when it returned from being blocked.
    pub at: Nanoseconds,
    /// The process.
    pub pid: Tid,
    /// The thread.
    pub tid: Tid,
    /// Where it ran. None if it was blocked.
    pub execution: Option<Execution>,
    /// By the names of the counters.
    pub weights: BTreeMap<Arc<str>, u64>,
    /// Its stack.
    pub stack: Arc<Callstack>,
    /// Why the stack is incomplete, or that it was found by frame pointers.
    pub unwind_error: Option<String>,
    /// What the thread was doing for, if it was something that could go on elsewhere.
    pub task: Option<AsyncContext>,
}

/// `StackSample.AsyncContextDescriptor`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AsyncContext {
    /// What it is called.
    pub name: String,
    /// What it is.
    pub kind: String,
}

impl StackSample {
    /// What it stands for by one of the counters.
    pub fn weight(&self, counter: &str) -> u64 {
        *self.weights.get(counter).unwrap_or_else(|| panic!("no counter {counter:?}: {:?}", self.weights))
    }

    /// Whether its thread was blocked, not found by the timer.
    pub fn is_blocked(&self) -> bool {
        self.execution.is_none()
    }

    /// When the thread left its CPU and when it returned. Makes sense for those that were blocked.
    pub fn stretch(&self) -> std::ops::Range<Nanoseconds> {
        self.at - self.weight("wall-time")..self.at
    }
}

/// Reads packets in the order of the file.
#[derive(Default)]
pub(super) struct Reader {
    sequences: HashMap<u32, Sequence>,
    samples: Vec<StackSample>,
}

/// What one writer has told before.
#[derive(Default)]
struct Sequence {
    interned: Interned,
    tasks: HashMap<u64, Task>,
    async_contexts: HashMap<u64, AsyncContext>,
    executions: HashMap<u64, Execution>,
    defaults: Option<Defaults>,
}

/// `StackSample.TaskContext`.
#[derive(Clone, Copy)]
struct Task {
    pid: Tid,
    tid: Tid,
    async_id: Option<u64>,
}

/// `StackSampleDefaults`.
struct Defaults {
    primary: Arc<str>,
    followers: Vec<Arc<str>>,
}

impl Reader {
    /// Gives the callstack that the packet's track event refers to, if it is one that does.
    pub fn take(&mut self, packet: &TracePacket) -> Option<Arc<Callstack>> {
        let sequence = self.sequences.entry(packet.trusted_packet_sequence_id()).or_default();
        if packet.sequence_flags() & STATE_CLEARED != 0 {
            *sequence = Sequence::default();
        }
        if let Some(defaults) = packet.trace_packet_defaults.as_ref() {
            let fields = defaults.special_fields.unknown_fields();
            sequence.defaults = message(fields, STACK_SAMPLE_DEFAULTS).map(Defaults::read);
        }
        if let Some(interned) = packet.interned_data.as_ref() {
            sequence.interned.learn(interned);
            sequence.learn_contexts(interned.special_fields.unknown_fields());
        }
        if let Some(bytes) = message(packet.special_fields.unknown_fields(), STACK_SAMPLE) {
            let clock = packet.timestamp_clock_id.unwrap_or(BOOTTIME);
            assert_eq!(clock, BOOTTIME, "a sample's time is of another clock");
            self.samples.push(sequence.sample(packet.timestamp(), bytes));
        }
        let Some(trace_packet::Data::TrackEvent(event)) = &packet.data else { return None };
        match event.special_fields.unknown_fields().get(CALLSTACK_IID)? {
            UnknownValueRef::Varint(iid) => Some(sequence.interned.callstack(iid)),
            other => panic!("a reference to a callstack is no number: {other:?}"),
        }
    }

    /// Samples in the order of their time.
    pub fn finish(mut self) -> Vec<StackSample> {
        self.samples.sort_by_key(|sample| sample.at);
        self.samples
    }
}

impl Sequence {
    fn learn_contexts(&mut self, fields: &UnknownFields) {
        for (number, value) in fields {
            match (number, value) {
                (TASK_CONTEXTS, UnknownValueRef::LengthDelimited(bytes)) => {
                    let message = Message::parse("a task context", bytes, &[1, 2, 3, 4]);
                    let iid = message.number(1).expect("an interned task context has an id");
                    self.tasks.insert(iid, task(&message));
                }
                (EXECUTION_CONTEXTS, UnknownValueRef::LengthDelimited(bytes)) => {
                    let message = Message::parse("an execution context", bytes, &[1, 2, 3]);
                    let iid = message.number(1).expect("an interned execution context has an id");
                    self.executions.insert(iid, execution(&message));
                }
                (ASYNC_CONTEXTS, UnknownValueRef::LengthDelimited(bytes)) => {
                    let message = Message::parse("an async context", bytes, &[1, 2, 3, 4]);
                    let iid = message.number(1).expect("an interned async context has an id");
                    let text = |field| message.text(field).expect("it has a name and a kind");
                    self.async_contexts.insert(iid, AsyncContext { name: text(2), kind: text(3) });
                }
                _ => {}
            }
        }
    }

    fn sample(&self, at: Nanoseconds, bytes: &[u8]) -> StackSample {
        // Without what only an inline stack, or counters of its own, would take.
        let sample = Message::parse("a sample", bytes, &[1, 2, 3, 4, 6, 7, 11, 14]);
        let Task { pid, tid, async_id } = match (sample.bytes(1).next(), sample.number(2)) {
            (Some(bytes), None) => task(&Message::parse("a task context", bytes, &[2, 3, 4])),
            (None, Some(iid)) => {
                *self.tasks.get(&iid).unwrap_or_else(|| panic!("no task context was interned as {iid}"))
            }
            other => panic!("a sample has not one task: {other:?}"),
        };
        let execution = match (sample.bytes(3).next(), sample.number(4)) {
            (Some(bytes), None) => Some(execution(&Message::parse("an execution context", bytes, &[2, 3]))),
            (None, Some(iid)) => {
                Some(*self.executions.get(&iid).unwrap_or_else(|| panic!("no execution was interned as {iid}")))
            }
            (None, None) => None,
            both => panic!("a sample has two execution contexts: {both:?}"),
        };
        let stack = self.interned.callstack(sample.number(6).expect("a sample has a callstack"));
        let unwind_error = sample.text(7);
        // A whole stack can only be suspect for how or when it was found.
        const SUSPICIONS: [&str; 2] = ["frame pointers", "other code may have been mapped"];
        let is_suspect =
            unwind_error.as_deref().is_some_and(|error| SUSPICIONS.iter().any(|reason| error.contains(reason)));
        let is_told = unwind_error.is_some() == stack.is_incomplete() || is_suspect;
        assert!(is_told, "a sample says {unwind_error:?} of {stack:?}");
        let task = async_id.map(|iid| {
            self.async_contexts.get(&iid).unwrap_or_else(|| panic!("no async context was interned as {iid}")).clone()
        });
        StackSample { at, pid, tid, execution, weights: self.weights(&sample), stack, unwind_error, task }
    }

    fn weights(&self, sample: &Message) -> BTreeMap<Arc<str>, u64> {
        let defaults = self.defaults.as_ref().expect("a sequence with samples says what they are measured in");
        let followers = sample.numbers(14);
        assert_eq!(followers.len(), defaults.followers.len(), "a sample weighs by other counters than declared");
        let primary = sample.number(11).expect("a sample has a weight");
        let followers = defaults.followers.iter().cloned().zip(followers);
        [(Arc::clone(&defaults.primary), primary)].into_iter().chain(followers).collect()
    }
}

impl Defaults {
    fn read(bytes: &[u8]) -> Defaults {
        let message = Message::parse("stack_sample_defaults", bytes, &[1, 2, 3]);
        assert_eq!(message.text(1).as_deref(), Some("polletto"), "samples name another source");
        let primary = message.bytes(2).next().expect("samples have a primary counter");
        Defaults { primary: counter(primary), followers: message.bytes(3).map(counter).collect() }
    }
}

/// A counter's name, once it is clear that it counts nanoseconds of no CPU in particular.
fn counter(bytes: &[u8]) -> Arc<str> {
    let message = Message::parse("a counter", bytes, &[2, 3, 5, 6, 7]);
    let name = message.text(2).expect("a counter has a name");
    assert_eq!(message.number(3), Some(UNIT_NANOSECONDS), "{name} is not in nanoseconds");
    assert!(matches!(message.number(5), None | Some(1)), "{name} has a multiplier");
    assert!(matches!(message.number(7), None | Some(0 | 1)), "{name} is split, which drops what has no CPU");
    name.into()
}

fn task(message: &Message) -> Task {
    Task {
        pid: message.small(2).expect("a sample has a process"),
        tid: message.small(3).expect("a sample has a thread"),
        async_id: message.number(4),
    }
}

fn execution(message: &Message) -> Execution {
    let mode = match message.number(3) {
        None | Some(0) => Mode::Unknown,
        Some(1) => Mode::User,
        Some(2) => Mode::Kernel,
        Some(other) => panic!("a sample was taken in mode {other}"),
    };
    Execution { cpu: message.small(2).expect("a sample that ran has a CPU"), mode }
}

/// The bytes of a message among fields that our definitions don't know.
fn message(fields: &UnknownFields, number: u32) -> Option<&[u8]> {
    match fields.get(number)? {
        UnknownValueRef::LengthDelimited(bytes) => Some(bytes),
        other => panic!("field {number} is no message: {other:?}"),
    }
}

#[cfg(test)]
mod tests {
    use perfetto_protos::track_event::track_event;

    use super::*;
    use crate::trace::synthetic::{blocked, stack_defaults, stacks, timer_sample};

    fn read(packets: &[TracePacket]) -> Vec<StackSample> {
        let mut reader = Reader::default();
        for packet in packets {
            reader.take(packet);
        }
        reader.finish()
    }

    #[test]
    fn a_timer_sample_has_a_cpu_and_weighs_a_period_of_running() {
        let samples = read(&[stack_defaults(), timer_sample(70, 4, 5, 1, 1_000)]);
        let [sample] = &samples[..] else { panic!("{samples:?}") };
        assert_eq!((sample.at, sample.pid, sample.tid), (70, 4, 5));
        assert_eq!(sample.execution, Some(Execution { cpu: 1, mode: Mode::User }));
        let weights = ["wall-time", "cpu-time", "off-cpu-time", "run-queue-time"].map(|name| sample.weight(name));
        assert_eq!(weights, [1_000, 1_000, 0, 0]);
        assert_eq!(sample.unwind_error.as_deref(), Some("no rule"));
        assert_eq!(sample.stack.frames().len(), 2);
    }

    #[test]
    fn a_blocked_stretch_has_no_cpu_and_lasts_from_leaving_to_returning() {
        let samples = read(&[stack_defaults(), blocked(9_000, 4, 5, 6_000, 500), timer_sample(70, 4, 5, 1, 1_000)]);
        assert_eq!(samples.iter().map(StackSample::is_blocked).collect::<Vec<_>>(), [false, true]);
        assert_eq!(samples[1].stretch(), 2_500..9_000);
        let weights = ["cpu-time", "off-cpu-time", "run-queue-time"].map(|name| samples[1].weight(name));
        assert_eq!(weights, [0, 6_000, 500]);
    }

    #[test]
    #[should_panic(expected = "a callstack was never interned as 1")]
    fn a_cleared_sequence_forgets_its_stacks() {
        let mut cleared = stack_defaults();
        cleared.interned_data.take();
        cleared.set_sequence_flags(STATE_CLEARED);
        read(&[stack_defaults(), cleared, timer_sample(70, 4, 5, 1, 1_000)]);
    }

    #[test]
    #[should_panic(expected = "a sequence with samples says what they are measured in")]
    fn samples_without_counters_are_a_fault() {
        let mut packet = timer_sample(70, 4, 5, 1, 1_000);
        packet.interned_data = Some(stacks()).into();
        read(&[packet]);
    }

    #[test]
    fn a_slices_callstack_is_found() {
        let mut slice = TracePacket::new();
        let event = slice.mut_track_event();
        event.set_type(track_event::Type::TYPE_SLICE_BEGIN);
        event.special_fields.mut_unknown_fields().add_varint(CALLSTACK_IID, 1);
        let mut reader = Reader::default();
        assert_eq!(reader.take(&stack_defaults()), None);
        assert_eq!(reader.take(&slice).map(|stack| stack.frames().len()), Some(2));
    }
}
