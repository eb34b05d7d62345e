//! Files that claim more code than they hold.

use std::{
    cell::Cell,
    io,
    time::{Duration, Instant},
};

use super::*;
use crate::target::image::{Contents, Image, Pointers, Source};

/// What a small file may take, whatever it says.
const LIMIT: Duration = Duration::from_secs(20);

/// A small program, of whose code a file claims to have an exabyte.
fn claiming() -> (Vec<u8>, Image) {
    let example = ExampleProgram { data: vtable(CODE, 0x100, 0x20, 0x28), ..ExampleProgram::default() };
    let bytes = example.bytes();
    let mut image = Image::read(&bytes).unwrap();
    let code = image.segments.iter_mut().find(|segment| segment.executable).unwrap();
    (code.address, code.file_size) = (1 << 40, 1 << 60);
    (bytes, image)
}

/// A file that has one big hole, and counts the bytes that are read of it.
struct Hole(Cell<u64>);

impl Source for Hole {
    fn read_at(&self, _: u64, bytes: &mut [u8]) -> io::Result<usize> {
        bytes.fill(0);
        self.0.set(self.0.get() + bytes.len() as u64);
        Ok(bytes.len())
    }
}

#[test]
fn of_a_segment_that_only_a_header_claims_what_is_there_is_read_once() {
    let (bytes, image) = claiming();
    let contents = Contents::new(&image, &bytes);
    let pieces: Vec<Vec<u8>> = pieces_of_code(&contents).map(|(_, piece)| piece.unwrap()).collect();
    let there = bytes.len() - 0x1_0000;
    assert_eq!(pieces.iter().map(Vec::len).collect::<Vec<_>>(), [there]);
}

#[test]
fn of_a_hole_no_more_is_read_than_any_file_has_of_code() {
    let (_, image) = claiming();
    let hole = Hole(Cell::new(0));
    let contents = Contents::new(&image, &hole);
    let began = Instant::now();
    assert_eq!(pieces_of_code(&contents).count(), 512);
    assert!(hole.0.get() < 513 << 20 && began.elapsed() < LIMIT, "{} bytes in {:?}", hole.0.get(), began.elapsed());
}

#[test]
fn functions_that_may_overlap_are_looked_at_until_it_is_enough() {
    const SIZE: u32 = 0x6_0000;
    let program =
        ExampleProgram { code: vec![0xc3; SIZE as usize], functions: vec![SIZE], ..ExampleProgram::default() };
    let bytes = program.bytes();
    let image = Image::read(&bytes).unwrap();
    let contents = Contents::new(&image, &bytes);
    let pointers = Pointers::read(&image, &bytes, &contents).unwrap();
    let code = Code::read(&image, &bytes, &contents, &pointers).unwrap();
    let function = code.function(CODE).unwrap();
    let looks = (0..).take_while(|_| code.bytes(&function).is_ok()).count();
    assert_eq!(looks, (256 << 20) / SIZE as usize);
    assert!(code.references(&function).is_err());
}
