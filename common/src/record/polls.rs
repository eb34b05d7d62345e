//! Records of polls, and of what leads to them.

use super::Header;
use crate::{
    id::{Tgid, Tid},
    polled::Polled,
};

/// A recorded thread left its CPU in the middle of a poll, to sleep or for another thread.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PollLeft {
    /// When it left, which CPU, and whether to sleep: see [`super::flags::FELL_ASLEEP`].
    pub header: Header,
    /// The thread.
    pub tid: Tid,
    /// Its process.
    pub tgid: Tgid,
    /// What it polls, and goes on with when it is back.
    pub polled: Polled,
}

/// A recorded thread has polled a task.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Poll {
    /// When the poll ended, and on which CPU; see [`super::flags::STILL_POLLING`], [`super::flags::NESTED`] and
    /// [`super::flags::END_UNSEEN`].
    pub header: Header,
    /// The thread.
    pub tid: Tid,
    /// Its process.
    pub tgid: Tgid,
    /// What was polled: the address of the task's vtable, or of the function that polls, see [`crate::poll::Site::BeginOwn`].
    pub vtable: u64,
    /// Which task, and as which worker. [`Polled::began_ns`] is when the poll began.
    pub polled: Polled,
}

/// A recorded thread woke a task: the task is polled next, or again, unless it has ended.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wake {
    /// When, and on which CPU; see [`super::flags::WHILE_POLLED`].
    pub header: Header,
    /// The thread.
    pub tid: Tid,
    /// Its process.
    pub tgid: Tgid,
    /// The address of the woken task's vtable.
    pub vtable: u64,
    /// The id of the woken task.
    pub task: u64,
    /// What the thread polled meanwhile: nothing, unless the end of that poll is told.
    pub polled: Polled,
}

/// A recorded thread spawned a task, which nobody has polled yet.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spawn {
    /// When, and on which CPU.
    pub header: Header,
    /// The thread.
    pub tid: Tid,
    /// Its process.
    pub tgid: Tgid,
    /// The address of the new task's vtable.
    pub vtable: u64,
    /// The id of the new task.
    pub task: u64,
    /// What the thread polled meanwhile: nothing, unless the end of that poll is told.
    pub polled: Polled,
}
