//! Any bytes as an ELF file: what it says of itself, and its table.

#![no_main]

use libfuzzer_sys::fuzz_target;
use polletto::{
    target::image::{EhFrame, Image},
    unwind::Table,
};

fuzz_target!(|bytes: &[u8]| {
    let Ok(image) = Image::read(bytes) else { return };
    for segment in &image.segments {
        for offset in [segment.file_offset, segment.file_offset.wrapping_add(segment.file_size)] {
            image.address_of(offset);
            image.address_of(offset.wrapping_sub(1));
        }
    }
    image.load_bias();
    let code = image.code_addresses();
    assert!(code.iter().all(|range| range.start < range.end));
    assert!(code.is_sorted_by(|range, next| range.end < next.start));
    if let Ok(eh_frame) = image.read_eh_frame(bytes) {
        assert!(eh_frame.len() as u64 <= EhFrame::MAX_BYTES && eh_frame.len() <= bytes.len());
        Table::build(&image, bytes).ok();
    }
});
