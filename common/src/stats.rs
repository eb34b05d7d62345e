//! What the kernel programs count, per CPU.

/// Counters of one CPU since the programs were loaded.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CpuStats {
    /// Switches and wake-ups.
    pub stream: ChannelStats,
    /// Threads and processes.
    pub tasks: ChannelStats,
    /// Samples, blocked stretches and stacks.
    pub samples: ChannelStats,
    /// Polls, which share the ring with those.
    pub polls: ChannelStats,
    /// Polls whose begin was seen, and whose end could not be or was not.
    pub polls_without_end: u64,
    /// Children of recorded processes that were not followed because the `RECORDED` map was full.
    pub unfollowed: u64,
    /// Times that a thread went to sleep unwatched because too many threads sleep.
    pub untracked_sleeps: u64,
    /// 1 while a switch or a wake-up is written into the stream.
    pub stream_is_busy: u64,
}

/// Counters of one way from the kernel programs to the recorder.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ChannelStats {
    /// Records written, [`crate::record::Lost`] included.
    pub written: u64,
    /// Records for which there was no room, ever.
    pub lost: u64,
    /// Those of `lost` that no [`crate::record::Lost`] has announced yet.
    pub unannounced: u64,
    /// When the first unannounced record was lost, CLOCK_BOOTTIME nanoseconds.
    pub first_unannounced_ns: u64,
}
