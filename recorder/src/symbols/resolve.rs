//! Has modules named by a [`worker`](super::worker), and goes on without it when it fails.

use std::{
    fs::File,
    io::BufReader,
    os::{fd::AsRawFd, unix::ffi::OsStrExt, unix::process::CommandExt},
    path::PathBuf,
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, sync_channel},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use rustc_hash::FxHashSet;
use rustix::process::{Pid, Signal, kill_process_group};

use super::{
    request::{Answer, Missing, ModuleReport, NamesIn, Request, Symbols},
    wire::{self, Question, Reply},
};
use crate::target::image::Bytes;

/// The argument that makes this program a worker.
pub const WORKER: &str = "find-names-for-parent";

/// How long a worker may find nothing. Listing the units of the largest programs takes a few seconds.
const PATIENCE: Duration = Duration::from_secs(20);

/// How often the observer is asked whether to go on.
const ATTENTION: Duration = Duration::from_millis(50);

/// Replies that may wait to be taken.
const QUEUED_REPLIES: usize = 64;

/// How names are found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Where debug information may be that was taken out of files, besides the system's own place.
    pub debug_directories: Vec<PathBuf>,
    /// Whether the servers of `DEBUGINFOD_URLS` are asked for what is nowhere else.
    pub debuginfod: bool,
    /// What may be kept of debug information at a time, bytes.
    pub memory_bytes: u64,
}

impl Default for Options {
    fn default() -> Options {
        Options { debug_directories: Vec::new(), debuginfod: false, memory_bytes: 512 << 20 }
    }
}

/// Where distributions put debug information.
const SYSTEM_DEBUG_DIRECTORY: &str = "/usr/lib/debug";

/// Someone who takes names as they are found.
pub trait Observer {
    /// Names for some addresses of a module. An error ends it all.
    fn answer(&mut self, answer: Answer) -> Result<()>;
    /// So many addresses were looked up, of all.
    fn progress(&mut self, done: u64, of: u64);
    /// The process that reads symbols has had so much memory at its peak, bytes. There may be several, one after the other.
    fn memory(&mut self, _peak_bytes: u64) {}
    /// Whether not to look for lines any longer: from then on, functions have names and nothing else.
    fn is_cancelled(&self) -> bool;
}

/// Names the addresses of all these modules, and tells of each how it went.
pub fn resolve(requests: Vec<Request>, options: &Options, observer: &mut dyn Observer) -> Result<Vec<ModuleReport>> {
    let of = requests.iter().map(|request| request.addresses.len() as u64).sum();
    let mut resolver = Resolver { options, observer, worker: None, done: 0, of };
    requests.into_iter().map(|request| resolver.module(&request)).collect()
}

struct Resolver<'a> {
    options: &'a Options,
    observer: &'a mut dyn Observer,
    /// Started when there is something to do, and again after it failed.
    worker: Option<Worker>,
    done: u64,
    of: u64,
}

/// How a module was left.
enum End {
    Named(ModuleReport),
    /// The worker ended, or had to be.
    Failed(String),
    Cancelled,
}

impl Resolver<'_> {
    /// With debug information; if that fails, without; and if that fails too, not at all.
    fn module(&mut self, request: &Request) -> Result<ModuleReport> {
        let before = self.done;
        let mut found = Found::default();
        let mut missing = None;
        let mut with_debug_information = !self.observer.is_cancelled();
        if !with_debug_information {
            missing = Some(Missing::Interrupted);
        }
        loop {
            match self.ask(request, with_debug_information, &mut found)? {
                End::Named(report) => {
                    missing = missing.or(report.missing);
                    break;
                }
                end => {
                    self.worker = None;
                    missing = Some(match end {
                        End::Failed(reason) => Missing::Damaged(reason),
                        _ => Missing::Interrupted,
                    });
                    if !with_debug_information {
                        break;
                    }
                    with_debug_information = false;
                }
            }
        }
        self.done = before + request.addresses.len() as u64;
        self.observer.progress(self.done, self.of);
        Ok(ModuleReport {
            path: request.path.clone(),
            addresses: request.addresses.len() as u64,
            named: found.named.len() as u64,
            with_lines: found.with_lines,
            missing,
        })
    }

    /// Asks for what was not found yet.
    fn ask(&mut self, request: &Request, debug_information: bool, found: &mut Found) -> Result<End> {
        let unknown = request.addresses.iter().copied().filter(|address| !found.named.contains(address));
        let question = self.question(request, unknown.collect(), debug_information);
        let mut worker = match self.worker.take() {
            Some(worker) => worker,
            None => Worker::start().context("could not start the process that reads symbols")?,
        };
        if let Err(error) = wire::send(&mut worker.questions, &question) {
            return Ok(End::Failed(worker.reason(&error.to_string())));
        }
        let mut patience = Instant::now() + PATIENCE;
        loop {
            match worker.replies.recv_timeout(ATTENTION) {
                Ok(Reply { symbols, report, peak_memory_bytes }) => {
                    self.observer.memory(peak_memory_bytes);
                    patience = Instant::now() + PATIENCE;
                    let symbols: Vec<Symbols> = symbols.into_iter().map(Symbols::from).collect();
                    if !symbols.is_empty() {
                        self.done += symbols.len() as u64;
                        found.add(&symbols);
                        let (path, build_id) = (request.path.clone(), request.build_id.clone());
                        self.observer.answer(Answer { path, build_id, symbols })?;
                        self.observer.progress(self.done, self.of);
                    }
                    if let Some(report) = report {
                        self.worker = Some(worker);
                        return Ok(End::Named(report.into()));
                    }
                }
                Err(RecvTimeoutError::Disconnected) => return Ok(End::Failed(worker.reason("it ended"))),
                Err(RecvTimeoutError::Timeout) if Instant::now() >= patience => {
                    return Ok(End::Failed(format!("reading it takes more than {} s", PATIENCE.as_secs())));
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
            if debug_information && self.observer.is_cancelled() {
                return Ok(End::Cancelled);
            }
        }
    }

    fn question(&self, request: &Request, addresses: Vec<u64>, debug_information: bool) -> Question {
        // Opened by this path, it is the same file even if it has no name any more.
        let open = |file: &File| Some(format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd()));
        let (open_at, bytes) = match &request.names_in {
            NamesIn::Binary(Bytes::File(file)) | NamesIn::List(file) => (open(file), None),
            NamesIn::Binary(Bytes::Memory(bytes)) => (None, Some(bytes.clone())),
            NamesIn::Path => (None, None),
        };
        let system = std::ffi::OsStr::new(SYSTEM_DEBUG_DIRECTORY);
        let directories = self.options.debug_directories.iter().map(|path| path.as_os_str()).chain([system]);
        Question {
            path: request.path.clone(),
            build_id: request.build_id.as_ref().map(|id| id.bytes().to_vec()).unwrap_or_default(),
            open_at,
            is_list: matches!(request.names_in, NamesIn::List(_)),
            bytes,
            addresses,
            debug_directories: directories.map(|path| path.as_bytes().to_vec()).collect(),
            debug_information,
            memory_bytes: self.options.memory_bytes,
            debuginfod: self.options.debuginfod,
        }
    }
}

/// What was found of a module.
#[derive(Default)]
struct Found {
    named: FxHashSet<u64>,
    with_lines: u64,
}

impl Found {
    fn add(&mut self, symbols: &[Symbols]) {
        for symbols in symbols {
            let has_line = symbols.functions.iter().any(|function| function.line.is_some());
            self.with_lines += u64::from(self.named.insert(symbols.address) && has_line);
        }
    }
}

/// A worker, and the thread that takes its replies.
struct Worker {
    process: Child,
    questions: ChildStdin,
    replies: Receiver<Reply>,
}

impl Worker {
    fn start() -> Result<Worker> {
        let mut command = Command::new("/proc/self/exe");
        // In a group of its own, since a Ctrl-C is for the recorder.
        command.arg(WORKER).process_group(0).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut process = command.spawn()?;
        let questions = process.stdin.take().context("it has no input")?;
        let mut output = BufReader::with_capacity(1 << 20, process.stdout.take().context("it has no output")?);
        let (sender, replies) = sync_channel(QUEUED_REPLIES);
        std::thread::Builder::new().name("polletto-symbols".into()).spawn(move || {
            // Whatever is wrong with what comes, the worker is then of no use any more.
            while let Ok(Some(reply)) = wire::receive::<Reply>(&mut output) {
                if sender.send(reply).is_err() {
                    return;
                }
            }
        })?;
        Ok(Worker { process, questions, replies })
    }

    /// Why it failed, as far as its end tells.
    fn reason(&mut self, otherwise: &str) -> String {
        self.process.kill().ok();
        match self.process.wait() {
            Ok(status) => format!("reading it fails ({status})"),
            Err(_) => otherwise.to_owned(),
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // It may have ended by itself. It leads a group with what it started.
        if let Some(group) = Pid::from_raw(self.process.id() as i32) {
            kill_process_group(group, Signal::KILL).ok();
        }
        self.process.wait().ok();
    }
}
