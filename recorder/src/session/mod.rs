//! A recording's life: load → attach → record → stop → name → close.
//!
//! Two threads carry every record, besides the one that waits for the end: the [`pipeline`] drains the rings and turns
//! records into packets, and the trace's [`Output`](crate::trace::Output) compresses and writes them. What takes longer
//! than a ring can wait has a thread each, and is told of what has changed: [`unwinding`] tables, looking into files for
//! [`tasks`], [`probing`], [`walking`] lists of tasks, and reading what they are [`awaiting`].

mod awaiting;
mod calibration;
mod changes;
mod config;
mod digest;
mod ending;
mod every;
mod findings;
mod governor;
mod inspecting;
mod memory;
mod modules;
mod naming;
mod own_use;
mod pipeline;
mod polls;
mod preamble;
mod precedence;
mod probing;
mod reader;
mod running;
mod symbolizing;
mod tasks;
mod unwinding;
mod walking;

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result};

use self::{
    awaiting::Awaiting,
    digest::Sources,
    ending::Waiter,
    findings::Locator,
    memory::Memory,
    pipeline::{Finished, Pipeline},
    tasks::WantedProbes,
    walking::Walks,
};
pub use self::{
    awaiting::{AwaitSummary, AwaitedBy},
    config::{AwaitStacks, Config, Subject, default_ring_bytes},
    ending::{Ending, Signals},
    findings::{FindingSummary, LeftOut, Place},
    inspecting::{Inspection, LiveTask, inspect},
    memory::CodeSummary,
    modules::Unreadable,
    own_use::{NamingUse, OwnUse},
    polls::ProbeSummary,
    precedence::GivingWay,
    running::Progress,
    symbolizing::NameWriter,
    tasks::{TaskProgram, TaskSummary},
    walking::WalkSummary,
};
use crate::{
    kernel::{Counted, Loaded, Recorded, Settings},
    symbols::ModuleReport,
    target::{self, Held, Running, Watch},
    timeline::Seen,
    trace::{Output, TraceFile, Written},
};

/// How long the last records of the recorded processes are waited for after their end.
const LAST_RECORDS: Duration = Duration::from_millis(100);

/// What a recording came to.
#[derive(Debug)]
pub struct Outcome {
    /// The trace.
    pub file: PathBuf,
    /// Why it ended.
    pub ending: Ending,
    /// How long it lasted.
    pub lasted: Duration,
    /// What was seen.
    pub seen: Seen,
    /// What the kernel programs counted.
    pub kernel: Counted,
    /// Records that reached the timeline.
    pub records: u64,
    /// The file's size.
    pub written: Written,
    /// What became of the files whose code was mapped.
    pub code: CodeSummary,
    /// What is known of programs that poll tasks.
    pub tasks: TaskSummary,
    /// What became of walking their tasks; none where that was not wanted.
    pub walks: Option<WalkSummary>,
    /// What became of reading what they await; none where that was not wanted.
    pub awaits: Option<AwaitSummary>,
    /// What was found to be wrong; none where nothing was looked for.
    pub findings: Option<FindingSummary>,
    /// How the functions of each of them were named.
    pub names: Vec<ModuleReport>,
    /// The recorder's own use of the machine.
    pub own_use: OwnUse,
    /// What naming took besides.
    pub naming_use: NamingUse,
    /// The command that was launched, still to be waited for.
    pub command: Option<Running>,
}

/// Someone who is told how a recording goes.
pub trait Observer {
    /// Everything is attached: from now on nothing is missed.
    fn recording(&mut self, file: &Path);
    /// Called several times a second.
    fn progress(&mut self, progress: &Progress);
    /// Called while functions are named, when so many of all addresses have been looked up.
    fn naming(&mut self, done: u64, of: u64);
}

/// Records until the end.
///
/// An error means that the recording failed; what was recorded until then is in the file, if there was anything.
pub fn record(config: &Config, signals: &mut Signals, observer: &mut dyn Observer) -> Result<Outcome> {
    let held = match &config.subject {
        Subject::Command(command) => Some(Held::launch(command)?),
        _ => None,
    };
    let processes = config.subject.processes(held.as_ref())?;
    // A target that does not exist is an error, even if its end is not the recording's.
    let targets = Watch::new(&processes)?;
    let watch = if config.ends_with_threads() { Watch::new(&[])? } else { targets };
    let mut loaded = Loaded::load(&Settings {
        recorded: match &config.subject {
            Subject::System => Recorded::System,
            Subject::Threads(threads) => Recorded::Threads(threads.clone()),
            Subject::Processes(_) if config.follow_children => {
                Recorded::Processes(target::with_descendants(&processes)?)
            }
            Subject::Processes(_) | Subject::Command(_) => Recorded::Processes(processes.clone()),
        },
        follow_children: config.follow_children,
        cpus: config.cpus.clone(),
        stream_bytes: config.ring_bytes,
        stacks: config.stacks,
        polls: config.polls,
        seed: preamble::random_number().context("could not read a random number")? as u64,
    })?;
    // Without stacks it is not known which programs poll tasks.
    let walks = config.task_walk.filter(|_| config.stacks.need_mappings()).map(|_| Walks::start()).transpose()?;
    // Who walks tells which processes have tasks.
    let awaiting = walks.is_some().then(|| Awaiting::new(config.await_stacks)).flatten();
    let news = walks.as_ref().map(Walks::news);
    let probes = loaded.take_poll_probes().map(|probes| WantedProbes { probes, budget: config.budget() });
    let mut memory = Memory::new(loaded.unwind_maps()?, loaded.runtime_map()?, probes, news)?;
    match (&config.subject, &held) {
        (Subject::Command(command), Some(held)) => memory.prepare_command(&command[0], held.tgid()),
        _ => memory.prepare(&processes),
    }
    let path = config.file_for(&processes);
    let file = TraceFile::create(&path, config.overwrite)?;
    let (pipeline, command) =
        begin(config, loaded, Sources { memory, walks, awaiting }, file, held).inspect_err(|_| {
            // Nothing was recorded. That the file can't be removed matters less than why.
            std::fs::remove_file(&path).ok();
        })?;
    let running = pipeline.start()?;
    observer.recording(&path);
    let mut waiter = Waiter { watch, signals: &mut *signals, ended: running.ended(), duration: config.duration };
    let ending = waiter.wait(running.progress(), observer)?;
    running.stop(if ending == Ending::TargetsExited { LAST_RECORDS } else { Duration::ZERO });
    waiter.wait_for_pipeline()?;
    let Finished { lasted, seen, kernel, records, code, tasks, walks, awaits, mut findings, requests, refused, output } =
        running
            .join()
            .with_context(|| format!("the recording failed; {} holds what was recorded until then", path.display()))?;
    let (names, naming_use) = own_use::of_naming(|peak_memory_bytes| match &config.symbols {
        Some(options) => {
            let locator = findings.as_mut().map(|findings| Locator::new(findings, &config.categories));
            naming::name(requests, options, &output, signals, observer, locator, peak_memory_bytes)
        }
        None => {
            findings.iter_mut().for_each(FindingSummary::put_together);
            Ok(Vec::new())
        }
    });
    let written = output.close().context("could not write the trace")?;
    let mut names = names.with_context(|| format!("{} holds what was recorded, without all names", path.display()))?;
    if config.symbols.is_some() {
        names.extend(refused);
    }
    let own_use = OwnUse::now()?;
    Ok(Outcome {
        file: path,
        ending,
        lasted,
        seen,
        kernel,
        records,
        written,
        code,
        tasks,
        walks,
        awaits,
        findings,
        names,
        own_use,
        naming_use,
        command,
    })
}

/// Attaches everything, writes what is known from the start, and only then lets a launched command begin.
fn begin(
    config: &Config,
    loaded: Loaded,
    sources: Sources,
    file: TraceFile,
    held: Option<Held>,
) -> Result<(Pipeline, Option<Running>)> {
    let output = Output::start(file, config.compression).context("could not start the thread that writes")?;
    let clocks = preamble::clocks();
    let pipeline = Pipeline::begin(loaded.attach()?, sources, output, config, clocks)?;
    let command = held.map(Held::release).transpose()?;
    Ok((pipeline, command))
}
