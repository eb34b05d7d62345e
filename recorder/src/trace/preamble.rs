//! What stands at the beginning of a trace, and the marks that return throughout it.

use std::borrow::Cow;

use polletto_protos::{
    BuiltinClock, ClockSnapshot, SystemInfo, TraceAttributes, TraceUuid, Utsname, clock_snapshot::Clock,
    trace_attributes, trace_packet::Data,
};

use super::PacketBuffer;

/// `82477a76-b28d-42ba-81dc-33326d57a079`, by Perfetto's definition.
const SYNCHRONIZATION_MARKER: [u8; 16] =
    [0x82, 0x47, 0x7a, 0x76, 0xb2, 0x8d, 0x42, 0xba, 0x81, 0xdc, 0x33, 0x32, 0x6d, 0x57, 0xa0, 0x79];

/// What several clocks showed at one moment, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clocks {
    /// The clock of every time in the trace.
    pub boottime_ns: u64,
    /// The clock of `Instant`.
    pub monotonic_ns: u64,
    /// Wall time since 1970.
    pub realtime_ns: u64,
}

/// A key and its value, which readers show in the trace's overview.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attribute {
    /// Dotted, lower case.
    pub key: Cow<'static, str>,
    /// A number or text.
    pub value: AttributeValue,
}

/// What an [`Attribute`] says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AttributeValue {
    /// A count, a size, or a flag.
    Number(i64),
    /// Anything else.
    Text(String),
}

/// A recording's circumstances.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Preamble {
    /// A random number that identifies the recording.
    pub uuid: u128,
    /// The kernel's name, release, version and machine, as `uname` prints them.
    pub kernel: [String; 4],
    /// Of the recorder.
    pub version: &'static str,
    /// CPUs of the machine.
    pub cpus: u32,
    /// Bytes of a page.
    pub page_bytes: u32,
    /// What was recorded and how.
    pub attributes: Vec<Attribute>,
    /// When the recording began.
    pub clocks: Clocks,
}

impl Preamble {
    /// Writes the first packets of a trace.
    pub fn write(self, out: &mut PacketBuffer) {
        let began_ns = self.clocks.boottime_ns;
        snapshot_clocks(self.clocks, out);
        let [sysname, release, version, machine] = self.kernel.map(Some);
        let system = SystemInfo {
            utsname: Some(Utsname { sysname, version, release, machine }),
            tracing_service_version: Some(format!("polletto {}", self.version)),
            page_size: Some(self.page_bytes),
            timezone_off_mins: None,
            num_cpus: Some(self.cpus),
        };
        out.push(Some(began_ns), Data::SystemInfo(system));
        let uuid = TraceUuid { msb: Some((self.uuid >> 64) as i64), lsb: Some(self.uuid as i64) };
        out.push(Some(began_ns), Data::TraceUuid(uuid));
        out.push(Some(began_ns), Data::TraceAttributes(message(self.attributes)));
        mark_synchronization(out);
    }
}

/// Lets readers convert between clocks; returns every ten seconds, since clocks drift apart.
pub fn snapshot_clocks(clocks: Clocks, out: &mut PacketBuffer) {
    let clock = |id: BuiltinClock, time_ns| Clock { clock_id: Some(id as u32), timestamp: Some(time_ns) };
    let snapshot = ClockSnapshot {
        clocks: vec![
            clock(BuiltinClock::Boottime, clocks.boottime_ns),
            clock(BuiltinClock::Monotonic, clocks.monotonic_ns),
            clock(BuiltinClock::Realtime, clocks.realtime_ns),
        ],
        primary_trace_clock: Some(BuiltinClock::Boottime as i32),
    };
    out.push(Some(clocks.boottime_ns), Data::ClockSnapshot(snapshot));
}

/// Lets readers find their way into the middle of a long file.
pub fn mark_synchronization(out: &mut PacketBuffer) {
    out.push(None, Data::SynchronizationMarker(SYNCHRONIZATION_MARKER.to_vec()));
}

/// Says more of a trace, whoever wrote it.
pub fn add_attributes(attributes: Vec<Attribute>, out: &mut PacketBuffer) {
    out.push_outside_sequences(Data::TraceAttributes(message(attributes)));
}

fn message(attributes: Vec<Attribute>) -> TraceAttributes {
    use trace_attributes::attribute::Value;
    let one = |Attribute { key, value }| {
        let value = match value {
            AttributeValue::Number(number) => Value::LongValue(number),
            AttributeValue::Text(text) => Value::StringValue(text),
        };
        trace_attributes::Attribute { key: Some(key.into_owned()), value: Some(value) }
    };
    TraceAttributes { attribute: attributes.into_iter().map(one).collect() }
}

#[cfg(test)]
mod tests {
    use polletto_protos::Trace;
    use prost::Message;

    use super::*;

    #[test]
    fn clocks_come_first_and_the_kernel_before_any_event() {
        let mut out = PacketBuffer::default();
        let clocks = Clocks { boottime_ns: 1, monotonic_ns: 2, realtime_ns: 3 };
        let kernel = ["Linux", "6.18", "#1", "x86_64"].map(String::from);
        let attributes = vec![Attribute { key: "a".into(), value: AttributeValue::Number(7) }];
        Preamble { uuid: 1, kernel, version: "0", cpus: 2, page_bytes: 4096, attributes, clocks }.write(&mut out);
        let trace = Trace::decode(out.take_all().next().unwrap().bytes()).unwrap();
        assert!(matches!(trace.packet[0].data, Some(Data::ClockSnapshot(_))));
        let Some(Data::SystemInfo(system)) = &trace.packet[1].data else { panic!("{:?}", trace.packet[1]) };
        assert_eq!(system.utsname.as_ref().unwrap().release(), "6.18");
        assert!(trace.packet.iter().any(|packet| matches!(packet.data, Some(Data::SynchronizationMarker(_)))));
    }
}
