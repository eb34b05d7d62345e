//! What an ELF file says about itself that a recorder needs: how it is mapped, what it is called, and where the
//! information stands by which its stacks are unwound.
//!
//! Files belong to the programs that are recorded, and may change or lie. They are read piece by piece into memory of
//! bounded size and never mapped: a mapped file that shrinks would kill the recorder.

mod contents;
mod copy;
mod dynamic;
#[cfg(test)]
pub(crate) mod example;
mod headers;
mod pointers;
mod rows;
#[cfg(test)]
mod tests;
mod thread_locals;

use std::{error, fmt, fs::File, io, ops::Range, os::unix::fs::FileExt};

pub use self::{
    contents::Contents,
    copy::FileCopy,
    dynamic::is_static,
    pointers::{Pointer, Pointers},
    rows::{rows_of_functions, within_limit},
    thread_locals::{ThreadLocal, thread_locals},
};

/// Bytes that can be read from anywhere in them: a file, or a copy of a process's memory.
pub trait Source {
    /// Reads what stands at `offset`, as many bytes as there are and fit. 0 means that there are none.
    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<usize>;
}

/// Bytes of a file that ran.
#[derive(Debug)]
pub enum Bytes {
    /// Still on a disk, whatever became of its path.
    File(File),
    /// Read when it ran: the vDSO.
    Memory(Vec<u8>),
}

impl Bytes {
    /// The same bytes, for somebody else.
    pub fn try_clone(&self) -> io::Result<Bytes> {
        Ok(match self {
            Bytes::File(file) => Bytes::File(file.try_clone()?),
            Bytes::Memory(memory) => Bytes::Memory(memory.clone()),
        })
    }
}

/// A file, a library, or what the kernel maps as one (the vDSO).
///
/// Its addresses are those that the file itself uses; where a process has put it is another matter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// Whose instructions it holds.
    pub architecture: Architecture,
    /// The linker's name for this very build, if it gave one.
    pub build_id: Option<BuildId>,
    /// What is mapped, in the file's own order. May overlap.
    pub segments: Vec<Segment>,
    /// Its unwind information, if it has any.
    pub eh_frame: Option<EhFrame>,
    /// Address of `.text`, against which unwind information may count its pointers.
    pub text: Option<u64>,
    /// Address of `.got`, likewise.
    pub got: Option<u64>,
    /// Where its stubs for functions of other files stand (`.plt`, `.plt.got`, `.plt.sec`, `.iplt`, …). Unknown, and
    /// empty, without section headers.
    pub linkage_tables: Vec<Range<u64>>,
}

/// Whose instructions a file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Architecture {
    /// AMD64.
    X86_64,
    /// ARM, 64 bit.
    Aarch64,
}

/// The name of a build: 20 bytes mostly, 64 at most, never none.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BuildId(Vec<u8>);

/// A part of a file and the addresses that it is mapped to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Where it begins in the file.
    pub file_offset: u64,
    /// How much of it the file holds, bytes. The rest of its memory is zero.
    pub file_size: u64,
    /// Its first address.
    pub address: u64,
    /// How many addresses it takes.
    pub memory_size: u64,
    /// Whether it can be executed.
    pub executable: bool,
}

/// Where `.eh_frame` stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EhFrame {
    /// Its first address.
    pub address: u64,
    /// Where it begins in the file.
    pub file_offset: u64,
    /// Its bytes; at most [`EhFrame::MAX_BYTES`].
    pub size: u64,
    /// What `size` is worth.
    pub end: End,
}

/// Where `.eh_frame` ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Behind `size` bytes, as its section header says.
    Section,
    /// At its terminator, which stands within `size` bytes: nothing but that is known without section headers.
    Terminator,
}

/// Why a file can't be understood.
#[derive(Debug)]
pub enum ImageError {
    /// Reading failed.
    Unreadable(io::Error),
    /// It is something else than an ELF file.
    NotElf,
    /// It is an ELF file of a kind that polletto can't record.
    Unsupported(String),
    /// Something stands, or ends, behind the end of the file.
    Cut(&'static str),
    /// Something is larger than in any honest file.
    TooLarge {
        /// What it is.
        what: &'static str,
        /// How much there is of it.
        size: u64,
        /// How much there may be.
        limit: u64,
    },
    /// Something contradicts something else.
    Malformed(&'static str),
}

impl Image {
    /// Reads what a file says about itself.
    pub fn read(source: &(impl Source + ?Sized)) -> Result<Image, ImageError> {
        headers::read(source)
    }

    /// The address, by the file's own count, of what stands at an offset that is mapped as code.
    ///
    /// Mappings begin and end at pages, segments anywhere. So what is mapped reaches into its neighbours, and one offset
    /// can have several addresses: that of the segment which it truly belongs to counts, if there is one.
    pub fn address_of(&self, file_offset: u64) -> Option<u64> {
        let page = rustix::param::page_size() as u64;
        let within = |segment: &&Segment| segment.file_range().contains(&file_offset);
        let around = |segment: &&Segment| {
            let Range { start, end } = segment.file_range();
            (start - start % page..end.checked_next_multiple_of(page).unwrap_or(u64::MAX)).contains(&file_offset)
        };
        let segment = self.code().find(within).or_else(|| self.code().find(around))?;
        Some(segment.address.wrapping_sub(segment.file_offset).wrapping_add(file_offset))
    }

    /// Where code stands in the file that the file itself has at this address.
    pub fn file_offset_of(&self, address: u64) -> Option<u64> {
        let segment = self.code().find(|segment| segment.addresses().contains(&address))?;
        segment.file_offset.checked_add(address - segment.address)
    }

    /// What to add (wrapping) to the file offset of code to get its address; 0 for a file without code.
    pub fn load_bias(&self) -> u64 {
        self.code().next().map_or(0, |segment| segment.address.wrapping_sub(segment.file_offset))
    }

    /// The addresses that hold code: sorted, without overlap, never empty ones.
    pub fn code_addresses(&self) -> Vec<Range<u64>> {
        let mut ranges: Vec<Range<u64>> =
            self.code().map(Segment::addresses).filter(|range| !range.is_empty()).collect();
        ranges.sort_by_key(|range| range.start);
        ranges.dedup_by(|next, last| {
            let touches = next.start <= last.end;
            if touches {
                last.end = last.end.max(next.end);
            }
            touches
        });
        ranges
    }

    /// Reads `.eh_frame`; nothing if there is none.
    pub fn read_eh_frame(&self, source: &(impl Source + ?Sized)) -> Result<Vec<u8>, ImageError> {
        const WHAT: &str = ".eh_frame";
        match self.eh_frame {
            None => Ok(Vec::new()),
            Some(EhFrame { file_offset, size, end: End::Section, .. }) => {
                read_exactly(source, file_offset, size, EhFrame::MAX_BYTES, WHAT)
            }
            Some(EhFrame { file_offset, size, end: End::Terminator, .. }) => {
                read_up_to(source, file_offset, size.min(EhFrame::MAX_BYTES))
            }
        }
    }

    /// Reads what code stands at these addresses, as many bytes as the file has.
    pub fn read_code(&self, source: &(impl Source + ?Sized), addresses: &Range<u64>) -> Result<Vec<u8>, ImageError> {
        match self.file_offset_of(addresses.start) {
            Some(offset) => read_up_to(source, offset, addresses.end - addresses.start),
            None => Ok(Vec::new()),
        }
    }

    fn code(&self) -> impl Iterator<Item = &Segment> {
        self.segments.iter().filter(|segment| segment.executable)
    }
}

impl Segment {
    /// What the file holds of it.
    fn file_range(&self) -> Range<u64> {
        self.file_offset..self.file_offset.saturating_add(self.file_size)
    }

    /// The addresses of what the file holds of it.
    fn addresses(&self) -> Range<u64> {
        self.address..self.address.saturating_add(self.file_size)
    }
}

impl EhFrame {
    /// Several times what the largest programs have.
    pub const MAX_BYTES: u64 = 128 << 20;
}

impl BuildId {
    /// The longest one.
    pub const MAX_BYTES: usize = 64;

    /// A build id of these bytes. `None` if there are none, or too many.
    pub fn new(bytes: &[u8]) -> Option<BuildId> {
        (1..=Self::MAX_BYTES).contains(&bytes.len()).then(|| BuildId(bytes.to_vec()))
    }

    /// Its bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for BuildId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(out, "{byte:02x}"))
    }
}

impl Source for File {
    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<usize> {
        // The kernel refuses offsets that a signed number can't hold. There is nothing either.
        if i64::try_from(offset).is_err() { Ok(0) } else { FileExt::read_at(self, bytes, offset) }
    }
}

impl Source for Bytes {
    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<usize> {
        match self {
            Bytes::File(file) => Source::read_at(file, offset, bytes),
            Bytes::Memory(memory) => memory.as_slice().read_at(offset, bytes),
        }
    }
}

impl Source for [u8] {
    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<usize> {
        let rest = usize::try_from(offset).ok().and_then(|offset| self.get(offset..)).unwrap_or_default();
        let count = rest.len().min(bytes.len());
        bytes[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    }
}

impl Source for Vec<u8> {
    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<usize> {
        self[..].read_at(offset, bytes)
    }
}

/// Reads `size` bytes, which must all be there and no more than `limit`.
fn read_exactly(
    source: &(impl Source + ?Sized),
    offset: u64,
    size: u64,
    limit: u64,
    what: &'static str,
) -> Result<Vec<u8>, ImageError> {
    if size > limit {
        return Err(ImageError::TooLarge { what, size, limit });
    }
    let bytes = read_up_to(source, offset, size)?;
    if (bytes.len() as u64) < size { Err(ImageError::Cut(what)) } else { Ok(bytes) }
}

/// Reads `size` bytes, or as many as there are. Memory grows with what is there, not with what was asked for.
fn read_up_to(source: &(impl Source + ?Sized), offset: u64, size: u64) -> Result<Vec<u8>, ImageError> {
    const STEP: u64 = 1 << 20;
    let mut bytes = Vec::new();
    while (bytes.len() as u64) < size {
        let done = bytes.len();
        bytes.resize(done + (size - done as u64).min(STEP) as usize, 0);
        let count = match offset.checked_add(done as u64) {
            Some(at) => match source.read_at(at, &mut bytes[done..]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
                Err(error) => return Err(ImageError::Unreadable(error)),
                Ok(0) => {
                    bytes.truncate(done);
                    return Ok(bytes);
                }
                Ok(count) => count,
            },
            None => {
                bytes.truncate(done);
                return Ok(bytes);
            }
        };
        bytes.truncate(done + count);
    }
    Ok(bytes)
}

impl fmt::Display for ImageError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ImageError::Unreadable(_) => write!(out, "it cannot be read"),
            ImageError::NotElf => write!(out, "it is no ELF file"),
            ImageError::Unsupported(what) => write!(out, "it is {what}, which polletto does not record"),
            ImageError::Cut(what) => write!(out, "the file ends before {what} does"),
            ImageError::TooLarge { what, size, limit } => {
                write!(out, "{what} would take {size}, and polletto reads {limit} at most")
            }
            ImageError::Malformed(what) => write!(out, "{what}"),
        }
    }
}

impl error::Error for ImageError {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        match self {
            ImageError::Unreadable(source) => Some(source),
            _ => None,
        }
    }
}
