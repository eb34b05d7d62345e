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
use polletto_common::record::{Record, Task, flags};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::retry_on_intr,
};

use super::{
    AwaitStacks, Config,
    awaiting::{AwaitSummary, Awaiting},
    findings::FindingSummary,
    memory::{CodeSummary, Memory},
    own_use, preamble, precedence,
    running::{Progress, RunningPipeline, Stop},
    tasks::{Found, TaskSummary},
    walking::{WalkSummary, Walks},
};
use crate::{
    kernel::{Attached, Counted, Taken},
    symbols::{KernelFunctions, ModuleReport, Request},
    target::{Kind, Process},
    timeline::{ProcessDescription, RecorderCounters, Seen, Timeline, Undescribed},
    trace::{Batch, Clocks, Output, PacketBuffer, mark_synchronization, snapshot_clocks},
};

/// How often rings are drained. A switch of its own each time, so not more often than needed: a ring holds ten times as
/// much as a CPU writes in this time.
const DRAIN_PERIOD: Duration = Duration::from_millis(25);

/// How soon rings are drained again when a process has mapped code, which can't be unwound until the kernel knows of it.
/// What is read is passed on with the next drain.
const URGENT_DRAIN_PERIOD: Duration = Duration::from_millis(5);

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

/// What is known of the recorded processes besides what the kernel records.
pub struct Sources {
    /// What they have mapped.
    pub memory: Memory,
    /// What their runtimes are like.
    pub walks: Option<Walks>,
    /// What their tasks await.
    pub awaiting: Option<Awaiting>,
}

/// A recording that has begun, on the thread that began it.
pub struct Pipeline {
    attached: Attached,
    timeline: Timeline,
    memory: Memory,
    walks: Option<Walks>,
    awaiting: Option<Awaiting>,
    packets: PacketBuffer,
    output: Output,
    progress: Arc<Progress>,
    began: Clocks,
    /// What lasts as long is a finding.
    threshold: Option<Duration>,
    /// Ends by itself when no recorded thread is left.
    ends_with_threads: bool,
    needs_mappings: bool,
    flush: Every,
    counters: Every,
    clocks: Every,
    walk: Every,
    await_stacks: Option<Every>,
}

/// Something that is due again and again.
struct Every {
    period: Duration,
    next: Instant,
}

impl Every {
    fn new(period: Duration) -> Every {
        Every { period, next: Instant::now() + period }
    }

    fn is_due(&mut self) -> bool {
        let now = Instant::now();
        let is_due = now >= self.next;
        if is_due {
            self.next = now + self.period;
        }
        is_due
    }
}

impl Pipeline {
    /// Writes what is known from the start: clocks, configuration, threads and processes. Stacks are recorded once the
    /// kernel knows what the processes have mapped.
    pub fn begin(
        attached: Attached,
        Sources { memory, walks, awaiting }: Sources,
        output: Output,
        config: &Config,
        began: Clocks,
    ) -> Result<Pipeline> {
        let mut packets =
            if config.stacks.are_recorded() { PacketBuffer::with_stack_samples() } else { PacketBuffer::default() };
        preamble::preamble(config, began)?.write(&mut packets);
        let mut timeline = Timeline::new(config.subject.view(), began.boottime_ns, &mut packets);
        config.threshold.iter().for_each(|&threshold| timeline.find(threshold));
        timeline.name_workers(&config.workers);
        if config.stacks.kernel {
            let functions = KernelFunctions::read().context("could not read the names of the kernel's functions")?;
            timeline.name_kernel_frames(Arc::new(functions));
        }
        let progress = Progress {
            began: Instant::now(),
            records: AtomicU64::new(0),
            lost: AtomicU64::new(0),
            bytes: output.bytes_written(),
            targets_gone: AtomicBool::new(false),
        };
        let mut pipeline = Pipeline {
            attached,
            timeline,
            memory,
            walks,
            awaiting,
            packets,
            output,
            progress: Arc::new(progress),
            began,
            threshold: config.threshold,
            ends_with_threads: config.ends_with_threads(),
            needs_mappings: config.needs_mappings(),
            flush: Every::new(FLUSH_PERIOD),
            counters: Every::new(COUNTERS_PERIOD),
            clocks: Every::new(CLOCKS_PERIOD),
            walk: Every::new(config.task_walk.unwrap_or(COUNTERS_PERIOD)),
            await_stacks: match config.await_stacks {
                AwaitStacks::Every(period) => Some(Every::new(period)),
                AwaitStacks::Never | AwaitStacks::AtTheEnd => None,
            },
        };
        let tasks = pipeline.list_tasks()?;
        pipeline.describe_processes();
        if pipeline.needs_mappings {
            pipeline.scan_memory(&tasks);
            pipeline.memory.wait();
            pipeline.learn_tasks()?;
            pipeline.walks.iter_mut().for_each(Walks::walk);
        }
        if config.stacks.are_recorded() {
            pipeline.attached.start_stacks()?;
        }
        Ok(pipeline)
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
        let Pipeline {
            attached,
            mut timeline,
            mut memory,
            mut walks,
            mut awaiting,
            mut packets,
            output,
            progress,
            began,
            threshold,
            ..
        } = self;
        // In this order: nobody takes the polls of a program that is still patched.
        memory.unprobe();
        let mut detached = attached.detach();
        let ended_ns = preamble::boottime_ns();
        let mut records = progress.records();
        let mut awaits = None;
        let rest = ended.and_then(|()| {
            detached.drain(ended_ns, |taken| {
                records += u64::from(is_record(&taken));
                pass_on(&taken, &mut timeline, &mut memory, &mut walks, &mut awaiting, &mut packets);
            })?;
            memory.poll_news().for_each(|news| timeline.poll_news(&news, &mut packets));
            timeline.show_recorder(ended_ns, counters(&progress), &mut packets);
            awaits = awaiting.map(|awaiting| read_awaits(awaiting, &mut timeline, ended_ns));
            timeline.finish(ended_ns, &mut packets);
            packets.take_all().try_for_each(|batch| send(&output, batch))
        });
        if let Err(error) = rest {
            // Why the file could not be written says more than that it was not.
            output.close().context("could not write the trace")?;
            return Err(error);
        }
        let lasted = Duration::from_nanos(ended_ns.saturating_sub(began.boottime_ns));
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
            let is_last = self.timeline.live_threads() == 0;
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
        let Pipeline { attached, timeline, memory, walks, awaiting, packets, output, progress, .. } = self;
        let mut records = 0;
        let now_ns = preamble::boottime_ns();
        attached.drain(now_ns, |taken| {
            records += u64::from(is_record(&taken));
            pass_on(&taken, timeline, memory, walks, awaiting, packets);
        })?;
        progress.records.fetch_add(records, Ordering::Relaxed);
        let seen = timeline.seen();
        progress.lost.store(seen.lost + seen.samples_lost, Ordering::Relaxed);
        packets.take_full().try_for_each(|batch| send(output, batch))?;

        for process in self.timeline.take_ended() {
            self.attached.forget_process(process)?;
            self.memory.ended(process);
            self.awaiting.iter_mut().for_each(|awaiting| awaiting.forget(process));
        }
        let scan_wanted = self.needs_mappings && (self.memory.take_scan_wanted() | self.timeline.take_scan_wanted());
        if self.timeline.take_listing_wanted() || scan_wanted {
            let tasks = self.list_tasks()?;
            if scan_wanted {
                self.scan_memory(&tasks);
            }
        }
        self.describe_processes();
        self.learn_tasks()?;
        self.walk_tasks()?;
        if self.counters.is_due() {
            self.timeline.show_recorder(now_ns, counters(&self.progress), &mut self.packets);
        }
        if self.clocks.is_due() {
            snapshot_clocks(preamble::clocks(), &mut self.packets);
            mark_synchronization(&mut self.packets);
        }
        if self.flush.is_due() {
            self.timeline.flush(&mut self.packets);
            self.packets.take_all().try_for_each(|batch| send(&self.output, batch))?;
        }
        Ok(())
    }

    fn list_tasks(&mut self) -> Result<Vec<Task>> {
        let tasks = self.attached.list_tasks()?;
        self.timeline.list(&tasks, preamble::boottime_ns(), &mut self.packets);
        self.walks.iter().for_each(|walks| walks.list(&tasks));
        Ok(tasks)
    }

    /// Reads what all recorded processes have mapped.
    fn scan_memory(&mut self, tasks: &[Task]) {
        for task in tasks {
            let is_process = task.tid == task.tgid.leader() && task.header.flags & flags::KERNEL_THREAD == 0;
            if is_process && self.timeline.has_process(task.tgid) {
                self.memory.scan(task.tgid, task.exec_id, &mut self.timeline);
            }
        }
    }

    /// Passes on what was found out of tasks: by files to the timeline, by the timeline to the kernel programs.
    fn learn_tasks(&mut self) -> Result<()> {
        for Found { module, code } in self.memory.found() {
            self.timeline.knows_task_code(module, code);
        }
        for news in self.memory.poll_news() {
            self.timeline.poll_news(&news, &mut self.packets);
        }
        for (thread, task) in self.timeline.take_own_tasks() {
            self.attached.set_own_task(thread, task)?;
        }
        Ok(())
    }

    /// Passes on what was read from processes' memory, and lets it be read again when it is time.
    fn walk_tasks(&mut self) -> Result<()> {
        let Some(walks) = &mut self.walks else { return Ok(()) };
        for walked in walks.found() {
            self.timeline.walked(&walked, &mut self.packets);
            if let Some(awaiting) = self.awaiting.as_mut().filter(|_| !walked.runtimes.is_empty()) {
                awaiting.has_tasks(walked.tgid, walked.may_tell_awaits)?;
            }
        }
        if self.walk.is_due() {
            walks.walk();
        }
        if walks.take_threads_wanted() {
            self.list_tasks()?;
        }
        if let (Some(awaiting), Some(every)) = (&mut self.awaiting, &mut self.await_stacks) {
            awaiting.found().iter().for_each(|read| self.timeline.await_something(read));
            if every.is_due() {
                awaiting.look();
            }
        }
        Ok(())
    }

    fn describe_processes(&mut self) {
        for undescribed in self.timeline.take_undescribed() {
            // One that has ended already keeps the name that its first thread had.
            if let Ok(process) = Process::read(undescribed.tgid) {
                self.timeline.describe(description(undescribed, process));
            }
        }
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

fn pass_on(
    taken: &Taken,
    timeline: &mut Timeline,
    memory: &mut Memory,
    walks: &mut Option<Walks>,
    awaiting: &mut Option<Awaiting>,
    packets: &mut PacketBuffer,
) {
    match taken {
        Taken::Record(record) => {
            timeline.push(record, packets);
            // Before the memory does: what it finds in a program comes after the program's beginning.
            walks.iter_mut().for_each(|walks| walks.record(record));
            awaiting.iter_mut().for_each(|awaiting| awaiting.record(record));
            memory.record(record);
        }
        Taken::Stack(stack) => timeline.push_stack(&stack.0, &stack.1, packets),
        Taken::Memory(event) => memory.event(event, timeline),
    }
}

/// Reads what the tasks of those processes await that live, when all is recorded.
fn read_awaits(mut awaiting: Awaiting, timeline: &mut Timeline, ended_ns: u64) -> AwaitSummary {
    timeline.take_ended().into_iter().for_each(|process| awaiting.forget(process));
    let look = awaiting.finish();
    look.read.iter().chain(&look.last_read).for_each(|read| timeline.await_something(read));
    look.summary(|process, task| Some(ended_ns.saturating_sub(timeline.polled_last(process, task)?)))
}

fn send(output: &Output, batch: Batch) -> Result<()> {
    output.send(batch).map_err(|_| anyhow!("the trace can't be written any more"))
}

fn counters(progress: &Progress) -> RecorderCounters {
    RecorderCounters { bytes_written: progress.bytes(), cpu_ns: own_use::cpu_time().as_nanos() as u64 }
}

fn description(undescribed: Undescribed, process: Process) -> ProcessDescription {
    ProcessDescription {
        tgid: undescribed.tgid,
        since_ns: undescribed.since_ns,
        parent: process.parent,
        command_line: process.command_line,
        name: process.name,
        uid: Some(process.uid),
        started_ns: undescribed.started_ns,
        is_kernel_thread: process.kind == Kind::KernelThread,
    }
}
