//! The envelope: from a file's bytes to packets.

use std::io::Read;

use flate2::read::ZlibDecoder;
use perfetto_protos::trace_packet::TracePacket;
use protobuf::{Message, UnknownValueRef};

use super::{Compression, module_symbols::ModuleSymbols};

/// Perfetto's limit for a compressed packet.
const LARGEST_COMPRESSED: usize = 512 * 1024;
/// `Trace.packet`, length-delimited.
const PACKET_TAG: u8 = 0x0a;
/// `TracePacket.zstd_compressed_packets`, which is newer than our definitions.
const ZSTD_COMPRESSED_PACKETS: u32 = 133;

/// What a file holds.
#[derive(Default)]
pub(super) struct File {
    pub packets: Vec<TracePacket>,
    pub truncated_bytes: usize,
    pub compression: Compression,
    /// What packets with names say, which are not among `packets`.
    pub symbols: ModuleSymbols,
    /// The packets' bytes.
    pub unpacked: Vec<u8>,
}

pub(super) fn unpack(bytes: &[u8]) -> File {
    let mut file = File::default();
    let (packets, rest) = split(bytes);
    file.truncated_bytes = rest.len();
    for body in packets {
        if file.symbols.take(body) {
            file.compression.none += 1;
            file.unpacked.extend_from_slice(body);
            continue;
        }
        let packet = parse(body);
        let Some(inner) = decompress(&packet, &mut file.compression) else {
            file.compression.none += 1;
            file.unpacked.extend_from_slice(body);
            file.packets.push(packet);
            continue;
        };
        assert!(body.len() <= LARGEST_COMPRESSED, "a compressed packet of {} bytes", body.len());
        let (packets, rest) = split(&inner);
        assert!(rest.is_empty(), "a compressed packet ends in the middle of a packet");
        for body in packets {
            if file.symbols.take(body) {
                continue;
            }
            let packet = parse(body);
            let nested = decompress(&packet, &mut Compression::default());
            assert!(nested.is_none(), "a compressed packet inside a compressed packet");
            file.packets.push(packet);
        }
        file.unpacked.extend_from_slice(&inner);
    }
    file
}

/// The bodies of complete packets, and what is left behind them.
fn split(mut bytes: &[u8]) -> (Vec<&[u8]>, &[u8]) {
    let mut packets = Vec::new();
    while let [tag, body @ ..] = bytes {
        assert_eq!(*tag, PACKET_TAG, "after {} packets stands something else", packets.len());
        let Some((length, body)) = varint(body) else { break };
        let Some((packet, rest)) = usize::try_from(length).ok().and_then(|length| body.split_at_checked(length)) else {
            break;
        };
        packets.push(packet);
        bytes = rest;
    }
    (packets, bytes)
}

/// A base-128 number, and what follows it. None if the bytes end before it does.
fn varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut value = 0;
    for (index, byte) in bytes.iter().enumerate().take(10) {
        value |= u64::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return Some((value, &bytes[index + 1..]));
        }
    }
    assert!(bytes.len() < 10, "a length of more than ten bytes");
    None
}

fn parse(body: &[u8]) -> TracePacket {
    TracePacket::parse_from_bytes(body).unwrap_or_else(|error| panic!("a packet does not parse: {error}"))
}

/// The packets in this packet, if it is a compressed one.
fn decompress(packet: &TracePacket, counts: &mut Compression) -> Option<Vec<u8>> {
    if packet.has_compressed_packets() {
        counts.deflate += 1;
        let mut inner = Vec::new();
        let outcome = ZlibDecoder::new(packet.compressed_packets()).read_to_end(&mut inner);
        outcome.unwrap_or_else(|error| panic!("a deflate packet does not unpack: {error}"));
        return Some(inner);
    }
    let field = packet.special_fields.unknown_fields().get(ZSTD_COMPRESSED_PACKETS)?;
    let UnknownValueRef::LengthDelimited(compressed) = field else {
        panic!("zstd_compressed_packets is not a string of bytes");
    };
    counts.zstd += 1;
    Some(zstd::decode_all(compressed).unwrap_or_else(|error| panic!("a zstd packet does not unpack: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::synthetic::{clock_packet, deflated, serialized, zstd_compressed};

    #[test]
    fn packets_come_out_of_every_envelope() {
        let plain = serialized(&[clock_packet(1), clock_packet(2)]);
        let cases = [
            (plain.clone(), Compression { none: 2, ..Compression::default() }),
            (deflated(&plain), Compression { deflate: 1, ..Compression::default() }),
            (zstd_compressed(&plain), Compression { zstd: 1, ..Compression::default() }),
        ];
        for (bytes, compression) in cases {
            let file = unpack(&bytes);
            assert_eq!(file.packets, [clock_packet(1), clock_packet(2)]);
            assert_eq!((file.compression, file.truncated_bytes), (compression, 0));
        }
    }

    #[test]
    fn a_last_packet_cut_anywhere_costs_only_itself() {
        let first = zstd_compressed(&serialized(&[clock_packet(1)]));
        let both = [first.clone(), zstd_compressed(&serialized(&[clock_packet(2)]))].concat();
        for length in first.len()..both.len() {
            let file = unpack(&both[..length]);
            assert_eq!(file.packets, [clock_packet(1)]);
            assert_eq!(file.truncated_bytes, length - first.len());
        }
    }

    #[test]
    #[should_panic(expected = "a compressed packet inside a compressed packet")]
    fn a_compressed_packet_in_another_is_a_fault() {
        unpack(&zstd_compressed(&deflated(&serialized(&[clock_packet(1)]))));
    }

    #[test]
    #[should_panic(expected = "stands something else")]
    fn another_field_than_a_packet_is_a_fault() {
        unpack(&[0x12, 0]);
    }
}
