//! Tables on disk: making one takes up to a second, reading one a few milliseconds.

use std::{
    ffi::OsString,
    fmt::Write as _,
    fs::{self, DirBuilder, File},
    io::{self, Read, Write as _},
    os::{fd::OwnedFd, unix::fs::DirBuilderExt},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, Stat, Timespec, Timestamps, UTIME_NOW};
use sha2::{Digest, Sha256};

use super::{
    Error, Table,
    format::{self, Key},
    unsaid::Unsaid,
};
use crate::target::image::{Architecture, EhFrame, End, Image, Source};

/// Tables that were made before, each in a file of its own.
///
/// A file is named by everything that its table depends on, so a program that lies about its build id spoils nobody
/// else's table. Several recorders may use a directory at the same time. Whatever goes wrong with it, a table is made
/// anew: a recording never fails for its cache.
#[derive(Debug)]
pub struct Cache {
    /// Everything is opened relative to it, so that nobody can put another directory in its place.
    directory: Option<OwnedFd>,
    limit: u64,
}

/// How the names of tables end, and those of tables that are being written.
const FINISHED: &str = ".table";
const UNFINISHED: &str = ".tmp";

/// Files that a directory holds. Each is looked at whenever one is added.
const MAX_FILES: usize = 4096;

impl Cache {
    /// What all tables may take, in bytes. Those that were not used for the longest time are removed first.
    pub const MAX_BYTES: u64 = 256 << 20;

    /// The cache in this directory, which is made if it is not there. Without a directory, or if it is not ours alone to
    /// write to, every table is made anew.
    pub fn open(directory: Option<PathBuf>) -> Cache {
        Cache::with_limit(directory, Cache::MAX_BYTES)
    }

    /// Where tables are kept unless somebody says otherwise: `$XDG_CACHE_HOME/polletto/unwind`, or
    /// `$HOME/.cache/polletto/unwind`.
    pub fn default_directory() -> Option<PathBuf> {
        directory_by(|name| std::env::var_os(name))
    }

    /// The table of a file: read if it was made before, made and kept otherwise.
    pub fn table(&self, image: &Image, source: &(impl Source + ?Sized)) -> Result<Table, Error> {
        let eh_frame = image.read_eh_frame(source)?;
        let unsaid = Unsaid::read(image, source, &eh_frame)?;
        let Some(directory) = &self.directory else { return Table::from_parts(image, &eh_frame, &unsaid) };
        let key = key(image, &eh_frame, &unsaid);
        let name = name(image, &key);
        if let Some(table) = self.load(directory, &name, &key) {
            return Ok(table);
        }
        let table = Table::from_parts(image, &eh_frame, &unsaid)?;
        // A table that can't be kept is made again the next time.
        self.store(directory, &name, &format::encode(&table, &key)).ok();
        Ok(table)
    }

    pub(super) fn with_limit(directory: Option<PathBuf>, limit: u64) -> Cache {
        let directory = directory.and_then(|path| open_directory(&path).ok());
        Cache { directory, limit }
    }

    fn load(&self, directory: &OwnedFd, name: &str, key: &Key) -> Option<Table> {
        // Not blocking, so that a pipe without a writer is no wait.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = File::from(rustix::fs::openat(directory, name, flags, Mode::empty()).ok()?);
        let stat = rustix::fs::fstat(&file).ok()?;
        let size = u64::try_from(stat.st_size).ok()?;
        if !is_regular(&stat) || !is_ours(&stat) || size > self.limit {
            return None;
        }
        let mut bytes = Vec::with_capacity(usize::try_from(size).ok()?);
        (&file).take(size).read_to_end(&mut bytes).ok()?;
        let table = format::decode(&bytes, key)?;
        let now = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
        // If it can't be marked as used, it goes a little too early.
        rustix::fs::futimens(&file, &Timestamps { last_access: now, last_modification: now }).ok();
        Some(table)
    }

    fn store(&self, directory: &OwnedFd, name: &str, bytes: &[u8]) -> io::Result<()> {
        if bytes.len() as u64 > self.limit {
            return Ok(());
        }
        static WRITTEN: AtomicU64 = AtomicU64::new(0);
        let number = WRITTEN.fetch_add(1, Ordering::Relaxed);
        let unfinished = format!("{name:.32}-{}-{number}{UNFINISHED}", std::process::id());
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(directory, &unfinished, flags, Mode::RUSR | Mode::WUSR)?;
        let finished = File::from(file)
            .write_all(bytes)
            .and_then(|()| Ok(rustix::fs::renameat(directory, &unfinished, directory, name)?));
        if finished.is_err() {
            rustix::fs::unlinkat(directory, &unfinished, AtFlags::empty())?;
        }
        self.shrink(directory)?;
        finished
    }

    /// Removes what has not been used for the longest time until the rest is small enough. What a recorder that died has
    /// left unfinished goes the same way.
    fn shrink(&self, directory: &OwnedFd) -> io::Result<()> {
        let mut files = Vec::new();
        for entry in Dir::read_from(directory)? {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if !name.ends_with(FINISHED.as_bytes()) && !name.ends_with(UNFINISHED.as_bytes()) {
                continue;
            }
            // Another recorder may have removed it meanwhile.
            let Ok(stat) = rustix::fs::statat(directory, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW) else {
                continue;
            };
            if !FileType::from_raw_mode(stat.st_mode).is_dir() {
                files.push((stat.st_mtime, stat.st_mtime_nsec, stat.st_size as u64, entry.file_name().to_owned()));
            }
        }
        files.sort();
        let mut total: u64 = files.iter().map(|(.., size, _)| size).sum();
        let mut count = files.len();
        for (.., size, name) in files {
            if total <= self.limit && count <= MAX_FILES {
                break;
            }
            match rustix::fs::unlinkat(directory, name, AtFlags::empty()) {
                Ok(()) | Err(rustix::io::Errno::NOENT) => (total, count) = (total - size, count - 1),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

/// The default directory in an environment of these variables. Relative paths mean nothing, as the XDG rules have it.
pub(super) fn directory_by(variable: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    let absolute = |name: &str| variable(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let caches = absolute("XDG_CACHE_HOME").or_else(|| Some(absolute("HOME")?.join(".cache")))?;
    Some(caches.join("polletto/unwind"))
}

/// Opens a directory that nobody else can write to, and makes it if it is not there.
fn open_directory(path: &Path) -> io::Result<OwnedFd> {
    if fs::symlink_metadata(path).is_err() {
        DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let directory = rustix::fs::openat(CWD, path, flags, Mode::empty())?;
    let stat = rustix::fs::fstat(&directory)?;
    let others_write = Mode::from_raw_mode(stat.st_mode).intersects(Mode::WGRP | Mode::WOTH);
    if !is_ours(&stat) || others_write {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    Ok(directory)
}

fn is_ours(stat: &Stat) -> bool {
    stat.st_uid == rustix::process::geteuid().as_raw()
}

fn is_regular(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode).is_file()
}

/// A file's build id is there for people who look into the directory; the key alone tells tables apart.
fn name(image: &Image, key: &Key) -> String {
    let mut name = image.build_id.as_ref().map_or_else(|| "no-build-id".to_owned(), ToString::to_string);
    name.push('-');
    for byte in key {
        // Writing into a string can't fail.
        write!(name, "{byte:02x}").ok();
    }
    name + FINISHED
}

/// Everything that a table depends on. What may be there or not, and how long a list is, is said before it, so that no two
/// images are made of the same bytes.
fn key(image: &Image, eh_frame: &[u8], unsaid: &Unsaid) -> Key {
    let mut numbers = vec![
        u64::from(format::VERSION),
        match image.architecture {
            Architecture::X86_64 => 1,
            Architecture::Aarch64 => 2,
        },
    ];
    numbers.push(u64::from(image.eh_frame.is_some()));
    if let Some(EhFrame { address, file_offset: _, size: _, end }) = image.eh_frame {
        numbers.extend([
            address,
            match end {
                End::Section => 1,
                End::Terminator => 2,
            },
        ]);
    }
    for address in [image.text, image.got] {
        numbers.extend([u64::from(address.is_some()), address.unwrap_or(0)]);
    }
    for ranges in [&image.code_addresses(), &image.linkage_tables] {
        numbers.push(ranges.len() as u64);
        numbers.extend(ranges.iter().flat_map(|range| [range.start, range.end]));
    }
    let Unsaid { pieces, code, pointed_to } = unsaid;
    for count in [pieces.len(), code.len(), pointed_to.len()] {
        numbers.push(count as u64);
    }
    numbers.extend(pieces.iter().flat_map(|piece| [piece.start, piece.end]));
    numbers.extend(code.iter().flat_map(|(address, bytes)| [*address, bytes.len() as u64]));
    numbers.extend(pointed_to);
    let mut hash = Sha256::new();
    for number in numbers {
        hash.update(number.to_le_bytes());
    }
    for (_, bytes) in code {
        hash.update(bytes);
    }
    hash.update(eh_frame);
    hash.finalize().into()
}
