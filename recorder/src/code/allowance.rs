//! How much code is looked at.

use std::cell::Cell;

use crate::target::image::ImageError;

/// Bytes of functions that are looked at in one file. Of a program of 70 MB it is not one million.
const MAX_BYTES: u64 = 256 << 20;

/// What is left of the bytes of functions that are looked at. Functions may overlap as a file tells of them, so that each
/// of millions may be as long as the whole.
pub(crate) struct Allowance {
    left: Cell<u64>,
}

impl Default for Allowance {
    fn default() -> Allowance {
        Allowance { left: Cell::new(MAX_BYTES) }
    }
}

impl Allowance {
    /// A function of so many bytes is looked at, unless that is more than is left.
    pub(crate) fn take(&self, size: u64) -> Result<(), ImageError> {
        let left = self.left.get().checked_sub(size);
        let too_large = ImageError::TooLarge { what: "the code of its functions", size, limit: MAX_BYTES };
        left.map(|left| self.left.set(left)).ok_or(too_large)
    }
}
