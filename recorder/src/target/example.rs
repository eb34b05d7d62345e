//! A process to look at in tests.

use std::{
    ffi::OsStr,
    io::{Read, Write},
    path::Path,
    process::{Child, Command, Stdio},
};

use polletto_common::id::Tgid;

/// A `cat` that runs until it is dropped.
pub(super) struct Example(Child);

impl Example {
    /// Starts `program`, which must be a `cat` by some name, and returns once it works: `spawn` returns a little before
    /// the kernel has set the new program's name and arguments.
    pub(super) fn run(program: impl AsRef<OsStr>, files: &[&OsStr]) -> Example {
        let mut command = Command::new(program);
        command.arg("-").args(files).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut echo = [0];
        child.stdin.as_mut().unwrap().write_all(b"?").unwrap();
        child.stdout.as_mut().unwrap().read_exact(&mut echo).unwrap();
        assert_eq!(&echo, b"?");
        Example(child)
    }

    pub(super) fn tgid(&self) -> Tgid {
        Tgid(self.0.id())
    }

    /// The file that it executes.
    pub(super) fn executable() -> std::path::PathBuf {
        Path::new("/bin/cat").canonicalize().unwrap()
    }
}

impl Drop for Example {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}
