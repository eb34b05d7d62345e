//! An independent reader of traces, which rebuilds from them what `trace_processor` would.
//!
//! It decodes with types generated from Perfetto's official definitions and shares no code with the recorder. Nothing
//! here is tolerant: what a trace must not hold is a panic with the reason, except a last packet cut short, which a
//! killed recorder leaves behind ([`Trace::truncated_bytes`]).

mod arguments;
mod attributes;
mod callstacks;
mod compact;
mod events;
mod module_symbols;
mod packets;
mod replay;
mod stacks;
#[cfg(test)]
pub(crate) mod synthetic;
mod tasks;
mod track_slices;
mod wire;

use std::{collections::BTreeMap, fs, path::Path};

use perfetto_protos::{
    clock_snapshot::ClockSnapshot,
    trace_packet::{TracePacket, trace_packet},
};

pub use self::{
    arguments::{Arguments, number, text, the_number, the_text},
    attributes::{Attribute, Attributes},
    callstacks::{Callstack, Frame, FrameKind, Mapping},
    compact::{EndState, Switch, Waking},
    events::{Event, EventKind, Track, Value},
    module_symbols::{Line, ModuleSymbols},
    replay::{Interval, Slice, State, ThreadIntervals},
    stacks::{AsyncContext, Execution, Mode, StackSample},
    tasks::{Process, Tasks, Thread},
    track_slices::TrackSlice,
};

/// Nanoseconds of `CLOCK_BOOTTIME`.
pub type Nanoseconds = u64;
/// A thread's id; 0 is any CPU's idle thread.
pub type Tid = i32;

/// Threads that stand for others begin above the largest id that Linux gives.
pub const FIRST_PSEUDO_TID: Tid = 4_194_305;

/// `BUILTIN_CLOCK_BOOTTIME`.
const BOOTTIME: u32 = 6;
/// `SEQ_INCREMENTAL_STATE_CLEARED`.
const STATE_CLEARED: u32 = 1;

/// What a stretch is called from which records are missing.
const LOSS: &str = "records lost";

/// `synchronization_marker`s hold these bytes.
const MARKER: [u8; 16] =
    [0x82, 0x47, 0x7a, 0x76, 0xb2, 0x8d, 0x42, 0xba, 0x81, 0xdc, 0x33, 0x32, 0x6d, 0x57, 0xa0, 0x79];

/// Everything that a trace says.
#[derive(Debug, Default)]
pub struct Trace {
    /// Bytes at the end of the file that are the beginning of a packet.
    pub truncated_bytes: usize,
    /// How many packets were compressed how.
    pub compression: Compression,
    /// Key and value, as the recording's configuration.
    pub attributes: Attributes,
    /// Clocks read at one moment: their id and what they showed.
    pub clock_snapshots: Vec<BTreeMap<u32, Nanoseconds>>,
    /// How many synchronization markers there are.
    pub synchronization_markers: usize,
    /// Whether any CPU's bundle says that events were lost.
    pub lost_events: bool,
    /// Processes and threads by all that names them.
    pub tasks: Tasks,
    /// Descriptions of tracks, by their uuid.
    pub tracks: BTreeMap<u64, Track>,
    /// Slices, instants and counters, in the order of their time.
    pub events: Vec<Event>,
    /// Stacks of threads that ran or were blocked, in the order of their time.
    pub samples: Vec<StackSample>,
    /// Names that came after the recording.
    pub symbols: ModuleSymbols,
    /// What each CPU ran, in the order of its time.
    pub slices: Vec<Slice>,
    /// Every switch of every CPU, in the order of time.
    pub switches: Vec<Switch>,
    /// Every wake-up, in the order of time.
    pub wakings: Vec<Waking>,
    /// What each thread did, without gaps from when it is first known.
    pub threads: BTreeMap<Tid, ThreadIntervals>,
    /// Where the switches come from, for [`Trace::assert_well_formed`].
    bundles: Vec<compact::Bundle>,
    /// All packets as they were written, after unpacking.
    unpacked: Vec<u8>,
}

/// How many packets of a file were compressed how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Compression {
    /// Packets that hold others in zstd.
    pub zstd: usize,
    /// Packets that hold others in deflate.
    pub deflate: usize,
    /// Packets that stand in the file as they are.
    pub none: usize,
}

impl Trace {
    /// Reads a file.
    pub fn open(path: &Path) -> Trace {
        let bytes = fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        Trace::from_bytes(&bytes)
    }

    /// Reads a serialized trace.
    pub fn from_bytes(bytes: &[u8]) -> Trace {
        let file = packets::unpack(bytes);
        let mut trace = Trace {
            truncated_bytes: file.truncated_bytes,
            compression: file.compression,
            unpacked: file.unpacked,
            symbols: file.symbols,
            ..Trace::default()
        };
        let mut events = events::Reader::default();
        let mut stacks = stacks::Reader::default();
        for packet in &file.packets {
            let stack = stacks.take(packet);
            events.take(packet, stack);
            trace.take(packet);
        }
        (trace.tracks, trace.events) = events.finish();
        trace.samples = stacks.finish();
        trace.replay();
        trace
    }

    /// Whether a thread is shown to run from this moment on only because the recorder found it running: since when it did,
    /// the kernel has not reported.
    pub fn was_not_reported(&self, start: Nanoseconds) -> bool {
        self.events.iter().any(|event| event.name == "switch not reported" && event.at == start)
    }

    fn take(&mut self, packet: &TracePacket) {
        self.attributes.take(packet);
        match &packet.data {
            Some(trace_packet::Data::ClockSnapshot(snapshot)) => self.clock_snapshots.push(clocks(snapshot)),
            Some(trace_packet::Data::SynchronizationMarker(marker)) => {
                assert_eq!(marker, &MARKER, "a synchronization marker holds other bytes");
                self.synchronization_markers += 1;
            }
            Some(trace_packet::Data::ProcessTree(tree)) => self.tasks.take_tree(tree),
            Some(trace_packet::Data::TrackDescriptor(track)) => self.tasks.take_track(track),
            Some(trace_packet::Data::FtraceEvents(bundle)) => {
                self.lost_events |= bundle.lost_events();
                self.tasks.take_ftrace(bundle);
                self.bundles.push(compact::Bundle::new(bundle));
            }
            _ => {}
        }
    }

    fn replay(&mut self) {
        let replayed = replay::replay(&self.bundles);
        self.tasks.take_names(&replayed);
        self.slices = replayed.slices;
        self.switches = replayed.switches;
        self.wakings = replayed.wakings;
        self.threads = replayed.threads;
    }

    /// When the scheduler's first and last event of the trace happened.
    pub fn span(&self) -> Option<(Nanoseconds, Nanoseconds)> {
        let times = || self.switches.iter().map(|switch| switch.at).chain(self.wakings.iter().map(|waking| waking.at));
        Some((times().min()?, times().max()?))
    }

    /// What a thread did; nothing if the trace does not know it.
    pub fn thread(&self, tid: Tid) -> &ThreadIntervals {
        static UNKNOWN: ThreadIntervals = ThreadIntervals::new();
        self.threads.get(&tid).unwrap_or(&UNKNOWN)
    }

    /// Whether the bytes of `text` stand anywhere in the trace's packets.
    pub fn mentions(&self, text: &str) -> bool {
        self.unpacked.windows(text.len()).any(|window| window == text.as_bytes())
    }

    /// How many records the trace's marks say are missing. None if it has no such mark.
    pub fn marked_loss(&self) -> Option<i128> {
        let unobserved = self.tasks.named(LOSS);
        let marks: Vec<_> = self.events.iter().filter(|event| event.name == LOSS).collect();
        let is_marked =
            self.lost_events || !marks.is_empty() || self.slices.iter().any(|slice| unobserved.contains(&slice.tid));
        let count = |event: &&Event| match event.arguments.get("records") {
            Some(Value::Integer(records)) => *records,
            other => panic!("a mark of a loss says {other:?} records"),
        };
        is_marked.then(|| marks.iter().map(count).sum())
    }

    /// Panics where the scheduler's data contradicts itself.
    pub fn assert_well_formed(&self) {
        let faults = replay::faults(&self.bundles, &self.slices);
        assert!(faults.is_empty(), "the trace contradicts itself:\n{}", faults.join("\n"));
    }
}

fn clocks(snapshot: &ClockSnapshot) -> BTreeMap<u32, Nanoseconds> {
    snapshot.clocks.iter().map(|clock| (clock.clock_id(), clock.timestamp())).collect()
}
