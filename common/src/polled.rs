//! What a thread's Tokio says that it polls, and where the kernel programs find that.

/// Processes whose runtimes are read at the same time.
pub const MAX_RUNTIMES: usize = 4096;

/// Worker threads of which the task that they are themselves is known.
pub const MAX_OWN_TASKS: usize = 16 * 1024;

/// Where Tokio keeps what a thread polls, in the one program that a process runs.
///
/// Offsets from the thread pointer are negative where the thread's own variables lie below it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RuntimeLayout {
    /// The program's [`crate::unwind::AddressSpace::exec_id`].
    pub exec_id: u64,
    /// Of the id of the task that is polled, from the thread pointer.
    pub task_id: i64,
    /// Of eight bytes that are 0 while none is, from the thread pointer: mostly the id itself.
    pub has_task: i64,
    /// Of `Context::scheduler`, a pointer that is null outside of a runtime, from the thread pointer; 0 where unknown.
    pub scheduler: i64,
    /// In what that points to: says of which kind the scheduler is.
    pub kind: u32,
    /// What stands there for a scheduler with several workers.
    pub several_workers: u32,
    /// In what the scheduler points to, when there are several workers: the pointer to a worker.
    pub worker: u32,
    /// In a worker: its index, eight bytes.
    pub worker_index: u32,
    /// In a worker: the pointer to what all workers share.
    pub worker_handle: u32,
    /// In what the scheduler points to, when there are several workers: the pointer to what the thread alone has while it
    /// is a worker; 0 where unknown.
    pub worker_core: u32,
    /// In that: the worker's ticks, four bytes; [`RuntimeLayout::NO_TICKS`] where unknown.
    pub worker_tick: u32,
    /// In what the scheduler points to, when there is one worker: the pointer to what it shares with others.
    pub only_handle: u32,
    /// See `worker_core`.
    pub only_core: u32,
    /// See `worker_tick`.
    pub only_tick: u32,
}

impl RuntimeLayout {
    /// It is unknown where a worker's ticks are.
    pub const NO_TICKS: u32 = u32::MAX;
}

const _: () = assert!(size_of::<RuntimeLayout>() == 72);

/// What a thread polls.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Polled {
    /// The task's id; 0 for none. A worker that polls nothing shows the task that it is itself.
    pub task: u64,
    /// The address of what the workers of the thread's runtime share; 0 where the thread is no worker, or that is unknown.
    pub runtime: u64,
    /// Which of its workers it is: [`Polled::ONLY_WORKER`] if there can't be several.
    pub worker: u64,
    /// One more than the worker's ticks; 0 where unknown. The same task in the same tick is the same poll: but for tasks
    /// that wake one another, of which up to three can be polled in one tick, a worker polls one in each. With
    /// [`Polled::EXACT`] it is the poll's own.
    pub tick: u64,
}

impl Polled {
    /// The worker of a runtime that has only one.
    pub const ONLY_WORKER: u64 = u64::MAX;

    /// Set in [`Polled::tick`] while the poll's end will be told by a [`crate::record::Poll`]. The rest of that is then when
    /// it began, CLOCK_BOOTTIME nanoseconds: no other poll of the thread has the same.
    pub const EXACT: u64 = 1 << 63;

    /// Set beside [`Polled::EXACT`] for a task that awaits: what else the thread's stack shows that may block is around it.
    pub const AWAITS: u64 = 1 << 62;

    /// Set beside [`Polled::EXACT`] if the poll began with its thread as one of several workers. It may give the worker away in
    /// the middle of it, to block.
    pub const WITH_WORKER: u64 = 1 << 61;

    /// When the poll began, if its end will be told: CLOCK_BOOTTIME nanoseconds.
    pub fn began_ns(&self) -> Option<u64> {
        (self.tick & Polled::EXACT != 0).then_some(self.tick & !(Polled::EXACT | Polled::AWAITS | Polled::WITH_WORKER))
    }

    /// Whether it is certain that the task awaits, and never blocks its thread as a whole.
    pub fn awaits(&self) -> bool {
        self.tick & (Polled::EXACT | Polled::AWAITS) == Polled::EXACT | Polled::AWAITS
    }

    /// Whether nothing is polled, for all that is known.
    pub fn is_nothing(&self) -> bool {
        self.task == 0
    }
}
