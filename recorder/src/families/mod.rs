//! Families of runtimes: what a program's file tells of its tasks, whoever polls them.
//!
//! What tasks look like in files is each family's own; what a recording needs to know of them is not.

mod calls;
mod locations;
mod names;
#[cfg(test)]
mod tests;
pub(crate) mod written;

use std::{cell::OnceCell, fmt, ops::Range};

pub use self::names::{FutureName, NameTier, ProgramFiles};
pub(crate) use self::{
    calls::{Calls, with_calls},
    locations::{Locations, Places},
    names::{by_address, by_futures, by_places},
};
use crate::{
    async_task::AsyncTask,
    code::PollCode,
    target::image::{Bytes, Contents, FileCopy, Image, Pointers},
    tokio::{Seeing, Tokio, WakeCode, walk},
};

/// Bytes of a program that are looked at for names: more than any honest one has.
const MAX_BYTES: u64 = 4 << 30;

/// All that are known.
pub static ALL: [&dyn Family; 2] = [&Tokio, &AsyncTask];

/// Runtimes whose tasks look alike in a file.
pub trait Family: Sync {
    /// What a file tells of the tasks of its program. None if it has none of this family's, or can't be understood.
    fn examine(&self, file: &CodeFile<'_>, wanted: Wanted) -> Option<TaskFile>;
}

/// What is wanted to be known of a file, beside what its tasks are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Where probes can stand in its code.
    pub probes: bool,
}

/// A file of code, read as far as it is asked for.
pub struct CodeFile<'a> {
    /// What it says about itself.
    pub image: &'a Image,
    /// Its bytes.
    pub source: &'a Bytes,
    /// What stands at its addresses.
    pub contents: Contents<'a, Bytes>,
    pointers: OnceCell<Option<Pointers>>,
    whole: OnceCell<Option<FileCopy>>,
}

impl<'a> CodeFile<'a> {
    /// Nothing is read yet.
    pub fn new(image: &'a Image, source: &'a Bytes) -> CodeFile<'a> {
        let contents = Contents::new(image, source);
        CodeFile { image, source, contents, pointers: OnceCell::new(), whole: OnceCell::new() }
    }

    /// Its words that hold addresses; none if they can't be read.
    pub fn pointers(&self) -> Option<&Pointers> {
        let read = || Pointers::read(self.image, self.source, &self.contents).ok();
        self.pointers.get_or_init(read).as_ref()
    }

    /// All of it at once; nothing if it can't be read.
    pub fn bytes(&self) -> &[u8] {
        self.whole.get_or_init(|| self.source.read_whole(MAX_BYTES).ok()).as_deref().unwrap_or_default()
    }
}

/// What a file tells of the tasks of its program. Addresses are the file's own.
pub struct TaskFile {
    /// Whose tasks they are.
    pub family: FamilyName,
    /// The versions of that which the program was built with, as far as it tells.
    pub versions: Vec<String>,
    /// The futures that it spawns, one for each kind of scheduler.
    pub futures: Vec<PolledFuture>,
    /// The code that is on the stack while a task is polled, and which of `futures` it may be then.
    pub bodies: Vec<(Range<u64>, Vec<usize>)>,
    /// How the kernel programs can see what its threads poll.
    pub seeing: Seeing,
    /// By which its tasks can be walked, or why they can't be. None where nothing lists all tasks.
    pub places: Option<Result<walk::Places, String>>,
    /// Its debug information may tell what tasks await.
    pub may_tell_awaits: bool,
    /// Where probes can stand; none where that was not wanted.
    pub probed: Option<ProbedCode>,
}

/// A future whose tasks are polled.
pub struct PolledFuture {
    /// What tells it when a poll is told: the address of its vtable, or of the function that polls it.
    pub key: u64,
    /// What it is called.
    pub name: FutureName,
    /// It is code that may block, and runs to its end in one poll.
    pub may_block: bool,
}

/// Where probes can stand in a file.
pub struct ProbedCode {
    /// Where tasks are polled.
    pub polls: PollCode,
    /// Where they are woken and spawned; none where nobody knows how that looks.
    pub wakes: Option<WakeCode>,
}

/// Which family it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
pub enum FamilyName {
    /// Tokio.
    #[serde(rename = "Tokio")]
    Tokio,
    /// All executors that spawn by async-task.
    #[serde(rename = "async-task")]
    AsyncTask,
}

impl FamilyName {
    /// For people, and in traces.
    pub const fn name(self) -> &'static str {
        match self {
            FamilyName::Tokio => "Tokio",
            FamilyName::AsyncTask => "async-task",
        }
    }

    /// Whether a task's id is its own for as long as the program runs. Else it is the task's address, and when the task is
    /// gone another one has it.
    pub const fn has_ids(self) -> bool {
        match self {
            FamilyName::Tokio => true,
            FamilyName::AsyncTask => false,
        }
    }

    /// Whether its runtimes keep lists of all their tasks.
    pub const fn has_lists(self) -> bool {
        match self {
            FamilyName::Tokio => true,
            FamilyName::AsyncTask => false,
        }
    }
}

impl fmt::Display for FamilyName {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.name())
    }
}
