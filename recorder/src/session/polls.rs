//! Probes in recorded programs, which tell when each poll begins and ends.
//!
//! Where polls begin, a program's vtables tell. Where they return to is learnt from the first that do: until there is a
//! probe behind that address too, polls from it are not told. Probes take the program's time, so they are there only in
//! windows that its [`Account`] pays for.

mod attaching;
mod checking;
mod estimate;
mod file;
mod process;
mod summary;
mod wakes;
mod windows;

use std::{
    sync::{Arc, mpsc::Sender},
    time::Duration,
};

use polletto_common::id::Tgid;
use rustc_hash::FxHashMap;

pub use self::summary::ProbeSummary;
use self::{
    file::Polling,
    process::{Closing, Probed, Window},
};
use super::{
    calibration::{self, ProbeCost},
    changes::Code,
    governor::{Budget, SOON},
    modules::ModuleFile,
    own_use::thread_cpu_ns,
};
use crate::{families::ProbedCode, kernel::PollProbes, timeline::PollNews};

/// Attaches probes to processes that poll tasks.
pub struct Probing {
    probes: PollProbes,
    budget: Budget,
    /// Who is told when polls are not observed.
    news: Sender<PollNews>,
    /// By [`ModuleFile::index`].
    files: FxHashMap<usize, Polling>,
    processes: FxHashMap<Tgid, Probed>,
    /// What [`PollProbes::new_returns`] was when it was looked at last.
    returns_seen: u64,
    /// Something was learnt then, which often leads to more.
    learns: bool,
    summary: ProbeSummary,
    /// Whether probes tell of all threads; none before it was tried.
    tell_of_all: Option<bool>,
}

impl Probing {
    pub fn new(probes: PollProbes, budget: Budget, news: Sender<PollNews>) -> Probing {
        Probing {
            probes,
            budget,
            news,
            files: FxHashMap::default(),
            processes: FxHashMap::default(),
            returns_seen: 0,
            learns: false,
            summary: ProbeSummary::default(),
            tell_of_all: None,
        }
    }

    /// This file's code polls.
    pub fn knows(&mut self, file: Arc<ModuleFile>, code: Vec<ProbedCode>) {
        // Most files are known before anything is recorded, so that nobody waits for this.
        let tell_of_all = *self.tell_of_all.get_or_insert_with(|| {
            self.summary.cost = ProbeCost::measured(&self.probes);
            // Where it can't be tried, nothing else can be attached either, which is told.
            calibration::tell_of_all_threads(&mut self.probes).unwrap_or(true)
        });
        if !tell_of_all {
            return self
                .summary
                .refuse(1, "this kernel's probes tell of a program's first thread alone, until Linux 6.10");
        }
        let polling = Polling { file, code };
        polling.refusals().for_each(|reason| self.summary.refuse(1, &reason));
        self.files.insert(polling.file.index, polling);
    }

    /// A process has code of files that poll, since then.
    pub fn add(&mut self, process: Tgid, since_ns: u64, code: &Code) {
        let Some(polling) = code.file.as_ref().and_then(|file| self.files.get(&file.index)) else { return };
        let probed = self.processes.entry(process).or_insert_with(|| Probed::new(self.budget, since_ns));
        if probed.files.iter().any(|(known, _)| known.addresses == code.addresses) {
            return;
        }
        let wanted = polling.wanted(code);
        let is_first = probed.files.is_empty();
        probed.files.push((code.clone(), Vec::new()));
        if is_first {
            self.open(process);
        }
        let began_ns = thread_cpu_ns();
        self.attach(process, code, wanted);
        self.charge(process, thread_cpu_ns() - began_ns);
        if is_first {
            self.opened(process);
        }
    }

    /// A process began as a copy of another. Its memory has the probes too, which tell nothing until they are attached there.
    pub fn copied(&mut self, from: Tgid, to: Tgid, since_ns: u64) {
        self.forget(to);
        let files = self.processes.get(&from).map(|probed| probed.files.as_slice()).unwrap_or_default();
        let code: Vec<Code> = files.iter().map(|(code, _)| code.clone()).collect();
        code.iter().for_each(|code| self.add(to, since_ns, code));
    }

    /// Whether what is known of a process's code is among this.
    pub fn fits(&self, process: Tgid, code: &[Code]) -> bool {
        let Some(probed) = self.processes.get(&process) else { return true };
        probed.files.iter().all(|(known, _)| {
            code.iter().any(|now| {
                let same_file = known.file.as_ref().map(|file| file.index) == now.file.as_ref().map(|file| file.index);
                same_file && known.addresses == now.addresses && known.bias == now.bias
            })
        })
    }

    /// When to call [`Probing::look`]; never while no process polls.
    pub fn next_look(&self) -> Option<Duration> {
        let next = self.processes.values().map(Probed::next_look).min();
        if self.learns { next.map(|next| next.min(SOON)) } else { next }
    }

    /// Learns where polls return to, and lets every process have what it can pay for.
    pub fn look(&mut self) {
        self.learn();
        let mut processes: Vec<Tgid> = self.processes.keys().copied().collect();
        processes.sort_unstable();
        for process in processes {
            let taken = self.settle(process);
            let Some(probed) = self.processes.get(&process) else { continue };
            match &probed.window {
                Window::Open(_) => match probed.account.left_ns().filter(|_| taken.over_ns.is_none()) {
                    None => self.begin_to_close(process, taken, Closing::Budget),
                    Some(left_ns) if taken.cpus > 0 || probed.granted.is_outgrown(left_ns) => {
                        self.grant(process, left_ns, taken.cpus);
                    }
                    Some(_) => {}
                },
                Window::Closing(removing) if removing.is_finished() => self.finish_closing(process),
                Window::Closed if probed.account.is_full() => self.reopen(process),
                Window::Closing(_) | Window::Closed => {}
            }
        }
    }

    /// The process has ended, or begins another program.
    pub fn forget(&mut self, process: Tgid) {
        self.begin_to_end(process);
        self.finish_closing(process);
        if let Some(probed) = self.processes.remove(&process) {
            self.summary.estimate(probed.taking.budget_for_all(self.budget));
            self.probes.forget(process);
        }
    }

    /// Removes all probes.
    pub fn stop(&mut self) {
        let processes: Vec<Tgid> = self.processes.keys().copied().collect();
        // All at once, since each takes a while.
        processes.iter().for_each(|&process| self.begin_to_end(process));
        processes.iter().for_each(|&process| self.finish_closing(process));
        for (_, probed) in self.processes.drain() {
            self.summary.estimate(probed.taking.budget_for_all(self.budget));
        }
        self.files.clear();
    }

    /// What became of it all.
    pub fn summary(&self) -> ProbeSummary {
        self.summary.clone()
    }

    fn tell(&self, news: PollNews) {
        // Who drains the rings may have ended.
        self.news.send(news).ok();
    }
}
