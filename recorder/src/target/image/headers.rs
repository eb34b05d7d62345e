//! ELF headers → [`Image`].

use std::ops::Range;

use object::{
    LittleEndian as LE,
    elf::{self, FileHeader64, ProgramHeader64, SectionHeader64},
    pod,
};

use super::{Architecture, BuildId, EhFrame, End, Image, ImageError, Segment, Source, read_exactly, read_up_to};

/// Program headers that a file may have. Honest ones have about a dozen.
const MAX_PROGRAM_HEADERS: u64 = 1024;

/// What is read of the names of sections, in bytes.
const MAX_SECTION_NAMES: u64 = 1 << 20;

/// What is read of a group of notes, in bytes, and how many groups are looked at.
const MAX_NOTES: (u64, usize) = (64 << 10, 16);

/// What is read of `.eh_frame_hdr`: where `.eh_frame` is stands within its first bytes.
const EH_FRAME_HEADER_BYTES: u64 = 32;

pub(super) fn read(source: &(impl Source + ?Sized)) -> Result<Image, ImageError> {
    let header = FileHeader::read(source)?;
    let programs = header.programs(source)?;
    let sections = header.sections(source)?;
    let segments: Vec<Segment> = programs.iter().filter(|program| program.is(elf::PT_LOAD)).map(segment).collect();
    let eh_frame = match sections.named(b".eh_frame") {
        Some(section) => Some(eh_frame_of_section(section)?),
        // A file may be stripped of its section headers, but a program needs this one to unwind itself.
        None if !sections.has(b".eh_frame") => eh_frame_of_header(source, &programs, &segments)?,
        None => None,
    };
    Ok(Image {
        architecture: header.architecture,
        build_id: build_id(source, &programs, &sections)?,
        segments,
        eh_frame,
        text: sections.named(b".text").map(Section::address),
        got: sections.named(b".got").map(Section::address),
        linkage_tables: sections.linkage_tables(),
    })
}

/// The first program header of a kind.
pub(super) fn program(
    source: &(impl Source + ?Sized),
    kind: elf::ProgramType,
) -> Result<Option<ProgramHeader64<LE>>, ImageError> {
    let programs = FileHeader::read(source)?.programs(source)?;
    Ok(programs.into_iter().find(|program| program.is(kind)))
}

/// Whether it is a program with fixed addresses, or one that can be anywhere, or what else.
pub(super) fn kind(source: &(impl Source + ?Sized)) -> Result<elf::FileType, ImageError> {
    Ok(FileHeader::read(source)?.header.e_type.get(LE))
}

/// Where a symbol table stands in the file, and its names.
pub(super) struct SymbolTable {
    pub(super) symbols: Range<u64>,
    pub(super) names: Range<u64>,
}

/// The symbols of all that a file has. Nothing if it is stripped.
pub(super) fn symbol_table(source: &(impl Source + ?Sized)) -> Result<Option<SymbolTable>, ImageError> {
    let sections = FileHeader::read(source)?.sections(source)?;
    let place = |section: &Section| Some(section.offset()..section.offset().checked_add(section.size())?);
    let found = sections.headers.iter().find(|section| section.sh_type.get(LE) == elf::SHT_SYMTAB);
    let names = |section: &Section| sections.headers.get(section.sh_link.get(LE) as usize).and_then(place);
    Ok(found.and_then(|section| Some(SymbolTable { symbols: place(section)?, names: names(section)? })))
}

/// The file's first header, of a kind that can be recorded.
struct FileHeader {
    architecture: Architecture,
    header: FileHeader64<LE>,
}

impl FileHeader {
    fn read(source: &(impl Source + ?Sized)) -> Result<FileHeader, ImageError> {
        let bytes = read_up_to(source, 0, size_of::<FileHeader64<LE>>() as u64)?;
        if !bytes.starts_with(&elf::ELFMAG) {
            return Err(ImageError::NotElf);
        }
        let (&header, _) =
            pod::from_bytes::<FileHeader64<LE>>(&bytes).map_err(|()| ImageError::Cut("the ELF header"))?;
        if header.e_ident.class != elf::ELFCLASS64 {
            return Err(ImageError::Unsupported("a 32-bit program".to_owned()));
        }
        if header.e_ident.data != elf::ELFDATA2LSB {
            return Err(ImageError::Unsupported("a big-endian program".to_owned()));
        }
        let architecture = match header.e_machine.get(LE) {
            elf::EM_X86_64 => Architecture::X86_64,
            elf::EM_AARCH64 => Architecture::Aarch64,
            other => return Err(ImageError::Unsupported(format!("code for machine {} of the ELF list", other.0))),
        };
        Ok(FileHeader { architecture, header })
    }

    fn programs(&self, source: &(impl Source + ?Sized)) -> Result<Vec<Program>, ImageError> {
        let (count, size) = (self.header.e_phnum.get(LE), self.header.e_phentsize.get(LE));
        let bytes = table::<Program>(source, self.header.e_phoff.get(LE), count, size, Self::PROGRAMS)?;
        Ok(pod::slice_from_all_bytes::<Program>(&bytes).map_err(|()| ImageError::Cut("a program header"))?.to_vec())
    }

    /// No sections at all where the file has no headers of them, or their count is not said in the usual place: only
    /// object files have that many.
    fn sections(&self, source: &(impl Source + ?Sized)) -> Result<Sections, ImageError> {
        let header = &self.header;
        let (at, count, size) = (header.e_shoff.get(LE), header.e_shnum.get(LE), header.e_shentsize.get(LE));
        if at == 0 || count == 0 {
            return Ok(Sections::default());
        }
        let bytes = table::<Section>(source, at, count, size, Self::SECTIONS)?;
        let headers =
            pod::slice_from_all_bytes::<Section>(&bytes).map_err(|()| ImageError::Cut("a section header"))?.to_vec();
        let names = match headers.get(usize::from(header.e_shstrndx.get(LE).0)) {
            Some(section) => {
                read_exactly(source, section.offset(), section.size(), MAX_SECTION_NAMES, "section names")?
            }
            None => return Err(ImageError::Malformed("its sections have no names")),
        };
        Ok(Sections { headers, names })
    }

    const PROGRAMS: (&'static str, u64) = ("the program headers", MAX_PROGRAM_HEADERS);
    const SECTIONS: (&'static str, u64) = ("the section headers", u16::MAX as u64);
}

/// Reads a table of headers that are as large as they must be.
fn table<T>(
    source: &(impl Source + ?Sized),
    offset: u64,
    count: u16,
    entry_size: u16,
    (what, limit): (&'static str, u64),
) -> Result<Vec<u8>, ImageError> {
    if count != 0 && usize::from(entry_size) != size_of::<T>() {
        return Err(ImageError::Malformed("its headers are of another size than those of ELF"));
    }
    let size = size_of::<T>() as u64;
    if u64::from(count) > limit {
        return Err(ImageError::TooLarge { what, size: u64::from(count) * size, limit: limit * size });
    }
    read_exactly(source, offset, u64::from(count) * size, limit * size, what)
}

type Program = ProgramHeader64<LE>;
type Section = SectionHeader64<LE>;

trait ProgramFacts {
    fn is(&self, kind: elf::ProgramType) -> bool;
}

impl ProgramFacts for Program {
    fn is(&self, kind: elf::ProgramType) -> bool {
        self.p_type.get(LE) == kind
    }
}

trait SectionFacts {
    fn address(&self) -> u64;
    fn offset(&self) -> u64;
    fn size(&self) -> u64;
}

impl SectionFacts for Section {
    fn address(&self) -> u64 {
        self.sh_addr.get(LE)
    }

    fn offset(&self) -> u64 {
        self.sh_offset.get(LE)
    }

    fn size(&self) -> u64 {
        self.sh_size.get(LE)
    }
}

/// The section headers, and the names that they point to.
#[derive(Default)]
struct Sections {
    headers: Vec<Section>,
    names: Vec<u8>,
}

impl Sections {
    fn has(&self, name: &[u8]) -> bool {
        self.all_named(name).next().is_some()
    }

    /// The first section of that name that the file has the bytes of. Files with debug information alone have none.
    fn named(&self, name: &[u8]) -> Option<&Section> {
        self.all_named(name).find(|section| section.sh_type.get(LE) != elf::SHT_NOBITS)
    }

    fn all_named(&self, name: &[u8]) -> impl Iterator<Item = &Section> {
        self.headers.iter().filter(move |section| self.name(section) == Some(name))
    }

    fn linkage_tables(&self) -> Vec<Range<u64>> {
        let is_one = |section: &&Section| {
            self.name(section).is_some_and(|name| name == b".iplt" || name == b".plt" || name.starts_with(b".plt."))
        };
        let tables = self.headers.iter().filter(is_one);
        let ranges = tables.filter_map(|table| Some(table.address()..table.address().checked_add(table.size())?));
        ranges.filter(|range| !range.is_empty()).collect()
    }

    /// A section's name, cut where it is longer than any that is looked for: all sections may share one endless name.
    fn name(&self, section: &Section) -> Option<&[u8]> {
        let rest = self.names.get(usize::try_from(section.sh_name.get(LE)).ok()?..)?;
        rest[..rest.len().min(32)].split(|&byte| byte == 0).next()
    }
}

fn segment(program: &Program) -> Segment {
    Segment {
        file_offset: program.p_offset.get(LE),
        file_size: program.p_filesz.get(LE),
        address: program.p_vaddr.get(LE),
        memory_size: program.p_memsz.get(LE),
        executable: program.p_flags.get(LE).0 & elf::PF_X.0 != 0,
    }
}

fn eh_frame_of_section(section: &Section) -> Result<EhFrame, ImageError> {
    let (size, limit) = (section.size(), EhFrame::MAX_BYTES);
    if size > limit {
        return Err(ImageError::TooLarge { what: ".eh_frame", size, limit });
    }
    Ok(EhFrame { address: section.address(), file_offset: section.offset(), size, end: End::Section })
}

/// Finds `.eh_frame` as the program itself does. How long it is nobody says but its terminator.
fn eh_frame_of_header(
    source: &(impl Source + ?Sized),
    programs: &[Program],
    segments: &[Segment],
) -> Result<Option<EhFrame>, ImageError> {
    let Some(header) = programs.iter().find(|program| program.is(elf::PT_GNU_EH_FRAME)) else { return Ok(None) };
    let bytes = read_up_to(source, header.p_offset.get(LE), header.p_filesz.get(LE).min(EH_FRAME_HEADER_BYTES))?;
    let bases = gimli::BaseAddresses::default().set_eh_frame_hdr(header.p_vaddr.get(LE));
    let address = gimli::EhFrameHdr::new(&bytes, gimli::LittleEndian)
        .parse(&bases, 8)
        .and_then(|header| header.eh_frame_ptr().direct())
        .map_err(|_| ImageError::Malformed("its .eh_frame_hdr is damaged"))?;
    let within = |segment: &&Segment| segment.addresses().contains(&address);
    // An empty one may stand behind the end of its segment.
    let Some(segment) = segments.iter().find(within) else { return Ok(None) };
    let skipped = address - segment.address;
    Ok(Some(EhFrame {
        address,
        file_offset: segment.file_offset.saturating_add(skipped),
        size: (segment.file_size - skipped).min(EhFrame::MAX_BYTES),
        end: End::Terminator,
    }))
}

/// The first build id among the notes. Notes that can't be read or understood have none.
fn build_id(
    source: &(impl Source + ?Sized),
    programs: &[Program],
    sections: &Sections,
) -> Result<Option<BuildId>, ImageError> {
    let (limit, groups) = MAX_NOTES;
    let of_programs = programs
        .iter()
        .filter(|program| program.is(elf::PT_NOTE))
        .map(|program| (program.p_offset.get(LE), program.p_filesz.get(LE), program.p_align.get(LE)));
    let of_sections = sections
        .headers
        .iter()
        .filter(|section| section.sh_type.get(LE) == elf::SHT_NOTE)
        .map(|section| (section.offset(), section.size(), section.sh_addralign.get(LE)));
    for (offset, size, align) in of_programs.take(groups).chain(of_sections.take(groups)) {
        let notes = read_up_to(source, offset, size.min(limit))?;
        if let Some(found) = build_id_among(&notes, if align == 8 { 8 } else { 4 }) {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

/// Notes stand one behind another: sizes of name and description, a type, then name and description, each padded.
fn build_id_among(mut notes: &[u8], align: usize) -> Option<BuildId> {
    const NT_GNU_BUILD_ID: u32 = 3;
    loop {
        let word = |at: usize| Some(u32::from_le_bytes(notes.get(at..at + 4)?.try_into().ok()?));
        let (name_size, size, kind) = (word(0)? as usize, word(4)? as usize, word(8)?);
        let name = notes.get(12..)?.get(..name_size)?;
        let description = (12 + name_size).next_multiple_of(align);
        if kind == NT_GNU_BUILD_ID && name == b"GNU\0" {
            return BuildId::new(notes.get(description..)?.get(..size)?);
        }
        notes = notes.get((description + size).next_multiple_of(align)..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(name: &[u8], kind: u32, description: &[u8], align: usize) -> Vec<u8> {
        let mut bytes = [name.len() as u32, description.len() as u32, kind].map(u32::to_le_bytes).concat();
        bytes.extend(name);
        bytes.resize(bytes.len().next_multiple_of(align), 0);
        bytes.extend(description);
        bytes.resize(bytes.len().next_multiple_of(align), 0);
        bytes
    }

    #[test]
    fn a_build_id_is_found_behind_other_notes() {
        for align in [4, 8] {
            let other = note(b"GNU\0", 5, &[1; 16], align);
            let foreign = note(b"Xen\0", 3, &[2; 4], align);
            let notes = [other, foreign, note(b"GNU\0", 3, &[0xab, 0x01], align)].concat();
            assert_eq!(build_id_among(&notes, align).map(|id| id.to_string()).as_deref(), Some("ab01"));
        }
    }

    #[test]
    fn notes_that_are_cut_or_lie_have_no_build_id() {
        let whole = note(b"GNU\0", 3, &[7; 20], 4);
        for length in 0..whole.len() {
            assert_eq!(build_id_among(&whole[..length], 4), None);
        }
        for size in [0, BuildId::MAX_BYTES + 1] {
            assert_eq!(build_id_among(&note(b"GNU\0", 3, &vec![7; size], 4), 4), None);
        }
        assert_eq!(build_id_among(&[0xff; 64], 4), None);
    }
}
