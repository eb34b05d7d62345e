//! Tokio as it is seen from outside: which programs hold its tasks, what their futures are called, and where their threads
//! keep what they are polling.
//!
//! Everything here is read from files, which may lie, and by [`walk`] from the memory of processes, which changes meanwhile.

mod awaits;
mod context;
mod described;
#[cfg(test)]
pub(crate) mod example;
mod family;
pub mod layout;
mod names;
mod program;
mod seeing;
#[cfg(test)]
mod tests;
mod version;
mod vtable;
mod wakes;
pub mod walk;

pub use self::{
    awaits::{
        Await, Awaits, NOT_DESCRIBED as AWAITS_NOT_DESCRIBED, Waits, may_be_known as awaits_may_be_known,
        with as with_awaits,
    },
    context::{Contender, Context, Evidence, Found, Unknown},
    family::Tokio,
    names::{Names, name},
    program::{PollBody, Program, examine},
    seeing::Seeing,
    version::{Origins, Version},
    vtable::{SchedulerKind, Vtable, scan},
    wakes::{Told, Untold, WakeCode},
};
