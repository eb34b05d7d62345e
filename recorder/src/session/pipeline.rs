//! The thread through which every record goes: ring → timeline → packets → output.

use std::{
    os::unix::net::UnixStream,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc::{TryRecvError, channel},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow};
use polletto_common::record::{Record, flags};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::retry_on_intr,
};

use super::{
    Config,
    awaiting::AwaitSummary,
    digest::{Digest, Sources},
    every::Every,
    findings::FindingSummary,
    memory::CodeSummary,
    own_use, preamble, precedence,
    running::{Progress, RunningPipeline, Stop},
    tasks::TaskSummary,
    walking::{WalkSummary, Walks},
};
use crate::{
    kernel::{Attached, Counted, Taken},
    symbols::{ModuleReport, Request},
    timeline::{RecorderCounters, Seen},
    trace::{Batch, Clocks, Output, PacketBuffer, mark_synchronization, snapshot_clocks},
};

/// How often rings are drained. A switch of its own each time, so not more often than needed: a ring holds ten times as
/// much as a CPU writes in this time.
const DRAIN_PERIOD: Duration = Duration::from_millis(25);

/// How soon rings are drained again when a process has mapped code, which can't be unwound until the kernel knows of it.
/// What is read is passed on with the next drain.
const URGENT_DRAIN_PERIOD: Duration = Duration::from_millis(2);

/// How often everything is written out. A recorder that is killed loses at most this and two drains.
const FLUSH_PERIOD: Duration = Duration::from_millis(100);

/// How often the recorder's own counters are shown.
const COUNTERS_PERIOD: Duration = Duration::from_secs(1);

/// How often clocks are compared again.
const CLOCKS_PERIOD: Duration = Duration::from_secs(10);

/// What a pipeline did.
#[derive(Debug)]
pub struct Finished {
    pub lasted: Duration,
    pub seen: Seen,
    pub kernel: Counted,
    pub records: u64,
    pub code: CodeSummary,
    pub tasks: TaskSummary,
    pub walks: Option<WalkSummary>,
    pub awaits: Option<AwaitSummary>,
    /// What was found to be wrong; none where nothing was looked for.
    pub findings: Option<FindingSummary>,
    /// What is to be named.
    pub requests: Vec<Request>,
    /// What can't be.
    pub refused: Vec<ModuleReport>,
    /// Where the rest of the trace goes.
    pub output: Output,
}

/// A recording that has begun, on the thread that began it.
pub struct Pipeline {
    attached: Attached,
    digest: Digest,
    output: Output,
    progress: Arc<Progress>,
    began: Clocks,
    /// What lasts as long is a finding.
    threshold: Option<Duration>,
    /// Ends by itself when no recorded thread is left.
    ends_with_threads: bool,
    flush: Every,
    counters: Every,
    clocks: Every,
}

impl Pipeline {
    /// Writes what is known from the start: clocks, configuration, threads and processes. Stacks are recorded once the
    /// kernel knows what the processes have mapped.
    pub fn begin(
        mut attached: Attached,
        sources: Sources,
        output: Output,
        config: &Config,
        began: Clocks,
    ) -> Result<Pipeline> {
        let mut packets =
            if config.stacks.are_recorded() { PacketBuffer::with_stack_samples() } else { PacketBuffer::default() };
        preamble::preamble(config, began)?.write(&mut packets);
        let progress = Progress {
            began: Instant::now(),
            records: AtomicU64::new(0),
            lost: AtomicU64::new(0),
            bytes: output.bytes_written(),
            targets_gone: AtomicBool::new(false),
        };
        let mut digest = Digest::new(sources, config, began.boottime_ns, packets)?;
        digest.begin(&mut attached)?;
        if config.stacks.are_recorded() {
            attached.start_stacks()?;
        }
        Ok(Pipeline {
            attached,
            digest,
            output,
            progress: Arc::new(progress),
            began,
            threshold: config.threshold,
            ends_with_threads: config.ends_with_threads(),
            flush: Every::new(FLUSH_PERIOD),
            counters: Every::new(COUNTERS_PERIOD),
            clocks: Every::new(CLOCKS_PERIOD),
        })
    }

    /// Goes on on a thread of its own.
    pub fn start(self) -> Result<RunningPipeline> {
        let (stop, stopped) = channel();
        let (ended, alive) = UnixStream::pair().context("could not make a socket pair")?;
        let (wake, woken) = UnixStream::pair().context("could not make a socket pair")?;
        let progress = Arc::clone(&self.progress);
        let thread = std::thread::Builder::new()
            .name("polletto-drain".into())
            .spawn(move || {
                // Closed when this thread ends, however it does.
                let _alive = alive;
                self.run(&Stop { woken, grace: stopped })
            })
            .context("could not start the thread that drains the rings")?;
        Ok(RunningPipeline { stop, wake, ended, progress, thread })
    }

    fn run(mut self, stop: &Stop) -> Result<Finished> {
        precedence::go_first();
        let ended = self.record_until(stop);
        let Pipeline { attached, mut digest, output, progress, began, threshold, .. } = self;
        // In this order: nobody takes the polls of a program that is still patched.
        digest.memory.unprobe();
        // After that: memory that is read may be a while in coming.
        let walked = digest.walks.as_mut().map(Walks::last).unwrap_or_default();
        let mut detached = attached.detach();
        let ended_ns = preamble::boottime_ns();
        let mut records = progress.records();
        let mut awaits = None;
        let rest = ended.and_then(|()| {
            detached.drain(ended_ns, |taken| {
                records += u64::from(is_record(&taken));
                digest.take(&taken);
            })?;
            digest.timeline.show_recorder(ended_ns, counters(&progress), &mut digest.packets);
            awaits = digest.end(&walked, ended_ns);
            digest.packets.take_all().try_for_each(|batch| send(&output, batch))
        });
        if let Err(error) = rest {
            // Why the file could not be written says more than that it was not.
            output.close().context("could not write the trace")?;
            return Err(error);
        }
        let lasted = Duration::from_nanos(ended_ns.saturating_sub(began.boottime_ns));
        let Digest { timeline, memory, walks, .. } = digest;
        let (seen, kernel) = (timeline.seen(), detached.counted()?);
        let (requests, refused) = memory.requests(timeline.addresses());
        let (code, tasks) = memory.finish();
        let walks = walks.map(Walks::finish);
        let findings = threshold.map(|threshold| FindingSummary::of(&timeline, threshold));
        Ok(Finished { lasted, seen, kernel, records, code, tasks, walks, awaits, findings, requests, refused, output })
    }

    /// Records until told to stop, and then until no recorded thread is left or the time that was given is over.
    fn record_until(&mut self, stop: &Stop) -> Result<()> {
        let mut deadline: Option<Instant> = None;
        let mut urgent = false;
        loop {
            // Once told to stop, the end is what is waited for.
            let is_stopping = deadline.is_some();
            urgent = if urgent || is_stopping {
                std::thread::sleep(URGENT_DRAIN_PERIOD);
                false
            } else {
                self.wait(stop)?
            };
            match stop.grace.try_recv() {
                Err(TryRecvError::Empty) => {}
                Ok(grace) => deadline = Some(Instant::now() + grace),
                Err(TryRecvError::Disconnected) => return Ok(()),
            }
            self.tick()?;
            let is_last = self.digest.timeline.live_threads() == 0;
            if is_last && self.ends_with_threads {
                self.progress.targets_gone.store(true, Ordering::Relaxed);
                return Ok(());
            }
            if deadline.is_some_and(|deadline| is_last || Instant::now() >= deadline) {
                return Ok(());
            }
        }
    }

    /// Waits until rings should be drained. True when a process has mapped code, so that they should be again soon.
    fn wait(&self, stop: &Stop) -> Result<bool> {
        let mut polled = vec![PollFd::new(&stop.woken, PollFlags::IN)];
        polled.extend(self.attached.memory_descriptors().map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)));
        let period = Timespec { tv_sec: 0, tv_nsec: i64::from(DRAIN_PERIOD.subsec_nanos()) };
        retry_on_intr(|| poll(&mut polled, Some(&period))).context("could not wait for the kernel")?;
        Ok(polled.iter().skip(1).any(|fd| !fd.revents().is_empty()))
    }

    fn tick(&mut self) -> Result<()> {
        let Pipeline { attached, digest, output, progress, .. } = self;
        let mut records = 0;
        digest.learn_of_polls();
        let now_ns = preamble::boottime_ns();
        attached.drain(now_ns, |taken| {
            records += u64::from(is_record(&taken));
            digest.take(&taken);
        })?;
        progress.records.fetch_add(records, Ordering::Relaxed);
        let seen = digest.timeline.seen();
        progress.lost.store(seen.lost + seen.samples_lost, Ordering::Relaxed);
        digest.packets.take_full().try_for_each(|batch| send(output, batch))?;

        digest.follow_up(attached)?;
        if self.counters.is_due() {
            digest.timeline.show_recorder(now_ns, counters(progress), &mut digest.packets);
        }
        if self.clocks.is_due() {
            snapshot_clocks(preamble::clocks(), &mut digest.packets);
            mark_synchronization(&mut digest.packets);
        }
        if self.flush.is_due() {
            digest.timeline.flush(&mut digest.packets);
            digest.packets.take_all().try_for_each(|batch| send(output, batch))?;
        }
        Ok(())
    }
}

/// Whether the kernel programs wrote it, and counted it.
fn is_record(taken: &Taken) -> bool {
    match taken {
        Taken::Memory(_) => false,
        // Made of what they remember, at the end.
        Taken::Record(Record::Blocked(blocked)) => blocked.header.flags & flags::STILL_ASLEEP == 0,
        Taken::Record(_) | Taken::Stack(_) => true,
    }
}

fn send(output: &Output, batch: Batch) -> Result<()> {
    output.send(batch).map_err(|_| anyhow!("the trace can't be written any more"))
}

fn counters(progress: &Progress) -> RecorderCounters {
    RecorderCounters { bytes_written: progress.bytes(), cpu_ns: own_use::cpu_time().as_nanos() as u64 }
}
