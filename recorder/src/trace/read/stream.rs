//! Packets of a trace, one after another, and never more of it in memory.

use std::io::{self, BufRead, Read};

use super::{
    error::{ReadError, Reason},
    fields::{Malformed, Message, Step, Varint},
};

/// `Trace.packet`, length-delimited.
const PACKET: u64 = 1 << 3 | LENGTH_DELIMITED;
const LENGTH_DELIMITED: u64 = 2;

/// Memory that is kept for the next packet, in bytes. Nearly every packet is smaller.
const KEPT_BYTES: usize = 1 << 20;

/// A serialized `Trace` that is read packet by packet.
pub(super) struct Packets<R> {
    input: R,
    /// Bytes that were read.
    offset: u64,
    /// [`Packets::offset`] behind the last packet that is complete.
    whole: u64,
    /// The largest packet that is read, in bytes.
    limit: u64,
    packet: Vec<u8>,
    /// Where it begins.
    packet_offset: u64,
}

/// What comes next in a trace.
pub(super) enum Next {
    /// [`Packets::packet`]
    Packet,
    End,
    /// The trace ends in the middle of a packet.
    Cut,
}

/// Whether a field was a packet.
struct IsPacket(bool);

/// Why there is no further byte.
enum Stop {
    /// The input has ended.
    End,
    Error(ReadError),
}

impl<R: BufRead> Packets<R> {
    pub fn new(input: R, limit: u64) -> Packets<R> {
        Packets { input, offset: 0, whole: 0, limit, packet: Vec::new(), packet_offset: 0 }
    }

    /// The bytes up to the end of the last packet that is complete.
    pub fn whole(&self) -> u64 {
        self.whole
    }

    /// The bytes that were read.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// The packet that was read last.
    pub fn packet(&self) -> Message<'_> {
        Message { bytes: &self.packet, offset: self.packet_offset }
    }

    /// Reads the next packet. Other fields are left out, as by every reader.
    pub fn next(&mut self) -> Result<Next, ReadError> {
        loop {
            self.whole = self.offset;
            match self.read_field() {
                Ok(IsPacket(true)) => {
                    self.whole = self.offset;
                    return Ok(Next::Packet);
                }
                Ok(IsPacket(false)) => {}
                Err(Stop::End) if self.offset == self.whole => return Ok(Next::End),
                Err(Stop::End) => return Ok(Next::Cut),
                Err(Stop::Error(error)) => return Err(error),
            }
        }
    }

    fn read_field(&mut self) -> Result<IsPacket, Stop> {
        let at = self.offset;
        let tag = self.read_varint()?;
        let length = match tag & 7 {
            0 => return self.read_varint().map(|_| IsPacket(false)),
            1 => 8,
            LENGTH_DELIMITED => self.read_varint()?,
            5 => 4,
            _ => return Err(self.malformed(at, "no packet of a Perfetto trace")),
        };
        if tag >> 3 == 0 {
            return Err(self.malformed(at, "no packet of a Perfetto trace"));
        }
        if tag != PACKET {
            return self.skip(length).map(|()| IsPacket(false));
        }
        if length > self.limit {
            return Err(Stop::Error(ReadError::new(at, Reason::TooLarge("a packet", self.limit))));
        }
        self.packet_offset = self.offset;
        self.read_packet(length).map(|()| IsPacket(true))
    }

    /// Takes no more memory than there are bytes, whatever the length says.
    fn read_packet(&mut self, length: u64) -> Result<(), Stop> {
        self.packet.clear();
        self.packet.shrink_to(KEPT_BYTES);
        let read = self.input.by_ref().take(length).read_to_end(&mut self.packet);
        self.offset += self.packet.len() as u64;
        match read {
            Ok(count) if count as u64 == length => Ok(()),
            Ok(_) => Err(Stop::End),
            Err(error) => Err(self.stop(error)),
        }
    }

    fn skip(&mut self, length: u64) -> Result<(), Stop> {
        match io::copy(&mut self.input.by_ref().take(length), &mut io::sink()) {
            Ok(count) => {
                self.offset += count;
                if count == length { Ok(()) } else { Err(Stop::End) }
            }
            Err(error) => Err(self.stop(error)),
        }
    }

    fn read_varint(&mut self) -> Result<u64, Stop> {
        let (at, mut varint) = (self.offset, Varint::default());
        loop {
            let byte = match self.input.fill_buf() {
                Ok(bytes) => *bytes.first().ok_or(Stop::End)?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(self.stop(error)),
            };
            self.input.consume(1);
            self.offset += 1;
            match varint.push(byte) {
                Step::More => {}
                Step::Is(value) => return Ok(value),
                Step::TooLong => return Err(self.malformed(at, "a number that does not end")),
            }
        }
    }

    fn malformed(&self, offset: u64, what: &'static str) -> Stop {
        Stop::Error(Malformed { offset, what }.into())
    }

    fn stop(&self, error: io::Error) -> Stop {
        match error.kind() {
            // What compresses a file as a whole was cut off.
            io::ErrorKind::UnexpectedEof => Stop::End,
            _ => Stop::Error(ReadError::new(self.offset, Reason::Unreadable(error))),
        }
    }
}
