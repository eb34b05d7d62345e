//! What a runtime's handle tells of it.

use super::{Doubt, RuntimeAt, RuntimeKind};
use crate::{
    target::{Excerpt, Memory},
    tokio::layout::Layout,
};

/// What the handle of any version is smaller than.
const MAX_HANDLE: u32 = 64 << 10;

/// Tokio allows as many workers.
const MAX_WORKERS: u64 = 1 << 15;

/// What a list of tasks, or what others see of a worker, is smaller than.
const MAX_ELEMENT: u32 = 128;

/// What lies between the ends of a worker's queue, both of them included, is fewer bytes than this.
const MAX_QUEUE: u64 = 1024;

/// Lists of tasks that a runtime may have.
const MAX_SHARDS: u64 = 1 << 16;

/// Places of a worker's queue.
const QUEUE_PLACES: u64 = 256;

/// How often what changes while it is read is read again.
const TRIES: usize = 3;

const ARC_STRONG: u64 = 0;

/// What a runtime is like at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuntimeState {
    /// Tasks that have not ended.
    pub live_tasks: u64,
    /// Tasks that there ever were.
    pub spawned_tasks: u64,
    /// Tasks that wait for whichever worker comes first.
    pub injected: u64,
    /// None on a runtime of one thread.
    pub workers: Option<Workers>,
    /// The pool for code that blocks, or why that is not known.
    pub blocking: Result<BlockingThreads, Doubt>,
}

/// What a runtime's workers are like.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Workers {
    /// How many tasks wait for each of them.
    pub queues: Vec<u64>,
    /// How many look for work.
    pub searching: u64,
    /// How many sleep.
    pub parked: u64,
}

/// Threads for code that blocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BlockingThreads {
    /// How many there are, without those that are workers.
    pub threads: u64,
    /// How many of them have nothing to do.
    pub idle: u64,
    /// How many tasks wait for one.
    pub queued: u64,
}

/// A runtime's handle, as it was read at one moment.
pub struct Handle {
    pub at: RuntimeAt,
    bytes: Excerpt,
    fields: Fields,
    pub tasks: TaskLists,
}

/// Where a runtime's tasks are.
#[derive(Clone, Debug)]
pub struct TaskLists {
    /// The first list.
    pub address: u64,
    pub count: u64,
    pub fields: TaskFields,
    /// What each of the tasks has as its owner.
    pub owner: u64,
}

/// Where lists and tasks have what leads from one to the next.
#[derive(Clone, Debug)]
pub struct TaskFields {
    pub shard_size: usize,
    pub head: u64,
    pub state: u64,
    pub vtable: u64,
    pub owner: u64,
    pub next: u64,
}

/// The fields of a handle that runtimes of both kinds have.
struct Fields {
    size: usize,
    shards: u64,
    shard_count: u64,
    tasks: u64,
    spawned: u64,
    owner: u64,
    injected: u64,
    blocking_pool: u64,
}

impl Fields {
    fn of(layout: &Layout, kind: RuntimeKind) -> Option<Fields> {
        macro_rules! fields {
            ($part:expr) => {
                Fields {
                    size: $part.size.filter(|&size| size <= MAX_HANDLE)? as usize,
                    shards: $part.shards?.into(),
                    shard_count: $part.shard_count?.into(),
                    tasks: $part.tasks?.into(),
                    spawned: $part.spawned?.into(),
                    owner: $part.owner_id?.into(),
                    injected: $part.injected?.into(),
                    blocking_pool: $part.blocking_pool?.into(),
                }
            };
        }
        Some(match kind {
            RuntimeKind::CurrentThread => fields!(layout.current_thread),
            RuntimeKind::MultiThread => fields!(layout.multi_thread),
        })
    }
}

impl TaskFields {
    fn of(layout: &Layout) -> Option<TaskFields> {
        Some(TaskFields {
            shard_size: layout.shard.size.filter(|size| (8..=MAX_ELEMENT).contains(size))? as usize,
            head: layout.shard.head?.into(),
            state: layout.header.state?.into(),
            vtable: layout.header.vtable?.into(),
            owner: layout.header.owner_id?.into(),
            next: layout.trailer.next?.into(),
        })
    }
}

impl Handle {
    /// Reads it, and refuses what can't be one.
    pub fn read(memory: &dyn Memory, at: RuntimeAt, layout: &Layout) -> Result<Handle, Doubt> {
        const WHAT: &str = "a runtime's handle";
        let fields = Fields::of(layout, at.kind).ok_or(Doubt::NotDescribed(WHAT))?;
        let task_fields = TaskFields::of(layout).ok_or(Doubt::NotDescribed("lists of tasks"))?;
        if at.address == 0 || !at.address.is_multiple_of(8) {
            return Err(Doubt::Implausible(WHAT));
        }
        let bytes = memory.read(at.address, fields.size);
        let word = |offset| bytes.word(offset).ok_or(Doubt::Unreadable(WHAT));
        let tasks = TaskLists {
            address: word(fields.shards)?,
            count: word(fields.shard_count)?,
            owner: word(fields.owner)?,
            fields: task_fields,
        };
        let is_counted = (1..=u64::from(u32::MAX)).contains(&word(ARC_STRONG)?);
        let has_lists = tasks.count.is_power_of_two() && tasks.count <= MAX_SHARDS && tasks.address != 0;
        if !is_counted || !has_lists || tasks.owner == 0 {
            return Err(Doubt::Implausible(WHAT));
        }
        Ok(Handle { at, bytes, fields, tasks })
    }

    /// Its numbers.
    pub fn state(&self, memory: &dyn Memory, layout: &Layout) -> Result<RuntimeState, Doubt> {
        let workers = match self.at.kind {
            RuntimeKind::CurrentThread => None,
            RuntimeKind::MultiThread => Some(self.workers(memory, layout)?),
        };
        let (worker_threads, pool) =
            (workers.as_ref().map_or(0, |workers| workers.queues.len() as u64), self.word(self.fields.blocking_pool)?);
        Ok(RuntimeState {
            live_tasks: self.word(self.fields.tasks)?,
            spawned_tasks: self.word(self.fields.spawned)?,
            injected: self.word(self.fields.injected)?,
            blocking: again(|| blocking_threads(memory, pool, worker_threads, layout)),
            workers,
        })
    }

    fn word(&self, offset: u64) -> Result<u64, Doubt> {
        self.bytes.word(offset).ok_or(Doubt::Unreadable("a runtime's handle"))
    }

    fn workers(&self, memory: &dyn Memory, layout: &Layout) -> Result<Workers, Doubt> {
        const WHAT: &str = "a runtime's workers";
        let known = |field: Option<u32>| field.map(u64::from).ok_or(Doubt::NotDescribed(WHAT));
        let (part, element) =
            (&layout.multi_thread, layout.remote.size.filter(|size| (8..=MAX_ELEMENT).contains(size)));
        let (remotes, count) = (self.word(known(part.remotes)?)?, self.word(known(part.remote_count)?)?);
        let (element, steal, idle) = (known(element)?, known(layout.remote.steal)?, self.word(known(part.idle)?)?);
        let (searching, unparked) = (idle & 0xffff, idle >> 16);
        if !(1..=MAX_WORKERS).contains(&count) || searching > count || unparked > count {
            return Err(Doubt::Implausible(WHAT));
        }
        let all = memory.read(remotes, (count * element) as usize);
        let pointers = (0..count).map(|index| all.word(index * element + steal));
        let pointers = pointers.collect::<Option<Vec<u64>>>().ok_or(Doubt::Unreadable(WHAT))?;
        let queues = again(|| queue_lengths(memory, &pointers, layout))?;
        Ok(Workers { queues, searching, parked: count - unparked })
    }
}

/// Does something until it is plausible, but not for ever.
fn again<T>(mut read: impl FnMut() -> Result<T, Doubt>) -> Result<T, Doubt> {
    for _ in 1..TRIES {
        match read() {
            Err(Doubt::Implausible(_)) => {}
            result => return result,
        }
    }
    read()
}

/// How many tasks the queues at these addresses hold.
fn queue_lengths(memory: &dyn Memory, queues: &[u64], layout: &Layout) -> Result<Vec<u64>, Doubt> {
    const WHAT: &str = "a worker's queue";
    let known = |field: Option<u32>| field.map(u64::from).ok_or(Doubt::NotDescribed(WHAT));
    let (head, tail, size) = (known(layout.queue.head)?, known(layout.queue.tail)?, known(layout.queue.head_size)?);
    let half = match size {
        4 | 8 => size as usize / 2,
        _ => return Err(Doubt::NotDescribed(WHAT)),
    };
    let (start, length) = (head.min(tail), head.abs_diff(tail) + size);
    if length > MAX_QUEUE {
        return Err(Doubt::NotDescribed(WHAT));
    }
    let mut excerpts: Vec<Excerpt> =
        queues.iter().map(|queue| Excerpt::of(queue.wrapping_add(start), length as usize)).collect();
    memory.read_each(&mut excerpts);
    let mask = (1 << (8 * half)) - 1;
    let length = |queue: &Excerpt| {
        let (head, tail) = (queue.number(head - start, half)?, queue.number(tail - start, half)?);
        Some(tail.wrapping_sub(head) & mask)
    };
    let lengths = excerpts.iter().map(|queue| match length(queue) {
        None => Err(Doubt::Unreadable(WHAT)),
        Some(length) if length > QUEUE_PLACES => Err(Doubt::Implausible(WHAT)),
        Some(length) => Ok(length),
    });
    lengths.collect()
}

/// What a doubt about the pool is of.
pub const BLOCKING_THREADS: &str = "a runtime's threads for blocking code";

/// Handles of one pool, threads that it may have, and tasks that wait for one: more are no numbers but something else.
const MAX_HANDLES: u64 = 1 << 24;
const MAX_THREADS: u64 = 1 << 22;
const MAX_QUEUED: u64 = 1 << 32;

fn blocking_threads(
    memory: &dyn Memory,
    pool: u64,
    worker_threads: u64,
    layout: &Layout,
) -> Result<BlockingThreads, Doubt> {
    const WHAT: &str = BLOCKING_THREADS;
    let part = &layout.blocking_pool;
    // What an `Arc` points at begins with how many of them there are, and of those that don't keep it alive one more.
    let counts = [Some(0), Some(8)];
    let fields = counts.into_iter().chain([part.threads, part.idle_threads, part.queued, part.thread_cap]);
    let mut excerpts = Vec::new();
    for field in fields {
        let offset = field.ok_or(Doubt::NotDescribed(WHAT))?;
        excerpts.push(Excerpt::of(pool.wrapping_add(u64::from(offset)), 8));
    }
    memory.read_each(&mut excerpts);
    let mut numbers = excerpts.iter().map(|excerpt| excerpt.word(0).ok_or(Doubt::Unreadable(WHAT)));
    let mut next = || numbers.next().unwrap_or(Err(Doubt::Unreadable(WHAT)));
    let (strong, weak) = (next()?, next()?);
    let (threads, idle, queued, cap) = (next()?, next()?, next()?, next()?);
    let are_counts = [strong, weak].into_iter().all(|count| (1..=MAX_HANDLES).contains(&count));
    // Workers are threads of the pool, and beyond them it may always have one.
    let may_be_cap = threads <= cap && worker_threads < cap && cap <= MAX_THREADS;
    if !are_counts || idle > threads || !may_be_cap || queued > MAX_QUEUED {
        return Err(Doubt::Implausible(WHAT));
    }
    let threads = threads.checked_sub(worker_threads).ok_or(Doubt::Implausible(WHAT))?;
    Ok(BlockingThreads { threads, idle, queued })
}
