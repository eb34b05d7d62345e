//! What is wrong with a trace, and where.

use std::{error, fmt, io};

use super::fields::Malformed;

/// Why a trace can't be read.
#[derive(Debug)]
pub struct ReadError {
    /// The byte of the file, or of what a file that is compressed as a whole holds.
    offset: u64,
    /// The byte of what a compressed packet holds, which begins at `offset`.
    inner_offset: Option<u64>,
    reason: Reason,
}

/// What stands in the way.
#[derive(Debug)]
pub(super) enum Reason {
    Unreadable(io::Error),
    Malformed(&'static str),
    /// Something is larger than anything honest, in bytes.
    TooLarge(&'static str, u64),
}

impl ReadError {
    pub(super) fn new(offset: u64, reason: Reason) -> ReadError {
        ReadError { offset, inner_offset: None, reason }
    }

    pub(super) fn malformed(offset: u64, what: &'static str) -> ReadError {
        ReadError::new(offset, Reason::Malformed(what))
    }

    /// The same, for what a compressed packet at this byte of the file holds.
    pub(super) fn inside(self, packet: u64) -> ReadError {
        ReadError { offset: packet, inner_offset: Some(self.offset), ..self }
    }

    /// The byte of the file at which it stands, or of the compressed packet in which it stands.
    pub fn offset(&self) -> u64 {
        self.offset
    }
}

impl From<Malformed> for ReadError {
    fn from(Malformed { offset, what }: Malformed) -> ReadError {
        ReadError::malformed(offset, what)
    }
}

impl fmt::Display for ReadError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "byte {}", self.offset)?;
        if let Some(inner) = self.inner_offset {
            write!(out, " (byte {inner} of what is compressed there)")?;
        }
        match &self.reason {
            Reason::Unreadable(error) => write!(out, ": {error}"),
            Reason::Malformed(what) => write!(out, ": {what}"),
            Reason::TooLarge(what, limit) => write!(out, ": {what} of more than {} MiB", limit >> 20),
        }
    }
}

impl error::Error for ReadError {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        match &self.reason {
            Reason::Unreadable(error) => error.source(),
            Reason::Malformed(_) | Reason::TooLarge(..) => None,
        }
    }
}
