//! What a [`Layout`] tells, field by field, and where debug information has it.

/// Where a part of a layout begins: what its offsets count from.
#[derive(Clone, Copy, Debug)]
pub enum Base {
    /// A type of this name.
    Named(&'static [&'static str]),
    /// What a pointer within another part points at.
    Behind(&'static str, Path),
}

/// Members, variants and the values in wrappers, by their names, with dots between. Wrappers of one thing need no step.
pub type Path = &'static str;

/// What a field tells of a part. Of several paths, which are those of different versions, the first that is there counts.
#[derive(Clone, Copy, Debug)]
pub enum Fact {
    /// Where something begins, bytes from where the part does.
    Offset(&'static [Path]),
    /// How large something is, bytes.
    Size(&'static [Path]),
    /// Where the number is that tells the variants of something apart, bytes from where the part begins.
    Tag(&'static [Path]),
    /// How large that number is, bytes.
    TagSize(&'static [Path]),
    /// The number that stands for a variant. None for one that all other numbers stand for.
    Value(&'static [Path]),
}

/// A field of a layout, to be treated like all others.
pub struct Field {
    /// Part and field.
    pub name: &'static str,
    pub part: &'static str,
    pub fact: Fact,
    pub get: fn(&Layout) -> Option<u32>,
    pub set: fn(&mut Layout, Option<u32>),
}

/// A part of a layout, and where it begins.
pub struct Part {
    pub name: &'static str,
    /// Of several the first that is there counts.
    pub bases: &'static [Base],
}

macro_rules! layout {
    ($(
        $(#[$part_doc:meta])*
        $part:ident: $Part:ident at $bases:expr => {
            $($(#[$doc:meta])* $field:ident: $fact:expr,)*
        }
    )*) => {
        /// Where the things are that a reader needs, in the memory of a program with Tokio.
        ///
        /// Offsets and sizes are in bytes. What is not known is none, and never a guess.
        ///
        /// A layout may still be another build's. A reader recognises that: in one that fits, on each thread
        ///
        /// - the byte behind the context is 0, 1 or 2, and 0 means that nothing in the context counts,
        /// - [`Context::entered`] is no more than [`Context::not_entered`], and [`Context::handle_kind`] one of
        ///   [`HandleKind`] or one more,
        /// - [`SchedulerContext::kind`] is one of its numbers, and a worker's index less than its runtime's
        ///   [`MultiThread::remote_count`],
        ///
        /// and in each runtime
        ///
        /// - the handle's owner id is not 0, and each task in its lists has the same one, and a vtable that is one,
        /// - the number of lists is a power of 2,
        /// - [`BlockingPool::idle_threads`] ≤ [`BlockingPool::threads`] ≤ [`BlockingPool::thread_cap`], which is not 0.
        #[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
        pub struct Layout {
            $($(#[$part_doc])* pub $part: $Part,)*
        }

        $(
            $(#[$part_doc])*
            #[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
            pub struct $Part {
                $($(#[$doc])* pub $field: Option<u32>,)*
            }
        )*

        /// All parts, those behind others after them.
        pub const PARTS: &[Part] = &[$(Part { name: stringify!($part), bases: $bases },)*];

        /// All fields.
        pub const FIELDS: &[Field] = &[$($(
            Field {
                name: concat!(stringify!($part), ".", stringify!($field)),
                part: stringify!($part),
                fact: $fact,
                get: |layout| layout.$part.$field,
                set: |layout, value| layout.$part.$field = value,
            },
        )*)*];
    };
}

use Base::{Behind, Named};
use Fact::{Offset, Size, Tag, TagSize, Value};

layout! {
    /// `runtime::context::Context`: what Tokio knows of a thread. The thread-local `CONTEXT` is one.
    context: Context at &[Named(&["tokio", "runtime", "context", "Context"])] => {
        /// Its size. Behind it is a byte for whether it was begun, and ended: 0, 1, 2.
        size: Size(&[""]),
        /// A number that Tokio gave the thread, 8 bytes; 0 if it gave none.
        thread_id: Offset(&["thread_id"]),
        /// Eight bytes that are 0 while no task is polled.
        has_task: Tag(&["current_task_id"]),
        /// The number of the task that is polled, 8 bytes. It may be an old one while [`has_task`](Self::has_task) says
        /// that there is none.
        current_task_id: Offset(&["current_task_id.Some"]),
        /// A pointer to [`scheduler::Context`](SchedulerContext): null but on a thread that runs a scheduler.
        scheduler: Offset(&["scheduler"]),
        /// Which kind of runtime the thread's handle is of: [`HandleKind`] has its numbers, others stand for no handle.
        handle_kind: Tag(&["current.handle.value.Some"]),
        /// A pointer to that runtime's handle: [`MultiThread`] or [`CurrentThread`].
        handle: Offset(&["current.handle.value.Some.MultiThread", "current.handle.value.Some.CurrentThread"]),
        /// A byte: whether the thread drives a runtime.
        entered: Offset(&["runtime"]),
        /// What that byte is if it does not. Otherwise it is 1 where the thread may block in place, and 0 where not.
        not_entered: Value(&["runtime.NotEntered"]),
    }

    /// `runtime::scheduler::Handle`: which kinds of runtimes there are.
    handle_kinds: HandleKind at &[Named(&["tokio", "runtime", "scheduler", "Handle"])] => {
        /// Of the number that tells them apart.
        tag_size: TagSize(&[""]),
        /// Stands for a runtime of one thread.
        current_thread: Value(&["CurrentThread"]),
        /// Stands for a runtime of workers.
        multi_thread: Value(&["MultiThread"]),
    }

    /// `runtime::scheduler::Context`: what a thread runs. It is on the thread's stack.
    scheduler: SchedulerContext at &[Behind("context", "scheduler")] => {
        /// Which kind of scheduler it is.
        kind: Tag(&[""]),
        /// Of the number that says so.
        kind_size: TagSize(&[""]),
        /// Stands for the one thread of its runtime.
        current_thread: Value(&["CurrentThread"]),
        /// Stands for a worker.
        multi_thread: Value(&["MultiThread"]),
        /// Stands for a worker of a scheduler that was tried in `tokio_unstable`.
        multi_thread_alt: Value(&["MultiThreadAlt"]),
        /// On the one thread, a pointer to [`CurrentThread`].
        handle: Offset(&["CurrentThread.handle"]),
        /// On a worker, a pointer to [`Worker`].
        worker: Offset(&["MultiThread.worker"]),
        /// On a worker, a pointer to [`Core`]: null while it has given that away.
        core: Offset(&["MultiThread.core.value"]),
        /// On the one thread, a pointer to [`OnlyCore`]: null while it has given that away.
        only_core: Offset(&["CurrentThread.core.value"]),
    }

    /// `Arc<multi_thread::worker::Worker>`, from what the pointer points at: the reference counts.
    worker: Worker at &[Behind("scheduler", "MultiThread.worker")] => {
        /// A pointer to [`MultiThread`].
        handle: Offset(&["data.handle"]),
        /// Which one of the runtime's workers it is, 8 bytes.
        index: Offset(&["data.index"]),
        /// A pointer to [`Core`] while no thread has it.
        core: Offset(&["data.core"]),
    }

    /// `multi_thread::worker::Core`: what only a worker itself uses.
    core: Core at &[Behind("scheduler", "MultiThread.core.value.Some")] => {
        /// A pointer to the task that runs next: null if there is none. Queues don't count it.
        lifo_slot: Offset(&["lifo_slot"]),
        /// A pointer to [`Queue`].
        run_queue: Offset(&["run_queue"]),
        /// How often it has looked for something to do, 4 bytes, with overflow.
        tick: Offset(&["tick"]),
    }

    /// `current_thread::Core`: what only the one thread itself uses.
    only_core: OnlyCore at &[Behind("scheduler", "CurrentThread.core.value.Some")] => {
        /// How often it has looked for something to do, 4 bytes, with overflow.
        tick: Offset(&["tick"]),
    }

    /// `Arc<multi_thread::Handle>`, from what the pointer points at: the reference counts.
    multi_thread: MultiThread at &[
        Behind("worker", "data.handle"),
        Behind("handle_kinds", "MultiThread"),
    ] => {
        /// All of it.
        size: Size(&[""]),
        /// A pointer to the lists of tasks: [`Shard`]s.
        shards: Offset(&["data.shared.owned.list.lists.data_ptr"]),
        /// How many lists there are, 8 bytes.
        shard_count: Offset(&["data.shared.owned.list.lists.length"]),
        /// How many tasks there are, 8 bytes.
        tasks: Offset(&["data.shared.owned.list.count"]),
        /// How many tasks there ever were, 8 bytes.
        spawned: Offset(&["data.shared.owned.list.added"]),
        /// A number that [`Header`]s of these tasks have as their owner, 8 bytes.
        owner_id: Offset(&["data.shared.owned.id"]),
        /// A pointer to what workers show of each other: [`Remote`]s.
        remotes: Offset(&["data.shared.remotes.data_ptr"]),
        /// How many workers there are, 8 bytes.
        remote_count: Offset(&["data.shared.remotes.length"]),
        /// How many tasks wait for any worker, 8 bytes.
        injected: Offset(&["data.shared.inject.len", "data.shared.inject.shared.len"]),
        /// 8 bytes: how many workers search for work in the lower 16 bits, how many are not parked above.
        idle: Offset(&["data.shared.idle.state"]),
        /// A pointer to [`BlockingPool`].
        blocking_pool: Offset(&["data.blocking_spawner"]),
    }

    /// `Arc<current_thread::Handle>`, from what the pointer points at: the reference counts.
    current_thread: CurrentThread at &[
        Behind("scheduler", "CurrentThread.handle"),
        Behind("handle_kinds", "CurrentThread"),
    ] => {
        /// All of it.
        size: Size(&[""]),
        /// A pointer to the lists of tasks: [`Shard`]s.
        shards: Offset(&["data.shared.owned.list.lists.data_ptr"]),
        /// How many lists there are, 8 bytes.
        shard_count: Offset(&["data.shared.owned.list.lists.length"]),
        /// How many tasks there are, 8 bytes.
        tasks: Offset(&["data.shared.owned.list.count"]),
        /// How many tasks there ever were, 8 bytes.
        spawned: Offset(&["data.shared.owned.list.added"]),
        /// A number that [`Header`]s of these tasks have as their owner, 8 bytes.
        owner_id: Offset(&["data.shared.owned.id"]),
        /// How many tasks were woken by other threads and wait, 8 bytes.
        injected: Offset(&["data.shared.inject.len", "data.shared.inject.shared.len"]),
        /// A pointer to [`BlockingPool`].
        blocking_pool: Offset(&["data.blocking_spawner"]),
    }

    /// `Mutex<LinkedList<Task>>`: one of the lists of a runtime's tasks.
    shard: Shard at &[
        Behind("multi_thread", "data.shared.owned.list.lists.data_ptr"),
        Behind("current_thread", "data.shared.owned.list.lists.data_ptr"),
    ] => {
        /// From one to the next.
        size: Size(&[""]),
        /// A pointer to the [`Header`] of the task that was last added: null if there is none.
        head: Offset(&["data.head"]),
        /// A pointer to the [`Header`] of the task that was first added: null if there is none.
        tail: Offset(&["data.tail"]),
    }

    /// `multi_thread::worker::Remote`: what others see of a worker.
    remote: Remote at &[Behind("multi_thread", "data.shared.remotes.data_ptr")] => {
        /// From one to the next.
        size: Size(&[""]),
        /// A pointer to [`Queue`].
        steal: Offset(&["steal"]),
    }

    /// `Arc<multi_thread::queue::Inner>`, from what the pointer points at: the reference counts.
    queue: Queue at &[Behind("remote", "steal")] => {
        /// Where it begins: two numbers in one, of which the lower half counts, and the upper one is behind while others
        /// steal.
        head: Offset(&["data.head"]),
        /// Of both numbers together.
        head_size: Size(&["data.head"]),
        /// Where it ends, a number of half that size. It is as many tasks long as this one is greater than the head,
        /// with overflow.
        tail: Offset(&["data.tail"]),
        /// A pointer to the 256 places of the queue, each a pointer to a [`Header`].
        buffer: Offset(&["data.buffer"]),
    }

    /// `Arc<blocking::pool::Inner>`, from what the pointer points at: the reference counts.
    blocking_pool: BlockingPool at &[
        Behind("multi_thread", "data.blocking_spawner"),
        Behind("current_thread", "data.blocking_spawner"),
    ] => {
        /// How many threads it has, 8 bytes. Those that are workers count.
        threads: Offset(&["data.metrics.num_threads"]),
        /// How many of them wait for work, 8 bytes.
        idle_threads: Offset(&["data.metrics.num_idle_threads"]),
        /// How many tasks wait for a thread, 8 bytes.
        queued: Offset(&["data.metrics.queue_depth"]),
        /// How many threads it may have, workers included, 8 bytes: never 0, and no less than there are.
        thread_cap: Offset(&["data.thread_cap"]),
    }

    /// `task::core::Header`: where a task begins. Where the rest of it is, the task's vtable tells.
    header: Header at &[
        Named(&["tokio", "runtime", "task", "core", "Header"]),
        Behind("shard", "data.head.Some"),
    ] => {
        /// The task's state, in the lower 6 bits, and how many refer to it.
        state: Offset(&["state"]),
        /// A pointer to the [`Header`] of the next task in the same queue.
        queue_next: Offset(&["queue_next"]),
        /// A pointer to the vtable.
        vtable: Offset(&["vtable"]),
        /// Which runtime's lists it is in, 8 bytes; 0 if it never was in any.
        owner_id: Offset(&["owner_id"]),
    }

    /// `task::core::Trailer`: what follows a task's future.
    trailer: Trailer at &[Named(&["tokio", "runtime", "task", "core", "Trailer"])] => {
        /// A pointer to the [`Header`] of the task that was added after this one.
        previous: Offset(&["owned.prev"]),
        /// A pointer to the [`Header`] of the task that was added before this one.
        next: Offset(&["owned.next"]),
        /// Who waits for the task's end: a pointer to what the waker does, null if there is none.
        waker_vtable: Offset(&["waker.Some.vtable"]),
        /// A pointer to what the waker is for.
        waker_data: Offset(&["waker.Some.data"]),
    }
}
