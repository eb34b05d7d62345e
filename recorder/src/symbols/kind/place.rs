//! The places that cargo and rustc have for code that is not the user's.

use super::{Evidence, FrameKind, Told, crates};

/// Longer paths are none: the kernel's limit.
const PATH_BYTES: usize = 4096;

/// A folder that all of some kind are in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place<'a> {
    pub(super) told: Told,
    /// The path up to it, with the slash.
    pub(super) prefix: &'a str,
    /// The name of the package, but for the standard library's.
    pub(super) package: Option<&'a str>,
}

/// False for what debug information has instead of a file.
pub(super) fn is_known(file: &str) -> bool {
    !file.is_empty() && file != "??" && !file.starts_with('<')
}

/// By its name.
pub(super) fn is_rust(file: &str) -> bool {
    file.ends_with(".rs")
}

/// Written by a build script: `…/build/PACKAGE-HASH/out/…`. This is the folder of whoever built, not of who wrote.
pub(super) fn is_generated(file: &str) -> bool {
    let components = Components::of(file);
    (0..components.names.len()).any(|at| {
        components.name(at) == "build" && hashed(components.name(at + 1)).is_some() && components.name(at + 2) == "out"
    })
}

impl<'a> Place<'a> {
    /// None for the user's own files.
    pub(super) fn of(file: &'a str) -> Option<Place<'a>> {
        if file.len() > PATH_BYTES {
            return None;
        }
        let components = Components::of(file);
        let all = 0..components.names.len();
        // Crates may have folders like these inside, so the first is the one that decides.
        let first = all.clone().find_map(|at| components.std(at).or_else(|| components.dependency(at)));
        // A project that is in a folder `vendor` may have dependencies in its own.
        first.or_else(|| all.rev().find_map(|at| components.vendored(at)))
    }
}

/// The names between the slashes.
struct Components<'a> {
    file: &'a str,
    /// Each with the end of the slashes behind it.
    names: Vec<(&'a str, usize)>,
}

impl<'a> Components<'a> {
    fn of(file: &'a str) -> Components<'a> {
        let mut end = 0;
        let mut names = Vec::with_capacity(16);
        for name in file.split('/') {
            end = (end + name.len() + 1).min(file.len());
            match names.last_mut() {
                Some((_, last)) if name.is_empty() => *last = end,
                _ if name.is_empty() => {}
                _ => names.push((name, end)),
            }
        }
        Components { file, names }
    }

    /// Empty behind the last one.
    fn name(&self, at: usize) -> &'a str {
        self.names.get(at).map_or("", |(name, _)| name)
    }

    /// None if `last` is the file itself, or behind it.
    fn place(&self, last: usize, kind: FrameKind, evidence: Evidence) -> Option<Place<'a>> {
        let (_, end) = self.names.get(last).filter(|_| last + 1 < self.names.len())?;
        Some(Place { told: Told { kind, evidence }, prefix: &self.file[..*end], package: None })
    }

    fn of_package(&self, last: usize, package: &'a str, evidence: Evidence) -> Option<Place<'a>> {
        let place = self.place(last, crates::kind_of_dependency(package), evidence)?;
        Some(Place { package: Some(package), ..place })
    }

    /// The standard library: as it is built, as rustup has it, and as others package it.
    fn std(&self, at: usize) -> Option<Place<'a>> {
        let last = match (self.name(at), self.name(at + 1), self.name(at + 2)) {
            ("rustc", commit, _) if at == 0 && self.file.starts_with('/') && is_commit(commit) => at + 1,
            ("rust", "deps", _) if at == 0 && self.file.starts_with('/') => at + 1,
            ("rustlib", "src", "rust") => at + 2,
            ("library", name, "src") if at == 0 && crates::is_std(&name.replace('-', "_")) => at,
            (rustc, "library", _) if rustc.starts_with("rustc-") => at + 1,
            _ => return None,
        };
        self.place(last, FrameKind::RustStd, Evidence::Path)
    }

    /// A crate where cargo unpacks those of registries, and those of repositories.
    fn dependency(&self, at: usize) -> Option<Place<'a>> {
        let hashed = hashed(self.name(at + 2))?;
        match (self.name(at), self.name(at + 1)) {
            ("registry", "src") => {
                let package = package(self.name(at + 3))?;
                self.of_package(at + 3, package, Evidence::Path)
            }
            ("git", "checkouts") if is_commit(self.name(at + 3)) => {
                let commit = at + 3;
                // A repository may have many crates, each in a folder of its own.
                let source = (commit + 1..self.names.len()).find(|&source| self.name(source) == "src");
                let folder = source.map_or(commit, |source| source - 1);
                let package = if folder == commit { hashed } else { self.name(folder) };
                self.of_package(folder, package, Evidence::Path)
            }
            _ => None,
        }
    }

    fn vendored(&self, at: usize) -> Option<Place<'a>> {
        let folder = self.name(at + 1);
        if self.name(at) != "vendor" {
            return None;
        }
        if let Some(package) = package(folder) {
            return self.of_package(at + 1, package, Evidence::Path);
        }
        if self.name(at + 2) != "src" {
            return None;
        }
        let evidence = if crates::is_published(folder) { Evidence::Path } else { Evidence::Guess };
        self.of_package(at + 1, folder, evidence)
    }
}

/// `NAME-HASH` with the sixteen digits that cargo appends, as its name.
fn hashed(folder: &str) -> Option<&str> {
    let (name, hash) = folder.rsplit_once('-')?;
    (hash.len() == 16 && hash.bytes().all(|byte| byte.is_ascii_hexdigit())).then_some(name)
}

/// A hash as git abbreviates it, or in full; nightly and distributions have versions there.
fn is_commit(folder: &str) -> bool {
    let is_hash = folder.len() >= 7 && folder.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_hash || folder.starts_with(|digit: char| digit.is_ascii_digit()) && folder.contains('.')
}

/// `NAME-1.2.3` as its name, which may have numbers too: `sha-1-0.10.0`.
fn package(folder: &str) -> Option<&str> {
    folder.match_indices('-').map(|(at, _)| (&folder[..at], &folder[at + 1..])).find_map(|(name, version)| {
        let mut numbers = version.splitn(3, '.');
        let mut is_number =
            || numbers.next().is_some_and(|part| part.starts_with(|digit: char| digit.is_ascii_digit()));
        let first = version.bytes().take_while(u8::is_ascii_digit).count();
        (!name.is_empty() && version[first..].starts_with('.') && is_number() && is_number() && is_number())
            .then_some(name)
    })
}
