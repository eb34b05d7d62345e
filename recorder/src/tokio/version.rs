//! Which Tokio a program was built with, and by which compiler.

use std::{collections::BTreeSet, fmt, str};

use crate::target::image::{Contents, ImageError, Source};

/// What the paths tell that a program keeps for its panics. They survive stripping.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origins {
    /// The versions of Tokio whose sources were compiled, sorted: mostly one. None where the paths were rewritten, or lead to
    /// a copy outside of cargo's registry.
    pub tokio: Vec<Version>,
    /// The commits of rustc whose library was linked, sorted: 40 hexadecimal digits each.
    pub rustc: Vec<String>,
    /// Whether there is code of `parking_lot` that threads wait by, as in every Tokio that was built with it. A program may
    /// have it for its own use.
    pub has_parking_lot: bool,
}

/// A version of Tokio. What may stand behind its numbers is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "their names say it")]
pub struct Version {
    pub major: u16,
    pub minor: u16,
    pub patch: u16,
}

/// Bytes of a file that are looked at.
const MAX_BYTES: u64 = 1 << 30;

/// Those that are looked at again with the next ones: more than any match takes.
const OVERLAP: usize = 128;

/// Different versions, or commits, that are told.
const MAX_FOUND: usize = 16;

const TOKIO: &[u8] = b"/tokio-";
const RUSTC: &[u8] = b"/rustc/";
const PARKING_LOT: &[u8] = b"/parking_lot-";
const CONDVAR: &[u8] = b"/src/condvar.rs";

impl Origins {
    /// Those of a file.
    pub(super) fn read<S: Source + ?Sized>(contents: &Contents<'_, S>) -> Result<Origins, ImageError> {
        let origins = Self::among(contents, false)?;
        // Older linkers map constants with the code.
        let has_none = origins.tokio.is_empty() && origins.rustc.is_empty();
        if has_none { Self::among(contents, true) } else { Ok(origins) }
    }

    /// Looks at what can be executed, or at all the rest.
    fn among<S: Source + ?Sized>(contents: &Contents<'_, S>, executable: bool) -> Result<Origins, ImageError> {
        let (mut tokio, mut rustc, mut has_parking_lot) = (BTreeSet::new(), BTreeSet::new(), false);
        for bytes in contents.pieces(executable, OVERLAP, MAX_BYTES) {
            let bytes = bytes?;
            for at in slashes(&bytes) {
                let rest = &bytes[at..];
                if tokio.len() < MAX_FOUND {
                    tokio.extend(rest.strip_prefix(TOKIO).and_then(Version::of_path));
                }
                if rustc.len() < MAX_FOUND {
                    rustc.extend(rest.strip_prefix(RUSTC).and_then(commit));
                }
                has_parking_lot |= rest.strip_prefix(PARKING_LOT).is_some_and(is_condvar);
            }
        }
        Ok(Origins { tokio: tokio.into_iter().collect(), rustc: rustc.into_iter().collect(), has_parking_lot })
    }
}

fn slashes(bytes: &[u8]) -> impl Iterator<Item = usize> {
    bytes.iter().enumerate().filter(|&(_, &byte)| byte == b'/').map(|(at, _)| at)
}

/// Whether this is `0.12.5/src/condvar.rs`.
fn is_condvar(path: &[u8]) -> bool {
    let version = path.iter().position(|&byte| byte == b'/').unwrap_or_default();
    path[version..].starts_with(CONDVAR)
}

/// What a path has between `/rustc/` and the next slash.
fn commit(path: &[u8]) -> Option<String> {
    const DIGITS: usize = 40;
    let digits = path.get(..DIGITS).filter(|digits| digits.iter().all(u8::is_ascii_hexdigit))?;
    let is_whole = path.get(DIGITS) == Some(&b'/');
    str::from_utf8(digits).ok().filter(|_| is_whole).map(str::to_owned)
}

impl Version {
    /// Of `1.54.1/src/…`.
    fn of_path(path: &[u8]) -> Option<Version> {
        const LONGEST: usize = 48;
        let path = &path[..path.len().min(LONGEST)];
        let end = path.iter().position(|&byte| byte == b'/')?;
        let (version, rest) = path.split_at(end);
        let version = rest.starts_with(b"/src/").then(|| str::from_utf8(version).ok())??;
        let numbers = version.split(['-', '+']).next()?;
        let mut numbers = numbers.split('.').map(|number| number.parse::<u16>());
        let mut next = || numbers.next()?.ok();
        let version = Version { major: next()?, minor: next()?, patch: next()? };
        numbers.next().is_none().then_some(version)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Version { major, minor, patch } = self;
        write!(out, "{major}.{minor}.{patch}")
    }
}
