//! ELF files made by hand, for tests.

use object::elf;

/// A file that is mapped in three parts: headers, code, and unwind information.
///
/// The code begins at [`CODE_OFFSET`]; behind it stands, at a page of its own, `.eh_frame` with its header.
#[derive(Clone)]
pub(crate) struct ExampleElf {
    pub(crate) machine: elf::Machine,
    /// The address of the file's first byte.
    pub(crate) base: u64,
    /// How much further apart code and headers are in memory than in the file. A multiple of the page size.
    pub(crate) shift: u64,
    /// Bytes of code.
    pub(crate) code: usize,
    /// How many of these, the last ones, are `.plt`.
    pub(crate) linkage_table: usize,
    pub(crate) eh_frame: Vec<u8>,
    pub(crate) build_id: Vec<u8>,
    pub(crate) section_headers: bool,
}

pub(crate) const CODE_OFFSET: u64 = 0x1000;
/// Where `e_phnum`, `e_shoff`, `e_shnum` and `e_shstrndx` stand.
pub(crate) const PROGRAM_COUNT: usize = 56;
pub(crate) const SECTIONS_AT: usize = 40;
pub(crate) const SECTION_COUNT: usize = 60;
pub(crate) const SECTION_NAMES: usize = 62;

const NOTE_OFFSET: u64 = 0x200;
const EH_FRAME_HEADER_BYTES: u64 = 16;
const PROGRAMS: u64 = 5;

impl Default for ExampleElf {
    fn default() -> ExampleElf {
        ExampleElf {
            machine: elf::EM_X86_64,
            base: 0,
            shift: 0,
            code: 0x1000,
            linkage_table: 0,
            eh_frame: Vec::new(),
            build_id: vec![0xab; 20],
            section_headers: true,
        }
    }
}

impl ExampleElf {
    /// The address of the first byte of code.
    pub(crate) fn code_address(&self) -> u64 {
        self.base + self.shift + CODE_OFFSET
    }

    /// The address of `.eh_frame`.
    pub(crate) fn eh_frame_address(&self) -> u64 {
        self.base + 2 * self.shift + self.eh_frame_offset()
    }

    fn header_offset(&self) -> u64 {
        CODE_OFFSET + (self.code as u64).next_multiple_of(0x1000)
    }

    fn eh_frame_offset(&self) -> u64 {
        self.header_offset() + EH_FRAME_HEADER_BYTES
    }

    /// The file.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut bytes = self.file_header();
        let header_address = self.base + 2 * self.shift + self.header_offset();
        let eh_frame_size = self.eh_frame.len() as u64;
        let note = self.note();
        let at = |bytes: &mut Vec<u8>, offset: u64| bytes.resize(offset as usize, 0);
        for (kind, flags, offset, address, size) in [
            (elf::PT_LOAD, elf::PF_R, 0, self.base, CODE_OFFSET),
            (elf::PT_LOAD, elf::PF_R | elf::PF_X, CODE_OFFSET, self.code_address(), self.code as u64),
            (elf::PT_LOAD, elf::PF_R, self.header_offset(), header_address, EH_FRAME_HEADER_BYTES + eh_frame_size),
            (elf::PT_GNU_EH_FRAME, elf::PF_R, self.header_offset(), header_address, EH_FRAME_HEADER_BYTES),
            (elf::PT_NOTE, elf::PF_R, NOTE_OFFSET, self.base + NOTE_OFFSET, note.len() as u64),
        ] {
            bytes.extend(kind.0.to_le_bytes());
            bytes.extend(flags.0.to_le_bytes());
            bytes.extend([offset, address, address, size, size, 4].map(u64::to_le_bytes).as_flattened());
        }
        at(&mut bytes, NOTE_OFFSET);
        bytes.extend(note);
        at(&mut bytes, self.header_offset());
        // Version 1; where `.eh_frame` is, counted from here; neither a count nor a search table.
        bytes.extend([1, 0x1b, 0xff, 0xff]);
        bytes.extend((EH_FRAME_HEADER_BYTES as u32 - 4).to_le_bytes());
        at(&mut bytes, self.eh_frame_offset());
        bytes.extend(&self.eh_frame);
        if self.section_headers {
            self.add_sections(&mut bytes);
        }
        bytes
    }

    fn file_header(&self) -> Vec<u8> {
        let mut bytes = elf::ELFMAG.to_vec();
        bytes.extend([2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        let words = |bytes: &mut Vec<u8>, words: &[u16]| bytes.extend(words.iter().flat_map(|word| word.to_le_bytes()));
        words(&mut bytes, &[3, self.machine.0, 1, 0]);
        bytes.extend([0_u64, 64, 0].map(u64::to_le_bytes).as_flattened());
        words(&mut bytes, &[0, 0, 64, 56, PROGRAMS as u16, 64, 0, 0]);
        bytes
    }

    fn note(&self) -> Vec<u8> {
        let mut note = [4, self.build_id.len() as u32, 3].map(u32::to_le_bytes).concat();
        note.extend(b"GNU\0");
        note.extend(&self.build_id);
        note
    }

    fn add_sections(&self, bytes: &mut Vec<u8>) {
        let names = b"\0.text\0.plt\0.eh_frame\0.shstrtab\0";
        let names_at = bytes.len() as u64;
        bytes.extend(names);
        let sections_at = bytes.len() as u64;
        let text = (self.code - self.linkage_table) as u64;
        let (code, linkage_table) = (self.code_address(), self.linkage_table as u64);
        for (name, kind, address, offset, size) in [
            (0_u32, 0_u32, 0, 0, 0),
            (1, 1, code, CODE_OFFSET, text),
            (7, 1, code + text, CODE_OFFSET + text, linkage_table),
            (12, 1, self.eh_frame_address(), self.eh_frame_offset(), self.eh_frame.len() as u64),
            (22, 3, 0, names_at, names.len() as u64),
        ] {
            bytes.extend([name, kind].map(u32::to_le_bytes).as_flattened());
            bytes.extend([0, address, offset, size, 0, 1, 0].map(u64::to_le_bytes).as_flattened());
        }
        bytes[SECTIONS_AT..SECTIONS_AT + 8].copy_from_slice(&sections_at.to_le_bytes());
        bytes[SECTION_COUNT..SECTION_COUNT + 2].copy_from_slice(&5_u16.to_le_bytes());
        bytes[SECTION_NAMES..SECTION_NAMES + 2].copy_from_slice(&4_u16.to_le_bytes());
    }
}

/// The same numbers in every run (xorshift).
pub(crate) struct Numbers(pub(crate) u64);

impl Numbers {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
}
