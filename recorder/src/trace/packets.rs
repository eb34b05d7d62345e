//! Encoded packets, cut into batches.

use polletto_protos::{
    BuiltinClock, InternedData, ModuleSymbols, StackSampleDefaults, TracePacket, TracePacketDefaults, TrackDescriptor,
    trace_packet,
};
use prost::Message;

use super::{
    samples,
    wire::{append_bytes, append_varint},
};

/// Bytes at which a batch is closed. A compressed packet may have 512 KiB, and a batch that does not compress at all
/// grows by less than the packet that closes it.
const BATCH_BYTES: usize = 256 * 1024;

/// The id of the sequence that has all of polletto's packets, but for those that describe tracks of threads.
const SEQUENCE: u32 = 1;

/// The id of the sequence that has those.
const THREAD_TRACKS: u32 = 2;

/// `Trace.packet`
const PACKET: u32 = 1;

/// What every packet but the first begins with, encoded: `trusted_packet_sequence_id` and `sequence_flags`.
const LATER_PACKET: &[u8] =
    &[10 << 3, SEQUENCE as u8, 13 << 3, trace_packet::SequenceFlags::SeqNeedsIncrementalState as u8];

/// Whole packets as they stand in an uncompressed file.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Batch(Vec<u8>);

impl Batch {
    /// The serialized `Trace` that the packets make.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

/// Encodes packets one after another.
#[derive(Debug, Default)]
pub struct PacketBuffer {
    open: Vec<u8>,
    full: Vec<Batch>,
    began: bool,
    /// Said by the first packet, if the trace holds samples.
    stack_samples: Option<StackSampleDefaults>,
    /// The packet and the message that are being encoded; kept for their memory.
    packet: Vec<u8>,
    message: Vec<u8>,
}

impl PacketBuffer {
    /// A buffer for a trace that holds stack samples. The first packet says what they are measured in.
    pub fn with_stack_samples() -> PacketBuffer {
        PacketBuffer { stack_samples: Some(samples::defaults()), ..PacketBuffer::default() }
    }

    /// Appends a packet. Its time is CLOCK_BOOTTIME nanoseconds; packets that carry their own times have none.
    pub fn push(&mut self, time_ns: Option<u64>, data: trace_packet::Data) {
        let packet = TracePacket { timestamp: time_ns, data: Some(data), ..self.next_packet() };
        append_packet(self.make_room(packet.encoded_len()), &packet);
    }

    /// Appends the description of a thread's track. It belongs to another sequence, since a reader takes the thread that
    /// a sequence described last for that of all its events that have none, the recorder's own among them.
    pub fn push_thread_track(&mut self, time_ns: u64, track: TrackDescriptor) {
        let packet = TracePacket {
            timestamp: Some(time_ns),
            timestamp_clock_id: Some(BuiltinClock::Boottime as u32),
            trusted_packet_sequence_id: Some(THREAD_TRACKS),
            data: Some(trace_packet::Data::TrackDescriptor(track)),
            ..TracePacket::default()
        };
        append_packet(self.make_room(packet.encoded_len()), &packet);
    }

    /// Appends a packet whose only content is an encoded `FtraceEventBundle`.
    pub fn push_ftrace_events(&mut self, bundle: &[u8]) {
        const FTRACE_EVENTS: u32 = 1;
        self.push_encoded(None, FTRACE_EVENTS, bundle);
    }

    /// Appends what later packets refer to by number.
    pub fn push_interned(&mut self, data: InternedData) {
        let packet = TracePacket { interned_data: Some(data), ..self.next_packet() };
        append_packet(self.make_room(packet.encoded_len()), &packet);
    }

    /// Appends names for frames, of whichever sequence.
    pub fn push_module_symbols(&mut self, symbols: ModuleSymbols) {
        self.push_outside_sequences(trace_packet::Data::ModuleSymbols(symbols));
    }

    /// Appends what belongs to the trace as a whole, and can be appended to anybody's trace.
    pub(super) fn push_outside_sequences(&mut self, data: trace_packet::Data) {
        let packet = TracePacket { data: Some(data), ..TracePacket::default() };
        append_packet(self.make_room(packet.encoded_len()), &packet);
    }

    /// Appends a packet whose only content is an encoded message, which is this field of a `TracePacket`.
    pub(super) fn push_encoded(&mut self, time_ns: Option<u64>, field: u32, message: &[u8]) {
        const TIMESTAMP: u32 = 8;
        let mut packet = std::mem::take(&mut self.packet);
        packet.clear();
        // Fields of a message may come in any order.
        if self.began {
            packet.extend_from_slice(LATER_PACKET);
        } else {
            packet.extend(self.next_packet().encode_to_vec());
        }
        if let Some(time_ns) = time_ns {
            append_varint(&mut packet, TIMESTAMP, time_ns);
        }
        append_bytes(&mut packet, field, message);
        append_bytes(self.make_room(packet.len()), PACKET, &packet);
        self.packet = packet;
    }

    /// Like [`PacketBuffer::push_encoded`], for a message that `write` encodes.
    pub(super) fn push_written(&mut self, time_ns: u64, field: u32, write: impl FnOnce(&mut Vec<u8>)) {
        let mut message = std::mem::take(&mut self.message);
        message.clear();
        write(&mut message);
        self.push_encoded(Some(time_ns), field, &message);
        self.message = message;
    }

    /// The batches that are full.
    pub fn take_full(&mut self) -> impl Iterator<Item = Batch> + '_ {
        self.full.drain(..)
    }

    /// Every packet so far, in batches.
    pub fn take_all(&mut self) -> impl Iterator<Item = Batch> + '_ {
        if !self.open.is_empty() {
            self.full.push(Batch(std::mem::take(&mut self.open)));
        }
        self.full.drain(..)
    }

    /// What every packet of the sequence says; the first one says more.
    fn next_packet(&mut self) -> TracePacket {
        let is_first = !std::mem::replace(&mut self.began, true);
        let flags = if is_first {
            trace_packet::SequenceFlags::SeqIncrementalStateCleared
        } else {
            trace_packet::SequenceFlags::SeqNeedsIncrementalState
        };
        let defaults = || TracePacketDefaults {
            timestamp_clock_id: Some(BuiltinClock::Boottime as u32),
            stack_sample_defaults: self.stack_samples.take(),
        };
        TracePacket {
            trusted_packet_sequence_id: Some(SEQUENCE),
            sequence_flags: Some(flags as u32),
            trace_packet_defaults: is_first.then(defaults),
            ..TracePacket::default()
        }
    }

    /// The batch that a packet of this length goes to.
    fn make_room(&mut self, length: usize) -> &mut Vec<u8> {
        if !self.open.is_empty() && self.open.len() + length > BATCH_BYTES {
            self.full.push(Batch(std::mem::take(&mut self.open)));
        }
        &mut self.open
    }
}

/// Appends a packet as a field of a `Trace`.
pub(super) fn append_packet(trace: &mut Vec<u8>, packet: &TracePacket) {
    append_bytes(trace, PACKET, &packet.encode_to_vec());
}

#[cfg(test)]
mod tests {
    use polletto_protos::{ProcessTree, Trace, process_tree::Thread};

    use super::*;

    fn thread_named(name: String) -> trace_packet::Data {
        let thread = Thread { tid: Some(1), tgid: Some(1), name: Some(name) };
        trace_packet::Data::ProcessTree(ProcessTree { threads: vec![thread], ..ProcessTree::default() })
    }

    #[test]
    fn only_the_first_packet_clears_the_state_of_its_sequence() {
        let mut buffer = PacketBuffer::default();
        buffer.push(Some(5), thread_named("a".into()));
        buffer.push(Some(6), thread_named("b".into()));
        let batches: Vec<Batch> = buffer.take_all().collect();
        let trace = Trace::decode(batches[0].bytes()).unwrap();
        assert_eq!(trace.packet.iter().map(|packet| packet.sequence_flags()).collect::<Vec<_>>(), [1, 2]);
        assert!(trace.packet[0].trace_packet_defaults.is_some());
        assert!(trace.packet[1].trace_packet_defaults.is_none());
    }

    #[test]
    fn a_batch_is_closed_before_it_grows_too_large() {
        let mut buffer = PacketBuffer::default();
        for _ in 0..5 {
            buffer.push(None, thread_named("x".repeat(100 * 1024)));
        }
        let full: Vec<Batch> = buffer.take_full().collect();
        assert_eq!(full.len(), 2);
        assert!(full.iter().all(|batch| batch.bytes().len() <= BATCH_BYTES));
        let rest: Vec<Batch> = buffer.take_all().collect();
        let packets: usize =
            full.iter().chain(&rest).map(|batch| Trace::decode(batch.bytes()).unwrap().packet.len()).sum();
        assert_eq!(packets, 5);
    }

    #[test]
    fn nothing_pushed_is_no_batch() {
        assert_eq!(PacketBuffer::default().take_all().count(), 0);
    }
}
