//! Any file as one with debug information of tasks, and any memory as theirs.

#![no_main]

use libfuzzer_sys::fuzz_target;
use polletto::{
    families::ProgramFiles,
    target::{Excerpt, Memory},
    tokio::{name, scan, with_awaits},
};

/// The same bytes everywhere.
struct Bytes<'a>(&'a [u8]);

impl Memory for Bytes<'_> {
    fn read_each(&self, excerpts: &mut [Excerpt]) {
        for excerpt in excerpts {
            for (offset, byte) in (excerpt.address..).zip(&mut excerpt.bytes) {
                *byte = self.0.get(offset as usize % self.0.len().max(1)).copied().unwrap_or_default();
            }
            excerpt.is_read = excerpt.address % 7 != 0;
        }
    }
}

fuzz_target!(|input: (&[u8], &[u8])| {
    let (file, memory) = input;
    let vtables = polletto::target::image::Image::read(file).ok().and_then(|image| scan(&image, file).ok());
    let vtables = vtables.unwrap_or_default();
    let files = ProgramFiles { binary: file, ..ProgramFiles::default() };
    let tasks = name(&vtables, &files).tasks;
    with_awaits(vtables.iter().zip(&tasks), &files, |awaits| {
        let Ok(awaits) = awaits else { return };
        for vtable in &vtables {
            let waits = awaits.of_task(&Bytes(memory), memory.len() as u64, vtable.address, 0);
            assert!(waits.awaits.len() <= 256);
        }
    });
});
