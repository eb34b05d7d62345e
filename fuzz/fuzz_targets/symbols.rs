//! Any bytes as a file whose addresses are named, debug information included. A good start: `recorder/src/symbols/testdata`.

#![no_main]

use std::sync::Mutex;

use libfuzzer_sys::fuzz_target;
use polletto::{
    symbols::{Means, NamesIn, Request, Sink, Symbols, name},
    target::image::Bytes,
};

/// Addresses that small programs have code at.
const ADDRESSES: std::ops::Range<u64> = 0x300..0x440;

#[derive(Default)]
struct Found(Mutex<Vec<Symbols>>);

impl Sink for Found {
    fn found(&self, symbols: Vec<Symbols>) {
        self.0.lock().expect("nobody panics").extend(symbols);
    }

    fn waiting(&self) {}
}

fuzz_target!(|bytes: &[u8]| {
    let request = Request {
        path: "/nowhere/fuzzed".to_owned(),
        build_id: None,
        names_in: NamesIn::Binary(Bytes::Memory(bytes.to_vec())),
        addresses: ADDRESSES.collect(),
    };
    let means = Means {
        debug_directories: Vec::new(),
        debuginfod: false,
        debug_information: true,
        threads: 1,
        memory_bytes: 64 << 20,
    };
    let found = Found::default();
    let report = name(&request, &means, &found);
    let symbols = found.0.into_inner().expect("nobody panics");
    assert!(report.named == symbols.len() as u64 && report.with_lines <= report.named);
    for one in &symbols {
        assert!(ADDRESSES.contains(&one.address) && !one.functions.is_empty());
        assert!(one.functions.iter().all(|function| !function.name.is_empty() && function.line != Some(0)));
    }
});
