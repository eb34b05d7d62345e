//! Sizes that both sides must agree on.

/// CPUs that can have a ring of their own.
pub const MAX_CPUS: usize = 1024;

/// Processes (or threads, see [`crate::scope::Scope`]) that can be recorded at the same time.
pub const MAX_RECORDED: usize = 16 * 1024;

/// Bytes of a thread's name in the kernel, its closing NUL included (`TASK_COMM_LEN`).
pub const COMM_BYTES: usize = 16;

/// Bytes of each CPU's ring for records about threads and processes. It is only drained by a timer, but they are rare.
pub const TASK_RING_BYTES: usize = 256 * 1024;

/// Threads whose sleep can be watched at the same time.
pub const MAX_SLEEPERS: usize = 64 * 1024;

/// Bytes of the ring for samples and stacks that the object file declares. Only its type counts, as with the stream.
pub const TEMPLATE_SAMPLE_RING_BYTES: usize = 4096;

/// Slots of the stream that the object file declares. Only the type of this stream counts: the recorder replaces it by one
/// stream per CPU of the size that the user asked for.
pub const TEMPLATE_STREAM_SLOTS: usize = 128;
