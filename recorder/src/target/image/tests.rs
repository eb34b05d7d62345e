use std::{
    cell::Cell,
    os::unix::fs::FileExt,
    time::{Duration, Instant},
};

use object::elf;

use super::{example::*, *};

fn read(bytes: &[u8]) -> Result<Image, ImageError> {
    Image::read(bytes)
}

fn pairs(ranges: &[Range<u64>]) -> Vec<(u64, u64)> {
    ranges.iter().map(|range| (range.start, range.end)).collect()
}

#[test]
fn a_file_says_where_its_code_and_its_unwind_information_are() {
    let example = ExampleElf {
        base: 0x40_0000,
        shift: 0x20_0000,
        linkage_table: 0x100,
        eh_frame: vec![0; 8],
        ..ExampleElf::default()
    };
    let image = read(&example.bytes()).unwrap();
    let code = example.code_address();
    assert_eq!(image.architecture, Architecture::X86_64);
    assert_eq!(image.build_id.as_ref().map(ToString::to_string), Some("ab".repeat(20)));
    assert_eq!(pairs(&image.code_addresses()), [(code, code + 0x1000)]);
    assert_eq!(image.text, Some(code));
    assert_eq!(pairs(&image.linkage_tables), [(code + 0xf00, code + 0x1000)]);
    let expected = EhFrame { address: example.eh_frame_address(), file_offset: 0x2010, size: 8, end: End::Section };
    assert_eq!(image.eh_frame, Some(expected));
    assert_eq!(image.read_eh_frame(&example.bytes()[..]).unwrap(), [0; 8]);
}

#[test]
fn without_section_headers_unwind_information_is_found_as_the_program_finds_it() {
    let with = ExampleElf { eh_frame: vec![0; 8], ..ExampleElf::default() };
    let without = ExampleElf { section_headers: false, ..with.clone() };
    let (with, without) = (read(&with.bytes()).unwrap(), read(&without.bytes()).unwrap());
    let place = |image: &Image| image.eh_frame.map(|place| (place.address, place.file_offset, place.size));
    assert_eq!(place(&with), place(&without));
    assert_eq!(without.eh_frame.unwrap().end, End::Terminator);
    assert_eq!((with.build_id, with.segments), (without.build_id, without.segments));
}

#[test]
fn real_files_are_understood() {
    let own = std::fs::File::open("/proc/self/exe").unwrap();
    for (file, linkage_tables) in [(own, false), (std::fs::File::open("/bin/cat").unwrap(), true)] {
        let image = Image::read(&file).unwrap();
        let eh_frame = image.eh_frame.unwrap();
        assert_eq!(image.read_eh_frame(&file).unwrap().len() as u64, eh_frame.size);
        assert!(image.linkage_tables.len() >= usize::from(linkage_tables));
        assert!(!image.code_addresses().is_empty());
    }
}

#[test]
fn what_is_no_64_bit_little_endian_program_of_a_known_machine_is_refused() {
    let example = ExampleElf::default().bytes();
    let with = |at: usize, byte: u8| {
        let mut bytes = example.clone();
        bytes[at] = byte;
        read(&bytes).unwrap_err().to_string()
    };
    assert!(with(0, b'M').contains("no ELF file"));
    assert!(with(4, 1).contains("32-bit"));
    assert!(with(5, 2).contains("big-endian"));
    assert!(with(18, 243).contains("machine 243"));
    assert!(read(b"").unwrap_err().to_string().contains("no ELF file"));
    assert!(matches!(read(b"\x7fELF").unwrap_err(), ImageError::Cut("the ELF header")));
    let aarch64 = ExampleElf { machine: elf::EM_AARCH64, ..ExampleElf::default() };
    assert_eq!(read(&aarch64.bytes()).unwrap().architecture, Architecture::Aarch64);
}

#[test]
fn an_offset_in_pages_that_two_segments_share_belongs_to_the_code() {
    let page = rustix::param::page_size() as u64;
    let segment = |file_offset, file_size, address, executable| Segment {
        file_offset,
        file_size,
        address,
        memory_size: file_size,
        executable,
    };
    let mut image = read(&ExampleElf::default().bytes()).unwrap();
    image.segments = vec![
        segment(0, page + 0x100, 0, false),
        segment(page + 0x100, page, 3 * page + 0x100, true),
        segment(2 * page + 0x100, page, 7 * page + 0x100, true),
        segment(3 * page + 0x100, page, 9 * page + 0x100, false),
    ];
    for (claim, offset, address) in [
        ("before the code, in its first page", page, Some(3 * page)),
        ("the first byte of code", page + 0x100, Some(3 * page + 0x100)),
        ("the last one of its segment", 2 * page + 0xff, Some(4 * page + 0xff)),
        ("in the page of two, but of the second", 2 * page + 0x100, Some(7 * page + 0x100)),
        ("behind the code, in its last page", 4 * page - 1, Some(9 * page - 1)),
        ("in the page before the code", page - 1, None),
        ("in the page behind the code", 4 * page, None),
        ("nowhere", u64::MAX, None),
    ] {
        assert_eq!(image.address_of(offset), address, "{claim}");
    }
    assert_eq!(image.load_bias(), 2 * page);
}

#[test]
fn segments_that_lie_are_no_harm() {
    let mut image = read(&ExampleElf::default().bytes()).unwrap();
    let all = Segment { file_offset: 1, file_size: u64::MAX, address: 5, memory_size: 0, executable: true };
    let last = Segment { file_offset: u64::MAX, address: u64::MAX, ..all };
    for segments in [vec![], vec![all], vec![last], vec![all, last, all]] {
        image.segments = segments;
        let ranges = image.code_addresses();
        assert!(ranges.len() <= 1 && ranges.iter().all(|range| range.start < range.end));
        for offset in [0, 1, 4096, u64::MAX - 1, u64::MAX] {
            image.address_of(offset);
        }
        image.load_bias();
    }
}

#[test]
fn overlapping_code_is_one_range() {
    let mut image = read(&ExampleElf::default().bytes()).unwrap();
    let segment = |address, file_size| Segment { file_offset: 0, file_size, address, memory_size: 0, executable: true };
    image.segments = vec![segment(30, 10), segment(5, 10), segment(10, 3), segment(50, 0), segment(15, 5)];
    assert_eq!(pairs(&image.code_addresses()), [(5, 20), (30, 40)]);
}

#[test]
fn a_file_that_is_cut_anywhere_is_an_error_or_says_less() {
    let whole = ExampleElf { eh_frame: vec![1; 100], ..ExampleElf::default() }.bytes();
    for length in (0..whole.len()).step_by(64) {
        assert!(read(&whole[..length]).is_err(), "cut at {length}");
    }
    let without = ExampleElf { eh_frame: vec![1; 100], section_headers: false, ..ExampleElf::default() }.bytes();
    for length in (0..without.len()).step_by(64) {
        if let Ok(image) = read(&without[..length]) {
            assert!(image.read_eh_frame(&without[..length]).unwrap().len() <= 100);
        }
    }
}

#[test]
fn headers_that_lie_about_counts_and_places_are_errors() {
    let example = ExampleElf::default().bytes();
    let with = |at: usize, value: &[u8]| {
        let mut bytes = example.clone();
        bytes[at..at + value.len()].copy_from_slice(value);
        read(&bytes)
    };
    for count in [0x400_u16, 0x401, 0xfffe, 0xffff] {
        assert!(with(PROGRAM_COUNT, &count.to_le_bytes()).is_err(), "{count} program headers");
    }
    for count in [1000_u16, 0xffff] {
        assert!(with(SECTION_COUNT, &count.to_le_bytes()).is_err(), "{count} section headers");
    }
    for offset in [u64::MAX, u64::MAX - 63, i64::MAX as u64, 1 << 40] {
        assert!(with(SECTIONS_AT, &offset.to_le_bytes()).is_err(), "section headers at {offset:#x}");
    }
    for size in [0_u16, 1, 63, 65] {
        assert!(with(58, &size.to_le_bytes()).is_err(), "section headers of {size} bytes");
        assert!(with(54, &size.to_le_bytes()).is_err(), "program headers of {size} bytes");
    }
    assert!(with(SECTION_NAMES, &99_u16.to_le_bytes()).is_err());
}

#[test]
fn a_huge_sparse_file_takes_no_memory() {
    /// Counts what is read, and has zeros wherever the headers are not.
    struct Sparse {
        head: Vec<u8>,
        read: Cell<u64>,
    }
    impl Source for Sparse {
        fn read_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<usize> {
            self.read.set(self.read.get() + bytes.len() as u64);
            bytes.fill(0);
            self.head[..].read_at(offset, bytes)?;
            Ok(bytes.len())
        }
    }
    let example = ExampleElf::default().bytes();
    for (at, value) in [(SECTION_COUNT, 0xffff_u16), (PROGRAM_COUNT, 0x400), (SECTION_NAMES, 0)] {
        let mut head = example.clone();
        head[SECTIONS_AT..SECTIONS_AT + 8].copy_from_slice(&(5_u64 << 30).to_le_bytes());
        head[at..at + 2].copy_from_slice(&value.to_le_bytes());
        let sparse = Sparse { head, read: Cell::new(0) };
        Image::read(&sparse).ok();
        assert!(sparse.read.get() < 8 << 20, "{} bytes read", sparse.read.get());
    }
    let path = std::env::temp_dir().join(format!("polletto-sparse-{}", std::process::id()));
    let file = std::fs::File::options().create(true).truncate(true).read(true).write(true).open(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    file.write_all_at(&example, 0).unwrap();
    file.set_len(10 << 30).unwrap();
    assert_eq!(Image::read(&file).unwrap(), read(&example).unwrap());
}

#[test]
fn sections_that_share_one_endless_name_take_no_time() {
    let mut bytes = ExampleElf::default().bytes();
    let (sections_at, count, names) = (bytes.len(), 0xfff0_u16, vec![b'.'; 1 << 20]);
    let mut section = [0; 64];
    section[24..32].copy_from_slice(&((sections_at + 64 * usize::from(count)) as u64).to_le_bytes());
    section[32..40].copy_from_slice(&(names.len() as u64).to_le_bytes());
    bytes.extend(section.repeat(count.into()));
    bytes.extend(names);
    bytes[SECTIONS_AT..SECTIONS_AT + 8].copy_from_slice(&(sections_at as u64).to_le_bytes());
    bytes[SECTION_COUNT..SECTION_COUNT + 2].copy_from_slice(&count.to_le_bytes());
    let started = Instant::now();
    assert!(read(&bytes).unwrap().linkage_tables.is_empty());
    assert!(started.elapsed() < Duration::from_secs(30), "{:?}", started.elapsed());
}

#[test]
fn unwind_information_of_an_absurd_size_is_an_error() {
    let mut bytes = ExampleElf { eh_frame: vec![0; 8], ..ExampleElf::default() }.bytes();
    let size_of_eh_frame = bytes.len() - 2 * 64 + 32;
    bytes[size_of_eh_frame..size_of_eh_frame + 8].copy_from_slice(&(EhFrame::MAX_BYTES + 1).to_le_bytes());
    assert!(matches!(read(&bytes).unwrap_err(), ImageError::TooLarge { what: ".eh_frame", .. }));
    bytes[size_of_eh_frame..size_of_eh_frame + 8].copy_from_slice(&EhFrame::MAX_BYTES.to_le_bytes());
    let image = read(&bytes).unwrap();
    assert!(matches!(image.read_eh_frame(&bytes[..]).unwrap_err(), ImageError::Cut(".eh_frame")));
}

#[test]
fn no_change_of_a_header_makes_it_panic() {
    let mut numbers = Numbers(0x9e37_79b9_7f4a_7c15);
    let examples = [true, false].map(|section_headers| {
        ExampleElf { eh_frame: vec![0; 64], section_headers, code: 64, ..ExampleElf::default() }.bytes()
    });
    for round in 0..6000 {
        let mut bytes = examples[round % 2].clone();
        // What is not code: the headers before it, and all that stands behind it.
        let places = 0x300 + bytes.len() as u64 - 0x2000;
        for _ in 0..=numbers.below(4) {
            let place = numbers.below(places) as usize;
            let place = if place < 0x300 { place } else { place - 0x300 + 0x2000 };
            bytes[place] = [0, 1, 0x7f, 0x80, 0xff, numbers.next() as u8][numbers.below(6) as usize];
        }
        if let Ok(image) = read(&bytes) {
            assert!(image.segments.len() <= 1024 && image.linkage_tables.len() <= 0xffff);
            image.read_eh_frame(&bytes[..]).ok();
        }
    }
}
