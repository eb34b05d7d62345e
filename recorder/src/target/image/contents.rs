//! What stands at the addresses of a file.

use std::{cell::RefCell, ops::Range};

use super::{Image, ImageError, Segment, Source, read_up_to};

/// Bytes that are read at once. Neighbours are wanted soon after each other, and a system call takes about as long.
const BLOCK: u64 = 16 << 10;

/// Bytes that are read at once where everything is looked at.
const PIECE: u64 = 1 << 20;

/// How many blocks are kept, 2 MiB in all.
const BLOCKS: u64 = 128;

/// What stands at the addresses of a file, read as it is asked for.
///
/// Only what the file holds is there: memory that begins as zero is not. Nothing is where it has no segment, or ends.
pub struct Contents<'a, S: ?Sized> {
    source: &'a S,
    /// Sorted, without overlap: where segments overlap, the first one counts, from its first address on.
    places: Vec<Place>,
    blocks: RefCell<Vec<Option<Block>>>,
}

/// Addresses that the file holds.
struct Place {
    addresses: Range<u64>,
    file_offset: u64,
    executable: bool,
}

struct Block {
    number: u64,
    bytes: Vec<u8>,
}

impl<'a, S: Source + ?Sized> Contents<'a, S> {
    /// Of this file.
    pub fn new(image: &Image, source: &'a S) -> Contents<'a, S> {
        let mut segments: Vec<&Segment> = image.segments.iter().collect();
        segments.sort_by_key(|segment| segment.address);
        let mut places: Vec<Place> = Vec::new();
        for segment in segments {
            let Range { start, end } = segment.addresses();
            let free = places.last().map_or(start, |last| last.addresses.end.max(start));
            if free < end {
                let file_offset = segment.file_offset.saturating_add(free - start);
                places.push(Place { addresses: free..end, file_offset, executable: segment.executable });
            }
        }
        Contents { source, places, blocks: RefCell::new((0..BLOCKS).map(|_| None).collect()) }
    }

    /// Whether there is code at an address.
    pub fn is_code(&self, address: u64) -> bool {
        self.place(address).is_some_and(|place| place.executable)
    }

    /// The addresses that the file claims to hold, sorted and without overlap, and whether they can be executed.
    pub fn ranges(&self) -> impl Iterator<Item = (Range<u64>, bool)> {
        self.places.iter().map(|place| (place.addresses.clone(), place.executable))
    }

    /// Reads what stands at an address and behind, as many bytes as there are in one piece and fit.
    pub fn read(&self, address: u64, bytes: &mut [u8]) -> Result<usize, ImageError> {
        let Some(place) = self.place(address) else { return Ok(0) };
        let there = usize::try_from(place.addresses.end - address).unwrap_or(usize::MAX).min(bytes.len());
        let start = place.file_offset.saturating_add(address - place.addresses.start);
        let mut done = 0;
        while done < there {
            let Some(at) = start.checked_add(done as u64) else { break };
            let count = self.copy(at, &mut bytes[done..there])?;
            if count == 0 {
                break;
            }
            done += count;
        }
        Ok(done)
    }

    /// Reads a long piece, or as much of it as there is. Memory grows with what is there.
    pub fn piece(&self, address: u64, size: u64) -> Result<Vec<u8>, ImageError> {
        let Some(place) = self.place(address) else { return Ok(Vec::new()) };
        let file_offset = place.file_offset.saturating_add(address - place.addresses.start);
        read_up_to(self.source, file_offset, size.min(place.addresses.end - address))
    }

    /// What can be executed, or all the rest, up to so many bytes: in long pieces, each of which begins with the last
    /// `overlap` bytes of the one before, so that what is no longer than that is whole in one of them. Segments may
    /// show the same bytes at many addresses.
    pub fn pieces(
        &self,
        executable: bool,
        overlap: usize,
        most: u64,
    ) -> impl Iterator<Item = Result<Vec<u8>, ImageError>> {
        let mut left = most;
        let ranges = self.ranges().filter(move |range| range.1 == executable);
        let starts = ranges.flat_map(move |(range, _)| {
            let step = (PIECE - overlap as u64) as usize;
            range.clone().step_by(step).map(move |start| start..range.end)
        });
        starts
            .take_while(move |rest| {
                let goes_on = left > 0;
                left = left.saturating_sub(PIECE.min(rest.end - rest.start));
                goes_on
            })
            .map(|rest| self.piece(rest.start, PIECE.min(rest.end - rest.start)))
    }

    /// Reads as many bytes as were asked for. `None` if there are fewer.
    pub fn array<const COUNT: usize>(&self, address: u64) -> Result<Option<[u8; COUNT]>, ImageError> {
        let mut bytes = [0; COUNT];
        let count = self.read(address, &mut bytes)?;
        Ok((count == COUNT).then_some(bytes))
    }

    /// Reads a number of 64 bits.
    pub fn word(&self, address: u64) -> Result<Option<u64>, ImageError> {
        Ok(self.array(address)?.map(u64::from_le_bytes))
    }

    fn place(&self, address: u64) -> Option<&Place> {
        let place = self.places.get(self.places.partition_point(|place| place.addresses.end <= address))?;
        (place.addresses.start <= address).then_some(place)
    }

    /// Copies what a block has at an offset of the file.
    fn copy(&self, offset: u64, into: &mut [u8]) -> Result<usize, ImageError> {
        let number = offset / BLOCK;
        let mut blocks = self.blocks.borrow_mut();
        // `BLOCKS` is small, and so is what is left by it.
        let slot = &mut blocks[(number % BLOCKS) as usize];
        let block = match slot {
            Some(block) if block.number == number => block,
            _ => slot.insert(Block { number, bytes: read_up_to(self.source, number * BLOCK, BLOCK)? }),
        };
        let rest = block.bytes.get((offset % BLOCK) as usize..).unwrap_or_default();
        let count = rest.len().min(into.len());
        into[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    }
}
