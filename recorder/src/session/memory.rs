//! What is mapped where in the recorded processes: for the timeline, which says whose code a stack is, and for the kernel,
//! which unwinds it.

use std::{
    collections::BTreeSet,
    ffi::OsStr,
    sync::{
        Arc,
        mpsc::{Receiver, Sender, channel},
    },
};

use anyhow::Result;
use polletto_common::{
    id::Tgid,
    record::{self, Record},
};
use rustc_hash::FxHashMap;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::{
    changes::{Change, Code, Follower},
    modules::{ModuleFile, Modules, Unreadable},
    preamble::boottime_ns,
    tasks::{self, Found, Listeners, TaskSummary, WantedProbes},
    unwinding,
    walking::News,
};
use crate::{
    kernel::{MemoryChange, MemoryEvent, RuntimeMap, UnwindMaps},
    symbols::{Missing, ModuleReport, NamesIn, Request},
    target::{self, CodeRange},
    timeline::{self, Mapped, PollNews, Timeline},
    unwind::Cache,
};

/// The memory of all recorded processes.
pub struct Memory {
    modules: Modules,
    /// None when the kernel does not unwind by tables.
    unwinding: Option<Follower<BTreeSet<Unreadable>>>,
    tasks: Follower<TaskSummary>,
    found: Receiver<Found>,
    polls: Receiver<PollNews>,
    scanned: FxHashMap<Tgid, Scanned>,
    scan_wanted: bool,
}

/// Raises our limit of open files. Where that is refused, files beyond it are told as unreadable.
fn allow_open_files() {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).ok();
}

/// Mappings of a process after which it is scanned again, unless that had found more.
const MAPPED_BEFORE_SCAN: usize = 4096;

/// A process whose mappings were read as a whole, or followed from its program's beginning.
struct Scanned {
    /// When they were read: what was told of it before is known better. CLOCK_BOOTTIME nanoseconds; 0 if never.
    at_ns: u64,
    exec_id: u64,
    /// How much code it had.
    found: usize,
    /// How much it has mapped since.
    mapped_since: usize,
}

/// What became of files and their tables.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CodeSummary {
    /// Files whose code was mapped.
    pub modules: u64,
    /// Files that could not be read, or have no table, and why.
    pub without_table: Vec<Unreadable>,
}

impl Memory {
    /// Nothing is known yet. With `maps`, the kernel is told of everything; with `probes`, all processes get them that poll
    /// tasks; `walks` is told which programs poll any.
    ///
    /// Every file that is mapped stays open, so as many may be open from now on as the system allows. A command that is to
    /// be recorded should have been started before, since it would inherit that.
    pub fn new(
        maps: Option<UnwindMaps>,
        runtimes: RuntimeMap,
        probes: Option<WantedProbes>,
        walks: Option<Sender<News>>,
    ) -> Result<Memory> {
        allow_open_files();
        let unwinding =
            maps.map(|maps| unwinding::follow(maps, Cache::open(Cache::default_directory()))).transpose()?;
        let ((finds, found), (tells, polls)) = (channel(), channel());
        let tasks = tasks::follow(runtimes, probes, Listeners { found: finds, polls: tells, walks })?;
        Ok(Memory {
            modules: Modules::default(),
            unwinding,
            tasks,
            found,
            polls,
            scanned: FxHashMap::default(),
            scan_wanted: false,
        })
    }

    /// Makes the tables that these processes need now, before anything of them is recorded, and waits for them.
    pub fn prepare(&mut self, processes: &[Tgid]) {
        // One that has ended needs none; what can't be read is told when it is scanned.
        let code = |process| target::code_of(process).ok().flatten().unwrap_or_default();
        self.prepare_code(
            processes.iter().flat_map(|&process| code(process).into_iter().map(move |range| (process, range))),
        );
    }

    /// Makes the table of a program that is about to be started. That of its libraries too, where they are ours as well:
    /// until its first instruction it has the recorder's memory.
    pub fn prepare_command(&mut self, program: &OsStr, process: Tgid) {
        let range = target::find_program(program).and_then(|path| CodeRange::of_file(&path).ok());
        let ours = target::code_of(process).ok().flatten().unwrap_or_default();
        self.prepare_code(ours.into_iter().chain(range).map(|range| (process, range)));
    }

    /// What can't be read, such as a script, needs no table, or tells why when it is mapped.
    fn prepare_code(&mut self, code: impl Iterator<Item = (Tgid, CodeRange)>) {
        for (process, range) in code {
            if let Some(Ok(file)) = self.modules.read(process, &range) {
                self.tell(Change::Prepare(file));
            }
        }
        self.wait();
    }

    /// Reads what a process has mapped now, which replaces everything that was known of it.
    pub fn scan(&mut self, process: Tgid, exec_id: u64, timeline: &mut Timeline) {
        let now_ns = boottime_ns();
        let code = match target::code_of(process) {
            Ok(Some(code)) => code,
            // It has ended.
            Ok(None) => return,
            Err(error) => {
                let reason = format!("its mappings can't be read: {error}");
                self.modules.refuse(Unreadable { path: format!("process {process}"), reason });
                return;
            }
        };
        let scanned = Scanned { at_ns: now_ns, exec_id, found: code.len(), mapped_since: 0 };
        self.scanned.insert(process, scanned);
        let code: Vec<_> = code.iter().map(|range| self.code(process, range)).collect();
        timeline.remap(process, code.iter().map(|(mapped, _)| mapped.clone()).collect());
        let code = code.into_iter().map(|(mapped, file)| changed(&mapped, file)).collect();
        self.tell(Change::Scanned { process, time_ns: now_ns, exec_id, code });
    }

    /// Takes what the kernel tells of a process's memory.
    pub fn event(&mut self, event: &MemoryEvent, timeline: &mut Timeline) {
        let MemoryEvent { time_ns, tgid, .. } = *event;
        match &event.change {
            MemoryChange::Lost(_) => self.scan_wanted = true,
            _ if self.is_known(tgid, time_ns) || !timeline.has_process(tgid) => {}
            MemoryChange::Mapped(range) => self.mapped(tgid, time_ns, range, timeline),
            MemoryChange::Replaced => self.clear(tgid, timeline),
        }
    }

    /// Takes a record that may be about a process's memory.
    pub fn record(&mut self, record: &Record) {
        match *record {
            Record::Fork(record::Fork { header, parent_tgid, tgid, .. })
                if parent_tgid != tgid && !self.is_known(tgid, header.time_ns) =>
            {
                self.tell(Change::Copied { from: parent_tgid, to: tgid, time_ns: header.time_ns });
            }
            Record::Exec(record::Exec { header, tid, exec_id, .. }) if !self.is_known(Tgid(tid.0), header.time_ns) => {
                let process = Tgid(tid.0);
                self.scanned.insert(process, Scanned { at_ns: 0, exec_id, found: 0, mapped_since: 0 });
                self.tell(Change::Runs { process, exec_id });
            }
            _ => {}
        }
    }

    /// Whether the process was scanned since.
    fn is_known(&self, process: Tgid, time_ns: u64) -> bool {
        self.scanned.get(&process).is_some_and(|scanned| time_ns < scanned.at_ns)
    }

    /// A process has mapped code. Of what it unmaps the kernel tells nothing, so one that does so again and again is read
    /// anew from time to time.
    fn mapped(&mut self, process: Tgid, time_ns: u64, range: &CodeRange, timeline: &mut Timeline) {
        self.map(process, time_ns, range, timeline);
        let Some(scanned) = self.scanned.get_mut(&process) else { return };
        scanned.mapped_since += 1;
        if scanned.mapped_since > scanned.found.max(MAPPED_BEFORE_SCAN) {
            let exec_id = scanned.exec_id;
            self.scan(process, exec_id, timeline);
        }
    }

    /// A process has ended.
    pub fn ended(&mut self, process: Tgid) {
        self.scanned.remove(&process);
        self.tell(Change::Ended { process });
    }

    /// Whether events were lost since the last call, so that all processes should be scanned again.
    pub fn take_scan_wanted(&mut self) -> bool {
        std::mem::take(&mut self.scan_wanted)
    }

    /// Waits until the kernel knows of everything.
    pub fn wait(&self) {
        if let Some(unwinding) = &self.unwinding {
            unwinding.wait();
        }
        self.tasks.wait();
    }

    /// What to ask of the symbols for the addresses that stacks lead through, and of which nobody can be asked.
    pub fn requests(&self, addresses: FxHashMap<timeline::Code, Vec<u64>>) -> (Vec<Request>, Vec<ModuleReport>) {
        let (mut requests, mut refused) = (Vec::new(), Vec::new());
        for (code, addresses) in addresses {
            match &code {
                timeline::Code::File(module) => requests.push(self.modules.request(module, addresses)),
                timeline::Code::Compiled(process) => {
                    let path = timeline::path_of(&code).into_owned();
                    match target::perf_map(*process) {
                        Some(list) => {
                            let names_in = NamesIn::List(list);
                            requests.push(Request { path, build_id: None, names_in, addresses });
                        }
                        None => refused.push(ModuleReport {
                            path,
                            addresses: addresses.len() as u64,
                            missing: Some(Missing::List),
                            ..ModuleReport::default()
                        }),
                    }
                }
            }
        }
        // The same order every time.
        requests.sort_by(|a, b| (&a.path, &a.build_id).cmp(&(&b.path, &b.build_id)));
        (requests, refused)
    }

    /// Removes all probes, and waits for that.
    pub fn unprobe(&self) {
        self.tasks.tell(Change::Unprobe);
        self.tasks.wait();
    }

    /// Programs that poll tasks, found since the last call.
    pub fn found(&self) -> impl Iterator<Item = Found> {
        self.found.try_iter()
    }

    /// Where polls were not observed, found out since the last call.
    pub fn poll_news(&self) -> impl Iterator<Item = PollNews> {
        self.polls.try_iter()
    }

    /// What became of it all.
    pub fn finish(self) -> (CodeSummary, TaskSummary) {
        let modules = self.modules.count() as u64;
        let late = |unfinished| {
            let reason = format!("were not all made: {unfinished}");
            BTreeSet::from([Unreadable { path: "unwind tables".to_owned(), reason }])
        };
        let mut without_table =
            self.unwinding.map(|unwinding| unwinding.finish().unwrap_or_else(late)).unwrap_or_default();
        without_table.extend(self.modules.unreadable().iter().cloned());
        let code = CodeSummary { modules, without_table: without_table.into_iter().collect() };
        let unfinished = |reason| TaskSummary { unfinished: Some(reason), ..TaskSummary::default() };
        (code, self.tasks.finish().unwrap_or_else(unfinished))
    }

    fn map(&mut self, process: Tgid, time_ns: u64, range: &CodeRange, timeline: &mut Timeline) {
        let (mapped, file) = self.code(process, range);
        self.tell(Change::Mapped { process, time_ns, code: changed(&mapped, file) });
        timeline.map(mapped);
    }

    /// What a mapping is to the timeline, and its file.
    fn code(&mut self, process: Tgid, range: &CodeRange) -> (Mapped, Option<Arc<ModuleFile>>) {
        let file = self.modules.of(process, range);
        let mapped = Mapped {
            tgid: process,
            start: range.start,
            end: range.end,
            file_offset: range.file_offset,
            module: file.as_ref().map(|file| Arc::clone(&file.module)),
            bias: file.as_ref().map_or(0, |file| file.bias(range)),
        };
        (mapped, file)
    }

    fn clear(&self, process: Tgid, timeline: &mut Timeline) {
        timeline.unmap_all(process);
        self.tell(Change::Cleared { process });
    }

    /// Tells all followers.
    fn tell(&self, change: Change) {
        if let Some(unwinding) = &self.unwinding {
            unwinding.tell(change.clone());
        }
        self.tasks.tell(change);
    }
}

/// What followers are told of code.
fn changed(mapped: &Mapped, file: Option<Arc<ModuleFile>>) -> Code {
    Code { addresses: mapped.start..mapped.end, bias: mapped.bias, file }
}
