//! Facts about one process, and about its threads.

use std::{
    error,
    ffi::OsStr,
    fmt,
    io::{self, Read},
    os::unix::ffi::OsStrExt,
    path::PathBuf,
    time::Duration,
};

use polletto_common::id::{Tgid, Tid};
use procfs::{
    ProcError,
    process::{Stat, StatFlags},
};
use rustix::io::Errno;

/// What is read of a command line, in bytes. Longer ones are cut.
const COMMAND_LINE_BYTES: u64 = 4096;

/// What is read of `/proc/PID/status`, in bytes. The lines used here stand among its first.
const STATUS_BYTES: u64 = 4096;

/// A process, as it was when it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// Its id.
    pub tgid: Tgid,
    /// The process that made it, or that adopted it since. 0 for the first one, and for those from outside our pid
    /// namespace.
    pub parent: Tgid,
    /// Its first thread's name, at most 15 bytes of the process's own choosing.
    pub name: String,
    /// What it can be.
    pub kind: Kind,
    /// The path of its program, in its own mount namespace. `None` where there is none or it may not be known: of
    /// other users' processes only CAP_SYS_PTRACE shows it.
    pub executable: Option<PathBuf>,
    /// Its arguments, the first 4096 bytes of them. Empty for kernel threads and zombies.
    pub command_line: Vec<String>,
    /// The user that it runs as (its effective id).
    pub uid: u32,
    /// When it started, since boot (CLOCK_BOOTTIME), to a hundredth of a second.
    pub started: Duration,
}

/// What a process can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It runs a program.
    Program,
    /// It is a part of the kernel.
    KernelThread,
    /// It has ended, and its parent does not know yet.
    Zombie,
}

/// A thread, as it was when it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Thread {
    /// Its id.
    pub tid: Tid,
    /// Its name, at most 15 bytes of the thread's own choosing.
    pub name: String,
}

/// Why nothing can be said about a process.
#[derive(Debug)]
pub enum Error {
    /// There is none of this id, or none any more.
    NoProcess(Tgid),
    /// There is no thread of this id, or none any more.
    NoThread(Tid),
    /// The id is a thread's, and not the first one of its process.
    IsThread {
        /// The thread.
        tid: Tid,
        /// The process that it belongs to.
        process: Tgid,
    },
    /// The kernel would not tell.
    Unreadable {
        /// What was read or opened.
        what: String,
        /// What the kernel said.
        source: io::Error,
    },
}

impl Process {
    /// Reads the facts about one process.
    pub fn read(tgid: Tgid) -> Result<Process, Error> {
        Source::open(tgid)?.process()
    }
}

/// The process that a thread belongs to.
pub fn thread_process(tid: Tid) -> Result<Tgid, Error> {
    // `/proc` answers for every thread's id, though it lists only those of processes.
    Source::open(Tgid(tid.0)).and_then(|source| source.status()).map(|status| status.tgid).map_err(
        |error| match error {
            Error::NoProcess(_) => Error::NoThread(tid),
            error => error,
        },
    )
}

/// The threads of a process at this moment; those that start or end meanwhile may or may not be among them.
pub fn threads_of(tgid: Tgid) -> Result<Vec<Thread>, Error> {
    let source = Source::open(tgid)?;
    let tasks = source.directory.tasks().map_err(|error| source.error("task", error))?;
    let mut threads = Vec::new();
    for task in tasks {
        let task = task.map_err(|error| source.error("task", error))?;
        match task.stat().map_err(|error| source.error("task/*/stat", error)) {
            Ok(stat) => threads.push(Thread { tid: Tid(task.tid.unsigned_abs()), name: stat.comm }),
            Err(Error::NoProcess(_)) => {}
            Err(error) => return Err(error),
        }
    }
    if threads.is_empty() { Err(Error::NoProcess(tgid)) } else { Ok(threads) }
}

/// These processes, and those that they and their children made and that still run.
pub fn with_descendants(processes: &[Tgid]) -> Result<Vec<Tgid>, Error> {
    let mut found = processes.to_vec();
    let parents: Vec<(Tgid, Tgid)> = all()?.map(|process| (process.parent, process.tgid)).collect();
    let mut at = 0;
    while let Some(&parent) = found.get(at) {
        let children = parents.iter().filter(|(of, child)| *of == parent && !found.contains(child));
        let children: Vec<Tgid> = children.map(|&(_, child)| child).collect();
        found.extend(children);
        at += 1;
    }
    Ok(found)
}

/// Every process that can be seen. Those that end meanwhile are left out, as are those that nothing can be said about.
pub(super) fn all() -> Result<impl Iterator<Item = Process>, Error> {
    let processes = procfs::process::all_processes()
        .map_err(|error| Error::Unreadable { what: "/proc".to_owned(), source: error_source(error) })?;
    Ok(processes.filter_map(Result::ok).filter_map(|directory| {
        let tgid = Tgid(directory.pid.unsigned_abs());
        Source { tgid, directory }.process().ok()
    }))
}

/// An open `/proc/PID`: everything read through it is of one process, even if its id is given to another meanwhile.
struct Source {
    tgid: Tgid,
    directory: procfs::process::Process,
}

/// The lines of `/proc/PID/status` that are used.
struct Status {
    tgid: Tgid,
    effective_uid: u32,
}

impl Source {
    fn open(tgid: Tgid) -> Result<Source, Error> {
        let pid = i32::try_from(tgid.0).ok().filter(|&pid| pid > 0).ok_or(Error::NoProcess(tgid))?;
        match procfs::process::Process::new(pid) {
            Ok(directory) => Ok(Source { tgid, directory }),
            Err(ProcError::NotFound(_)) => Err(Error::NoProcess(tgid)),
            Err(error) => Err(Error::Unreadable { what: format!("/proc/{tgid}"), source: error_source(error) }),
        }
    }

    fn process(&self) -> Result<Process, Error> {
        let stat = self.directory.stat().map_err(|error| self.error("stat", error))?;
        let status = self.status()?;
        if status.tgid != self.tgid {
            return Err(Error::IsThread { tid: Tid(self.tgid.0), process: status.tgid });
        }
        Ok(Process {
            tgid: self.tgid,
            parent: Tgid(stat.ppid.unsigned_abs()),
            kind: kind(&stat),
            executable: self.directory.exe().ok().map(without_deleted_mark),
            command_line: self.bytes("cmdline", COMMAND_LINE_BYTES).map(|bytes| arguments(&bytes))?,
            uid: status.effective_uid,
            started: Duration::from_millis(stat.starttime.saturating_mul(1000) / procfs::ticks_per_second().max(1)),
            name: stat.comm,
        })
    }

    fn status(&self) -> Result<Status, Error> {
        let bytes = self.bytes("status", STATUS_BYTES)?;
        let number = |name: &str, index: usize| status_number(&bytes, name, index);
        match (number("Tgid", 0), number("Uid", 1)) {
            (Some(tgid), Some(effective_uid)) => Ok(Status { tgid: Tgid(tgid), effective_uid }),
            _ => Err(Error::Unreadable {
                what: format!("/proc/{}/status", self.tgid),
                source: io::Error::new(io::ErrorKind::InvalidData, "no Tgid or Uid in it"),
            }),
        }
    }

    fn bytes(&self, file: &str, limit: u64) -> Result<Vec<u8>, Error> {
        let mut bytes = Vec::new();
        let opened = self.directory.open_relative(file).map_err(|error| self.error(file, error))?;
        match opened.take(limit).read_to_end(&mut bytes) {
            Ok(_) => Ok(bytes),
            Err(error) => Err(self.error(file, ProcError::Io(error, None))),
        }
    }

    fn error(&self, file: &str, error: ProcError) -> Error {
        let source = error_source(error);
        let gone = source.kind() == io::ErrorKind::NotFound || Errno::from_io_error(&source) == Some(Errno::SRCH);
        match gone {
            true => Error::NoProcess(self.tgid),
            false => Error::Unreadable { what: format!("/proc/{}/{file}", self.tgid), source },
        }
    }
}

fn error_source(error: ProcError) -> io::Error {
    match error {
        ProcError::Io(source, _) => source,
        ProcError::NotFound(_) => io::ErrorKind::NotFound.into(),
        ProcError::PermissionDenied(_) => io::ErrorKind::PermissionDenied.into(),
        other => io::Error::new(io::ErrorKind::InvalidData, other.to_string()),
    }
}

fn kind(stat: &Stat) -> Kind {
    let kernel_thread = StatFlags::from_bits_truncate(stat.flags).contains(StatFlags::PF_KTHREAD);
    match stat.state {
        _ if kernel_thread => Kind::KernelThread,
        'Z' | 'X' | 'x' => Kind::Zombie,
        _ => Kind::Program,
    }
}

/// One number of a line like `Uid:\t0\t0\t0\t0`. No name can forge a line: the kernel escapes its newlines here.
fn status_number(status: &[u8], name: &str, index: usize) -> Option<u32> {
    let lines = status.split(|&byte| byte == b'\n');
    let values = lines.filter_map(|line| line.strip_prefix(name.as_bytes())?.strip_prefix(b":")).next()?;
    str::from_utf8(values).ok()?.split_ascii_whitespace().nth(index)?.parse().ok()
}

/// The kernel marks the path of a program whose file was replaced or removed; its name stays what it was.
fn without_deleted_mark(path: PathBuf) -> PathBuf {
    match path.as_os_str().as_bytes().strip_suffix(b" (deleted)") {
        Some(name) => PathBuf::from(OsStr::from_bytes(name)),
        None => path,
    }
}

fn arguments(bytes: &[u8]) -> Vec<String> {
    // Programs that rewrite their title leave the rest of the space as NULs.
    let end = bytes.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
    if end == 0 {
        return Vec::new();
    }
    bytes[..end].split(|&byte| byte == 0).map(|argument| String::from_utf8_lossy(argument).into_owned()).collect()
}

impl fmt::Display for Error {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::NoProcess(tgid) => write!(out, "there is no process {tgid}, or it has ended"),
            Error::NoThread(tid) => write!(out, "there is no thread {tid}, or it has ended"),
            Error::IsThread { tid, process } => {
                write!(out, "{tid} is a thread of process {process}: record it with -t {tid}, or all with -p {process}")
            }
            Error::Unreadable { what, .. } => write!(out, "cannot read {what}"),
        }
    }
}

impl error::Error for Error {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        match self {
            Error::Unreadable { source, .. } => Some(source),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path, process::Command, sync::mpsc, thread};

    use super::{super::example::Example, *};

    fn own() -> Tgid {
        Tgid(std::process::id())
    }

    /// Runs `check` in a thread of that name while another one waits for it.
    fn with_thread_named<R: Send>(name: &str, check: impl FnOnce(Tid) -> R) -> R {
        let (started, tid) = mpsc::channel();
        let (finish, finished) = mpsc::channel::<()>();
        thread::scope(|scope| {
            thread::Builder::new()
                .name(name.to_owned())
                .spawn_scoped(scope, move || {
                    started.send(Tid(rustix::thread::gettid().as_raw_pid() as u32)).unwrap();
                    finished.recv().ok();
                })
                .unwrap();
            let result = check(tid.recv().unwrap());
            drop(finish);
            result
        })
    }

    #[test]
    fn we_know_ourselves() {
        let process = Process::read(own()).unwrap();
        assert_eq!(process.kind, Kind::Program);
        assert_eq!(process.executable, std::env::current_exe().ok());
        assert_eq!(process.command_line[0], std::env::args().next().unwrap());
        assert_eq!(process.parent.0, std::os::unix::process::parent_id());
        assert_eq!(process.uid, rustix::process::geteuid().as_raw());
        assert!(process.started > Duration::ZERO);
    }

    #[test]
    fn a_kernel_thread_has_a_name_and_nothing_else() {
        let kernel = all().unwrap().find(|process| process.kind == Kind::KernelThread);
        // In a pid namespace of their own, tests see none.
        if let Some(process) = kernel {
            assert!(!process.name.is_empty());
            assert_eq!((process.executable, process.command_line), (None, vec![]));
        }
    }

    #[test]
    fn a_process_that_was_never_there_is_no_process() {
        for id in [0, u32::MAX, i32::MAX as u32] {
            assert!(matches!(Process::read(Tgid(id)), Err(Error::NoProcess(Tgid(tgid))) if tgid == id));
            assert!(matches!(threads_of(Tgid(id)), Err(Error::NoProcess(_))));
            assert!(matches!(thread_process(Tid(id)), Err(Error::NoThread(Tid(tid))) if tid == id));
        }
    }

    #[test]
    fn a_process_that_ends_while_it_is_read_is_no_process() {
        let example = Example::run("cat", &[]);
        let source = Source::open(example.tgid()).unwrap();
        assert!(source.process().is_ok());
        drop(example);
        assert!(matches!(source.process(), Err(Error::NoProcess(_))));
    }

    #[test]
    fn a_zombie_is_known_as_one() {
        let mut child = Command::new("true").spawn().unwrap();
        let id = rustix::process::Pid::from_child(&child);
        let ended = rustix::process::WaitIdOptions::EXITED | rustix::process::WaitIdOptions::NOWAIT;
        rustix::process::waitid(rustix::process::WaitId::Pid(id), ended).unwrap();
        let process = Process::read(Tgid(child.id())).unwrap();
        assert_eq!((process.kind, process.executable, process.command_line), (Kind::Zombie, None, vec![]));
        child.wait().unwrap();
    }

    #[test]
    fn a_hostile_thread_name_is_read_as_it_is() {
        for name in ["two\nlines", "a:b", ") S 1 (", "Tgid:\t1"] {
            with_thread_named(name, |tid| {
                assert_eq!(thread_process(tid).unwrap(), own(), "{name:?}");
                let threads = threads_of(own()).unwrap();
                assert!(threads.contains(&Thread { tid, name: name.to_owned() }), "{name:?} in {threads:?}");
            });
        }
    }

    #[test]
    fn a_process_with_a_newline_and_broken_utf8_in_its_name_is_read() {
        let program = std::env::temp_dir().join(OsStr::from_bytes(b"bad\nname\xff"));
        fs::remove_file(&program).ok();
        std::os::unix::fs::symlink("/bin/cat", &program).unwrap();
        let example = Example::run(&program, &[OsStr::from_bytes(b"\xfe")]);
        let read = Process::read(example.tgid());
        fs::remove_file(&program).unwrap();

        let process = read.unwrap();
        assert_eq!(process.name, "bad\nname\u{fffd}");
        assert_eq!(process.executable, Some(Example::executable()));
        assert_eq!(process.command_line[1..], ["-", "\u{fffd}"]);
    }

    #[test]
    fn a_thread_is_not_taken_for_a_process() {
        with_thread_named("not-a-process", |tid| {
            let read = Process::read(Tgid(tid.0));
            assert!(matches!(read, Err(Error::IsThread { process, .. }) if process == own()), "{read:?}");
        });
    }

    #[test]
    fn a_huge_command_line_is_cut() {
        let huge = "x".repeat(100_000);
        let example = Example::run("cat", &[OsStr::new(&huge)]);
        let process = Process::read(example.tgid()).unwrap();
        let bytes: usize = process.command_line.iter().map(|argument| argument.len() + 1).sum();
        // The end of the last argument, its NUL, was cut as well.
        assert_eq!(bytes, COMMAND_LINE_BYTES as usize + 1);
    }

    #[test]
    fn arguments_are_split_at_nuls() {
        for (bytes, expected) in [
            (&b""[..], &[][..]),
            (b"\0\0\0", &[]),
            (b"a\0b c\0", &["a", "b c"]),
            (b"a\0\0b\0", &["a", "", "b"]),
            (b"cut in the mid", &["cut in the mid"]),
            (b"postgres: writer\0\0\0\0", &["postgres: writer"]),
        ] {
            assert_eq!(arguments(bytes), expected);
        }
    }

    #[test]
    fn a_replaced_program_keeps_its_path() {
        for (path, expected) in
            [("/bin/server (deleted)", "/bin/server"), ("/bin/server", "/bin/server"), (" (deleted)", "")]
        {
            assert_eq!(without_deleted_mark(path.into()), Path::new(expected));
        }
    }
}
