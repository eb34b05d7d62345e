//! Any bytes as a trace, and as what a packet of one holds in each way of compression.

#![no_main]

use libfuzzer_sys::fuzz_target;
use polletto::trace::read::{Limits, open, read_code};

/// Small, so that what takes too much shows soon.
const LIMITS: Limits = Limits { packet: 1 << 20, inflated: 1 << 20, kept: 1 << 20 };

fuzz_target!(|bytes: &[u8]| {
    let Ok((input, is_gzip)) = open(bytes) else { return };
    let Ok(code) = read_code(input, &LIMITS) else { return };
    assert!(is_gzip || code.whole_bytes <= bytes.len() as u64);
    assert!(is_gzip || code.is_cut == (code.whole_bytes < bytes.len() as u64));
    assert!(code.modules.is_sorted_by(|one, next| (&one.path, &one.build_id) < (&next.path, &next.build_id)));
    assert!(code.modules.iter().all(|module| !module.addresses.is_empty()));
    if !is_gzip {
        // What is whole is all that counts.
        let whole = read_code(&bytes[..code.whole_bytes as usize], &LIMITS).expect("it was read before");
        assert!(!whole.is_cut && whole.modules == code.modules && whole.packets == code.packets);
    }
});
