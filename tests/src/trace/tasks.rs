//! Processes and threads, by everything in a trace that names them.

use std::collections::BTreeMap;

use perfetto_protos::{
    ftrace_event::ftrace_event, ftrace_event_bundle::FtraceEventBundle, process_tree::ProcessTree,
    track_descriptor::TrackDescriptor,
};

use super::{Tid, replay::Replayed};

/// A process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Process {
    /// The process that started it.
    pub parent: Option<Tid>,
    /// Every command line that it was given, in order. One that executes another program has several.
    pub command_lines: Vec<Vec<String>>,
}

/// A thread.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Thread {
    /// The process that it belongs to.
    pub process: Option<Tid>,
    /// Every name that it was given anywhere, in the order of the trace, without repetitions.
    pub names: Vec<String>,
}

/// All of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tasks {
    /// By the process's id.
    pub processes: BTreeMap<Tid, Process>,
    /// By the thread's id.
    pub threads: BTreeMap<Tid, Thread>,
}

impl Tasks {
    /// The threads of a process.
    pub fn of_process(&self, pid: Tid) -> impl Iterator<Item = (Tid, &Thread)> {
        self.threads.iter().filter(move |(_, thread)| thread.process == Some(pid)).map(|(tid, thread)| (*tid, thread))
    }

    /// The ids of threads that ever had this name.
    pub fn named(&self, name: &str) -> Vec<Tid> {
        let has = |thread: &Thread| thread.names.iter().any(|other| other == name);
        self.threads.iter().filter(|(_, thread)| has(thread)).map(|(tid, _)| *tid).collect()
    }

    pub(super) fn take_tree(&mut self, tree: &ProcessTree) {
        for entry in &tree.processes {
            let process = self.processes.entry(entry.pid()).or_default();
            if entry.has_ppid() {
                process.parent = Some(entry.ppid());
            }
            if process.command_lines.last() != Some(&entry.cmdline) {
                process.command_lines.push(entry.cmdline.clone());
            }
            self.threads.entry(entry.pid()).or_default().process = Some(entry.pid());
        }
        for entry in &tree.threads {
            self.threads.entry(entry.tid()).or_default().process = Some(entry.tgid());
            self.name(entry.tid(), entry.name());
        }
    }

    pub(super) fn take_track(&mut self, track: &TrackDescriptor) {
        if let Some(process) = track.process.as_ref() {
            self.processes.entry(process.pid()).or_default();
        }
        if let Some(thread) = track.thread.as_ref() {
            self.threads.entry(thread.tid()).or_default().process = Some(thread.pid());
            self.name(thread.tid(), thread.thread_name());
        }
    }

    pub(super) fn take_ftrace(&mut self, bundle: &FtraceEventBundle) {
        for event in &bundle.event {
            match &event.event {
                Some(ftrace_event::Event::TaskRename(rename)) => self.name(rename.pid(), rename.newcomm()),
                Some(ftrace_event::Event::TaskNewtask(task)) => self.name(task.pid(), task.comm()),
                _ => {}
            }
        }
    }

    pub(super) fn take_names(&mut self, replayed: &Replayed) {
        for switch in &replayed.switches {
            self.name(switch.next, &switch.name);
        }
        for waking in &replayed.wakings {
            self.name(waking.tid, &waking.name);
        }
    }

    fn name(&mut self, tid: Tid, name: &str) {
        // Each CPU's idle thread has id 0 and a name of its own.
        if tid == 0 || name.is_empty() {
            return;
        }
        let thread = self.threads.entry(tid).or_default();
        if !thread.names.iter().any(|known| known == name) {
            thread.names.push(name.to_owned());
        }
    }
}
