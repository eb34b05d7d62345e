//! Any bytes as a program with tasks: where probes could stand in its code.

#![no_main]

use libfuzzer_sys::fuzz_target;
use polletto::{
    code::{AfterReturn, Place},
    target::image::Image,
    tokio::{WakeCode, examine},
};

/// A probe stands at the last of the instructions that lead to it.
fn check(place: &Place) {
    let seen = place.seen.addresses();
    assert!(seen.contains(&place.address), "{place:?}");
    // No instruction is longer.
    assert!(seen.end - place.address <= 15, "{place:?}");
}

fuzz_target!(|bytes: &[u8]| {
    let Ok(image) = Image::read(bytes) else { return };
    let Some(program) = examine(&image, bytes) else { return };
    let code = program.poll_code(&image, bytes);
    code.entries().iter().filter_map(|entry| entry.place.as_ref().ok()).for_each(check);
    for &address in code.likely_returns() {
        match code.after_return(&image, bytes, address) {
            Ok(AfterReturn::Place(place)) => check(&place),
            Ok(AfterReturn::Outwards { bytes }) => assert!(bytes >= 8),
            Err(_) => {}
        }
    }
    let wakes = WakeCode::read(&program, &image, bytes, bytes);
    wakes.wakes.iter().chain(&wakes.spawns).flatten().for_each(|told| check(&told.place));
});
