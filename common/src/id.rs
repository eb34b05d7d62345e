//! Identities of threads and processes, as the kernel numbers them in its first pid namespace.

use core::fmt;

/// A thread. 0 is the idle thread of any CPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct Tid(pub u32);

/// A process: the id of its first thread, which all of its threads share.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct Tgid(pub u32);

impl Tid {
    /// What a CPU runs when it has nothing to run.
    pub const IDLE: Tid = Tid(0);
}

impl Tgid {
    /// The process's first thread.
    pub fn leader(self) -> Tid {
        Tid(self.0)
    }
}

impl fmt::Display for Tid {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(out)
    }
}

impl fmt::Display for Tgid {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(out)
    }
}
