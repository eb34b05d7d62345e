//! Encoded packets, cut into batches.

use polletto_protos::{BuiltinClock, TracePacket, TracePacketDefaults, trace_packet};
use prost::Message;

use super::columns::append_field;

/// Bytes at which a batch is closed. A compressed packet may have 512 KiB, and a batch that does not compress at all
/// grows by less than the packet that closes it.
const BATCH_BYTES: usize = 256 * 1024;

/// The id of the one sequence that polletto writes.
const SEQUENCE: u32 = 1;

/// `Trace.packet`
const PACKET: u8 = 1;

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
}

impl PacketBuffer {
    /// Appends a packet. Its time is CLOCK_BOOTTIME nanoseconds; packets that carry their own times have none.
    pub fn push(&mut self, time_ns: Option<u64>, data: trace_packet::Data) {
        let packet = TracePacket { timestamp: time_ns, data: Some(data), ..self.next_packet() };
        append_packet(self.make_room(packet.encoded_len()), &packet);
    }

    /// Appends a packet whose only content is an encoded `FtraceEventBundle`.
    pub fn push_ftrace_events(&mut self, bundle: &[u8]) {
        const FTRACE_EVENTS: u8 = 1;
        // Fields of a message may come in any order.
        let mut packet = self.next_packet().encode_to_vec();
        append_field(&mut packet, FTRACE_EVENTS, bundle);
        append_field(self.make_room(packet.len()), PACKET, &packet);
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
        let defaults = TracePacketDefaults { timestamp_clock_id: Some(BuiltinClock::Boottime as u32) };
        TracePacket {
            trusted_packet_sequence_id: Some(SEQUENCE),
            sequence_flags: Some(flags as u32),
            trace_packet_defaults: is_first.then_some(defaults),
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
    append_field(trace, PACKET, &packet.encode_to_vec());
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
