//! Small traces, made by hand, for the reader's own tests.

use std::io::Write;

use flate2::{Compression, write::ZlibEncoder};
use perfetto_protos::{
    clock_snapshot::clock_snapshot::Clock, ftrace_event_bundle::FtraceEventBundle, trace::Trace,
    trace_packet::TracePacket,
};
use protobuf::Message;

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
