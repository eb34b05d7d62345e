//! Whether code in a process is the code that was decoded.

use std::{fs::File, ops::Range, os::unix::fs::FileExt};

use crate::target::image::{Bytes, Contents};

/// What an unpatched program may have in its place: a breakpoint of x86_64.
const BREAKPOINT: u8 = 0xcc;

/// Whether a process has in its memory what its file has at these addresses, but for our own probes.
pub(super) fn is_as_in_file(
    contents: &Contents<'_, Bytes>,
    memory: &File,
    bias: u64,
    addresses: &Range<u64>,
    is_patched: impl Fn(u64) -> bool,
) -> Result<(), &'static str> {
    let size = addresses.end.saturating_sub(addresses.start) as usize;
    let (mut decoded, mut there) = (vec![0; size], vec![0; size]);
    let is_whole = contents.read(addresses.start, &mut decoded).is_ok_and(|count| count == size);
    if !is_whole || memory.read_exact_at(&mut there, addresses.start.wrapping_add(bias)).is_err() {
        return Err("its code can't be read");
    }
    let same = addresses
        .clone()
        .zip(decoded.iter().zip(&there))
        .all(|(address, (decoded, there))| decoded == there || (*there == BREAKPOINT && is_patched(address)));
    let is_breakpoint = decoded.iter().zip(&there).any(|(decoded, there)| decoded != there && *there == BREAKPOINT);
    match (same, is_breakpoint) {
        (true, _) => Ok(()),
        (false, true) => Err("another tracer or debugger has a breakpoint there"),
        (false, false) => Err("its process has other code there than its file"),
    }
}
