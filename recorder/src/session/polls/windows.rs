//! When a process has its probes: as long as its account pays for them.

use polletto_common::{id::Tgid, poll::Allowance, record::flags};

use super::{
    Probing,
    process::{Closing, Probed, Taken, Window, given_away},
};
use crate::{
    session::{calibration::ProbeCost, governor::Budget, own_use::thread_cpu_ns, preamble::boottime_ns},
    timeline::{PollNews, Unobserved},
};

impl Probing {
    /// A process may have probes from now on. They tell nothing yet, but what they take counts.
    pub(super) fn open(&mut self, process: Tgid) {
        let Some(probed) = self.processes.get_mut(&process) else { return };
        probed.window = Window::Open(Vec::new());
        self.allow(process, Allowance { over_ns: boottime_ns(), ..Allowance::default() });
    }

    /// A process has its probes from now on. Attaching them took a while.
    pub(super) fn opened(&mut self, process: Tgid) {
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
    pub(super) fn reopen(&mut self, process: Tgid) {
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
    pub(super) fn charge(&mut self, process: Tgid, cpu_ns: u64) {
        self.summary.attaching_ns += cpu_ns;
        if let Some(probed) = self.processes.get_mut(&process) {
            probed.account.spend(boottime_ns(), cpu_ns);
        }
    }

    /// Lets a process's probes take so much until the next look. Until now they were reached on so many CPUs, or on none.
    pub(super) fn grant(&mut self, process: Tgid, left_ns: u64, cpus: usize) {
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
    pub(super) fn settle(&mut self, process: Tgid) -> Taken {
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
    pub(super) fn begin_to_close(&mut self, process: Tgid, taken: Taken, closing: Closing) {
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
    pub(super) fn finish_closing(&mut self, process: Tgid) {
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
        // Until now a copy of the process would have had them in its memory.
        probed.places.clear();
        let given = std::mem::take(&mut probed.given);
        let mut polls = self.probes.take_open(process, probed.since_ns);
        for poll in polls.iter_mut().filter(|poll| given.contains(&(poll.tid, poll.polled.tick))) {
            poll.header.flags |= flags::WORKER_GONE;
        }
        self.tell(PollNews::StillPolling(polls));
    }

    /// A process is of no interest any more. Its probes are removed if it has any; else it had none until now.
    pub(super) fn begin_to_end(&mut self, process: Tgid) {
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
}
