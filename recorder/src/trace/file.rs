//! The file that a recording becomes.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt},
    path::Path,
};

use anyhow::{Context, Result, bail};
use rustix::fs::{FlockOperation, Gid, OFlags, Uid};

/// Nobody but its owner reads a trace: it tells what a program does.
const MODE: u32 = 0o600;

/// A file that always ends with a whole packet.
#[derive(Debug)]
pub struct TraceFile {
    file: File,
    length: u64,
}

impl TraceFile {
    /// Creates the file, owned by the user behind sudo if there is one. `overwrite` allows to replace a file that is
    /// there; a link is never followed, since the recorder mostly runs as root in directories of others.
    pub fn create(path: &Path, overwrite: bool) -> Result<TraceFile> {
        let mut options = OpenOptions::new();
        // Not blocking, so that a pipe without a reader is an error and no wait.
        let flags = OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        options.write(true).mode(MODE).custom_flags(flags.bits() as i32);
        if overwrite {
            options.create(true);
        } else {
            options.create_new(true);
        }
        let file = match options.open(path) {
            Ok(file) => file,
            Err(_) if path.is_symlink() => {
                bail!("{} is a symbolic link, which polletto does not follow: choose another file", path.display())
            }
            Err(_) if path.is_dir() => bail!("{} is a directory: name a file in it", path.display()),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                bail!("{} exists already: choose another file with -o, or overwrite it with --force", path.display())
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound && !is_in_directory(path) => {
                let directory = path.parent().unwrap_or(path).display();
                bail!(
                    "could not create {}: there is no directory {directory}; make it, or choose another file with -o",
                    path.display()
                )
            }
            Err(error) => {
                return Err(error)
                    .with_context(|| format!("could not create {}: choose another file with -o", path.display()));
            }
        };
        let trace = TraceFile { file, length: 0 };
        trace.take_possession().with_context(|| format!("could not take over {}", path.display()))?;
        Ok(trace)
    }

    /// Opens a trace to append to it. Whose it is and who may read it stays. Nobody else writes to it meanwhile, and a
    /// link is not followed here either.
    pub fn open(path: &Path) -> Result<TraceFile> {
        let flags = OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let file = match OpenOptions::new().read(true).write(true).custom_flags(flags.bits() as i32).open(path) {
            Ok(file) => file,
            Err(_) if path.is_symlink() => {
                bail!("{} is a symbolic link, which polletto does not follow: name the file itself", path.display())
            }
            Err(_) if path.is_dir() => bail!("{} is a directory: name a trace in it", path.display()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => bail!("there is no file {}", path.display()),
            Err(error) => {
                return Err(error)
                    .with_context(|| format!("could not open {} to append to it: -o writes a copy", path.display()));
            }
        };
        let length = lock_for_writing(&file).with_context(|| format!("can't append to {}", path.display()))?;
        Ok(TraceFile { file, length })
    }

    /// Its bytes from the first on, whatever is appended meanwhile.
    pub fn reader(&self) -> io::Result<TraceInput> {
        Ok(TraceInput { file: self.file.try_clone()?, offset: 0 })
    }

    /// Keeps this many bytes of it, behind which it goes on.
    pub fn keep(&mut self, length: u64) -> io::Result<()> {
        if length < self.length {
            self.file.set_len(length)?;
            self.length = length;
        }
        self.file.seek(SeekFrom::Start(self.length)).map(|_| ())
    }

    /// The bytes in the file.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Appends whole packets. When that fails half-way, the half is cut off again.
    pub fn append(&mut self, packets: &[u8]) -> io::Result<()> {
        match self.file.write_all(packets) {
            Ok(()) => {
                self.length += packets.len() as u64;
                Ok(())
            }
            Err(error) => {
                self.file.set_len(self.length)?;
                Err(error)
            }
        }
    }

    /// Makes sure that the disk has it all.
    pub fn close(self) -> io::Result<()> {
        self.file.sync_all()
    }

    fn take_possession(&self) -> Result<()> {
        lock_for_writing(&self.file)?;
        self.file.set_len(0)?;
        self.file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(MODE))?;
        if let Some((uid, gid)) = user_behind_sudo() {
            rustix::fs::fchown(&self.file, Some(uid), Some(gid))
                .with_context(|| format!("could not give it to user {}", uid.as_raw()))?;
        }
        Ok(())
    }
}

/// Some have no room for files, as `/proc`.
fn is_in_directory(path: &Path) -> bool {
    path.parent().is_none_or(|parent| parent.as_os_str().is_empty() || parent.is_dir())
}

/// A trace to read, piece by piece.
#[derive(Debug)]
pub struct TraceInput {
    file: File,
    offset: u64,
}

impl TraceInput {
    /// Opens a trace that nobody writes to.
    pub fn open(path: &Path) -> Result<TraceInput> {
        // Not blocking, so that a pipe without a writer is an error and no wait.
        let flags = OFlags::CLOEXEC | OFlags::NONBLOCK;
        let file = OpenOptions::new().read(true).custom_flags(flags.bits() as i32).open(path);
        let file = file.with_context(|| format!("could not open {}", path.display()))?;
        if !file.metadata()?.is_file() {
            bail!("{} is not a regular file", path.display());
        }
        if rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared).is_err() {
            bail!("another polletto writes to {}: wait for its end", path.display());
        }
        Ok(TraceInput { file, offset: 0 })
    }

    /// The same from its beginning.
    pub fn again(&self) -> io::Result<TraceInput> {
        Ok(TraceInput { file: self.file.try_clone()?, offset: 0 })
    }

    /// The bytes in the file.
    pub fn length(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    /// Whether the path leads to it.
    pub fn is(&self, path: &Path) -> io::Result<bool> {
        let own = self.file.metadata()?;
        Ok(path.metadata().is_ok_and(|other| (other.dev(), other.ino()) == (own.dev(), own.ino())))
    }
}

impl Read for TraceInput {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read_at(bytes, self.offset)?;
        self.offset += count as u64;
        Ok(count)
    }
}

/// Makes sure that nothing but this trace changes, and nobody else changes it. Returns its length.
fn lock_for_writing(file: &File) -> Result<u64> {
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        bail!("it is not a regular file");
    }
    if metadata.nlink() > 1 {
        bail!("it has other names (hard links), which would change too");
    }
    // Held until the file is closed, however that comes about.
    if rustix::fs::flock(file, FlockOperation::NonBlockingLockExclusive).is_err() {
        bail!("another polletto writes to it: wait for its end, or choose another file");
    }
    Ok(file.metadata()?.len())
}

fn user_behind_sudo() -> Option<(Uid, Gid)> {
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    let number = |name: &str| std::env::var(name).ok()?.parse::<u32>().ok();
    Some((Uid::from_raw(number("SUDO_UID")?), Gid::from_raw(number("SUDO_GID")?)))
}

#[cfg(test)]
mod tests {
    use tempfile::tempdir;

    use super::*;

    #[test]
    fn a_trace_is_private_to_its_owner() {
        let directory = tempdir().unwrap();
        let path = directory.path().join("x.perfetto-trace");
        let mut trace = TraceFile::create(&path, true).unwrap();
        trace.append(b"packet").unwrap();
        trace.close().unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
        assert_eq!(std::fs::read(&path).unwrap(), b"packet");
    }

    #[test]
    fn an_existing_file_is_kept_unless_it_may_be_overwritten() {
        let directory = tempdir().unwrap();
        let path = directory.path().join("x.perfetto-trace");
        std::fs::write(&path, b"something long that was there before").unwrap();
        let refusal = TraceFile::create(&path, false).unwrap_err().to_string();
        assert!(refusal.contains("--force"), "{refusal}");
        TraceFile::create(&path, true).unwrap().append(b"new").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"new");
    }

    #[test]
    fn where_no_file_can_be_it_says_what_to_do() {
        let refusal = |path: &str| format!("{:#}", TraceFile::create(Path::new(path), true).unwrap_err());
        assert_eq!(
            refusal("/nowhere/x.perfetto-trace"),
            "could not create /nowhere/x.perfetto-trace: there is no directory /nowhere; make it, or choose another file with -o"
        );
        assert!(refusal("/proc/self/x.perfetto-trace").contains("choose another file with -o"));
    }

    #[test]
    fn a_file_that_is_being_written_is_not_overwritten() {
        let directory = tempdir().unwrap();
        let path = directory.path().join("x.perfetto-trace");
        let mut first = TraceFile::create(&path, true).unwrap();
        first.append(b"packet").unwrap();
        let refusal = format!("{:#}", TraceFile::create(&path, true).unwrap_err());
        assert!(refusal.contains("another polletto"), "{refusal}");
        assert_eq!(std::fs::read(&path).unwrap(), b"packet");
    }

    #[test]
    fn a_trace_can_be_appended_to_behind_what_is_whole() {
        let directory = tempdir().unwrap();
        let path = directory.path().join("x.perfetto-trace");
        std::fs::write(&path, b"whole and a half").unwrap();
        let mut trace = TraceFile::open(&path).unwrap();
        let mut read = String::new();
        trace.reader().unwrap().read_to_string(&mut read).unwrap();
        assert_eq!(read, "whole and a half");
        assert!(TraceInput::open(&path).is_err(), "it is read while it is written");
        trace.keep(5).unwrap();
        trace.append(b", more").unwrap();
        trace.close().unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"whole, more");
    }

    #[test]
    fn a_trace_that_is_read_is_not_overwritten() {
        let directory = tempdir().unwrap();
        let path = directory.path().join("x.perfetto-trace");
        std::fs::write(&path, b"packet").unwrap();
        let input = TraceInput::open(&path).unwrap();
        assert!(input.is(&path).unwrap());
        assert!(TraceFile::create(&path, true).is_err());
        assert_eq!(std::fs::read(&path).unwrap(), b"packet");
    }

    #[test]
    fn a_link_is_never_followed() {
        let directory = tempdir().unwrap();
        let (victim, link) = (directory.path().join("victim"), directory.path().join("x.perfetto-trace"));
        std::fs::write(&victim, b"precious").unwrap();
        std::os::unix::fs::symlink(&victim, &link).unwrap();
        assert!(TraceFile::create(&link, true).is_err());
        assert!(TraceFile::open(&link).is_err());
        assert_eq!(std::fs::read(&victim).unwrap(), b"precious");
    }
}
