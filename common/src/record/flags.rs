//! Bits of [`Header::flags`](super::Header::flags).

/// [`super::Switch`]: the thread that leaves could have gone on running.
pub const PREEMPTED: u32 = 1 << 0;
/// [`super::Switch`]: the thread that leaves is recorded.
pub const PREV_RECORDED: u32 = 1 << 1;
/// [`super::Switch`], [`super::Current`]: the thread that runs from now on is recorded.
pub const NEXT_RECORDED: u32 = 1 << 2;
/// [`super::Task`], [`super::Fork`]: the thread belongs to the kernel.
pub const KERNEL_THREAD: u32 = 1 << 3;
/// [`super::Task`]: the thread is recorded.
pub const RECORDED: u32 = 1 << 4;
/// [`super::Lost`]: records about threads and processes are missing, and no switches.
pub const TASKS_LOST: u32 = 1 << 5;
/// [`super::Lost`]: samples, blocked stretches or stacks are missing, and no switches.
pub const SAMPLES_LOST: u32 = 1 << 6;
/// [`super::Sample`]: the thread ran in the kernel.
pub const IN_KERNEL: u32 = 1 << 7;
/// [`super::Stack`]: some frames were found by frame pointers alone, which code need not keep.
pub const BY_FRAME_POINTERS: u32 = 1 << 8;
/// [`super::Blocked`]: the thread was not back when the recording ended.
pub const STILL_ASLEEP: u32 = 1 << 9;
/// [`super::Poll`]: it had not ended when the recording did.
pub const STILL_POLLING: u32 = 1 << 10;
/// [`super::Poll`]: the thread polls another task, in the middle of whose poll this one was.
pub const NESTED: u32 = 1 << 11;
/// [`super::Poll`]: it has just begun, and its end will not be told.
pub const END_UNSEEN: u32 = 1 << 12;
/// [`super::Wake`]: the task was being polled then, by whomever.
pub const WHILE_POLLED: u32 = 1 << 13;
/// [`super::Task`]: the thread has run for the last time, and has not been waited for.
pub const ENDED: u32 = 1 << 14;
/// [`super::PollLeft`]: the thread sleeps from then on. Otherwise it could have gone on.
pub const FELL_ASLEEP: u32 = 1 << 15;
/// [`super::Spawn`]: what was spawned may block, and runs to its end in one poll.
pub const MAY_BLOCK: u32 = 1 << 16;
/// [`super::Spawn`]: the poll in which it was spawned had begun with a worker, and has given it away by then.
pub const GAVE_WORKER_AWAY: u32 = 1 << 17;
/// [`super::Poll`], [`super::PollLeft`]: it began with a worker, and has given it away by then, to block: mostly another thread
/// has it.
pub const WORKER_GONE: u32 = 1 << 18;
