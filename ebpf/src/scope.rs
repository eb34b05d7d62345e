//! Which threads this recording is about.

use aya_ebpf::{Global, btf_maps::HashMap, macros::btf_map};
use polletto_common::{id::Tid, limits::MAX_RECORDED, scope::Scope};

use crate::{ring, task::Task};

/// A [`Scope`].
#[unsafe(no_mangle)]
static SCOPE: Global<u32> = Global::new(Scope::System as u32);

/// 1 when the children of recorded processes are recorded too.
#[unsafe(no_mangle)]
static FOLLOW_CHILDREN: Global<u32> = Global::new(0);

/// The one process or thread that is recorded, as `SCOPE` says; 0 when there can be several. Comparing a number costs a
/// tenth of looking it up.
#[unsafe(no_mangle)]
static ONLY: Global<u32> = Global::new(0);

/// Keyed by process or thread, as `SCOPE` says. Not read when there is only one.
#[btf_map]
static RECORDED: HashMap<u32, u8, MAX_RECORDED> = HashMap::new();

/// Whether every thread of the machine is recorded.
#[inline(always)]
pub fn is_system() -> bool {
    SCOPE.load() == Scope::System as u32
}

/// Whether this thread is recorded.
#[inline(always)]
pub fn contains(task: Task) -> bool {
    if is_system() {
        return true;
    }
    match ONLY.load() {
        0 => RECORDED.get_ptr(key(task)).is_some(),
        only => key(task) == only,
    }
}

/// Extends the recording to a new thread, if its parent is recorded and the new one is not by itself.
#[inline(always)]
pub fn follow(parent: Task, child: Task) {
    if is_system() || key(child) == key(parent) || FOLLOW_CHILDREN.load() == 0 {
        return;
    }
    if RECORDED.insert(key(child), 1, 0).is_err()
        && let Some(stats) = ring::stats()
    {
        stats.unfollowed += 1;
    }
}

/// A thread leaves its CPU for ever. Its id can soon be another's, who is not recorded for that; and there is room for
/// one more. Whether it was its process's last one is not known here: those are forgotten by the recorder.
#[inline(always)]
pub fn thread_ended(task: Task) {
    if are_threads() {
        // It is not there where only one is recorded.
        RECORDED.remove(task.tid().0).ok();
    }
}

/// A thread starts another program, and has got the id of its process's first thread, which is no more.
#[inline(always)]
pub fn exec(task: Task, old_tid: Tid) {
    if are_threads() && task.tid().0 != old_tid.0 && RECORDED.remove(old_tid.0).is_ok() {
        // Room was made just now.
        RECORDED.insert(task.tid().0, 1, 0).ok();
    }
}

#[inline(always)]
fn are_threads() -> bool {
    SCOPE.load() == Scope::Threads as u32
}

#[inline(always)]
fn key(task: Task) -> u32 {
    if are_threads() { task.tid().0 } else { task.tgid().0 }
}
