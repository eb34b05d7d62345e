//! Programs with the locks of `parking_lot`, whose threads sleep at them each on a word of its own.
//!
//! What such a thread waits for stands beside that word, where the kernel programs read it: see
//! [`polletto_common::parked`]. Here it is found out which programs have such locks, and where those words can be.

use std::ops::Range;

use crate::{
    families::CodeFile,
    target::image::{Contents, ImageError, Source, thread_locals},
};

/// The crate in which threads are parked. It stands in the paths that a program keeps for its panics, which survive
/// stripping: it can always panic when it measures time, to be fair.
const CRATE: &[u8; 16] = b"parking_lot_core";

/// Bytes of a file that are looked at.
const MAX_BYTES: u64 = 1 << 30;

/// Where the words are on which the threads of a file's program may sleep, from the thread pointer, bytes. None if it
/// is no program, or has no such locks.
pub fn words_of_parked_threads(file: &CodeFile<'_>) -> Option<Range<i64>> {
    let locals = thread_locals(file.image, file.source).ok().flatten()?;
    // Older linkers map constants with the code.
    let has_locks = |executable| names_crate(&file.contents, executable).unwrap_or_default();
    (has_locks(false) || has_locks(true)).then_some(locals)
}

/// Whether what can be executed, or all the rest, names the crate.
fn names_crate<S: Source + ?Sized>(contents: &Contents<'_, S>, executable: bool) -> Result<bool, ImageError> {
    for piece in contents.pieces(executable, CRATE.len() - 1, MAX_BYTES) {
        if piece?.windows(CRATE.len()).any(|bytes| bytes == CRATE) {
            return Ok(true);
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::target::image::{Architecture, Image, Segment};

    /// A file that is code from its first byte, and something else from the middle on.
    fn image(bytes: &[u8]) -> Image {
        let half = bytes.len() as u64 / 2;
        let segment = |start: u64, end: u64, executable| Segment {
            address: 0x1000 + start,
            file_offset: start,
            file_size: end - start,
            memory_size: end - start,
            executable,
        };
        Image {
            architecture: Architecture::X86_64,
            build_id: None,
            segments: vec![segment(0, half, true), segment(half, bytes.len() as u64, false)],
            eh_frame: None,
            text: None,
            got: None,
            linkage_tables: Vec::new(),
        }
    }

    #[test]
    fn a_program_names_the_crate_of_its_locks_wherever_that_stands() {
        let path = b"/registry/src/index.crates.io/parking_lot_core-0.9.12/src/parking_lot.rs";
        let half = 3 << 20;
        // In the middle of a piece, across two of them, and at the ends of what is looked at.
        for at in [half, half + 77, half + (1 << 20) - 40, half + (1 << 20), 2 * half - path.len()] {
            let mut bytes = vec![b'_'; 2 * half];
            bytes[at..at + path.len()].copy_from_slice(path);
            let image = image(&bytes);
            let contents = Contents::new(&image, &bytes[..]);
            assert!(names_crate(&contents, false).unwrap() && !names_crate(&contents, true).unwrap(), "{at}");
        }
        let mut other = vec![b'_'; 2 * half];
        other[half..half + 20].copy_from_slice(b"/parking-2.2.1/src/x");
        let image = image(&other);
        assert!(!names_crate(&Contents::new(&image, &other[..]), false).unwrap());
    }
}
