//! Task vtables: the one thing that every build of a Tokio program has.

/// `tokio::runtime::task::raw::Vtable` of one future on one kind of scheduler.
///
/// Addresses are the file's own. Identical functions may have been merged, so of all of these only the vtable's own address
/// tells one future from another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vtable {
    /// Where it stands.
    pub address: u64,
    /// Polls the task.
    pub poll: u64,
    /// Puts the task into a queue.
    pub schedule: u64,
    /// Frees the task.
    pub dealloc: u64,
    /// Moves the result out of the task.
    pub try_read_output: u64,
    /// Called when the last handle goes.
    pub drop_join_handle_slow: u64,
    /// Called when an abort handle goes.
    pub drop_abort_handle: u64,
    /// Cancels the task.
    pub shutdown: u64,
    /// Of the trailer within the task, bytes.
    pub trailer_offset: u64,
    /// Of the scheduler within the task, bytes.
    pub scheduler_offset: u64,
    /// Of the id within the task, bytes.
    pub id_offset: u64,
    /// Of the place where the task was spawned within the task, bytes: only in builds with `tokio_unstable`.
    pub spawn_location_offset: Option<u64>,
}

/// Who polls a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SchedulerKind {
    /// Workers, or one thread: the task awaits.
    Async,
    /// The pool for code that blocks: the task is polled once.
    Blocking,
}
