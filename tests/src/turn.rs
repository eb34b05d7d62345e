//! Whose turn it is: scenarios that measure time must not disturb one another.

use std::{env, fs::File, path::PathBuf};

use rustix::fs::{FlockOperation, flock};

/// A scenario's turn on this machine. It ends when this is dropped.
#[must_use = "the turn ends when this is dropped"]
pub struct Turn {
    _locked: File,
}

impl Turn {
    /// Waits until no other scenario runs, in this process or another.
    pub fn alone() -> Turn {
        Turn::take(FlockOperation::LockExclusive)
    }

    /// Waits until no scenario runs that must be alone.
    pub fn with_others() -> Turn {
        Turn::take(FlockOperation::LockShared)
    }

    fn take(how: FlockOperation) -> Turn {
        let path: PathBuf = env::temp_dir().join("polletto-scenarios.lock");
        // Whoever created it may be another user: reading is enough to lock.
        let file = File::open(&path).or_else(|_| File::create(&path));
        let file = file.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        flock(&file, how).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        Turn { _locked: file }
    }
}
