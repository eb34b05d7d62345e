//! Where functions begin and end.

use std::ops::Range;

use super::{Error, cfi};
use crate::target::image::{Image, Source};

/// Where the functions of a file begin and end, as far as its `.eh_frame` tells: all those that Rust compilers write,
/// and the program still does when it is stripped.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bounds {
    /// Sorted by their first addresses, each of which is there once.
    functions: Vec<Range<u64>>,
}

impl Bounds {
    /// Those of a file.
    pub fn read(image: &Image, source: &(impl Source + ?Sized)) -> Result<Bounds, Error> {
        let mut functions = cfi::bounds(image, &image.read_eh_frame(source)?)?;
        functions.sort_unstable_by_key(|function| (function.start, function.end));
        functions.dedup_by_key(|function| function.start);
        Ok(Bounds { functions })
    }

    /// The function that an address is in.
    pub fn around(&self, address: u64) -> Option<Range<u64>> {
        let behind = self.functions.partition_point(|function| function.start <= address);
        self.functions[..behind].last().filter(|function| address < function.end).cloned()
    }

    /// All of them, in the order of their addresses.
    pub fn sorted(&self) -> &[Range<u64>] {
        &self.functions
    }
}
