//! Any bytes as an ELF file: what it tells of the tasks of its program.

#![no_main]

use libfuzzer_sys::fuzz_target;
use polletto::{
    target::image::Image,
    tokio::{examine, scan},
};

fuzz_target!(|bytes: &[u8]| {
    let Ok(image) = Image::read(bytes) else { return };
    let Some(program) = examine(&image, bytes) else { return };
    let vtables = scan(&image, bytes).expect("it was scanned before");
    assert!(!vtables.is_empty() && vtables == program.vtables);
    assert!(vtables.is_sorted_by(|vtable, next| vtable.address < next.address));
    for vtable in &vtables {
        vtable.kind();
    }
    assert!(program.poll_bodies.is_sorted_by(|body, next| body.addresses.start < next.addresses.start));
    for body in &program.poll_bodies {
        assert!(!body.addresses.is_empty() && !body.vtables.is_empty());
        assert_eq!(program.polled_at(body.addresses.start), body.vtables);
    }
});
