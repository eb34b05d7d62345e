//! What threads wait for that `parking_lot` has put to sleep, read from the threads' own variables.

use aya_ebpf::{btf_maps::HashMap, helpers::bpf_probe_read_user, macros::btf_map};
use polletto_common::{
    parked::{ParkedThread, ThreadLocals},
    polled::MAX_RUNTIMES,
};

use crate::{
    registers::{Cpu, Native, SystemCall},
    task::Task,
};

/// Keyed by process: those whose programs have `parking_lot`. All elements exist from the beginning: they are added by
/// whoever forks.
#[btf_map]
static THREAD_LOCALS: HashMap<u32, ThreadLocals, MAX_RUNTIMES> = HashMap::new();

/// What a system call has as its first argument in which the current thread sleeps; but what it waits for instead, if
/// `parking_lot` has parked it.
///
/// # Safety
/// `task` is the current thread.
#[inline(always)]
pub unsafe fn argument(task: Task, call: SystemCall) -> u64 {
    let is_its_kind = call.number == Native::FUTEX && call.second == ThreadLocals::OPERATION;
    if is_its_kind && ThreadLocals::may_hold(call.argument, task.thread_pointer()) {
        waits_for(task, call.argument).unwrap_or(call.argument)
    } else {
        call.argument
    }
}

/// What the current thread waits for, which sleeps on the word at `address`.
#[inline(always)]
fn waits_for(task: Task, address: u64) -> Option<u64> {
    // SAFETY: a map's value, which the recorder replaces as a whole at worst.
    let locals = unsafe { &*THREAD_LOCALS.get_ptr(task.tgid().0)? };
    if locals.exec_id != task.exec_id() || !task.has_memory() {
        return None;
    }
    let parked = locals.parked_at(address, task.thread_pointer())?;
    // SAFETY: the helper checks the address.
    let thread = unsafe { bpf_probe_read_user(parked as *const ParkedThread) }.ok()?;
    thread.waits_for()
}

/// A new process begins with its parent's program.
#[inline(always)]
pub fn fork(parent: Task, child: Task) {
    if let Some(locals) = THREAD_LOCALS.get_ptr(parent.tgid().0) {
        // SAFETY: a map's value, which the recorder replaces as a whole at worst.
        let locals = unsafe { &*locals };
        // Without room, it is not seen at which locks the child's threads stand.
        THREAD_LOCALS.insert(child.tgid().0, locals, 0).ok();
    }
}
