//! The kernel side of a recording: programs, what they are told, and the rings that they fill.
//!
//! A recording is [`Loaded`] (checked by the kernel, recording nothing), then [`Attached`], then [`Detached`]: there is
//! no other order. This is the only room that talks to aya.

mod btf;
mod merge;
mod rings;
mod stream;

use std::io::Read;

use anyhow::{Context, Result, anyhow};
use aya::{
    Btf, Ebpf, EbpfLoader, Pod,
    maps::{HashMap, MapData, PerCpuArray},
    programs::{BtfTracePoint, Iter, RawTracePoint, RawTracePointRunOptions, TestRun, tp_btf::BtfTracePointLink},
};
use polletto_common::{
    id::{Tgid, Tid},
    offsets::TaskOffsets,
    record::{Header, Layout, Lost, Record, Task, flags},
    scope::Scope,
    stats::{ChannelStats, CpuStats},
    stream::Slot,
};

use self::rings::Rings;

/// The kernel programs, compiled by this crate's build script.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/polletto-ebpf.o"));

/// Entry points and the tracepoints that they are attached to, in the order in which they are attached: a thread's
/// beginning is never missed once its switches are seen.
const TRACEPOINTS: [&str; 6] =
    ["sched_process_fork", "sched_process_exec", "sched_process_exit", "task_rename", "sched_waking", "sched_switch"];

/// The CPUs that can run threads now.
pub fn online_cpus() -> Result<Vec<u32>> {
    aya::util::online_cpus().map_err(|(file, error)| anyhow!("could not read {file}: {error}"))
}

/// What is recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Recorded {
    /// Every thread of the machine.
    System,
    /// These processes, and perhaps their children.
    Processes(Vec<Tgid>),
    /// These threads, and perhaps their children.
    Threads(Vec<Tid>),
}

impl Recorded {
    fn scope(&self) -> Scope {
        match self {
            Recorded::System => Scope::System,
            Recorded::Processes(_) => Scope::Processes,
            Recorded::Threads(_) => Scope::Threads,
        }
    }

    fn ids(&self) -> Vec<u32> {
        match self {
            Recorded::System => Vec::new(),
            Recorded::Processes(processes) => processes.iter().map(|process| process.0).collect(),
            Recorded::Threads(threads) => threads.iter().map(|thread| thread.0).collect(),
        }
    }
}

/// What the programs are loaded with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// What is recorded from the beginning.
    pub recorded: Recorded,
    /// Children of recorded processes are recorded too.
    pub follow_children: bool,
    /// The CPUs whose records are wanted.
    pub cpus: Vec<u32>,
    /// Bytes of each CPU's stream: a power of two, at least a page.
    pub stream_bytes: u32,
}

/// Structures of `common` that aya passes to or takes from the kernel as bytes.
#[derive(Clone, Copy)]
#[repr(transparent)]
struct Shared<T>(T);

// SAFETY: both are `#[repr(C)]` structures of `u64`s: any bytes are valid, and there is no padding.
unsafe impl Pod for Shared<TaskOffsets> {}
// SAFETY: as above.
unsafe impl Pod for Shared<CpuStats> {}

/// Programs that the kernel has accepted. Nothing is recorded yet.
pub struct Loaded {
    ebpf: Ebpf,
    rings: Rings,
    cpus: Vec<u32>,
}

impl Loaded {
    /// Loads the programs.
    pub fn load(settings: &Settings) -> Result<Loaded> {
        let offsets = Shared(btf::task_offsets()?);
        let scope = settings.recorded.scope() as u32;
        let ids = settings.recorded.ids();
        let only = match ids[..] {
            [id] if !settings.follow_children => id,
            _ => 0,
        };
        let stream_slots = settings.stream_bytes / size_of::<Slot>() as u32;
        let stream_mask = stream_slots - 1;
        let follow_children = u32::from(settings.follow_children);
        let btf = Btf::from_sys_fs().context("could not read the kernel's type information")?;
        let mut ebpf = EbpfLoader::new()
            .btf(Some(&btf))
            .override_global("TASK_OFFSETS", &offsets, true)
            .override_global("SCOPE", &scope, true)
            .override_global("STREAM_MASK", &stream_mask, true)
            .override_global("ONLY", &only, true)
            .override_global("FOLLOW_CHILDREN", &follow_children, true)
            .load(OBJECT)
            .context("the kernel did not take polletto's maps")?;
        let mut recorded = recorded(&mut ebpf)?;
        for id in ids {
            recorded.insert(id, 1, 0).with_context(|| format!("could not add {id} to what is recorded"))?;
        }
        let rings = Rings::create(&mut ebpf, &settings.cpus, &online_cpus()?, stream_slots)?;
        for name in TRACEPOINTS {
            program::<BtfTracePoint>(&mut ebpf, name)?
                .load(name, &btf)
                .with_context(|| format!("the kernel did not accept the program for {name}"))?;
        }
        program::<RawTracePoint>(&mut ebpf, "current")?
            .load()
            .context("the kernel did not accept the program that tells what runs")?;
        program::<Iter>(&mut ebpf, "tasks")?
            .load("task", &btf)
            .context("the kernel did not accept the program that lists threads")?;
        Ok(Loaded { ebpf, rings, cpus: settings.cpus.clone() })
    }

    /// Records from now on.
    pub fn attach(mut self) -> Result<Attached> {
        let mut links = Vec::new();
        for name in TRACEPOINTS {
            let program = program::<BtfTracePoint>(&mut self.ebpf, name)?;
            let id = program.attach().with_context(|| format!("could not attach to the tracepoint {name}"))?;
            links.push(program.take_link(id)?);
        }
        let attached = Attached { ebpf: self.ebpf, rings: self.rings, links };
        let teller: &RawTracePoint = attached.ebpf.program("current").context("no program `current`")?.try_into()?;
        for cpu in self.cpus {
            let options = RawTracePointRunOptions { cpu: Some(cpu), ..RawTracePointRunOptions::new() };
            teller.test_run(options).with_context(|| format!("could not ask CPU {cpu} what it runs"))?;
        }
        Ok(attached)
    }
}

/// Programs that record.
pub struct Attached {
    ebpf: Ebpf,
    rings: Rings,
    links: Vec<BtfTracePointLink>,
}

impl Attached {
    /// Passes on what was recorded until shortly before now, in the order of time.
    pub fn drain(&mut self, now_ns: u64, take: impl FnMut(&Record)) -> Result<()> {
        self.rings.drain(now_ns, take)
    }

    /// The threads that exist now, all of the machine.
    pub fn list_tasks(&mut self) -> Result<Vec<Task>> {
        let program = program::<Iter>(&mut self.ebpf, "tasks")?;
        let id = program.attach().context("could not list threads")?;
        let mut bytes = Vec::new();
        program.take_link(id)?.into_file()?.read_to_end(&mut bytes).context("could not list threads")?;
        bytes
            .chunks_exact(size_of::<Task>())
            .map(|chunk| match Record::decode(chunk)? {
                Record::Task(task) => Ok(task),
                other => anyhow::bail!("the list of threads holds {other:?}"),
            })
            .collect()
    }

    /// Takes a process that has ended out of the recording, before its id is given to another.
    pub fn forget_process(&mut self, process: Tgid) -> Result<()> {
        // It is not there when the recording is about threads or the whole machine.
        recorded(&mut self.ebpf)?.remove(&process.0).ok();
        Ok(())
    }

    /// Records no more.
    pub fn detach(self) -> Detached {
        drop(self.links);
        Detached { ebpf: self.ebpf, rings: self.rings }
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
}

/// Programs that recorded.
pub struct Detached {
    ebpf: Ebpf,
    rings: Rings,
}

impl Detached {
    /// Passes on the rest, and what was lost at the very end: nothing came after that to announce it.
    pub fn drain(&mut self, now_ns: u64, mut take: impl FnMut(&Record)) -> Result<()> {
        self.rings.drain_all(&mut take)?;
        for (cpu, stats) in self.stats()?.into_iter().enumerate() {
            for (channel, flags) in [(stats.stream, 0), (stats.tasks, flags::TASKS_LOST)] {
                let ChannelStats { unannounced: count, first_unannounced_ns: time_ns, .. } = channel;
                if count > 0 {
                    let header = Header { time_ns, kind: Lost::KIND, cpu: cpu as u16, flags };
                    take(&Record::Lost(Lost { header, until_ns: now_ns, count }));
                }
            }
        }
        Ok(())
    }

    /// What the programs counted, over all CPUs.
    pub fn counted(&self) -> Result<Counted> {
        Ok(self.stats()?.into_iter().fold(Counted::default(), |sum, CpuStats { stream, tasks, unfollowed }| Counted {
            written: sum.written + stream.written + tasks.written,
            lost: sum.lost + stream.lost + tasks.lost,
            unfollowed: sum.unfollowed + unfollowed,
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
