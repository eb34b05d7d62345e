//! What becomes of what the kernel tells: packets, by way of the timeline, and what is found out of processes meanwhile.

use std::sync::Arc;

use anyhow::{Context, Result};
use polletto_common::record::{Task, flags};

use super::{
    AwaitStacks, Config,
    awaiting::{AwaitSummary, Awaiting},
    every::Every,
    memory::Memory,
    preamble,
    tasks::Found,
    walking::Walks,
};
use crate::{
    kernel::{Attached, Taken},
    symbols::KernelFunctions,
    target::{Kind, Process},
    timeline::{ProcessDescription, Timeline, Undescribed, WalkedProcess},
    trace::PacketBuffer,
};

/// What is known of the recorded processes besides what the kernel records.
pub struct Sources {
    /// What they have mapped.
    pub memory: Memory,
    /// What their runtimes are like.
    pub walks: Option<Walks>,
    /// What their tasks await.
    pub awaiting: Option<Awaiting>,
}

/// Takes it all in, in the order in which it happened.
pub struct Digest {
    pub timeline: Timeline,
    pub memory: Memory,
    pub walks: Option<Walks>,
    pub awaiting: Option<Awaiting>,
    pub packets: PacketBuffer,
    needs_mappings: bool,
    walk: Option<Every>,
    await_stacks: Option<Every>,
}

impl Digest {
    /// Nothing is taken in yet. `packets` are those that the trace begins with.
    pub fn new(sources: Sources, config: &Config, began_ns: u64, mut packets: PacketBuffer) -> Result<Digest> {
        let Sources { memory, walks, awaiting } = sources;
        let mut timeline = Timeline::new(config.subject.view(), began_ns, &mut packets);
        config.threshold.iter().for_each(|&threshold| timeline.find(threshold));
        timeline.name_workers(&config.workers);
        if config.stacks.kernel {
            let functions = KernelFunctions::read().context("could not read the names of the kernel's functions")?;
            timeline.name_kernel_frames(Arc::new(functions));
        }
        let await_stacks = match config.await_stacks {
            AwaitStacks::Every(period) => Some(Every::new(period)),
            AwaitStacks::Never | AwaitStacks::AtTheEnd => None,
        };
        Ok(Digest {
            timeline,
            memory,
            walks,
            awaiting,
            packets,
            needs_mappings: config.needs_mappings(),
            walk: config.task_walk.map(Every::new),
            await_stacks,
        })
    }

    /// Finds out what there is already. Returns when the kernel knows what the processes have mapped.
    pub fn begin(&mut self, attached: &mut Attached) -> Result<()> {
        let tasks = self.list_tasks(attached)?;
        self.describe_processes();
        if self.needs_mappings {
            self.scan_memory(&tasks);
            self.memory.wait();
            self.learn_tasks(attached)?;
            self.walks.iter_mut().for_each(Walks::walk);
        }
        Ok(())
    }

    /// Learns when polls were not observed. What the kernel has told since then is to be taken after that.
    pub fn learn_of_polls(&mut self) {
        for news in self.memory.poll_news() {
            self.timeline.poll_news(&news, &mut self.packets);
        }
    }

    /// Takes what the kernel tells next.
    pub fn take(&mut self, taken: &Taken) {
        let Digest { timeline, memory, walks, awaiting, packets, .. } = self;
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

    /// Does what came up since the last time, and passes on what was found out.
    pub fn follow_up(&mut self, attached: &mut Attached) -> Result<()> {
        for process in self.timeline.take_ended() {
            attached.forget_process(process)?;
            self.memory.ended(process);
            self.awaiting.iter_mut().for_each(|awaiting| awaiting.forget(process));
        }
        let scan_wanted = self.needs_mappings && (self.memory.take_scan_wanted() | self.timeline.take_scan_wanted());
        if self.timeline.take_listing_wanted() || scan_wanted {
            let tasks = self.list_tasks(attached)?;
            if scan_wanted {
                self.scan_memory(&tasks);
            }
        }
        self.describe_processes();
        self.learn_tasks(attached)?;
        self.walk_tasks(attached)
    }

    /// All was taken: the recording is over. `walked` is what the last walk found.
    pub fn end(&mut self, walked: &[WalkedProcess], ended_ns: u64) -> Option<AwaitSummary> {
        self.learn_of_polls();
        walked.iter().for_each(|walked| self.timeline.walked(walked, &mut self.packets));
        let awaits = self.awaiting.take().map(|awaiting| self.read_awaits(awaiting, ended_ns));
        self.timeline.finish(ended_ns, &mut self.packets);
        awaits
    }

    fn list_tasks(&mut self, attached: &mut Attached) -> Result<Vec<Task>> {
        let tasks = attached.list_tasks()?;
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
    fn learn_tasks(&mut self, attached: &mut Attached) -> Result<()> {
        for Found { module, code } in self.memory.found() {
            self.timeline.knows_task_code(module, code);
        }
        for (thread, task) in self.timeline.take_own_tasks() {
            attached.set_own_task(thread, task)?;
        }
        Ok(())
    }

    /// Passes on what was read from processes' memory, and lets it be read again when it is time.
    fn walk_tasks(&mut self, attached: &mut Attached) -> Result<()> {
        let Some(walks) = &mut self.walks else { return Ok(()) };
        for walked in walks.found() {
            self.timeline.walked(&walked, &mut self.packets);
            if let Some(awaiting) = self.awaiting.as_mut().filter(|_| !walked.runtimes.is_empty()) {
                awaiting.has_tasks(walked.tgid, walked.may_tell_awaits)?;
            }
        }
        if self.walk.as_mut().is_some_and(Every::is_due) {
            walks.walk();
        }
        if walks.take_threads_wanted() {
            self.list_tasks(attached)?;
        }
        if let (Some(awaiting), Some(every)) = (&mut self.awaiting, &mut self.await_stacks) {
            awaiting.found().iter().for_each(|read| self.timeline.await_something(read));
            if every.is_due() {
                awaiting.look();
            }
        }
        Ok(())
    }

    /// Reads what the tasks of those processes await that live, when all is recorded.
    fn read_awaits(&mut self, mut awaiting: Awaiting, ended_ns: u64) -> AwaitSummary {
        let timeline = &mut self.timeline;
        timeline.take_ended().into_iter().for_each(|process| awaiting.forget(process));
        let look = awaiting.finish();
        look.read.iter().chain(&look.last_read).for_each(|read| timeline.await_something(read));
        look.summary(|process, task| timeline.unpolled(process, task, ended_ns))
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
