//! What the programs are loaded with.

use std::time::Duration;

use clap::ValueEnum;
use polletto_common::{
    id::{Tgid, Tid},
    scope::Scope,
};

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
    pub(super) fn scope(&self) -> Scope {
        match self {
            Recorded::System => Scope::System,
            Recorded::Processes(_) => Scope::Processes,
            Recorded::Threads(_) => Scope::Threads,
        }
    }

    pub(super) fn ids(&self) -> Vec<u32> {
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
    /// Bytes of each CPU's stream: a power of two, at least a page. The ring for samples has half of it.
    pub stream_bytes: u32,
    /// Which stacks are recorded.
    pub stacks: Stacks,
    /// Which polls are told exactly.
    pub polls: Polls,
    /// A random number, so that no program can foresee the ids of its stacks.
    pub seed: u64,
}

impl Settings {
    /// Whether samples, stacks or polls are recorded.
    pub(super) fn needs_sample_rings(&self) -> bool {
        self.stacks.are_recorded() || self.polls != Polls::Off
    }

    /// Whether it must be known what the processes have mapped.
    pub(super) fn needs_mappings(&self) -> bool {
        self.stacks.need_mappings() || self.polls != Polls::Off
    }
}

/// Which polls are told exactly, by code of the recorded programs that is patched while they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Polls {
    /// None; of those that samples and switches find it is told how long they lasted at least
    Off,
    /// All, as long as that takes no more of a program's time than --budget allows; else some of the time
    #[default]
    Budget,
    /// All, whatever that takes
    All,
}

/// Which stacks are recorded, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stacks {
    /// How often each CPU is asked what it runs, times a second.
    pub timer_hz: Option<u32>,
    /// What counts for that.
    pub clock: SamplingClock,
    /// The shortest stretch of sleep that is told.
    pub min_block: Option<Duration>,
    /// The program's part of a stack.
    pub user: UserFrames,
    /// The kernel's part of a stack is wanted.
    pub kernel: bool,
}

/// What drives the timer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum SamplingClock {
    /// The kernel's timer: each sample stands for the same time
    #[default]
    Software,
    /// The CPU's cycle counter, which also sees code that runs with interrupts off; where the CPU is partly idle or changes
    /// its speed, a sample's weight is only an estimate
    Cycles,
}

/// How the program's part of a stack is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UserFrames {
    /// It is not wanted.
    None,
    /// By tables, and by frame pointers where there is no table.
    ByTables,
    /// By frame pointers alone.
    ByFramePointers,
}

impl Stacks {
    /// Whether any are recorded.
    pub fn are_recorded(&self) -> bool {
        self.timer_hz.is_some() || self.min_block.is_some()
    }

    /// Whether it must be known what the processes have mapped.
    pub fn need_mappings(&self) -> bool {
        self.are_recorded() && self.user != UserFrames::None
    }

    /// Nanoseconds of running time that a sample of the timer stands for.
    pub(super) fn period_ns(&self) -> u64 {
        self.timer_hz.map_or(0, |hz| 1_000_000_000 / u64::from(hz))
    }
}
