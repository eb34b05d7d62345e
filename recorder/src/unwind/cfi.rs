//! `.eh_frame` → what every function says of its own addresses.

use std::{collections::HashMap, ops::Range};

use gimli::{
    BaseAddresses, CommonInformationEntry, EhFrame, EhFrameOffset, FrameDescriptionEntry, LittleEndian, UnwindContext,
    UnwindSection,
};
use polletto_common::unwind::{Cfa, PAGE_BYTES, Page};

use super::{
    Error, MAX_PAGES, Omissions,
    rule::{Bytes, Cpu, Frame, Registers, Rules, bare},
};
use crate::target::image::{End, Image};

/// Where a file's code is. Steps after this one count addresses from its first page on, so that 32 bits hold them.
pub(super) struct Code {
    base: u64,
    ranges: Vec<Range<u64>>,
}

/// What all functions say.
#[derive(Default)]
pub(super) struct Functions {
    /// In the order of the section.
    pub(super) functions: Vec<Function>,
    /// The changes of all functions, one function behind another.
    pub(super) changes: Vec<Change>,
}

/// The addresses of a function, none of them outside of the code, and how many changes are its own. The first change is
/// at its first address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Function {
    pub(super) start: u32,
    pub(super) end: u32,
    pub(super) first_change: u32,
    pub(super) changes: u32,
}

/// From this address on that rule holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Change {
    pub(super) address: u32,
    pub(super) rule: u16,
}

/// Runs the programs of all functions.
pub(super) fn functions<C: Cpu>(
    image: &Image,
    eh_frame: &[u8],
    code: &Code,
    rules: &mut Rules,
    omissions: &mut Omissions,
) -> Result<Functions, Error> {
    let Some(place) = image.eh_frame else { return Ok(Functions::default()) };
    let mut reader = Reader::of(image, eh_frame, place.address);
    reader.section.set_vendor(C::VENDOR);
    let mut found = Functions::default();
    let entries = Entries { bytes: eh_frame, at: 0, end: place.end };
    for offset in entries {
        let Some(offset) = offset else {
            omissions.broken += 1;
            break;
        };
        let (functions, changes) = (found.functions.len(), found.changes.len());
        match reader.function::<C>(offset, code, rules, &mut found)? {
            Outcome::Understood { unsupported } => omissions.unsupported += unsupported,
            Outcome::Broken => omissions.broken += 1,
            Outcome::Empty => omissions.empty += 1,
            Outcome::Outside => omissions.outside += 1,
        }
        // Whatever went wrong half-way leaves no half.
        if found.functions.len() == functions {
            found.changes.truncate(changes);
        }
    }
    Ok(found)
}

/// The addresses of all functions, as they are said: in the order of the section, without those that say none.
pub(super) fn bounds(image: &Image, eh_frame: &[u8]) -> Result<Vec<Range<u64>>, Error> {
    let Some(place) = image.eh_frame else { return Ok(Vec::new()) };
    let mut reader = Reader::of(image, eh_frame, place.address);
    let mut bounds = Vec::new();
    for offset in (Entries { bytes: eh_frame, at: 0, end: place.end }).flatten() {
        let Some(function) = reader.description(offset)? else { continue };
        let start = function.initial_address();
        bounds.extend(start.checked_add(function.len()).map(|end| start..end).filter(|range| !range.is_empty()));
    }
    Ok(bounds)
}

/// What became of a function.
enum Outcome {
    Understood { unsupported: u64 },
    Broken,
    Empty,
    Outside,
}

struct Reader<'a> {
    bytes: &'a [u8],
    section: EhFrame<Bytes<'a>>,
    bases: BaseAddresses,
    commons: HashMap<usize, CommonInformationEntry<Bytes<'a>>>,
    context: UnwindContext<usize, Registers>,
    work: Work,
}

impl<'a> Reader<'a> {
    fn of(image: &Image, eh_frame: &'a [u8], address: u64) -> Reader<'a> {
        let mut bases = BaseAddresses::default().set_eh_frame(address);
        if let Some(text) = image.text {
            bases = bases.set_text(text);
        }
        if let Some(got) = image.got {
            bases = bases.set_got(got);
        }
        Reader {
            bytes: eh_frame,
            section: EhFrame::new(eh_frame, LittleEndian),
            bases,
            commons: HashMap::new(),
            context: UnwindContext::new_in(),
            work: Work::allowed_for(eh_frame),
        }
    }

    fn function<C: Cpu>(
        &mut self,
        offset: usize,
        code: &Code,
        rules: &mut Rules,
        found: &mut Functions,
    ) -> Result<Outcome, Error> {
        let Some(function) = self.description(offset)? else { return Ok(Outcome::Broken) };
        let (start, length) = (function.initial_address(), function.len());
        let addresses = match start.checked_add(length) {
            _ if length == 0 => return Ok(Outcome::Empty),
            None => return Ok(Outcome::Outside),
            Some(end) => start..end,
        };
        let Some(Range { start, end }) = code.clip(&addresses).filter(|_| code.contains(start)) else {
            return Ok(Outcome::Outside);
        };
        let first_change = found.changes.len();
        let unsupported = if function.is_signal_trampoline() {
            found.changes.push(Change { address: start, rule: rules.index(bare(Cfa::SIGNAL_FRAME)) });
            Some(0)
        } else {
            self.changes::<C>(&function, start..end, code, rules, &mut found.changes)
        };
        let Some(unsupported) = unsupported else { return Ok(Outcome::Broken) };
        if found.changes.len() > Page::MAX_FIRST_ROW as usize {
            return Err(Error::TooManyRows);
        }
        let changes = found.changes.len() - first_change;
        found.functions.push(Function { start, end, first_change: first_change as u32, changes: changes as u32 });
        Ok(Outcome::Understood { unsupported })
    }

    /// A function's own entry, and the one that it has in common with others.
    fn description(&mut self, offset: usize) -> Result<Option<FrameDescriptionEntry<Bytes<'a>>>, Error> {
        /// Common entries that are remembered. Files have about a dozen.
        const REMEMBERED: usize = 4096;
        /// Bytes of a common entry. They have about 30; and what a wrong pointer leads to mostly claims to be huge.
        const LARGEST: usize = 64 << 10;
        let Reader { bytes, section, bases, commons, work, .. } = self;
        let Ok(partial) = section.partial_fde_from_offset(bases, EhFrameOffset(offset)) else { return Ok(None) };
        let common_size = size_of_entry(bytes, partial.cie_offset().0);
        let Some(common_size) = common_size.filter(|&size| size <= LARGEST) else { return Ok(None) };
        // Every function runs the common instructions again.
        work.spend(common_size + partial.entry_len())?;
        let parsed = partial.parse(|section, bases, offset| match commons.get(&offset.0) {
            Some(known) => Ok(known.clone()),
            None => {
                let parsed = section.cie_from_offset(bases, offset)?;
                if commons.len() < REMEMBERED {
                    commons.insert(offset.0, parsed.clone());
                }
                Ok(parsed)
            }
        });
        Ok(parsed.ok())
    }

    /// Runs a function's program. Returns how many of its rows could not be put into rules; `None` if the program is
    /// broken.
    fn changes<C: Cpu>(
        &mut self,
        function: &FrameDescriptionEntry<Bytes<'a>>,
        addresses: Range<u32>,
        code: &Code,
        rules: &mut Rules,
        changes: &mut Vec<Change>,
    ) -> Option<u64> {
        let (own, mut unsupported) = (changes.len(), 0);
        let mut rows = function.rows(&self.section, &self.bases, &mut self.context).ok()?;
        while let Some(row) = rows.next_row().ok()? {
            if row.start_address() == row.end_address() {
                continue;
            }
            let address = match code.offset(row.start_address()) {
                Some(address) if address < addresses.end => address,
                // Rows are in order: there are no more of this function.
                _ => break,
            };
            let rule = C::rule(&Frame { row, section: &self.section, common: function.cie() });
            unsupported += u64::from(rule.cfa == Cfa::UNSUPPORTED);
            let rule = rules.index(rule);
            match changes[own..].last() {
                Some(last) if last.rule == rule => {}
                _ => changes.push(Change { address, rule }),
            }
        }
        Some(unsupported)
    }
}

/// How much may still be done, in bytes that are read.
struct Work(usize);

impl Work {
    /// Compilers write entries of 20 bytes and more that share one of 20 to 40: this is about twice as much.
    fn allowed_for(eh_frame: &[u8]) -> Work {
        Work((1 << 20) + 5 * eh_frame.len())
    }

    fn spend(&mut self, bytes: usize) -> Result<(), Error> {
        self.0 = self.0.checked_sub(bytes).ok_or(Error::TooMuchWork)?;
        Ok(())
    }
}

/// The offsets of the functions' entries, and `None` where an entry reaches behind the end: what follows is lost.
struct Entries<'a> {
    bytes: &'a [u8],
    at: usize,
    end: End,
}

impl Iterator for Entries<'_> {
    type Item = Option<usize>;

    fn next(&mut self) -> Option<Option<usize>> {
        loop {
            let at = self.at;
            if word(self.bytes, at)? == 0 {
                // Linkers put together what was terminated each on its own: where there is more, a terminator is none.
                match self.end {
                    End::Terminator => return None,
                    End::Section => self.at += 4,
                }
                continue;
            }
            let Some(size) = size_of_entry(self.bytes, at).filter(|&size| size <= self.bytes.len() - at) else {
                self.at = self.bytes.len();
                return Some(None);
            };
            self.at = at + size;
            let long = word(self.bytes, at)? == u32::MAX;
            if word(self.bytes, at + if long { 12 } else { 4 })? != 0 {
                return Some(Some(at));
            }
        }
    }
}

/// The bytes of an entry, its length included. It may reach behind the end.
fn size_of_entry(bytes: &[u8], at: usize) -> Option<usize> {
    match word(bytes, at)? {
        u32::MAX => {
            let length = u64::from(word(bytes, at + 4)?) | u64::from(word(bytes, at + 8)?) << 32;
            usize::try_from(length).ok()?.checked_add(12)
        }
        length => Some(length as usize + 4),
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

impl Code {
    pub(super) fn of(image: &Image) -> Result<Code, Error> {
        let ranges = image.code_addresses();
        let (Some(first), Some(last)) = (ranges.first(), ranges.last()) else {
            return Ok(Code { base: 0, ranges });
        };
        let base = first.start - first.start % PAGE_BYTES;
        let span = last.end - base;
        if span > MAX_PAGES * PAGE_BYTES { Err(Error::TooFarApart(span)) } else { Ok(Code { base, ranges }) }
    }

    /// The address that all others are counted from.
    pub(super) fn base(&self) -> u64 {
        self.base
    }

    /// What of these addresses is code without a hole.
    pub(super) fn clip(&self, addresses: &Range<u64>) -> Option<Range<u32>> {
        let range = self.ranges.get(self.ranges.partition_point(|range| range.end <= addresses.start))?;
        let (start, end) = (addresses.start.max(range.start), addresses.end.min(range.end));
        if start >= end { None } else { Some(self.offset(start)?..self.offset(end)?) }
    }

    fn contains(&self, address: u64) -> bool {
        let range = self.ranges.get(self.ranges.partition_point(|range| range.end <= address));
        range.is_some_and(|range| range.start <= address)
    }

    pub(super) fn offset(&self, address: u64) -> Option<u32> {
        u32::try_from(address.checked_sub(self.base)?).ok()
    }
}
