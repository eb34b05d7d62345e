//! The file that a recording becomes.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
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
            Err(error) => return Err(error).with_context(|| format!("could not create {}", path.display())),
        };
        let trace = TraceFile { file, length: 0 };
        trace.take_possession().with_context(|| format!("could not take over {}", path.display()))?;
        Ok(trace)
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
        let metadata = self.file.metadata()?;
        if !metadata.is_file() {
            bail!("it is not a regular file");
        }
        if metadata.nlink() > 1 {
            bail!("it has other names (hard links), which would change too");
        }
        // Held until the file is closed, however that comes about.
        if rustix::fs::flock(&self.file, FlockOperation::NonBlockingLockExclusive).is_err() {
            bail!("another recording writes to it: choose another file with -o");
        }
        self.file.set_len(0)?;
        self.file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(MODE))?;
        if let Some((uid, gid)) = user_behind_sudo() {
            rustix::fs::fchown(&self.file, Some(uid), Some(gid))
                .with_context(|| format!("could not give it to user {}", uid.as_raw()))?;
        }
        Ok(())
    }
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
    use std::path::PathBuf;

    use super::*;

    fn directory(test: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("polletto-file-{test}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        path
    }

    #[test]
    fn a_trace_is_private_to_its_owner() {
        let path = directory("private").join("x.perfetto-trace");
        let mut trace = TraceFile::create(&path, true).unwrap();
        trace.append(b"packet").unwrap();
        trace.close().unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
        assert_eq!(std::fs::read(&path).unwrap(), b"packet");
    }

    #[test]
    fn an_existing_file_is_kept_unless_it_may_be_overwritten() {
        let path = directory("existing").join("x.perfetto-trace");
        std::fs::write(&path, b"something long that was there before").unwrap();
        let refusal = TraceFile::create(&path, false).unwrap_err().to_string();
        assert!(refusal.contains("--force"), "{refusal}");
        TraceFile::create(&path, true).unwrap().append(b"new").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"new");
    }

    #[test]
    fn a_file_that_is_being_written_is_not_overwritten() {
        let path = directory("busy").join("x.perfetto-trace");
        let mut first = TraceFile::create(&path, true).unwrap();
        first.append(b"packet").unwrap();
        let refusal = format!("{:#}", TraceFile::create(&path, true).unwrap_err());
        assert!(refusal.contains("another recording"), "{refusal}");
        assert_eq!(std::fs::read(&path).unwrap(), b"packet");
    }

    #[test]
    fn a_link_is_never_followed() {
        let directory = directory("link");
        let (victim, link) = (directory.join("victim"), directory.join("x.perfetto-trace"));
        std::fs::write(&victim, b"precious").unwrap();
        std::fs::remove_file(&link).ok();
        std::os::unix::fs::symlink(&victim, &link).unwrap();
        assert!(TraceFile::create(&link, true).is_err());
        assert_eq!(std::fs::read(&victim).unwrap(), b"precious");
    }
}
