//! Probes for a process, which are made only where its code is what was decoded.

use std::{fs::File, ops::Range, os::unix::fs::FileExt};

use polletto_common::poll::Cookie;
use rustc_hash::FxHashSet;

use super::Wanted;
use crate::{
    kernel::Probe,
    target::image::{Bytes, Contents, Image},
};

/// What an unpatched program may have in its place: a breakpoint of x86_64.
const BREAKPOINT: u8 = 0xcc;

/// Makes probes for a process, where its code is what its file has.
pub(super) struct Checking<'c> {
    pub(super) image: &'c Image,
    pub(super) contents: Contents<'c, Bytes>,
    /// Of the process.
    pub(super) memory: File,
    /// The process has the file's bytes so much (wrapping) behind their own addresses.
    pub(super) bias: u64,
    /// The file's own addresses at which there may be probes of ours.
    pub(super) patched: FxHashSet<u64>,
}

impl Checking<'_> {
    /// The probe for a place, or why there must not be one.
    pub(super) fn probe(&self, Wanted { place, site }: &Wanted) -> Result<Probe, &'static str> {
        self.is_as_in_file(&place.seen)?;
        let file_offset = self.image.file_offset_of(place.address).ok_or("its place in the file is unknown")?;
        let cookie = Cookie::of(*site).ok_or("its stack is too large")?;
        let cookie = if place.is_stepped { cookie.stepped() } else { cookie };
        Ok(Probe { file_offset, cookie })
    }

    /// Whether the process has in its memory what its file has at these addresses, but for our own probes.
    fn is_as_in_file(&self, addresses: &Range<u64>) -> Result<(), &'static str> {
        let size = addresses.end.saturating_sub(addresses.start) as usize;
        let (mut decoded, mut there) = (vec![0; size], vec![0; size]);
        let is_whole = self.contents.read(addresses.start, &mut decoded).is_ok_and(|count| count == size);
        if !is_whole || self.memory.read_exact_at(&mut there, addresses.start.wrapping_add(self.bias)).is_err() {
            return Err("its code can't be read");
        }
        let same = addresses.clone().zip(decoded.iter().zip(&there)).all(|(address, (decoded, there))| {
            decoded == there || (*there == BREAKPOINT && self.patched.contains(&address))
        });
        let is_breakpoint = decoded.iter().zip(&there).any(|(decoded, there)| decoded != there && *there == BREAKPOINT);
        match (same, is_breakpoint) {
            (true, _) => Ok(()),
            (false, true) => Err("another tracer or debugger has a breakpoint there"),
            (false, false) => Err("its process has other code there than its file"),
        }
    }
}
