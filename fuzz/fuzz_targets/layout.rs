//! Any bytes as a program whose debug information may tell where Tokio keeps what it knows. A good start: a small program
//! with Tokio.

#![no_main]

use libfuzzer_sys::fuzz_target;
use polletto::tokio::layout::Layout;

/// No number in a layout reaches it.
const TOO_LARGE: u32 = 1 << 20;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(Some(layout)) = Layout::described_in(bytes) {
        assert!(layout.fields().all(|(_, number)| number.is_none_or(|number| number < TOO_LARGE)));
        assert!(layout.fields().any(|(_, number)| number.is_some()));
    }
});
