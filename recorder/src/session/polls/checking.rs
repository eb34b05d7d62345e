//! Probes for a process, which are made only where its code is what was decoded.

use std::{fs::File, os::unix::fs::FileExt};

use polletto_common::poll::Cookie;
use rustc_hash::FxHashSet;

use super::process::Wanted;
use crate::{
    code::Seen,
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
        if !place.seen.addresses().contains(&place.address) {
            return Err("its code was not decoded");
        }
        self.is_as_decoded(&place.seen)?;
        let file_offset = self.image.file_offset_of(place.address).ok_or("its place in the file is unknown")?;
        let cookie = Cookie::of(*site).ok_or("its stack is too large")?;
        let cookie = if place.is_stepped { cookie.stepped() } else { cookie };
        Ok(Probe { file_offset, cookie })
    }

    /// Whether the process has in its memory what was decoded, but for our own probes, and so has its file: from that the kernel
    /// takes the instruction in whose place it puts a breakpoint.
    fn is_as_decoded(&self, Seen { address, bytes: decoded }: &Seen) -> Result<(), &'static str> {
        let (mut file, mut there) = (vec![0; decoded.len()], vec![0; decoded.len()]);
        let is_whole = self.contents.read(*address, &mut file).is_ok_and(|count| count == file.len());
        if !is_whole || self.memory.read_exact_at(&mut there, address.wrapping_add(self.bias)).is_err() {
            return Err("its code can't be read");
        }
        if *file != **decoded {
            return Err("its file has other code there than when it was read");
        }
        let same = (*address..).zip(decoded.iter().zip(&there)).all(|(address, (decoded, there))| {
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

#[cfg(test)]
mod tests {
    use polletto_common::poll::Site;

    use super::*;
    use crate::{code::Place, target};

    #[test]
    fn only_what_was_decoded_is_probed() {
        let own = target::code_of(polletto_common::id::Tgid(std::process::id())).unwrap().expect("our own code");
        let here = only_what_was_decoded_is_probed as *const () as u64;
        let range = own.iter().find(|range| (range.start..range.end).contains(&here)).expect("where this runs");
        let source = Bytes::File(File::open("/proc/self/exe").unwrap());
        let image = Image::read(&source).unwrap();
        let bias = here.wrapping_sub(image.address_of(here - range.start + range.file_offset).expect("it is code"));
        let address = here.wrapping_sub(bias);
        let mut bytes = [0; 8];
        File::open("/proc/self/mem").unwrap().read_exact_at(&mut bytes, here).unwrap();
        let probe = |address: u64, bytes: &[u8], bias: u64| {
            let contents = Contents::new(&image, &source);
            let memory = File::open("/proc/self/mem").unwrap();
            let checking = Checking { image: &image, contents, memory, bias, patched: FxHashSet::default() };
            let seen = Seen { address, bytes: bytes.into() };
            let place = Place { address, moved: 0, seen, is_stepped: false };
            checking.probe(&Wanted { place, site: Site::Begin { pushed: 0 } }).map(|probe| probe.file_offset)
        };
        assert_eq!(probe(address, &bytes, bias), Ok(here - range.start + range.file_offset));
        assert_eq!(probe(address, &[], bias), Err("its code was not decoded"));
        let mut others = bytes;
        others[7] ^= 1;
        assert_eq!(probe(address, &others, bias), Err("its file has other code there than when it was read"));
        assert_eq!(probe(address, &bytes, bias + 1), Err("its process has other code there than its file"));
        assert_eq!(probe(address, &bytes, bias + (1 << 46)), Err("its code can't be read"));
    }
}
