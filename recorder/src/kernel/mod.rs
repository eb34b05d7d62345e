//! The kernel side of a recording: programs, what they are told, and the rings that they fill.
//!
//! A recording is [`Loaded`] (checked by the kernel, recording nothing), then [`Attached`], then [`Detached`]: there is
//! no other order. This is the only room that talks to aya.

mod btf;
mod listing;
mod mappings;
mod merge;
mod outer;
mod rings;
mod runtimes;
mod settings;
mod spaces;
mod stream;
mod tables;
mod timer;
mod uprobes;

use std::os::fd::BorrowedFd;

use anyhow::{Context, Result, anyhow};
use aya::{
    Btf, Ebpf, EbpfLoader, Pod,
    maps::{Array, HashMap, MapData, PerCpuArray},
    programs::{
        BtfTracePoint, PerfEvent, RawTracePoint, RawTracePointRunOptions, TestRun, perf_event::PerfEventLink,
        tp_btf::BtfTracePointLink,
    },
};
use polletto_common::{
    id::{Tgid, Tid},
    limits::MAX_SLEEPERS,
    offsets::TaskOffsets,
    parked::ThreadLocals,
    poll::{Allowance, MAX_POLLING, MAX_PROBED, MAX_RETURNS, OpenPolls, ReturnKey},
    polled::RuntimeLayout,
    record::{Blocked, Header, Layout, Lost, Record, Sleeper, Task, flags},
    scope::Scope,
    stats::{ChannelStats, CpuStats},
    stream::Slot,
};

use self::rings::Rings;
pub use self::{
    btf::open_types,
    listing::threads,
    mappings::{MemoryChange, MemoryEvent},
    rings::Taken,
    runtimes::RuntimeMap,
    settings::{Polls, Recorded, SamplingClock, Settings, Stacks, UserFrames},
    tables::{Installed, UnwindMaps},
    uprobes::{PollLink, PollProbes, Probe},
};

/// The kernel programs, compiled by this crate's build script.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/polletto-ebpf.o"));

/// A tracepoint and the entry point that is attached to it.
#[derive(Clone, Copy)]
struct Attachment {
    tracepoint: &'static str,
    program: &'static str,
}

/// In the order in which they are attached: a thread's beginning is never missed once its switches are seen.
fn attachments(user: UserFrames) -> [Attachment; 6] {
    let switch = if user == UserFrames::ByFramePointers { "sched_switch_by_fp" } else { "sched_switch" };
    let same = |name| Attachment { tracepoint: name, program: name };
    [
        same("sched_process_fork"),
        same("sched_process_exec"),
        same("sched_process_exit"),
        same("task_rename"),
        same("sched_waking"),
        Attachment { tracepoint: "sched_switch", program: switch },
    ]
}

/// The best that this kernel allows.
fn possible(user: UserFrames, kernel: &btf::Kernel) -> UserFrames {
    if user == UserFrames::ByTables && !kernel.has_loop { UserFrames::ByFramePointers } else { user }
}

/// The entry point of the timer.
fn timer_program(user: UserFrames) -> &'static str {
    if user == UserFrames::ByFramePointers { "timer_by_fp" } else { "timer" }
}

/// The CPUs that can run threads now.
pub fn online_cpus() -> Result<Vec<u32>> {
    aya::util::online_cpus().map_err(|(file, error)| anyhow!("could not read {file}: {error}"))
}

/// Structures of `common` that aya passes to or takes from the kernel as bytes.
#[derive(Clone, Copy)]
#[repr(transparent)]
struct Shared<T>(T);

// SAFETY: both are `#[repr(C)]` structures of `u64`s: any bytes are valid, and there is no padding.
unsafe impl Pod for Shared<TaskOffsets> {}
// SAFETY: as above.
unsafe impl Pod for Shared<CpuStats> {}
// SAFETY: a `#[repr(C)]` structure of integers: any bytes are valid, and its size leaves no room for padding.
unsafe impl Pod for Shared<Sleeper> {}
// SAFETY: as above.
unsafe impl Pod for Shared<RuntimeLayout> {}
// SAFETY: as above.
unsafe impl Pod for Shared<ThreadLocals> {}
// SAFETY: as above.
unsafe impl Pod for Shared<ReturnKey> {}
// SAFETY: as above.
unsafe impl Pod for Shared<OpenPolls> {}
// SAFETY: as above.
unsafe impl Pod for Shared<Allowance> {}

/// Programs that the kernel has accepted. Nothing is recorded yet.
pub struct Loaded {
    ebpf: Ebpf,
    rings: Rings,
    cpus: Vec<u32>,
    stacks: Stacks,
    /// None where polls are not to be told exactly; or why they can't be.
    polls: Option<Result<PollProbes, String>>,
    scope: Scope,
}

impl Loaded {
    /// Loads the programs.
    pub fn load(settings: &Settings) -> Result<Loaded> {
        let kernel = btf::Kernel::read()?;
        let offsets = Shared(kernel.offsets);
        let switch_tells_state = u32::from(kernel.switch_tells_state);
        let scope = settings.recorded.scope();
        let ids = settings.recorded.ids();
        let only = match ids[..] {
            [id] if !settings.follow_children => id,
            _ => 0,
        };
        let stream_slots = settings.stream_bytes / size_of::<Slot>() as u32;
        let stream_mask = stream_slots - 1;
        let follow_children = u32::from(settings.follow_children);
        let stacks = Stacks { user: possible(settings.stacks.user, &kernel), ..settings.stacks };
        let seed = settings.seed;
        let user_frames = u32::from(stacks.user != UserFrames::None);
        let kernel_frames = u32::from(stacks.kernel);
        let watch_sleep = u32::from(stacks.min_block.is_some());
        // All of them take memory from the beginning.
        let sleepers = if stacks.min_block.is_some() { MAX_SLEEPERS as u32 } else { 1 };
        let min_block_ns = stacks.min_block.unwrap_or_default().as_nanos() as u64;
        let sample_period_ns = stacks.period_ns();
        let tell_polls = u32::from(settings.polls != Polls::Off);
        let room_for = |limit: usize| if settings.polls == Polls::Off { 1 } else { limit as u32 };
        let btf = Btf::from_sys_fs().context("could not read the kernel's type information")?;
        let mut ebpf = EbpfLoader::new()
            .btf(Some(&btf))
            .override_global("TASK_OFFSETS", &offsets, true)
            .override_global("SCOPE", &(scope as u32), true)
            .override_global("STREAM_MASK", &stream_mask, true)
            .override_global("ONLY", &only, true)
            .override_global("FOLLOW_CHILDREN", &follow_children, true)
            .override_global("SWITCH_TELLS_STATE", &switch_tells_state, true)
            .override_global("STACK_SEED", &seed, true)
            .override_global("USER_FRAMES", &user_frames, true)
            .override_global("KERNEL_FRAMES", &kernel_frames, true)
            .override_global("WATCH_SLEEP", &watch_sleep, true)
            .override_global("MIN_BLOCK_NS", &min_block_ns, true)
            .override_global("SAMPLE_PERIOD_NS", &sample_period_ns, true)
            .override_global("POLLS", &tell_polls, true)
            .map_max_entries("SLEEPERS", sleepers)
            .map_max_entries("OPEN_POLLS", room_for(MAX_POLLING))
            .map_max_entries("RETURNS", room_for(MAX_RETURNS))
            .map_max_entries("ALLOWANCES", room_for(MAX_PROBED))
            .load(OBJECT)
            .context("the kernel did not take polletto's maps")?;
        let polls = match settings.polls {
            Polls::Off => None,
            Polls::Budget => Some(PollProbes::load(&mut ebpf).map_err(|error| format!("{error:#}"))),
            Polls::All => Some(Ok(PollProbes::load(&mut ebpf)?)),
        };
        let mut recorded = recorded(&mut ebpf)?;
        for id in ids {
            recorded.insert(id, 1, 0).with_context(|| format!("could not add {id} to what is recorded"))?;
        }
        let rings = Rings::create(&mut ebpf, &settings.cpus, &online_cpus()?, stream_slots, settings)?;
        for Attachment { tracepoint, program: name } in attachments(stacks.user) {
            program::<BtfTracePoint>(&mut ebpf, name)?
                .load(tracepoint, &btf)
                .with_context(|| format!("the kernel did not accept the program for {tracepoint}"))?;
        }
        if stacks.timer_hz.is_some() {
            program::<PerfEvent>(&mut ebpf, timer_program(stacks.user))?
                .load()
                .context("the kernel did not accept the program that takes samples")?;
        }
        program::<RawTracePoint>(&mut ebpf, "current")?
            .load()
            .context("the kernel did not accept the program that tells what runs")?;
        listing::load(&mut ebpf, &btf)?;
        Ok(Loaded { ebpf, rings, cpus: settings.cpus.clone(), stacks, polls, scope })
    }

    /// What the programs unwind by; none where they don't. Stacks can only be recorded once it tells what is mapped where.
    pub fn unwind_maps(&mut self) -> Result<Option<UnwindMaps>> {
        let by_tables = self.stacks.are_recorded() && self.stacks.user == UserFrames::ByTables;
        by_tables.then(|| UnwindMaps::take(&mut self.ebpf)).transpose()
    }

    /// By what the programs know what Tokio polls, and what `parking_lot` waits for.
    pub fn runtime_map(&mut self) -> Result<RuntimeMap> {
        RuntimeMap::take(&mut self.ebpf)
    }

    /// What is attached to where programs poll, or why nothing can be; none where that isn't wanted.
    pub fn take_poll_probes(&mut self) -> Option<Result<PollProbes, String>> {
        self.polls.take()
    }

    /// Records scheduling from now on.
    pub fn attach(mut self) -> Result<Attached> {
        let mut links = Vec::new();
        for Attachment { tracepoint, program: name } in attachments(self.stacks.user) {
            let program = program::<BtfTracePoint>(&mut self.ebpf, name)?;
            let id = program.attach().with_context(|| format!("could not attach to the tracepoint {tracepoint}"))?;
            links.push(program.take_link(id)?);
        }
        let Loaded { ebpf, rings, cpus, stacks, scope, .. } = self;
        let teller: &RawTracePoint = ebpf.program("current").context("no program `current`")?.try_into()?;
        for &cpu in &cpus {
            let options = RawTracePointRunOptions { cpu: Some(cpu), ..RawTracePointRunOptions::new() };
            teller.test_run(options).with_context(|| format!("could not ask CPU {cpu} what it runs"))?;
        }
        Ok(Attached { ebpf, rings, links, cpus, stacks, scope, timers: Vec::new() })
    }
}

/// Programs that record.
pub struct Attached {
    ebpf: Ebpf,
    rings: Rings,
    links: Vec<BtfTracePointLink>,
    timers: Vec<PerfEventLink>,
    cpus: Vec<u32>,
    stacks: Stacks,
    scope: Scope,
}

impl Attached {
    /// Records stacks too from now on.
    pub fn start_stacks(&mut self) -> Result<()> {
        let mut wanted: Array<&mut MapData, u32> =
            Array::try_from(self.ebpf.map_mut("SLEEPERS_WANTED").context("no map `SLEEPERS_WANTED`")?)?;
        wanted.set(0, 1, 0).context("could not tell the programs to begin")?;
        if let Some(hz) = self.stacks.timer_hz {
            let program = program::<PerfEvent>(&mut self.ebpf, timer_program(self.stacks.user))?;
            self.timers = timer::attach(program, &self.cpus, self.stacks.clock, hz)?;
        }
        Ok(())
    }

    /// Passes on what was recorded until shortly before now, in the order of time.
    pub fn drain(&mut self, now_ns: u64, take: impl FnMut(Taken)) -> Result<()> {
        self.rings.drain(now_ns, take)
    }

    /// Readable when a process's memory has changed, which should be learnt soon.
    pub fn memory_descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.rings.memory_descriptors()
    }

    /// The threads that exist now, all of the machine.
    pub fn list_tasks(&mut self) -> Result<Vec<Task>> {
        listing::list(&mut self.ebpf)
    }

    /// Takes a process that has ended out of the recording, before its id is given to another.
    pub fn forget_process(&mut self, process: Tgid) -> Result<()> {
        // The programs themselves forget threads, one of which may have the id by now.
        if self.scope == Scope::Processes {
            // It is not there where only one process is recorded.
            recorded(&mut self.ebpf)?.remove(&process.0).ok();
        }
        Ok(())
    }

    /// A worker thread shows this task while it polls nothing: switches in the middle of it are not told.
    pub fn set_own_task(&mut self, thread: Tid, task: u64) -> Result<()> {
        let map = self.ebpf.map_mut("OWN_TASKS").context("no map `OWN_TASKS`")?;
        let mut own: HashMap<&mut MapData, u32, u64> = HashMap::try_from(map)?;
        // Without room, what is told is left out later.
        own.insert(thread.0, task, 0).ok();
        Ok(())
    }

    /// Records no more.
    pub fn detach(self) -> Detached {
        drop(self.timers);
        drop(self.links);
        Detached { ebpf: self.ebpf, rings: self.rings, stacks: self.stacks }
    }
}

/// What the kernel programs counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    /// Records written.
    pub written: u64,
    /// Records for which there was no room.
    pub lost: u64,
    /// Children of recorded processes that were not followed because too many are recorded.
    pub unfollowed: u64,
    /// Times that a thread's sleep was not watched because too many threads sleep.
    pub untracked_sleeps: u64,
    /// Polls whose begin was seen, and whose end could not be or was not.
    pub polls_without_end: u64,
}

/// Programs that recorded.
pub struct Detached {
    ebpf: Ebpf,
    rings: Rings,
    stacks: Stacks,
}

impl Detached {
    /// Passes on the rest, and what was lost at the very end: nothing came after that to announce it.
    pub fn drain(&mut self, now_ns: u64, mut take: impl FnMut(Taken)) -> Result<()> {
        self.rings.drain_all(&mut take)?;
        for blocked in self.still_asleep(now_ns)? {
            take(Taken::Record(Record::Blocked(blocked)));
        }
        for (cpu, stats) in self.stats()?.into_iter().enumerate() {
            let channels = [
                (stats.stream, 0),
                (stats.tasks, flags::TASKS_LOST),
                (stats.samples, flags::SAMPLES_LOST),
                (stats.polls, flags::SAMPLES_LOST),
            ];
            for (channel, flags) in channels {
                let ChannelStats { unannounced: count, first_unannounced_ns: time_ns, .. } = channel;
                if count > 0 {
                    let header = Header { time_ns, kind: Lost::KIND, cpu: cpu as u16, flags };
                    take(Taken::Record(Record::Lost(Lost { header, until_ns: now_ns, count })));
                }
            }
        }
        Ok(())
    }

    /// Threads that had left their CPU to sleep long enough ago, and were not back at `now_ns`.
    fn still_asleep(&self, now_ns: u64) -> Result<Vec<Blocked>> {
        let Some(min_block) = self.stacks.min_block else { return Ok(Vec::new()) };
        let map = self.ebpf.map("SLEEPERS").context("no map `SLEEPERS`")?;
        let sleepers: HashMap<&MapData, u32, Shared<Sleeper>> = HashMap::try_from(map)?;
        let min_ns = min_block.as_nanos() as u64;
        let asleep = sleepers.iter().filter_map(|sleeper| {
            let (tid, Shared(sleeper)) = sleeper.ok()?;
            let is_asleep = sleeper.left_ns != 0 && now_ns.saturating_sub(sleeper.left_ns) >= min_ns;
            let header = Header { time_ns: now_ns, kind: Blocked::KIND, cpu: 0, flags: flags::STILL_ASLEEP };
            is_asleep.then_some(Blocked {
                header,
                stack: sleeper.stack,
                left_ns: sleeper.left_ns,
                woken_ns: 0,
                tid: Tid(tid),
                tgid: sleeper.tgid,
                waker_tid: Tid::IDLE,
                prev_state: sleeper.prev_state,
                system_call: sleeper.system_call,
                reserved: 0,
                argument: sleeper.argument,
                polled: sleeper.polled,
            })
        });
        Ok(asleep.collect())
    }

    /// What the programs counted, over all CPUs.
    pub fn counted(&self) -> Result<Counted> {
        Ok(self.stats()?.into_iter().fold(Counted::default(), |sum, cpu| Counted {
            written: sum.written + cpu.stream.written + cpu.tasks.written + cpu.samples.written + cpu.polls.written,
            lost: sum.lost + cpu.stream.lost + cpu.tasks.lost + cpu.samples.lost + cpu.polls.lost,
            unfollowed: sum.unfollowed + cpu.unfollowed,
            untracked_sleeps: sum.untracked_sleeps + cpu.untracked_sleeps,
            polls_without_end: sum.polls_without_end + cpu.polls_without_end,
        }))
    }

    /// In the order of CPUs.
    fn stats(&self) -> Result<Vec<CpuStats>> {
        let map = self.ebpf.map("STATS").context("no map `STATS`")?;
        let stats: PerCpuArray<&MapData, Shared<CpuStats>> = PerCpuArray::try_from(map)?;
        let per_cpu = stats.get(&0, 0).context("could not read the programs' counters")?;
        Ok(per_cpu.iter().map(|stats| stats.0).collect())
    }
}

fn program<'a, P>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut P>
where
    &'a mut P: TryFrom<&'a mut aya::programs::Program, Error = aya::programs::ProgramError>,
{
    let program = ebpf.program_mut(name).with_context(|| format!("no program `{name}`"))?;
    Ok(program.try_into()?)
}

fn recorded(ebpf: &mut Ebpf) -> Result<HashMap<&mut MapData, u32, u8>> {
    Ok(HashMap::try_from(ebpf.map_mut("RECORDED").context("no map `RECORDED`")?)?)
}
