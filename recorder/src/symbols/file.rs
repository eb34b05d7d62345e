//! ELF files as far as names are concerned: sections, symbol tables, and where the rest of the information is.
//!
//! A file is mapped, since debug information can be larger than memory. It belongs to somebody and may be cut while it is
//! mapped, which kills whoever reads on: only a process that can be spared does this.

use std::{
    fs::File,
    io::Read,
    ops::Deref,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use gimli::{EndianSlice, LittleEndian};
use memmap2::Mmap;
use object::{
    CompressionFormat, Object, ObjectSection,
    elf::FileHeader64,
    read::elf::{ElfFile, ElfSection64, FileHeader},
};
use typed_arena::Arena;

use crate::target::{self, image::BuildId};

/// Bytes of a section, or of what it was decompressed to.
pub type Slice<'a> = EndianSlice<'a, LittleEndian>;

/// What a compressed section may grow to: so many times its bytes, which is ten times what debug information does, and what
/// even the smallest may.
const MAX_GROWTH: u64 = 64;
const SMALL: u64 = 16 << 20;

/// What sections were decompressed to, for as long as they are looked at.
pub struct Decompressed {
    bytes: Arena<Vec<u8>>,
    /// What may still be added, bytes: to this, and to those beside it.
    left: Arc<AtomicU64>,
}

impl Default for Decompressed {
    /// With room for as much as there is to spare now.
    fn default() -> Decompressed {
        Decompressed::up_to(target::spare_memory())
    }
}

impl Decompressed {
    /// With room for so many bytes.
    pub fn up_to(limit: u64) -> Decompressed {
        Decompressed { bytes: Arena::new(), left: Arc::new(AtomicU64::new(limit)) }
    }

    /// For another thread that reads the same file: both have together what this one has room for.
    pub fn beside(&self) -> Decompressed {
        Decompressed { bytes: Arena::new(), left: Arc::clone(&self.left) }
    }

    /// Copies a file, which takes as much as if it were a section.
    pub fn copy(&self, file: &File) -> Result<Mapped, String> {
        let size = file.metadata().map_err(|error| error.to_string())?.len();
        self.take(usize::try_from(size).unwrap_or(usize::MAX), size)?;
        read_up_to(file, size).map(Mapped::Memory).map_err(|error| error.to_string())
    }

    /// Takes what a section of `compressed` bytes says that it grows to, and refuses what no honest one does.
    fn take(&self, compressed: usize, size: u64) -> Result<(), String> {
        let most = (compressed as u64).saturating_mul(MAX_GROWTH).saturating_add(SMALL);
        if size > most {
            return Err(format!("{compressed} bytes would take {size}"));
        }
        let taken = self.left.try_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(size));
        taken.map(drop).map_err(|_| format!("there is no memory for {size} bytes"))
    }
}

/// A file's bytes.
#[derive(Debug)]
pub enum Mapped {
    /// Shown in our memory.
    File(Mmap),
    /// Ours.
    Memory(Vec<u8>),
}

impl Mapped {
    /// Maps a file, of which there must be something.
    pub fn map(file: &File) -> Result<Mapped, String> {
        let facts = file.metadata().map_err(|error| error.to_string())?;
        if !facts.is_file() {
            return Err("it is not a regular file".to_owned());
        }
        if facts.len() == 0 {
            return Err("it is empty".to_owned());
        }
        // SAFETY: whoever changes the file makes us read something else, which is as untrusted as it was before; who cuts
        // it ends this process, which is one that can be spared.
        unsafe { Mmap::map(file) }.map(Mapped::File).map_err(|error| error.to_string())
    }
}

impl Deref for Mapped {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Mapped::File(map) => map,
            Mapped::Memory(bytes) => bytes,
        }
    }
}

type ElfSection<'a, 'f> = ElfSection64<'a, 'f, object::LittleEndian>;

/// An ELF file of a 64-bit little-endian machine.
#[derive(Debug)]
pub struct ElfObject<'a> {
    elf: ElfFile<'a, FileHeader64<object::LittleEndian>>,
}

/// Where debug information stands that was taken out of a file.
#[derive(Debug)]
pub struct DebugLink<'a> {
    /// The file's name, without a directory.
    pub name: &'a [u8],
    /// Its checksum.
    pub crc: u32,
}

impl<'a> ElfObject<'a> {
    /// Reads the headers.
    pub fn parse(bytes: &'a [u8]) -> Result<ElfObject<'a>, String> {
        let header = FileHeader64::<object::LittleEndian>::parse(bytes).map_err(|error| error.to_string())?;
        header.endian().map_err(|error| error.to_string())?;
        Ok(ElfObject { elf: ElfFile::parse(bytes).map_err(|error| error.to_string())? })
    }

    /// The name of this very build.
    pub fn build_id(&self) -> Option<BuildId> {
        BuildId::new(self.elf.build_id().ok()??)
    }

    /// Whether it holds debug information with lines.
    pub fn has_debug_information(&self) -> bool {
        let holds =
            |name| self.elf.section_by_name(name).is_some_and(|section| section.size() > 0 && !is_empty(&section));
        holds(".debug_info") && holds(".debug_abbrev")
    }

    /// Where its debug information went.
    pub fn debug_link(&self) -> Option<DebugLink<'a>> {
        let (name, crc) = self.elf.gnu_debuglink().ok()??;
        Some(DebugLink { name, crc })
    }

    /// A file that several files' debug information has its common parts in, and that file's build id.
    pub fn alternate_link(&self) -> Option<(&'a [u8], BuildId)> {
        let (name, build_id) = self.elf.gnu_debugaltlink().ok()??;
        Some((name, BuildId::new(build_id)?))
    }

    /// The compressed symbol table that some distributions leave in stripped files: an ELF file by itself.
    pub fn small_symbols(&self) -> Option<&'a [u8]> {
        self.elf.section_by_name(".gnu_debugdata")?.data().ok()
    }

    /// Its symbol tables, the larger one first.
    pub fn elf(&self) -> &ElfFile<'a, FileHeader64<object::LittleEndian>> {
        &self.elf
    }

    /// A section's bytes, decompressed into `room` if need be; none if it has no such section.
    pub fn section(&self, name: &str, room: &'a Decompressed) -> Result<Slice<'a>, String> {
        self.sections(name, room).next().unwrap_or(Ok(Slice::new(&[], LittleEndian)))
    }

    /// The bytes of all sections of this name, which files have that no linker has seen.
    pub fn sections<'s>(
        &'s self,
        name: &'s str,
        room: &'a Decompressed,
    ) -> impl Iterator<Item = Result<Slice<'a>, String>> + 's {
        // What is compressed in the old way has another name, which only this finds.
        let first = self.elf.section_by_name(name);
        let index = first.as_ref().map(ObjectSection::index);
        let is_other = move |section: &ElfSection<'a, '_>| Some(section.index()) != index;
        let others = self.elf.sections().filter(move |section| section.name() == Ok(name)).filter(is_other);
        first.into_iter().chain(others).map(move |section| ElfObject::bytes(&section, name, room))
    }

    fn bytes(section: &ElfSection<'a, '_>, name: &str, room: &'a Decompressed) -> Result<Slice<'a>, String> {
        let explain = |error: &dyn std::fmt::Display| format!("{name}: {error}");
        let data = section.compressed_data().map_err(|error| explain(&error))?;
        let limit = data.uncompressed_size;
        if data.format != CompressionFormat::None {
            room.take(data.data.len(), limit).map_err(|error| explain(&error))?;
        }
        let bytes = match data.format {
            CompressionFormat::None => data.data,
            CompressionFormat::Zlib => room
                .bytes
                .alloc(read_up_to(flate2::read::ZlibDecoder::new(data.data), limit).map_err(|error| explain(&error))?),
            CompressionFormat::Zstandard => {
                let decoder = zstd::stream::read::Decoder::with_buffer(data.data).map_err(|error| explain(&error))?;
                room.bytes.alloc(read_up_to(decoder, limit).map_err(|error| explain(&error))?)
            }
            _ => return Err(explain(&"its compression is not known")),
        };
        Ok(Slice::new(bytes, LittleEndian))
    }
}

/// A debug file keeps the headers of what it does not hold.
fn is_empty<'a>(section: &impl ObjectSection<'a>) -> bool {
    section.file_range().is_none_or(|(_, length)| length == 0)
}

/// Memory grows with what is there, not with what was announced.
fn read_up_to(reader: impl Read, limit: u64) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    reader.take(limit).read_to_end(&mut bytes)?;
    Ok(bytes)
}
