//! Any bytes as a program whose futures are named, debug information included. A good start: small programs with Tokio, and
//! `recorder/src/symbols/testdata`.

#![no_main]

use libfuzzer_sys::fuzz_target;
use polletto::{
    families::{NameTier, ProgramFiles},
    target::image::Image,
    tokio::{Vtable, name, scan},
};

fuzz_target!(|bytes: &[u8]| {
    let found = Image::read(bytes).and_then(|image| scan(&image, bytes)).unwrap_or_default();
    // Small programs have code there.
    let made_up = Vtable {
        address: 0x1000,
        poll: 0x350,
        schedule: 0x353,
        dealloc: 0x360,
        try_read_output: 0x38a,
        drop_join_handle_slow: 0x3a0,
        drop_abort_handle: 0x3b0,
        shutdown: 0x3c0,
        trailer_offset: 0x80,
        scheduler_offset: 0x20,
        id_offset: 0x28,
        spawn_location_offset: None,
    };
    let vtables: Vec<Vtable> = found.into_iter().chain([made_up]).collect();
    let names = name(&vtables, &ProgramFiles { binary: bytes, ..ProgramFiles::default() }).futures;
    assert_eq!(names.len(), vtables.len());
    for name in &names {
        assert!(!name.full.is_empty() && !name.short.is_empty());
        assert!(name.tier != NameTier::Address || !name.ambiguous && name.place.is_none());
    }
});
