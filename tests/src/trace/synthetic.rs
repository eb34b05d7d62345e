//! Small traces, made by hand, for the reader's own tests.

use std::io::Write;

use flate2::{Compression, write::ZlibEncoder};
use perfetto_protos::{
    clock_snapshot::clock_snapshot::Clock,
    ftrace_event_bundle::FtraceEventBundle,
    interned_data::InternedData,
    profile_common::{Callstack, Frame, InternedString, Mapping},
    trace::Trace,
    trace_packet::TracePacket,
};
use protobuf::{Message, UnknownFields, well_known_types::empty::Empty};

use super::{Nanoseconds, Tid};

/// When, what becomes of the thread before, which is next, and its name.
pub type Switch = (Nanoseconds, i64, Tid, &'static str);

pub fn switch(at: Nanoseconds, prev_state: i64, next: Tid, name: &'static str) -> Switch {
    (at, prev_state, next, name)
}

/// One CPU's switches and wake-ups (when, who, its name).
pub fn bundle(cpu: u32, switches: &[Switch], wakings: &[(Nanoseconds, Tid, &'static str)]) -> FtraceEventBundle {
    let mut bundle = FtraceEventBundle::new();
    bundle.set_cpu(cpu);
    let sched = bundle.compact_sched.mut_or_insert_default();
    let mut before = 0;
    for (at, prev_state, next, name) in switches {
        sched.switch_timestamp.push(at - before);
        sched.switch_prev_state.push(*prev_state);
        sched.switch_next_pid.push(*next);
        sched.switch_next_prio.push(120);
        sched.switch_next_comm_index.push(u32::try_from(sched.intern_table.len()).unwrap());
        sched.intern_table.push((*name).to_owned());
        before = *at;
    }
    before = 0;
    for (at, tid, name) in wakings {
        sched.waking_timestamp.push(at - before);
        sched.waking_pid.push(*tid);
        sched.waking_target_cpu.push(0);
        sched.waking_prio.push(120);
        sched.waking_comm_index.push(u32::try_from(sched.intern_table.len()).unwrap());
        sched.intern_table.push((*name).to_owned());
        before = *at;
    }
    bundle
}

/// A packet that says the time.
pub fn clock_packet(boottime: Nanoseconds) -> TracePacket {
    let mut clock = Clock::new();
    clock.set_clock_id(6);
    clock.set_timestamp(boottime);
    let mut packet = TracePacket::new();
    packet.mut_clock_snapshot().clocks.push(clock);
    packet
}

/// Callstack 1: the code at 0x1234 of `/usr/bin/thing`, whose callers could not be found.
pub fn stacks() -> InternedData {
    let mut interned = InternedData::new();
    interned.mapping_paths.extend([string(1, b"/usr"), string(2, b"bin"), string(3, b"thing")]);
    interned.build_ids.push(string(1, &[0xc0, 0xff, 0xee]));
    interned.function_names.push(string(1, b"[stack incomplete: no rule]"));
    let mut mapping = Mapping::new();
    mapping.set_iid(1);
    mapping.set_build_id(1);
    mapping.path_string_ids = vec![1, 2, 3];
    interned.mappings.push(mapping);
    let (mut inner, mut outer, mut stack) = (Frame::new(), Frame::new(), Callstack::new());
    inner.set_iid(1);
    inner.set_mapping_id(1);
    inner.set_rel_pc(0x1234);
    inner.special_fields.mut_unknown_fields().add_varint(7, 1);
    outer.set_iid(2);
    outer.set_function_name_id(1);
    stack.set_iid(1);
    stack.frame_ids = vec![2, 1];
    interned.frames.extend([inner, outer]);
    interned.callstacks.push(stack);
    interned
}

/// What stands before samples: their counters, and [`stacks`].
pub fn stack_defaults() -> TracePacket {
    let counter = |name: &str| {
        message(|fields| {
            fields.add_length_delimited(2, name.as_bytes().to_vec());
            fields.add_varint(3, 1);
        })
    };
    let defaults = message(|fields| {
        fields.add_length_delimited(1, b"polletto".to_vec());
        fields.add_length_delimited(2, counter("wall-time"));
        for name in ["cpu-time", "off-cpu-time", "run-queue-time"] {
            fields.add_length_delimited(3, counter(name));
        }
    });
    let mut packet = TracePacket::new();
    packet.set_sequence_flags(1);
    let packet_defaults = packet.trace_packet_defaults.mut_or_insert_default();
    packet_defaults.special_fields.mut_unknown_fields().add_length_delimited(100, defaults);
    packet.interned_data = Some(stacks()).into();
    packet
}

/// A thread with callstack 1, found by the timer.
pub fn timer_sample(at: Nanoseconds, pid: u64, tid: u64, cpu: u64, period: u64) -> TracePacket {
    sample(at, pid, tid, Some(cpu), [period, period, 0, 0])
}

/// A thread with callstack 1, back from being blocked.
pub fn blocked(at: Nanoseconds, pid: u64, tid: u64, sleep: u64, wait: u64) -> TracePacket {
    sample(at, pid, tid, None, [sleep + wait, 0, sleep, wait])
}

fn sample(at: Nanoseconds, pid: u64, tid: u64, cpu: Option<u64>, weights: [u64; 4]) -> TracePacket {
    let task = message(|fields| {
        fields.add_varint(2, pid);
        fields.add_varint(3, tid);
    });
    let sample = message(|fields| {
        fields.add_length_delimited(1, task);
        if let Some(cpu) = cpu {
            let execution = message(|fields| {
                fields.add_varint(2, cpu);
                fields.add_varint(3, 1);
            });
            fields.add_length_delimited(3, execution);
        }
        fields.add_varint(6, 1);
        fields.add_length_delimited(7, b"no rule".to_vec());
        fields.add_varint(11, weights[0]);
        fields.add_length_delimited(14, weights[1..].iter().flat_map(|weight| varint(*weight)).collect());
    });
    let mut packet = TracePacket::new();
    packet.set_timestamp(at);
    packet.special_fields.mut_unknown_fields().add_length_delimited(135, sample);
    packet
}

/// A message made of fields that our definitions don't know.
fn message(fill: impl FnOnce(&mut UnknownFields)) -> Vec<u8> {
    let mut message = Empty::new();
    fill(message.special_fields.mut_unknown_fields());
    message.write_to_bytes().unwrap()
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push(u8::try_from(value & 0x7f).unwrap() | 0x80);
        value >>= 7;
    }
    bytes.push(u8::try_from(value).unwrap());
    bytes
}

fn string(iid: u64, text: &[u8]) -> InternedString {
    let mut string = InternedString::new();
    string.set_iid(iid);
    string.set_str(text.to_vec());
    string
}

pub fn serialized(packets: &[TracePacket]) -> Vec<u8> {
    let mut trace = Trace::new();
    trace.packet = packets.to_vec();
    trace.write_to_bytes().unwrap()
}

pub fn deflated(packets: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(packets).unwrap();
    let mut packet = TracePacket::new();
    packet.set_compressed_packets(encoder.finish().unwrap());
    serialized(&[packet])
}

pub fn zstd_compressed(packets: &[u8]) -> Vec<u8> {
    let mut packet = TracePacket::new();
    let compressed = zstd::encode_all(packets, 0).unwrap();
    packet.special_fields.mut_unknown_fields().add_length_delimited(133, compressed);
    serialized(&[packet])
}
