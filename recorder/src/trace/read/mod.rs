//! Reading traces, ours and others: which addresses there are that have no name yet.
//!
//! A trace is read as a stream, a packet at a time. What is kept of it is what its packets refer to by number, and the
//! addresses. Nothing in it is trusted: [`Limits`] bound what it can take.

mod budget;
mod error;
mod fields;
mod interned;
mod modules;
mod profile;
mod sequence;
mod stream;
#[cfg(test)]
mod tests;

use std::io::{self, BufRead, BufReader, Read};

use flate2::bufread::{MultiGzDecoder, ZlibDecoder};

pub use self::{
    error::ReadError,
    modules::{Known, TracedModule},
};
use self::{
    error::Reason,
    fields::Message,
    sequence::{Packet, Sequences},
    stream::{Next, Packets},
};
use super::Compression;

/// What a trace may take. Defaults are far beyond what any recorder writes.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The largest packet, in bytes.
    pub packet: u64,
    /// What a compressed packet may hold, in bytes. It is never in memory at once.
    pub inflated: u64,
    /// Memory for what packets refer to and for addresses, in bytes.
    pub kept: u64,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { packet: 512 << 20, inflated: 512 << 20, kept: 1 << 30 }
    }
}

/// What a trace came to.
#[derive(Debug, Default)]
pub struct TracedCode {
    /// Files with frames that have no name of their own, by path.
    pub modules: Vec<TracedModule>,
    /// Packets, those in compressed ones included.
    pub packets: u64,
    /// Bytes up to the end of the last packet that is complete.
    pub whole_bytes: u64,
    /// Whether it ends in the middle of a packet, as it does when its recorder was killed.
    pub is_cut: bool,
    /// How packets of it are compressed; none if none are. A reader refuses a trace that mixes zstd with deflate.
    pub compression: Option<Compression>,
}

/// Reads what addresses a trace has.
pub fn read_code(input: impl BufRead, limits: &Limits) -> Result<TracedCode, ReadError> {
    let mut packets = Packets::new(input, limits.packet);
    let mut sequences = Sequences::new(limits.kept);
    let (mut count, mut compression) = (0, None);
    let is_cut = loop {
        match packets.next()? {
            Next::Packet => {}
            Next::End => break false,
            Next::Cut => break true,
        }
        let message = packets.packet();
        let packet = Packet::read(message)?;
        match packet.compressed {
            Some(compressed) => {
                compression = Some(compressed.kind());
                count += read_compressed(compressed, &mut sequences, limits)
                    .map_err(|error| error.inside(message.offset))?;
            }
            None => {
                sequences.learn(&packet)?;
                count += 1;
            }
        }
    };
    let whole_bytes = packets.whole();
    Ok(TracedCode { modules: sequences.into_modules(), packets: count, whole_bytes, is_cut, compression })
}

/// The bytes of a trace, decompressed if the file is compressed as a whole, and whether it is.
pub fn open<'a>(input: impl Read + 'a) -> Result<(Box<dyn BufRead + 'a>, bool), ReadError> {
    const GZIP: [u8; 2] = [0x1f, 0x8b];
    const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
    const BUFFER: usize = 256 << 10;
    let unreadable = |error| ReadError::new(0, Reason::Unreadable(error));
    let mut input = BufReader::with_capacity(BUFFER, input);
    let begin = input.fill_buf().map_err(unreadable)?;
    if begin.starts_with(&GZIP) {
        Ok((Box::new(BufReader::with_capacity(BUFFER, MultiGzDecoder::new(input))), true))
    } else if begin.starts_with(&ZSTD) {
        Ok((Box::new(BufReader::with_capacity(BUFFER, zstd_decoder(input).map_err(unreadable)?)), true))
    } else {
        Ok((Box::new(input), false))
    }
}

/// How packets in a packet are compressed.
#[derive(Clone, Copy, Debug)]
enum Compressed<'a> {
    Deflate(Message<'a>),
    Zstd(Message<'a>),
}

impl Compressed<'_> {
    fn kind(self) -> Compression {
        match self {
            Compressed::Deflate(_) => Compression::Deflate,
            Compressed::Zstd(_) => Compression::Zstd,
        }
    }
}

/// Reads the packets in a packet. Returns how many they are.
fn read_compressed(compressed: Compressed<'_>, sequences: &mut Sequences, limits: &Limits) -> Result<u64, ReadError> {
    let unreadable = |error| ReadError::new(0, Reason::Unreadable(error));
    match compressed {
        Compressed::Deflate(message) => {
            read_inflated(BufReader::new(ZlibDecoder::new(message.bytes)), sequences, limits)
        }
        Compressed::Zstd(message) => {
            let decoder = zstd_decoder(message.bytes).map_err(unreadable)?;
            read_inflated(BufReader::new(decoder), sequences, limits)
        }
    }
}

fn zstd_decoder<'a, R: BufRead + 'a>(input: R) -> io::Result<zstd::Decoder<'a, R>> {
    /// The logarithm of how far back a frame may refer, and with it of the memory that it takes: 128 MiB.
    const WINDOW: u32 = 27;
    let mut decoder = zstd::Decoder::with_buffer(input)?;
    decoder.window_log_max(WINDOW)?;
    Ok(decoder)
}

fn read_inflated(inflated: impl BufRead, sequences: &mut Sequences, limits: &Limits) -> Result<u64, ReadError> {
    let mut packets = Packets::new(inflated.take(limits.inflated), limits.packet);
    let mut count = 0;
    loop {
        match packets.next()? {
            Next::Packet => {}
            Next::End | Next::Cut if packets.offset() == limits.inflated => {
                let reason = Reason::TooLarge("a compressed packet that holds packets", limits.inflated);
                return Err(ReadError::new(limits.inflated, reason));
            }
            Next::End => return Ok(count),
            Next::Cut => return Err(ReadError::malformed(packets.whole(), "a packet that does not end")),
        }
        let message = packets.packet();
        let packet = Packet::read(message)?;
        if packet.compressed.is_some() {
            return Err(ReadError::malformed(message.offset, "a compressed packet inside of another"));
        }
        sequences.learn(&packet)?;
        count += 1;
    }
}
