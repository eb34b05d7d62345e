//! Programs with tasks, made by hand, for tests.

use object::elf;

use super::Vtable;
use crate::target::image::{Image, ImageError};

/// A file that is mapped in three parts: headers with unwind information, code, and data with its relocations.
///
/// It has no section headers.
#[derive(Clone)]
pub(crate) struct ExampleProgram {
    /// The address of the file's first byte.
    pub(crate) base: u64,
    pub(crate) relocations: Relocations,
    /// Stands at [`CODE`].
    pub(crate) code: Vec<u8>,
    /// How many bytes each function has: one behind another, from the first byte of code on.
    pub(crate) functions: Vec<u32>,
    /// Stands at [`DATA`].
    pub(crate) data: Vec<Word>,
    /// Bytes of thread-locals.
    pub(crate) thread_locals: u64,
    /// Whether it is one for others, and not a program.
    pub(crate) is_library: bool,
}

#[derive(Clone, Copy)]
pub(crate) enum Word {
    Number(u64),
    /// Counted from the file's first byte.
    Address(u64),
}

#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Relocations {
    None,
    Explicit,
    Packed,
}

/// Counted from the file's first byte.
pub(crate) const CODE: u64 = 0x1_0000;
pub(crate) const DATA: u64 = 0x8_0000;
const UNWIND: u64 = 0x1000;
const RELOCATIONS: u64 = 0xa_0000;
const DYNAMIC: u64 = 0xb_0000;

impl Default for ExampleProgram {
    fn default() -> ExampleProgram {
        ExampleProgram {
            base: 0,
            relocations: Relocations::Explicit,
            code: vec![0xc3; 0x1000],
            functions: Vec::new(),
            data: Vec::new(),
            thread_locals: 0,
            is_library: false,
        }
    }
}

/// Nothing may be found in a file that is cut, wherever that is, nor where its image lies; and that is no failure.
pub(crate) fn assert_broken_is_no_harm<T>(whole: &[u8], scan: impl Fn(&Image, &[u8]) -> Result<Vec<T>, ImageError>) {
    for length in (0..whole.len()).step_by(997) {
        let Ok(image) = Image::read(&whole[..length]) else { continue };
        assert_eq!(scan(&image, &whole[..length]).map(|found| found.len()).unwrap_or(0), 0);
    }
    let mut image = Image::read(whole).unwrap();
    for segment in &mut image.segments {
        (segment.address, segment.file_size) = (u64::MAX - 3, u64::MAX);
    }
    assert_eq!(scan(&image, whole).unwrap().len(), 0);
}

/// The words of a vtable whose functions follow one another from this one on.
pub(crate) fn vtable(poll: u64, trailer: u64, scheduler: u64, id: u64) -> Vec<Word> {
    let functions = (0..7).map(|index| Word::Address(poll + 0x10 * index));
    functions.chain([trailer, scheduler, id].map(Word::Number)).collect()
}

/// What is read of [`vtable`].
pub(crate) fn expected(address: u64, poll: u64, trailer_offset: u64, scheduler_offset: u64, id_offset: u64) -> Vtable {
    Vtable {
        address,
        poll,
        schedule: poll + 0x10,
        dealloc: poll + 0x20,
        try_read_output: poll + 0x30,
        drop_join_handle_slow: poll + 0x40,
        drop_abort_handle: poll + 0x50,
        shutdown: poll + 0x60,
        trailer_offset,
        scheduler_offset,
        id_offset,
        spawn_location_offset: None,
    }
}

impl ExampleProgram {
    /// The file.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let (eh_frame, relocations) = (self.eh_frame(), self.relocation_table());
        let (kind, size) = match self.relocations {
            Relocations::Packed => (elf::DT_RELR, elf::DT_RELRSZ),
            Relocations::None | Relocations::Explicit => (elf::DT_RELA, elf::DT_RELASZ),
        };
        let mut dynamic = vec![kind.0 as u64, self.base + RELOCATIONS, size.0 as u64, relocations.len() as u64];
        if !self.is_library {
            dynamic.extend([elf::DT_FLAGS_1.0 as u64, elf::DF_1_PIE.0]);
        }
        dynamic.extend([0, 0]);
        let dynamic: Vec<u8> = dynamic.into_iter().flat_map(u64::to_le_bytes).collect();
        let pieces = [
            (elf::PT_LOAD, elf::PF_R, 0, CODE),
            (elf::PT_LOAD, elf::PF_R | elf::PF_X, CODE, self.code.len() as u64),
            (elf::PT_LOAD, elf::PF_R | elf::PF_W, DATA, DYNAMIC - DATA + dynamic.len() as u64),
            (elf::PT_GNU_EH_FRAME, elf::PF_R, UNWIND, 16),
            (elf::PT_TLS, elf::PF_R, DATA, self.thread_locals),
            (elf::PT_DYNAMIC, elf::PF_R, DYNAMIC, dynamic.len() as u64),
        ];
        let is_static = self.relocations == Relocations::None;
        let programs = &pieces[..pieces.len() - usize::from(is_static)];
        let mut bytes = self.file_header(programs.len() as u16, is_static);
        for &(kind, flags, offset, size) in programs {
            bytes.extend([kind.0, flags.0].map(u32::to_le_bytes).as_flattened());
            let address = self.base + offset;
            bytes.extend([offset, address, address, size, size, 8].map(u64::to_le_bytes).as_flattened());
        }
        let data: Vec<u8> = self.data.iter().flat_map(|&word| self.word(word).to_le_bytes()).collect();
        for (offset, piece) in [
            // Version 1; where `.eh_frame` is, counted from here; neither a count nor a search table.
            (UNWIND, [[1, 0x1b, 0xff, 0xff], 12_u32.to_le_bytes()].concat()),
            (UNWIND + 16, eh_frame),
            (CODE, self.code.clone()),
            (DATA, data),
            (RELOCATIONS, relocations),
            (DYNAMIC, dynamic),
        ] {
            assert!(bytes.len() as u64 <= offset);
            bytes.resize(offset as usize, 0);
            bytes.extend(piece);
        }
        bytes
    }

    fn file_header(&self, programs: u16, is_static: bool) -> Vec<u8> {
        let mut bytes = elf::ELFMAG.to_vec();
        bytes.extend([2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        let kind = if is_static { elf::ET_EXEC } else { elf::ET_DYN };
        bytes.extend([kind.0, elf::EM_X86_64.0, 1, 0].map(u16::to_le_bytes).as_flattened());
        bytes.extend([0_u64, 64, 0].map(u64::to_le_bytes).as_flattened());
        bytes.extend([0, 0, 64, 56, programs, 64, 0, 0].map(u16::to_le_bytes).as_flattened());
        bytes
    }

    /// What is in the file for a word. Linkers leave out what an explicit relocation says.
    fn word(&self, word: Word) -> u64 {
        match word {
            Word::Number(number) => number,
            Word::Address(_) if self.relocations == Relocations::Explicit => 0,
            Word::Address(address) => self.base + address,
        }
    }

    fn relocation_table(&self) -> Vec<u8> {
        let addresses = self.data.iter().zip((self.base + DATA..).step_by(8)).filter_map(|(word, at)| match word {
            Word::Address(to) => Some((at, self.base + to)),
            Word::Number(_) => None,
        });
        let words: Vec<u64> = match self.relocations {
            Relocations::None => Vec::new(),
            Relocations::Explicit => {
                addresses.flat_map(|(at, to)| [at, u64::from(elf::R_X86_64_RELATIVE.0), to]).collect()
            }
            Relocations::Packed => {
                let words = self.data.chunks(63).zip((self.base + DATA..).step_by(63 * 8));
                let bits = |chunk: &[Word]| {
                    let bit =
                        |(index, word): (usize, &Word)| u64::from(matches!(word, Word::Address(_))) << (index + 1);
                    chunk.iter().enumerate().map(bit).sum::<u64>() | 1
                };
                // A row of bits counts from the word behind the last address.
                words.flat_map(|(chunk, at)| [at - 8, bits(chunk)]).collect()
            }
        };
        words.into_iter().flat_map(u64::to_le_bytes).collect()
    }

    fn eh_frame(&self) -> Vec<u8> {
        // Version 1, augmentation "zR", alignments 1 and -8, return address 16; pointers count from themselves; rsp + 8.
        let common = [20, 0, 0, 0, 0, 0, 0, 0, 1, b'z', b'R', 0, 1, 0x78, 16, 1, 0x1b, 0x0c, 7, 8, 0x90, 1, 0, 0];
        let mut bytes = common.to_vec();
        let mut start = CODE;
        for &size in &self.functions {
            let here = bytes.len() as u64;
            let pointer = (start as i64 - (UNWIND + 16 + here + 8) as i64) as i32 as u32;
            bytes.extend([16, here as u32 + 4, pointer, size, 0].map(u32::to_le_bytes).as_flattened());
            start += u64::from(size);
        }
        bytes.extend([0; 4]);
        bytes
    }
}
