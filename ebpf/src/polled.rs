//! What Tokio polls on a thread, read from the thread's own variables.

use aya_ebpf::{btf_maps::HashMap, helpers::bpf_probe_read_user, macros::btf_map};
use polletto_common::{
    polled::{MAX_OWN_TASKS, MAX_RUNTIMES, Polled, RuntimeLayout},
    record::{PollLeft, flags},
};

use crate::{poll, ring, task::Task};

/// Keyed by process. All elements exist from the beginning: they are added by whoever forks.
#[btf_map]
static RUNTIMES: HashMap<u32, RuntimeLayout, MAX_RUNTIMES> = HashMap::new();

/// Keyed by thread: the id of the task that a worker is itself, which it shows while it polls nothing.
#[btf_map]
static OWN_TASKS: HashMap<u32, u64, MAX_OWN_TASKS> = HashMap::new();

/// What the current thread polls.
///
/// # Safety
/// `task` is the current thread.
#[inline(always)]
pub unsafe fn by(task: Task) -> Polled {
    // SAFETY: as the caller says.
    if let Some(polled) = unsafe { poll::open(task) } {
        return polled;
    }
    // SAFETY: as the caller says.
    let mut polled = unsafe { shown(task) };
    if polled.task == poll::own(task) {
        polled.task = 0;
    }
    polled
}

/// What the current thread's own variables say that it polls: the task that it is itself too.
///
/// # Safety
/// `task` is the current thread.
#[inline(always)]
pub unsafe fn shown(task: Task) -> Polled {
    // SAFETY: as the caller says.
    unsafe { shown_with_core(task) }.0
}

/// As [`shown`], and where the thread has the worker that it is, if it is one of several and has it; else 0.
///
/// # Safety
/// `task` is the current thread.
#[inline(always)]
pub unsafe fn shown_with_core(task: Task) -> (Polled, u64) {
    let Some(layout) = layout_of(task) else { return (NOTHING, 0) };
    let own = task.thread_pointer();
    let (mut polled, core) = worker_by(own, layout);
    polled.task = read(own.wrapping_add(layout.task_id as u64)).unwrap_or(0);
    if layout.has_task != layout.task_id && read(own.wrapping_add(layout.has_task as u64)).unwrap_or(0_u64) == 0 {
        polled.task = 0;
    }
    (polled, core)
}

/// Which worker the current thread is. No task.
///
/// # Safety
/// `task` is the current thread.
#[inline(always)]
pub unsafe fn worker(task: Task) -> Polled {
    layout_of(task).map_or(NOTHING, |layout| worker_by(task.thread_pointer(), layout).0)
}

/// Nothing is known.
const NOTHING: Polled = Polled { task: 0, runtime: 0, worker: 0, tick: 0 };

#[inline(always)]
fn layout_of(task: Task) -> Option<&'static RuntimeLayout> {
    // SAFETY: a map's value, which the recorder replaces as a whole at worst.
    let layout = unsafe { &*RUNTIMES.get_ptr(task.tgid().0)? };
    (layout.exec_id == task.exec_id() && task.has_memory()).then_some(layout)
}

/// The worker whose own variables are there, and where it has what only the thread has that is this worker, if it is one
/// of several and has it; else 0.
#[inline(always)]
fn worker_by(own: u64, layout: &RuntimeLayout) -> (Polled, u64) {
    let (mut polled, mut core) = (NOTHING, 0);
    if layout.scheduler != 0
        && let Some(scheduler) = read::<u64>(own.wrapping_add(layout.scheduler as u64))
        && scheduler != 0
    {
        core = polled.add_worker(scheduler, layout);
    }
    (polled, core)
}

trait AddWorker {
    /// Adds what the scheduler of a thread, which stands there, says of it. Returns what [`worker_by`] does beside.
    fn add_worker(&mut self, scheduler: u64, layout: &RuntimeLayout) -> u64;
}

impl AddWorker for Polled {
    #[inline(always)]
    fn add_worker(&mut self, scheduler: u64, layout: &RuntimeLayout) -> u64 {
        let has_several = read::<u32>(at(scheduler, layout.kind)) == Some(layout.several_workers);
        let (slot, tick) = if has_several {
            let Some(worker) = read::<u64>(at(scheduler, layout.worker)) else { return 0 };
            let Some(index) = read(at(worker, layout.worker_index)) else { return 0 };
            self.runtime = read(at(worker, layout.worker_handle)).unwrap_or(0);
            self.worker = index;
            (layout.worker_core, layout.worker_tick)
        } else {
            self.runtime = read(at(scheduler, layout.only_handle)).unwrap_or(0);
            self.worker = Polled::ONLY_WORKER;
            (layout.only_core, layout.only_tick)
        };
        if slot != 0
            && let Some(core) = read::<u64>(at(scheduler, slot))
            && core != 0
        {
            if tick != RuntimeLayout::NO_TICKS
                && let Some(ticks) = read::<u32>(at(core, tick))
            {
                self.tick = 1 + u64::from(ticks);
            }
            if has_several {
                return at(scheduler, slot);
            }
        }
        0
    }
}

#[inline(always)]
fn at(base: u64, offset: u32) -> u64 {
    base.wrapping_add(u64::from(offset))
}

/// Tells the recorder that a thread leaves its CPU while it polls a task.
#[inline(always)]
pub fn left(task: Task, polled: Polled, falls_asleep: bool, time_ns: u64) {
    if polled.is_nothing() {
        return;
    }
    if let Some(own) = OWN_TASKS.get_ptr(task.tid().0)
        // SAFETY: a map's value.
        && unsafe { own.read_volatile() } == polled.task
    {
        return;
    }
    let asleep = if falls_asleep { flags::FELL_ASLEEP } else { 0 };
    let gone = if poll::has_given_worker_away(task) { flags::WORKER_GONE } else { 0 };
    ring::emit_sample(PollLeft {
        header: ring::header_at::<PollLeft>(time_ns, asleep | gone),
        tid: task.tid(),
        tgid: task.tgid(),
        polled,
    });
}

/// A new process begins with its parent's program.
#[inline(always)]
pub fn fork(parent: Task, child: Task) {
    if let Some(layout) = RUNTIMES.get_ptr(parent.tgid().0) {
        // SAFETY: a map's value, which the recorder replaces as a whole at worst.
        let layout = unsafe { &*layout };
        // Without room, the child's tasks are not seen.
        RUNTIMES.insert(child.tgid().0, layout, 0).ok();
    }
}

/// A thread's id may soon be another's.
#[inline(always)]
pub fn thread_ended(task: Task) {
    OWN_TASKS.remove(task.tid().0).ok();
}

/// Reads the current program's memory; nothing where there is none, or it is not in memory.
#[inline(always)]
fn read<T: Copy>(address: u64) -> Option<T> {
    // SAFETY: the helper checks the address.
    unsafe { bpf_probe_read_user(address as *const T) }.ok()
}
