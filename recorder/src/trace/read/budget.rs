//! The memory that a trace may take.

use super::error::{ReadError, Reason};

/// What an entry of a hash table takes besides its bytes, about, in bytes.
const ENTRY_BYTES: u64 = 64;

/// Bytes that may still be kept.
#[derive(Debug)]
pub(super) struct Budget {
    left: u64,
    limit: u64,
}

impl Budget {
    pub fn new(limit: u64) -> Budget {
        Budget { left: limit, limit }
    }

    /// Takes them for what stands at this byte of the trace, and an entry. Returns how much that is.
    pub fn take(&mut self, bytes: u64, offset: u64) -> Result<u64, ReadError> {
        let taken = bytes + ENTRY_BYTES;
        match self.left.checked_sub(taken) {
            Some(left) => {
                self.left = left;
                Ok(taken)
            }
            None => Err(ReadError::new(offset, Reason::TooLarge("stacks that have to be remembered here", self.limit))),
        }
    }

    /// Gives back what was taken.
    pub fn give_back(&mut self, taken: u64) {
        self.left += taken;
    }
}
