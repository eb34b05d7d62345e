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

impl Origins {
    /// Those of a file.
    pub(super) fn read<S: Source + ?Sized>(contents: &Contents<'_, S>) -> Result<Origins, ImageError> {
        let origins = Self::among(contents, false)?;
        // Older linkers map constants with the code.
        if origins == Origins::default() { Self::among(contents, true) } else { Ok(origins) }
    }

    /// Looks at what can be executed, or at all the rest.
    fn among<S: Source + ?Sized>(contents: &Contents<'_, S>, executable: bool) -> Result<Origins, ImageError> {
        let (mut tokio, mut rustc) = (BTreeSet::new(), BTreeSet::new());
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
            }
        }
        Ok(Origins { tokio: tokio.into_iter().collect(), rustc: rustc.into_iter().collect() })
    }
}

fn slashes(bytes: &[u8]) -> impl Iterator<Item = usize> {
    bytes.iter().enumerate().filter(|&(_, &byte)| byte == b'/').map(|(at, _)| at)
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
