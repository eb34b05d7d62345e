//! Words that stand in a row and hold addresses of code: what tables of functions look like.

use std::collections::VecDeque;

use super::{Contents, ImageError, Pointer, Pointers, Source};

/// Bytes that are looked at in files without relocations. Segments may show the same bytes at many addresses.
const MAX_BYTES: u64 = 1 << 30;

/// Bytes that are looked at in one piece.
const PIECE: u64 = 1 << 20;

/// Hands the last `N` addresses of code to `take` wherever so many or more stand in a row, in the order of their addresses.
///
/// A row ends where the next word holds anything else. Whatever the file holds takes time that grows with its size.
pub fn rows_of_functions<const N: usize, S: Source + ?Sized>(
    contents: &Contents<'_, S>,
    pointers: &Pointers,
    take: impl FnMut(&[Pointer; N]) -> Result<(), ImageError>,
) -> Result<(), ImageError> {
    let mut rows = Rows { last: VecDeque::with_capacity(N), take };
    if pointers.sorted().is_empty() {
        all_words(contents, &mut rows)?;
    } else {
        for pointer in pointers.sorted() {
            if contents.is_code(pointer.to) {
                rows.add(*pointer)?;
            }
        }
    }
    rows.end()
}

/// Refuses more of something than a file can honestly have.
pub fn within_limit<T>(what: &'static str, found: &[T], limit: usize) -> Result<(), ImageError> {
    if found.len() > limit {
        return Err(ImageError::TooLarge { what, size: found.len() as u64, limit: limit as u64 });
    }
    Ok(())
}

struct Rows<const N: usize, F> {
    /// The last addresses of code that stand in a row.
    last: VecDeque<Pointer>,
    take: F,
}

impl<const N: usize, F: FnMut(&[Pointer; N]) -> Result<(), ImageError>> Rows<N, F> {
    /// Takes the next word that holds an address of code.
    fn add(&mut self, pointer: Pointer) -> Result<(), ImageError> {
        if self.last.back().is_some_and(|last| pointer.at.wrapping_sub(last.at) != 8) {
            self.end()?;
        }
        if self.last.len() == N {
            self.last.pop_front();
        }
        self.last.push_back(pointer);
        Ok(())
    }

    fn end(&mut self) -> Result<(), ImageError> {
        if let Ok(functions) = <&[Pointer; N]>::try_from(&*self.last.make_contiguous()) {
            (self.take)(functions)?;
        }
        self.last.clear();
        Ok(())
    }
}

/// Takes every word of a file that has no relocations for an address.
fn all_words<const N: usize, S: Source + ?Sized, F: FnMut(&[Pointer; N]) -> Result<(), ImageError>>(
    contents: &Contents<'_, S>,
    rows: &mut Rows<N, F>,
) -> Result<(), ImageError> {
    let mut left = MAX_BYTES;
    for (range, _) in contents.ranges() {
        let Some(mut address) = range.start.checked_next_multiple_of(8) else { continue };
        while address < range.end && left > 0 {
            let bytes = contents.piece(address, PIECE.min(range.end - address))?;
            let (words, _) = bytes.as_chunks::<8>();
            for (index, word) in words.iter().enumerate() {
                let to = u64::from_le_bytes(*word);
                if contents.is_code(to) {
                    // The range has no end behind that of all addresses.
                    rows.add(Pointer { at: address + 8 * index as u64, to })?;
                }
            }
            if words.is_empty() {
                break;
            }
            let done = 8 * words.len() as u64;
            address += done;
            left = left.saturating_sub(done);
        }
    }
    Ok(())
}
