//! Tokio as it is seen from outside: which programs hold its tasks, what their futures are called, and where their threads
//! keep what they are polling.
//!
//! Everything here is read from files, which may lie. What a process has in its memory is another room's.

mod names;
mod vtable;

pub use self::names::{FutureName, NameTier, ProgramFiles, name};
pub use self::vtable::{SchedulerKind, Vtable};
