//! Any bytes as a program with tasks of any family: what they are, and where probes could stand.

#![no_main]

use libfuzzer_sys::fuzz_target;
use polletto::{
    families::{ALL, CodeFile, Wanted},
    target::image::{Bytes, Image},
};

fuzz_target!(|bytes: &[u8]| {
    let Ok(image) = Image::read(bytes) else { return };
    let source = Bytes::Memory(bytes.to_vec());
    let file = CodeFile::new(&image, &source);
    for tasks in ALL.iter().filter_map(|family| family.examine(&file, Wanted { probes: true })) {
        assert!(!tasks.futures.is_empty());
        let known = tasks.bodies.iter().flat_map(|(_, futures)| futures);
        assert!(known.into_iter().all(|&future| future < tasks.futures.len()));
        assert!(tasks.futures.iter().all(|future| !future.name.full.is_empty() && !future.name.short.is_empty()));
        let probed = tasks.probed.expect("probes were wanted");
        // A place is at the last of the instructions that lead to it, and none is longer.
        let places = probed.polls.entries().iter().filter_map(|entry| entry.place.as_ref().ok());
        places.for_each(|place| {
            let seen = place.seen.addresses();
            assert!(seen.contains(&place.address) && seen.end - place.address <= 15);
        });
    }
});
