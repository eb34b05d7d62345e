//! What runtimes are like, as it was read from their processes' memory: numbers over time.

use std::sync::Arc;

use polletto_common::id::Tgid;
use polletto_protos::{TrackEvent, trace_packet::Data, track_event::Type};
use rustc_hash::FxHashMap;

use super::{task_code::PollBody, tokio_tracks::TokioTracks};
use crate::trace::PacketBuffer;

/// Runtimes of which numbers are shown.
const MAX_RUNTIMES: usize = 4096;

/// Workers of a runtime of which numbers are shown.
pub const MAX_WORKERS: u64 = 1024;

/// What was read from a process's memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WalkedProcess {
    /// The process.
    pub tgid: Tgid,
    /// When, CLOCK_BOOTTIME nanoseconds.
    pub time_ns: u64,
    /// Those of its runtimes that live.
    pub runtimes: Vec<WalkedRuntime>,
    /// Addresses of those that lived before, and don't any more.
    pub ended: Vec<u64>,
    /// Ids of tasks that were told before, and are no more.
    pub gone: Vec<u64>,
    /// Lists of tasks are longer than was allowed to be read.
    pub is_cut_short: bool,
    /// Its program may tell what its tasks await.
    pub may_tell_awaits: bool,
}

/// What was read of a runtime.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WalkedRuntime {
    /// [`polletto_common::polled::Polled::runtime`].
    pub address: u64,
    /// Its numbers.
    pub counters: Vec<(RuntimeCounter, u64)>,
    /// Ids of tasks that were not told before, and what they are.
    pub tasks: Vec<(u64, Arc<PollBody>)>,
    /// Since when its lists were read, if that was from end to end: no other task of theirs lives that did before.
    pub listed_since_ns: Option<u64>,
}

/// A number about a runtime.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RuntimeCounter {
    /// Tasks that have not ended.
    LiveTasks,
    /// Tasks that there ever were.
    SpawnedTasks,
    /// Tasks that were woken, and wait to be polled.
    NotifiedTasks,
    /// Tasks that wait for whichever worker comes first.
    InjectionQueue,
    /// Workers that sleep.
    IdleWorkers,
    /// Workers that look for work.
    SearchingWorkers,
    /// Tasks that wait for one of the workers.
    WorkerQueue(u64),
    /// Threads for code that blocks.
    BlockingThreads,
    /// Those of them that have nothing to do.
    IdleBlockingThreads,
    /// Tasks that wait for one of them.
    BlockingQueue,
}

impl RuntimeCounter {
    /// What its track is called.
    pub fn name(self) -> String {
        match self {
            RuntimeCounter::WorkerQueue(index) => format!("worker {index} queue"),
            other => other.fixed_name().to_owned(),
        }
    }

    fn fixed_name(self) -> &'static str {
        match self {
            RuntimeCounter::LiveTasks => "live tasks",
            RuntimeCounter::SpawnedTasks => "spawned tasks",
            RuntimeCounter::NotifiedTasks => "notified tasks",
            RuntimeCounter::InjectionQueue => "injection queue",
            RuntimeCounter::IdleWorkers => "idle workers",
            RuntimeCounter::SearchingWorkers => "searching workers",
            RuntimeCounter::WorkerQueue(_) => "worker queue",
            RuntimeCounter::BlockingThreads => "blocking threads",
            RuntimeCounter::IdleBlockingThreads => "idle blocking threads",
            RuntimeCounter::BlockingQueue => "blocking queue",
        }
    }

    /// What it counts, for who sees its track.
    pub fn description(self) -> &'static str {
        match self {
            RuntimeCounter::LiveTasks => "Tasks that have been spawned and have not ended.",
            RuntimeCounter::SpawnedTasks => "Tasks that were ever spawned.",
            RuntimeCounter::NotifiedTasks => "Tasks that were woken, and wait to be polled.",
            RuntimeCounter::InjectionQueue => {
                "Tasks that wait for any of the workers: mostly woken or spawned elsewhere."
            }
            RuntimeCounter::IdleWorkers => "Workers that sleep, since there is nothing to do.",
            RuntimeCounter::SearchingWorkers => "Workers that look for tasks to poll.",
            RuntimeCounter::WorkerQueue(_) => "Tasks that wait for this worker. Others may take them.",
            RuntimeCounter::BlockingThreads => "Threads of the pool for code that blocks (spawn_blocking).",
            RuntimeCounter::IdleBlockingThreads => "Threads of that pool that have nothing to do.",
            RuntimeCounter::BlockingQueue => "Closures that wait for a thread of that pool.",
        }
    }

    /// Where its track stands: below those of workers, of which no runtime has so many.
    pub fn rank(self) -> i32 {
        const FIRST: i32 = i32::MAX / 2;
        FIRST
            + match self {
                RuntimeCounter::LiveTasks => 0,
                RuntimeCounter::SpawnedTasks => 1,
                RuntimeCounter::NotifiedTasks => 2,
                RuntimeCounter::InjectionQueue => 3,
                RuntimeCounter::IdleWorkers => 4,
                RuntimeCounter::SearchingWorkers => 5,
                RuntimeCounter::BlockingThreads => 6,
                RuntimeCounter::IdleBlockingThreads => 7,
                RuntimeCounter::BlockingQueue => 8,
                RuntimeCounter::WorkerQueue(index) => 9 + index.min(MAX_WORKERS) as i32,
            }
    }

    fn is_shown(self) -> bool {
        !matches!(self, RuntimeCounter::WorkerQueue(index) if index >= MAX_WORKERS)
    }
}

/// A track, and what it showed last.
#[derive(Debug)]
struct Shown {
    track: u64,
    value: u64,
}

/// Numbers of runtimes, each written when it has changed.
#[derive(Debug, Default)]
pub struct RuntimeCounters {
    runtimes: FxHashMap<(Tgid, u64), FxHashMap<RuntimeCounter, Shown>>,
}

impl RuntimeCounters {
    /// Shows what has changed.
    pub fn show(&mut self, walked: &WalkedProcess, tracks: &mut TokioTracks, out: &mut PacketBuffer) {
        for runtime in &walked.runtimes {
            let key = (walked.tgid, runtime.address);
            if !self.runtimes.contains_key(&key) && self.runtimes.len() >= MAX_RUNTIMES {
                continue;
            }
            let shown = self.runtimes.entry(key).or_default();
            for &(counter, value) in runtime.counters.iter().filter(|(counter, _)| counter.is_shown()) {
                match shown.get_mut(&counter) {
                    Some(shown) if shown.value == value => continue,
                    Some(shown) => {
                        shown.value = value;
                        count(walked.time_ns, shown.track, value, out);
                    }
                    None => {
                        let track = tracks.counter(key, counter, walked.time_ns, out);
                        shown.insert(counter, Shown { track, value });
                        count(walked.time_ns, track, value, out);
                    }
                }
            }
        }
        for &ended in &walked.ended {
            // A counter has no end.
            for shown in self.runtimes.remove(&(walked.tgid, ended)).unwrap_or_default().into_values() {
                count(walked.time_ns, shown.track, 0, out);
            }
        }
    }

    /// The process has ended, or runs another program.
    pub fn forget_process(&mut self, tgid: Tgid) {
        self.runtimes.retain(|key, _| key.0 != tgid);
    }
}

fn count(time_ns: u64, track: u64, value: u64, out: &mut PacketBuffer) {
    let event = TrackEvent {
        r#type: Some(Type::Counter as i32),
        track_uuid: Some(track),
        counter_value: Some(i64::try_from(value).unwrap_or(i64::MAX)),
        ..TrackEvent::default()
    };
    out.push(Some(time_ns), Data::TrackEvent(event));
}
