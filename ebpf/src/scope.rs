//! Which threads this recording is about.

use aya_ebpf::{Global, btf_maps::HashMap, macros::btf_map};
use polletto_common::{limits::MAX_RECORDED, scope::Scope};

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

#[inline(always)]
fn key(task: Task) -> u32 {
    if SCOPE.load() == Scope::Threads as u32 { task.tid().0 } else { task.tgid().0 }
}
