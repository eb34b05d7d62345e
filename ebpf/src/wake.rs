//! Who wakes and who spawns which task, told by probes in the programs' own code.

use aya_ebpf::{EbpfContext, helpers::bpf_probe_read_kernel, programs::ProbeContext};
use polletto_common::{
    poll::{PollKind, Register},
    polled::Polled,
    record::{Spawn, Wake, flags},
};

use crate::{poll, ring, task::Task};

/// A bit of the word that a task begins with: it is being polled.
const RUNNING: u64 = 1;

/// What a register held when the thread came to the probe; 0 if it can't be read.
#[inline(always)]
pub fn value(context: &ProbeContext, register: Register) -> u64 {
    let saved = context.as_ptr().cast_const().cast::<u8>().wrapping_add(register.offset());
    // The verifier does not know which register it is, and so would not take a load.
    // SAFETY: the helper checks the address.
    unsafe { bpf_probe_read_kernel(saved.cast::<u64>()) }.unwrap_or(0)
}

/// The task that stands at `woken` is woken.
#[inline(always)]
pub fn wakes(task: Task, woken: u64) {
    let Some(state) = poll::read::<u64>(woken) else { return };
    let header = ring::header::<Wake>(if state & RUNNING != 0 { flags::WHILE_POLLED } else { 0 });
    let Some((vtable, id, _)) = poll::described(woken) else { return };
    ring::emit_poll(Wake { header, tid: task.tid(), tgid: task.tgid(), vtable, task: id, polled: polled(task) });
}

/// The task that stands at `spawned` has been made.
#[inline(always)]
pub fn spawns(task: Task, spawned: u64) {
    let time_ns = ring::now();
    let Some((vtable, id, kind)) = poll::described(spawned) else { return };
    let flags = match kind {
        PollKind::BLOCKING if poll::has_given_worker_away(task) => flags::MAY_BLOCK | flags::GAVE_WORKER_AWAY,
        PollKind::BLOCKING => flags::MAY_BLOCK,
        _ => 0,
    };
    let header = ring::header_at::<Spawn>(time_ns, flags);
    ring::emit_poll(Spawn { header, tid: task.tid(), tgid: task.tgid(), vtable, task: id, polled: polled(task) });
}

/// The poll that the thread is in, if that will be told.
#[inline(always)]
fn polled(task: Task) -> Polled {
    // SAFETY: the current thread.
    unsafe { poll::open(task) }.unwrap_or(Polled { task: 0, runtime: 0, worker: 0, tick: 0 })
}
