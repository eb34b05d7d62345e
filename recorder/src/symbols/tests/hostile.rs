//! Files that lie. The engine takes them in its own process here: what it may not survive, such as a file that is cut
//! while it is mapped, ends a worker, and scenarios show that.

use std::time::{Duration, Instant};

use super::{
    super::file::{Decompressed, ElfObject},
    *,
};

/// In each function, and outside of them.
const ADDRESSES: [u64; 6] = [0, 0x350, 0x360, 0x38a, 0x3be, 0x400];

/// What a small file may take, whatever it says.
const LIMIT: Duration = Duration::from_secs(2);

/// Only that there is an answer counts, and that it comes soon. Names may be wrong, but are never made of nothing.
fn survives(what: &str, bytes: &[u8]) {
    let began = Instant::now();
    let found = functions(bytes, &ADDRESSES);
    assert!(began.elapsed() < LIMIT, "{what} takes {:?}", began.elapsed());
    for (address, functions) in found {
        assert!(ADDRESSES.contains(&address) && !functions.is_empty(), "{what}: {address:#x}");
        assert!(functions.iter().all(|function| !function.name.is_empty() && function.line != Some(0)), "{what}");
    }
}

#[test]
fn a_byte_that_is_wrong_ends_nothing() {
    let headers = INLINED.len() - 64 * 27..INLINED.len();
    let sections = [".debug_info", ".debug_abbrev", ".debug_line", ".debug_rnglists", ".debug_aranges", ".symtab"];
    let ranges = sections.map(|name| section(INLINED, name)).into_iter().chain([0..64, headers]);
    for place in ranges.flatten().step_by(7) {
        for wrong in [0x01, 0x80, 0xff] {
            let mut bytes = INLINED.to_vec();
            bytes[place] ^= wrong;
            survives(&format!("byte {place:#x} with {wrong:#x} turned"), &bytes);
        }
    }
}

#[test]
fn a_file_that_is_cut_anywhere_ends_nothing() {
    for length in (0..INLINED.len()).step_by(61) {
        survives(&format!("{length} bytes of it"), &INLINED[..length]);
    }
}

#[test]
fn sections_of_nothing_but_one_byte_end_nothing() {
    for name in [".debug_info", ".debug_abbrev", ".debug_line", ".debug_str", ".debug_rnglists", ".symtab", ".strtab"] {
        for filling in [0x00, 0x01, 0x7f, 0x80, 0xff] {
            let mut bytes = INLINED.to_vec();
            bytes[section(INLINED, name)].fill(filling);
            survives(&format!("{name} of {filling:#x}"), &bytes);
        }
    }
}

/// Writes a number into the header of a section: at 24 is its place in the file, at 32 its size, at 8 its flags.
fn with_header(name: &str, field: usize, value: u64) -> Vec<u8> {
    use object::{LittleEndian, elf::FileHeader64, read::elf::FileHeader};
    let mut bytes = INLINED.to_vec();
    let header = FileHeader64::<LittleEndian>::parse(INLINED).unwrap();
    let (sections, table) = (header.sections(LittleEndian, INLINED).unwrap(), header.e_shoff(LittleEndian));
    let (index, _) = sections.section_by_name(LittleEndian, name.as_bytes()).unwrap();
    let at = usize::try_from(table).unwrap() + index.0 * 64 + field;
    bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
    bytes
}

#[test]
fn sections_may_claim_any_place_and_size() {
    for name in [".debug_info", ".debug_abbrev", ".debug_line", ".symtab", ".strtab", ".text", ".shstrtab"] {
        for field in [24, 32] {
            for value in [0, 1, 1 << 31, 10 << 30, u64::MAX - 1, u64::MAX] {
                survives(&format!("{name} at {field}: {value:#x}"), &with_header(name, field, value));
            }
        }
    }
}

#[test]
fn what_claims_to_be_compressed_takes_no_memory_for_what_it_claims_to_become() {
    for (kind, size) in [(1_u32, 1_u64 << 62), (1, 4 << 30), (2, 4 << 30), (9, 16)] {
        let mut bytes = with_header(".debug_info", 8, 0x800);
        let start = section(INLINED, ".debug_info").start;
        bytes[start..start + 4].copy_from_slice(&kind.to_le_bytes());
        bytes[start + 8..start + 16].copy_from_slice(&size.to_le_bytes());
        let before = crate::symbols::memory::anonymous();
        survives(&format!("compression {kind} to {size}"), &bytes);
        let grown = crate::symbols::memory::anonymous().saturating_sub(before);
        assert!(grown < 256 << 20, "compression {kind} to {size}: {grown} bytes");
    }
}

/// The file with a `.debug_info` that unpacks to so many zeros.
fn with_bomb(size: u64) -> Vec<u8> {
    let zeros = std::io::Read::take(std::io::repeat(0), size);
    let packed = zstd::encode_all(zeros, 1).unwrap();
    let mut bytes = with_header(".debug_info", 8, 0x800);
    let at = bytes.len() as u64;
    let header = [2, size, 1].map(u64::to_le_bytes).concat();
    let length = (header.len() + packed.len()) as u64;
    for (field, value) in [(24, at), (32, length)] {
        let with_field = with_header(".debug_info", field, value);
        let changed = (0..INLINED.len()).filter(|&at| with_field[at] != INLINED[at]);
        changed.for_each(|at| bytes[at] = with_field[at]);
    }
    bytes.extend([header, packed].concat());
    bytes
}

#[test]
fn what_unpacks_to_far_more_than_debug_information_does_is_refused() {
    let unpacked = |size: u64, room: &Decompressed| {
        let bytes = with_bomb(size);
        // What it is unpacked to lives as long as the room.
        let object = ElfObject::parse(bytes.leak()).unwrap();
        object.section(".debug_info", room).map(|bytes| bytes.len() as u64)
    };
    let small = 12 << 20;
    let room: &'static Decompressed = Box::leak(Box::default());
    assert_eq!(unpacked(small, room), Ok(small));
    assert!(with_bomb(128 << 20).len() < 1 << 20);
    let refused = unpacked(128 << 20, room).unwrap_err();
    assert!(refused.contains("would take 134217728"), "{refused}");
    let tight: &'static Decompressed = Box::leak(Box::new(Decompressed::up_to(small + 1)));
    assert_eq!(unpacked(small, tight), Ok(small));
    assert!(unpacked(small, tight).unwrap_err().contains("there is no memory"));
    // Nor beside it.
    let other: &'static Decompressed = Box::leak(Box::new(tight.beside()));
    assert!(unpacked(small, other).unwrap_err().contains("there is no memory"));
}
