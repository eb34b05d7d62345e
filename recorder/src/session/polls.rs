//! Probes in recorded programs, which tell when each poll begins and ends.
//!
//! Where polls begin, a program's vtables tell. Where they return to is learnt from the first that do: until there is a
//! probe behind that address too, polls from it are not told. Probes take the program's time, so they are there only in
//! windows that its [`Account`] pays for.

mod checking;
mod estimate;
mod file;
mod process;
mod summary;
mod wakes;

use std::{
    fs::File,
    sync::{Arc, mpsc::Sender},
    time::Duration,
};

use polletto_common::{
    id::Tgid,
    poll::{Allowance, ReturnKey, Site, Way},
    record::flags,
};
use rustc_hash::{FxHashMap, FxHashSet};

pub use self::summary::ProbeSummary;
use self::{
    checking::Checking,
    file::Polling,
    process::{Closing, Probed, Taken, Wanted, Window, given_away},
};
use super::{
    calibration::ProbeCost,
    changes::Code,
    governor::{Budget, SOON},
    modules::ModuleFile,
    own_use::thread_cpu_ns,
    preamble::boottime_ns,
};
use crate::{
    code::AfterReturn,
    families::ProbedCode,
    kernel::{PollLink, PollProbes},
    target::image::{Bytes, Contents},
    timeline::{PollNews, Unobserved},
};

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
        }
    }

    /// This file's code polls.
    pub fn knows(&mut self, file: Arc<ModuleFile>, code: Vec<ProbedCode>) {
        // Most files are known before anything is recorded, so that nobody waits for this.
        if self.summary.cost == ProbeCost::default() {
            self.summary.cost = ProbeCost::measured(&self.probes);
        }
        let polling = Polling { file, code };
        polling.refusals().for_each(|reason| self.summary.refuse(1, &reason));
        self.files.insert(polling.file.index, polling);
    }

    /// A process has code of files that poll.
    pub fn add(&mut self, process: Tgid, code: &Code) {
        let Some(polling) = code.file.as_ref().and_then(|file| self.files.get(&file.index)) else { return };
        let probed = self.processes.entry(process).or_insert_with(|| Probed::new(self.budget));
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
    pub fn copied(&mut self, from: Tgid, to: Tgid) {
        self.forget(to);
        let files = self.processes.get(&from).map(|probed| probed.files.as_slice()).unwrap_or_default();
        let code: Vec<Code> = files.iter().map(|(code, _)| code.clone()).collect();
        code.iter().for_each(|code| self.add(to, code));
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

    /// Attaches probes to where polls have been seen to return.
    fn learn(&mut self) {
        // If that can't be read, nothing is learnt, and the summary tells of polls without an end.
        let count = self.probes.new_returns().unwrap_or(self.returns_seen);
        self.learns = count != self.returns_seen;
        if !self.learns {
            return;
        }
        self.returns_seen = count;
        for key in self.probes.unknown_returns() {
            self.follow(key);
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

    /// A process may have probes from now on. They tell nothing yet, but what they take counts.
    fn open(&mut self, process: Tgid) {
        let Some(probed) = self.processes.get_mut(&process) else { return };
        probed.window = Window::Open(Vec::new());
        self.allow(process, Allowance { over_ns: boottime_ns(), ..Allowance::default() });
    }

    /// A process has its probes from now on. Attaching them took a while.
    fn opened(&mut self, process: Tgid) {
        self.settle(process);
        let Some(probed) = self.processes.get_mut(&process) else { return };
        probed.account.open();
        let left_ns = probed.account.left_ns().unwrap_or_default();
        self.grant(process, left_ns, 0);
        let now_ns = boottime_ns();
        self.unobserved_until(process, now_ns);
        if let Some(probed) = self.processes.get_mut(&process) {
            probed.since_ns = now_ns;
            probed.taking.begin(now_ns);
        }
        self.tell(PollNews::ObservedFrom { process, time_ns: now_ns });
    }

    /// Attaches a process's probes again.
    fn reopen(&mut self, process: Tgid) {
        let began_ns = thread_cpu_ns();
        self.open(process);
        let Some(probed) = self.processes.get_mut(&process) else { return };
        let files = std::mem::take(&mut probed.files);
        probed.files = files.iter().map(|(code, _)| (code.clone(), Vec::new())).collect();
        for (code, wanted) in files {
            self.attach(process, &code, wanted);
        }
        self.charge(process, thread_cpu_ns() - began_ns);
        self.opened(process);
    }

    /// Attaching or removing a process's probes has taken so much, which is no less the machine's time than what they take.
    fn charge(&mut self, process: Tgid, cpu_ns: u64) {
        self.summary.attaching_ns += cpu_ns;
        if let Some(probed) = self.processes.get_mut(&process) {
            probed.account.spend(boottime_ns(), cpu_ns);
        }
    }

    /// Lets a process's probes take so much until the next look. Until now they were reached on so many CPUs, or on none.
    fn grant(&mut self, process: Tgid, left_ns: u64, cpus: usize) {
        let Some(probed) = self.processes.get_mut(&process) else { return };
        probed.granted = probed.granted.next(left_ns, cpus);
        let granted_ns = if self.budget == Budget::Unlimited { u64::MAX } else { probed.granted.on_each_ns() };
        self.allow(process, Allowance { granted_ns, ..Allowance::default() });
    }

    fn allow(&mut self, process: Tgid, allowance: Allowance) {
        let ProbeCost { trap_ns, step_ns } = self.summary.cost;
        let allowance = Allowance { trap_ns, step_ns, ..allowance };
        if let Err(error) = self.probes.allow(process, allowance) {
            // Its probes tell nothing.
            self.summary.refuse(1, &format!("{error:#}"));
        }
    }

    /// Accounts for what a process's probes have taken since the last time. Those that it has now are granted something again
    /// by whoever calls this.
    fn settle(&mut self, process: Tgid) -> Taken {
        let on_cpus = self.probes.taken(process);
        let over_ns = on_cpus.iter().map(|taken| taken.over_ns).filter(|&over_ns| over_ns != 0).min();
        let (hits, spent_ns) =
            on_cpus.iter().fold((0, 0), |(hits, spent), taken| (hits + taken.hits, spent + taken.spent_ns));
        self.summary.hits += hits;
        self.summary.spent_ns += spent_ns;
        let Some(probed) = self.processes.get_mut(&process) else { return Taken::default() };
        probed.account.spend(boottime_ns(), spent_ns);
        probed.taking.spend(spent_ns);
        if hits > 0 && !matches!(probed.window, Window::Open(_)) {
            let over_ns = probed.since_ns;
            self.allow(process, Allowance { over_ns, ..Allowance::default() });
        }
        Taken { cpus: on_cpus.len(), over_ns }
    }

    /// From now on, or from when it had spent everything, nothing is told of a process. Removing its probes takes a while.
    fn begin_to_close(&mut self, process: Tgid, taken: Taken, closing: Closing) {
        let Some(probed) = self.processes.get_mut(&process) else { return };
        if !matches!(probed.window, Window::Open(_)) {
            return;
        }
        let Window::Open(links) = std::mem::replace(&mut probed.window, Window::Closed) else { return };
        // Everything may have been spent just when it was granted.
        let over_ns = taken.over_ns.unwrap_or_else(boottime_ns).max(probed.since_ns);
        self.summary.observed_ns += over_ns.saturating_sub(probed.since_ns);
        probed.taking.end(boottime_ns(), closing == Closing::Budget);
        probed.since_ns = over_ns;
        probed.why = Unobserved::Budget;
        probed.places.clear();
        self.tell(PollNews::ObservedUntil { process, time_ns: over_ns });
        self.allow(process, Allowance { over_ns, ..Allowance::default() });
        let given = given_away(process, &self.probes.open_with_worker(process));
        if let Some(probed) = self.processes.get_mut(&process) {
            probed.given = given;
        }
        // Meanwhile other processes may have nothing left either. Without a thread, they have to wait.
        let removing = std::thread::Builder::new().name("polletto-unprobe".to_owned()).spawn(move || {
            drop(links);
            thread_cpu_ns()
        });
        match (removing, self.processes.get_mut(&process)) {
            (Ok(removing), Some(probed)) => probed.window = Window::Closing(removing),
            _ => self.closed(process),
        }
    }

    /// A process's probes are gone, or will be when this returns.
    fn finish_closing(&mut self, process: Tgid) {
        let Some(probed) = self.processes.get_mut(&process) else { return };
        if let Window::Closing(removing) = std::mem::replace(&mut probed.window, Window::Closed) {
            // It does nothing that could panic.
            let cpu_ns = removing.join().unwrap_or_default();
            self.charge(process, cpu_ns);
            self.closed(process);
        }
    }

    /// A process's probes are gone.
    fn closed(&mut self, process: Tgid) {
        self.settle(process);
        let Some(probed) = self.processes.get_mut(&process) else { return };
        probed.account.closed();
        let given = std::mem::take(&mut probed.given);
        let mut polls = self.probes.take_open(process, probed.since_ns);
        for poll in polls.iter_mut().filter(|poll| given.contains(&(poll.tid, poll.polled.tick))) {
            poll.header.flags |= flags::WORKER_GONE;
        }
        self.tell(PollNews::StillPolling(polls));
    }

    /// A process is of no interest any more. Its probes are removed if it has any; else it had none until now.
    fn begin_to_end(&mut self, process: Tgid) {
        let taken = self.settle(process);
        match self.processes.get(&process).map(|probed| &probed.window) {
            Some(Window::Open(_)) => self.begin_to_close(process, taken, Closing::End),
            Some(Window::Closing(_) | Window::Closed) => self.unobserved_until(process, boottime_ns()),
            None => {}
        }
    }

    /// A process without probes gets them now, or is of no interest any more.
    fn unobserved_until(&mut self, process: Tgid, until_ns: u64) {
        let Some(&Probed { since_ns, why, .. }) = self.processes.get(&process) else { return };
        if until_ns > since_ns {
            self.summary.unobserved_ns += until_ns - since_ns;
            self.tell(PollNews::Unobserved { process, since_ns, until_ns, why });
        }
    }

    fn tell(&self, news: PollNews) {
        // Who drains the rings may have ended.
        self.news.send(news).ok();
    }

    /// Attaches a probe behind an address that polls return to.
    fn follow(&mut self, key: ReturnKey) {
        let Some(probed) = self.processes.get(&key.tgid) else { return };
        if probed.refused.contains(&key.address) {
            return;
        }
        if let Err(reason) = self.try_follow(key) {
            if let Some(probed) = self.processes.get_mut(&key.tgid) {
                probed.refused.insert(key.address);
            }
            if let Some(reason) = reason {
                self.summary.refuse(1, &format!("where polls return to: {reason}"));
            }
        }
    }

    /// The reason may have been told.
    fn try_follow(&mut self, key: ReturnKey) -> Result<(), Option<String>> {
        let mut files = self.processes[&key.tgid].files.iter().map(|(code, _)| code);
        let code = files.find(|code| code.addresses.contains(&key.address)).cloned();
        let code = code.ok_or_else(|| Some("it is in a file that polls nothing itself".to_owned()))?;
        let polling = code.file.as_ref().and_then(|file| self.files.get(&file.index)).ok_or(None)?;
        match polling.after_return(&code, key.address)? {
            AfterReturn::Outwards { bytes } => {
                self.probes.set_way(key, Way::outwards(bytes)).map_err(|error| Some(format!("{error:#}")))
            }
            AfterReturn::Place(place) => {
                let site = Site::End { return_address: key.address, popped: place.moved };
                let is_attached = self.attach(key.tgid, &code, vec![Wanted { place, site }]);
                if is_attached { Ok(()) } else { Err(None) }
            }
        }
    }

    /// Attaches probes to a process's code, where it is what the file has, and remembers them for when they are attached
    /// again: all of them where the process must not have any now. False if none can be.
    fn attach(&mut self, process: Tgid, code: &Code, mut wanted: Vec<Wanted>) -> bool {
        // The kernel makes one after another. A poll whose end has no probe yet when it comes to it would seem to last.
        wanted.sort_by_key(|wanted| !matches!(wanted.site, Site::End { .. }));
        if let Some(probed) = self.processes.get_mut(&process)
            && !matches!(probed.window, Window::Open(_))
        {
            probed.remember(code, wanted);
            return true;
        }
        let Some(Polling { file, .. }) = code.file.as_ref().and_then(|file| self.files.get(&file.index)) else {
            return false;
        };
        let (file, probed) = (Arc::clone(file), &self.processes[&process]);
        let (Bytes::File(descriptor), Some(image)) = (&file.source, &file.image) else { return false };
        let memory = match File::open(format!("/proc/{process}/mem")) {
            Ok(memory) => memory,
            // It has ended meanwhile.
            Err(error) if matches!(error.raw_os_error(), Some(libc::ESRCH | libc::ENOENT)) => return false,
            Err(error) => {
                self.summary.refuse(wanted.len(), &format!("the memory of its process can't be read: {error}"));
                return false;
            }
        };
        let (contents, patched) = (Contents::new(image, &file.source), self.places_in(&file));
        let checking = Checking { image, contents, memory, bias: code.bias, patched };
        let (mut probes, mut kept, mut reasons) = (Vec::new(), Vec::new(), Vec::new());
        for wanted in wanted {
            let address = wanted.place.address.wrapping_add(code.bias);
            if !code.addresses.contains(&address) || probed.places.contains(&address) {
                continue;
            }
            match checking.probe(&wanted) {
                Ok(probe) => {
                    probes.push(probe);
                    kept.push(wanted);
                }
                Err(reason) => reasons.push(reason),
            }
        }
        reasons.into_iter().for_each(|reason| self.summary.refuse(1, reason));
        if probes.is_empty() {
            return false;
        }
        match self.probes.attach(process, descriptor, &probes) {
            Ok(link) => {
                self.attached(process, code, link, kept);
                true
            }
            Err(error) => {
                self.summary.refuse(probes.len(), &format!("the kernel attached no probe: {error}"));
                false
            }
        }
    }

    /// These probes of a process are there now.
    fn attached(&mut self, process: Tgid, code: &Code, link: PollLink, wanted: Vec<Wanted>) {
        let Some(probed) = self.processes.get_mut(&process) else { return };
        if let Window::Open(links) = &mut probed.window {
            links.push(link);
        }
        for wanted in &wanted {
            let address = wanted.place.address.wrapping_add(code.bias);
            probed.places.insert(address);
            if probed.ever.insert(address) {
                self.summary.count(wanted.site);
            }
            if let Site::End { return_address, .. } = wanted.site {
                let key = ReturnKey { address: return_address, tgid: process, reserved: 0 };
                // Without room, polls that return there are counted as without an end.
                self.probes.set_way(key, Way::PROBE).ok();
            }
        }
        probed.remember(code, wanted);
    }

    /// The file's own addresses at which any process has probes: one that was forked from it has them in its memory.
    fn places_in(&self, file: &ModuleFile) -> FxHashSet<u64> {
        let of = |code: &Code, address: u64| {
            let is_own = code.file.as_ref().is_some_and(|own| own.index == file.index);
            (is_own && code.addresses.contains(&address)).then(|| address.wrapping_sub(code.bias))
        };
        let places = self.processes.values().flat_map(|probed| {
            let owns = |&address: &u64| probed.files.iter().find_map(|(code, _)| of(code, address));
            probed.places.iter().filter_map(owns)
        });
        places.collect()
    }
}
