//! Tests of the whole way from a file and an address to a name, without another process.

mod hostile;
mod inlined;

use std::{path::PathBuf, sync::Mutex};

use super::{Function, Means, ModuleReport, NamesIn, Request, Sink, Symbols, name};
use crate::target::image::{BuildId, Bytes};

/// A library made of `testdata/inlined.c`.
const INLINED: &[u8] = include_bytes!("../testdata/inlined.x86_64");

/// Takes what is found.
#[derive(Default)]
struct Found(Mutex<Vec<Symbols>>);

impl Sink for Found {
    fn found(&self, symbols: Vec<Symbols>) {
        self.0.lock().unwrap().extend(symbols);
    }

    fn waiting(&self) {}
}

/// What is asked of a file that is nowhere else.
fn request(path: &str, bytes: &[u8], addresses: &[u64]) -> Request {
    Request {
        path: path.to_owned(),
        build_id: None,
        names_in: NamesIn::Binary(Bytes::Memory(bytes.to_vec())),
        addresses: addresses.to_vec(),
    }
}

fn means() -> Means {
    Means {
        debug_directories: Vec::new(),
        debuginfod: false,
        debug_information: true,
        threads: 1,
        memory_bytes: 64 << 20,
    }
}

fn answer(request: &Request, means: &Means) -> (Vec<Symbols>, ModuleReport) {
    let found = Found::default();
    let report = name(request, means, &found);
    (found.0.into_inner().unwrap(), report)
}

/// The functions of each of a file's addresses that has some.
fn functions(bytes: &[u8], addresses: &[u64]) -> Vec<(u64, Vec<Function>)> {
    let (found, _) = answer(&request("/nowhere/inlined", bytes, addresses), &means());
    found.into_iter().map(|symbols| (symbols.address, symbols.functions)).collect()
}

/// The bytes of a section, by their places in the file.
fn section(bytes: &[u8], name: &str) -> std::ops::Range<usize> {
    use object::{Object, ObjectSection};
    let file = object::read::elf::ElfFile64::<object::LittleEndian>::parse(bytes).unwrap();
    let (start, size) = file.section_by_name(name).unwrap().file_range().unwrap();
    usize::try_from(start).unwrap()..usize::try_from(start + size).unwrap()
}

/// A directory that goes away with its test.
struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Directory {
        let path = std::env::temp_dir().join(format!("polletto-symbols-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Directory(path)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).ok();
    }
}

fn build_id(bytes: &[u8]) -> BuildId {
    super::file::ElfObject::parse(bytes).unwrap().build_id().unwrap()
}
