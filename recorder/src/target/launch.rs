//! Starting a command that waits before its first instruction.
//!
//! The child is forked and stops inside [`CommandExt::pre_exec`]: it has its final id, but is still a copy of the
//! recorder that polls two descriptors. A byte on the first lets it go on to `exec`. The end of the recorder, which the
//! second reports, ends it too. `spawn` returns only when the child has reached its program, hence a thread for it.

use std::{
    env, error,
    ffi::{OsStr, OsString},
    fmt, io,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::{
            ffi::OsStrExt,
            process::{CommandExt, ExitStatusExt},
        },
    },
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus},
    thread::JoinHandle,
};

use polletto_common::id::Tgid;
use rustix::{
    event::{PollFd, PollFlags, poll},
    io::{Errno, retry_on_intr},
    pipe::{PipeFlags, pipe_with},
    process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal},
};

use super::{printable, watch};

/// What the child is told by when it may go on.
const GO: u8 = 1;

/// The exit status of a child that was not told to go on.
const UNBEGUN: i32 = 125;

/// A command that has a process, but has not begun. Dropped, it ends without having begun.
///
/// Other commands that are held at the same time keep [`Held::release`] waiting until they are released or dropped, so
/// release them from threads of their own.
#[derive(Debug)]
pub struct Held {
    tgid: Tgid,
    program: OsString,
    pidfd: OwnedFd,
    gate: OwnedFd,
    spawning: Option<JoinHandle<io::Result<Child>>>,
}

/// A command that runs. Dropped, it goes on running, and nobody learns its exit status.
#[derive(Debug)]
pub struct Running {
    tgid: Tgid,
    pidfd: OwnedFd,
    child: Child,
}

/// Why a command did not start.
#[derive(Debug)]
pub enum LaunchError {
    /// There is no command to start.
    Empty,
    /// There is no such program, or not the interpreter that its first line names.
    NotFound {
        /// What was to be executed.
        program: OsString,
    },
    /// The program is there, but the kernel does not execute it.
    NotExecutable {
        /// What was to be executed.
        program: OsString,
        /// What the kernel said.
        source: io::Error,
    },
    /// The system refused something that launching needs.
    System {
        /// What was tried.
        step: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}

impl Held {
    /// Makes a process for a command, found as the shell finds it, and holds it before its first instruction. It has
    /// our user, directory, environment, and standard streams, and signals as they are by default.
    pub fn launch(command: &[OsString]) -> Result<Held, LaunchError> {
        let [program, arguments @ ..] = command else { return Err(LaunchError::Empty) };
        let failed = |step| move |errno: Errno| LaunchError::System { step, source: errno.into() };
        let (report, report_end) = pipe_with(PipeFlags::CLOEXEC).map_err(failed("make a pipe"))?;
        let (gate_end, gate) = pipe_with(PipeFlags::CLOEXEC).map_err(failed("make a pipe"))?;
        let recorder = pidfd_open(rustix::process::getpid(), PidfdFlags::empty()).map_err(failed("open a pidfd"))?;

        let mut spawned = Command::new(program);
        spawned.args(arguments);
        let hold = move || wait_before_exec(report_end.as_fd(), gate_end.as_fd(), recorder.as_fd());
        // SAFETY: `wait_before_exec` makes nothing but system calls, on descriptors that the closure owns.
        unsafe { spawned.pre_exec(hold) };
        let spawning = std::thread::Builder::new()
            .name("polletto-launch".to_owned())
            .spawn(move || spawned.spawn())
            .map_err(|source| LaunchError::System { step: "start a thread", source })?;

        let Some(tgid) = read_report(&report).map_err(failed("read from the child"))? else {
            return Err(why_not(program, join(spawning)));
        };
        match watch::open(tgid) {
            Ok(pidfd) => Ok(Held { tgid, program: program.clone(), pidfd, gate, spawning: Some(spawning) }),
            Err(error) => {
                drop(gate);
                abandon(spawning);
                Err(LaunchError::System { step: "hold the child", source: io::Error::other(error) })
            }
        }
    }

    /// The process that the command has now and will have when it runs.
    pub fn tgid(&self) -> Tgid {
        self.tgid
    }

    /// Lets the command begin. Returns once it can no longer fail to; the kernel may take some microseconds more to
    /// set its new name and arguments.
    pub fn release(mut self) -> Result<Running, LaunchError> {
        // A child that was killed meanwhile does not read; what `spawn` returns then tells about its end.
        match retry_on_intr(|| rustix::io::write(&self.gate, &[GO])) {
            Ok(_) | Err(Errno::PIPE) => {}
            Err(errno) => return Err(LaunchError::System { step: "release the child", source: errno.into() }),
        }
        let spawned = self.spawning.take().map(join).unwrap_or_else(|| Err(io::ErrorKind::NotFound.into()));
        let pidfd = self.pidfd.try_clone().map_err(|source| LaunchError::System { step: "copy a pidfd", source })?;
        match spawned {
            Ok(child) => Ok(Running { tgid: self.tgid, pidfd, child }),
            Err(error) => Err(why_not(&self.program, Err(error))),
        }
    }
}

/// The file that a command's first word leads to, as the shell finds it.
pub fn find_program(program: &OsStr) -> Option<PathBuf> {
    if Path::new(program).components().count() > 1 {
        return Some(PathBuf::from(program));
    }
    let directories = env::var_os("PATH")?;
    env::split_paths(&directories).map(|directory| directory.join(program)).find(|path| path.is_file())
}

impl Drop for Held {
    fn drop(&mut self) {
        let Some(spawning) = self.spawning.take() else { return };
        // Fails only if it has ended already, which is what is wanted.
        pidfd_send_signal(&self.pidfd, Signal::KILL).ok();
        abandon(spawning);
    }
}

impl Running {
    /// Its process.
    pub fn tgid(&self) -> Tgid {
        self.tgid
    }

    /// Its exit status, if it has ended.
    pub fn try_wait(&mut self) -> io::Result<Option<ExitStatus>> {
        self.child.try_wait()
    }

    /// Its exit status, once it has ended.
    pub fn wait(&mut self) -> io::Result<ExitStatus> {
        self.child.wait()
    }

    /// Sends it a signal; an error if it was waited for already.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        Ok(pidfd_send_signal(&self.pidfd, signal)?)
    }
}

/// Readable once the command has ended.
impl AsFd for Running {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}

/// What a shell would return for a command that ended so: its exit code, or 128 plus the signal.
pub fn exit_code(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX)
}

impl LaunchError {
    /// What a shell would return: 127 if the command was not found, 126 if it cannot be executed, else 1.
    pub fn exit_code(&self) -> u8 {
        match self {
            LaunchError::NotFound { .. } => 127,
            LaunchError::NotExecutable { .. } => 126,
            LaunchError::Empty | LaunchError::System { .. } => 1,
        }
    }
}

/// The child's side, after fork: nothing here may allocate or lock.
fn wait_before_exec(report: BorrowedFd<'_>, gate: BorrowedFd<'_>, recorder: BorrowedFd<'_>) -> io::Result<()> {
    forget_handlers();
    let own = rustix::process::getpid().as_raw_pid().to_ne_bytes();
    retry_on_intr(|| rustix::io::write(report, &own))?;
    let mut either = [PollFd::from_borrowed_fd(gate, PollFlags::IN), PollFd::from_borrowed_fd(recorder, PollFlags::IN)];
    retry_on_intr(|| poll(&mut either, None))?;
    let mut told = [0];
    // A gate whose other end is closed reads as nothing.
    let may_go = either[1].revents().is_empty() && retry_on_intr(|| rustix::io::read(gate, &mut told))? == 1;
    if may_go && told == [GO] { Ok(()) } else { end_unbegun() }
}

/// Ends the child without a word. Returning an error instead would have `std` report it to a recorder that may be gone.
fn end_unbegun() -> ! {
    // SAFETY: `_exit` takes any status, runs nothing of the program's, and may be called after fork.
    unsafe { libc::_exit(UNBEGUN) }
}

/// Gives every signal that the recorder handles its default effect, as `exec` will do: while it waits, the child must
/// not run handlers that write into descriptors that it shares with the recorder.
fn forget_handlers() {
    for signal in 1..=libc::SIGRTMAX() {
        // SAFETY: an all-zero `sigaction` is a valid one: the default effect, no flags, an empty mask.
        let (mut current, default) = unsafe { std::mem::zeroed::<(libc::sigaction, libc::sigaction)>() };
        // SAFETY: both point to live structures. Signals that have no disposition to change are refused with an error.
        unsafe {
            let known = libc::sigaction(signal, std::ptr::null(), &mut current) == 0;
            if known && current.sa_sigaction != libc::SIG_IGN && current.sa_sigaction != libc::SIG_DFL {
                libc::sigaction(signal, &default, std::ptr::null_mut());
            }
        }
    }
}

/// The id that the child reports, or `None` if there is no child to report one.
fn read_report(report: &OwnedFd) -> Result<Option<Tgid>, Errno> {
    let mut id = [0; 4];
    // Four bytes go through a pipe at once, or not at all.
    let length = retry_on_intr(|| rustix::io::read(report, &mut id))?;
    let pid = Pid::from_raw(i32::from_ne_bytes(id)).filter(|_| length == id.len());
    Ok(pid.map(|pid| Tgid(pid.as_raw_pid().unsigned_abs())))
}

fn join(spawning: JoinHandle<io::Result<Child>>) -> io::Result<Child> {
    spawning.join().unwrap_or_else(|_| Err(io::Error::other("the launching thread panicked")))
}

/// Waits for a child that ends, so that no zombie is left.
fn abandon(spawning: JoinHandle<io::Result<Child>>) {
    if let Ok(mut child) = join(spawning) {
        // Fails only if somebody else has waited for it.
        child.wait().ok();
    }
}

fn why_not(program: &OsStr, spawned: io::Result<Child>) -> LaunchError {
    let program = program.to_owned();
    let source = spawned.err().unwrap_or_else(|| io::Error::other("the child reported no id"));
    match source.raw_os_error().map(Errno::from_raw_os_error) {
        // The C library says so of a command that it did not find if it could not look everywhere on PATH.
        Some(Errno::ACCESS) if !is_visible(&program) => LaunchError::NotFound { program },
        Some(Errno::NOENT | Errno::NOTDIR) => LaunchError::NotFound { program },
        Some(
            Errno::ACCESS | Errno::PERM | Errno::NOEXEC | Errno::ISDIR | Errno::TXTBSY | Errno::LOOP | Errno::TOOBIG,
        ) => LaunchError::NotExecutable { program, source },
        _ => LaunchError::System { step: "start the command", source },
    }
}

fn is_visible(program: &OsStr) -> bool {
    let is_path = program.as_bytes().contains(&b'/');
    let path = env::var_os("PATH").unwrap_or_default();
    is_path || env::split_paths(&path).any(|directory| directory.join(program).exists())
}

impl fmt::Display for LaunchError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LaunchError::Empty => write!(out, "there is no command after `--`"),
            LaunchError::NotFound { program } => {
                let name = program.to_string_lossy();
                match name.contains('/') {
                    true => write!(out, "there is no `{}`, or not the interpreter it asks for", printable(&name)),
                    false => write!(out, "command not found on PATH: `{}`", printable(&name)),
                }
            }
            LaunchError::NotExecutable { program, .. } => {
                write!(out, "cannot execute `{}`", printable(&program.to_string_lossy()))
            }
            LaunchError::System { step, .. } => write!(out, "cannot launch the command: failed to {step}"),
        }
    }
}

impl error::Error for LaunchError {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        match self {
            LaunchError::NotExecutable { source, .. } | LaunchError::System { source, .. } => Some(source),
            LaunchError::Empty | LaunchError::NotFound { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, path::PathBuf};

    use rustix::process::{WaitId, WaitIdOptions, waitid};

    use super::*;
    use crate::target::{Error, Kind, Process};

    fn command(words: &[&str]) -> Vec<OsString> {
        words.iter().map(OsString::from).collect()
    }

    /// A path of this test's own, with nothing at it.
    fn scratch(name: &str) -> PathBuf {
        let path = env::temp_dir().join(format!("polletto-launch-{}-{name}", std::process::id()));
        fs::remove_file(&path).ok();
        path
    }

    #[test]
    fn a_held_command_has_not_begun_and_a_released_one_runs_in_the_same_process() {
        let mark = scratch("mark");
        let held = Held::launch(&command(&["sh", "-c", "echo $$ > \"$0\"; exit 7", mark.to_str().unwrap()])).unwrap();
        let process = Process::read(held.tgid()).unwrap();
        assert_eq!(process.executable, env::current_exe().ok());
        assert_eq!(process.parent.0, std::process::id());
        assert!(!mark.exists());

        let tgid = held.tgid();
        let mut running = held.release().unwrap();
        assert_eq!(running.tgid(), tgid);
        assert_eq!(exit_code(running.wait().unwrap()), 7);
        assert_eq!(fs::read_to_string(&mark).unwrap().trim(), tgid.to_string());
        fs::remove_file(mark).unwrap();
        assert!(matches!(Process::read(tgid), Err(Error::NoProcess(_))));
    }

    /// A released command that has begun, and has stopped itself.
    fn stopped() -> Running {
        let running = Held::launch(&command(&["sh", "-c", "kill -STOP $$; exit 5"])).unwrap().release().unwrap();
        let state = WaitIdOptions::STOPPED | WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        let state = waitid(WaitId::Pid(Pid::from_child(&running.child)), state).unwrap().unwrap();
        assert!(state.stopped(), "{state:?}");
        running
    }

    #[test]
    fn a_running_command_can_be_awaited_and_signalled() {
        let mut running = stopped();
        let process = Process::read(running.tgid()).unwrap();
        assert_eq!((process.name.as_str(), process.kind), ("sh", Kind::Program));
        assert_eq!(running.try_wait().unwrap(), None);
        running.signal(Signal::TERM).unwrap();
        running.signal(Signal::CONT).unwrap();
        let mut ended = [PollFd::from_borrowed_fd(running.as_fd(), PollFlags::IN)];
        assert_eq!(poll(&mut ended, None), Ok(1));
        assert_eq!(exit_code(running.wait().unwrap()), 128 + 15);
        assert!(running.signal(Signal::TERM).is_err());
    }

    #[test]
    fn a_dropped_command_ends_without_having_begun() {
        let mark = scratch("never");
        let held = Held::launch(&command(&["touch", mark.to_str().unwrap()])).unwrap();
        let tgid = held.tgid();
        drop(held);
        assert!(matches!(Process::read(tgid), Err(Error::NoProcess(_))));
        assert!(!mark.exists());
    }

    #[test]
    fn a_command_killed_while_held_ends_by_that_signal() {
        let held = Held::launch(&command(&["true"])).unwrap();
        pidfd_send_signal(&held.pidfd, Signal::KILL).unwrap();
        let mut ended = [PollFd::from_borrowed_fd(held.pidfd.as_fd(), PollFlags::IN)];
        poll(&mut ended, None).unwrap();
        assert_eq!(exit_code(held.release().unwrap().wait().unwrap()), 128 + 9);
    }

    #[test]
    fn a_command_that_cannot_start_says_why_as_a_shell_would() {
        let plain = scratch("plain");
        fs::write(&plain, "no program").unwrap();
        let script = scratch("script");
        // By another process: a file that a command forked meanwhile holds open for writing cannot be executed.
        let write = "echo '#!/no/such/interpreter' > \"$0\"";
        assert!(Command::new("sh").args(["-c", write]).arg(&script).status().unwrap().success());
        fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
        for (program, code) in [
            ("polletto-no-such-command", 127),
            ("/no/such/file", 127),
            ("/etc/passwd/below", 127),
            (script.to_str().unwrap(), 127),
            (plain.to_str().unwrap(), 126),
            ("/", 126),
        ] {
            let error = Held::launch(&command(&[program])).unwrap().release().unwrap_err();
            assert_eq!(error.exit_code(), code, "{program}: {error:?}");
            assert!(error.to_string().contains(program), "{error}");
        }
        fs::remove_file(plain).unwrap();
        fs::remove_file(script).unwrap();
    }

    #[test]
    fn no_command_and_an_impossible_one_are_refused_before_a_process_is_made() {
        assert!(matches!(Held::launch(&[]), Err(LaunchError::Empty)));
        let error = Held::launch(&command(&["nul\0inside"])).unwrap_err();
        assert_eq!(error.exit_code(), 1, "{error:?}");
    }

    #[test]
    fn a_command_inherits_no_descriptor_of_the_recorder() {
        const CLOSED_BY_EXEC: u32 = libc::O_CLOEXEC as u32;
        let mut running = stopped();
        let listed = fs::read_dir(format!("/proc/{}/fd", running.tgid())).unwrap();
        let inherited: Vec<_> = listed.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        running.signal(Signal::KILL).unwrap();
        running.wait().unwrap();
        assert!(inherited.iter().any(|fd| fd == "0"), "{inherited:?}");
        // What the tests' own parent left open goes on to the command. What polletto opens is marked to be closed.
        for fd in inherited {
            let info = fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).unwrap();
            let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).unwrap();
            assert_eq!(u32::from_str_radix(flags.trim(), 8).unwrap() & CLOSED_BY_EXEC, 0, "{fd}");
        }
    }

    #[test]
    fn a_command_gets_signals_as_they_are_by_default() {
        let status = scratch("signals");
        let script = "cat /proc/self/status > \"$0\"";
        let held = Held::launch(&command(&["sh", "-c", script, status.to_str().unwrap()])).unwrap();
        assert!(held.release().unwrap().wait().unwrap().success());
        let read = fs::read_to_string(&status).unwrap();
        fs::remove_file(status).unwrap();
        let mask = |name: &str| read.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim().to_owned();
        let bits = |name: &str| u64::from_str_radix(&mask(name), 16).unwrap();
        assert_eq!(bits("SigBlk:"), 0);
        assert_eq!(bits("SigIgn:") & 1 << (libc::SIGPIPE - 1), 0);
    }

    #[test]
    fn a_held_command_ends_with_the_recorder() {
        // The recorder's part is played by another process, which ends at once: its pidfd is readable.
        let mut recorder = Command::new("true").spawn().unwrap();
        let pidfd = watch::open(Tgid(recorder.id())).unwrap();
        recorder.wait().unwrap();
        let (report, report_end) = pipe_with(PipeFlags::CLOEXEC).unwrap();
        let (gate_end, _gate) = pipe_with(PipeFlags::CLOEXEC).unwrap();
        let mut child = Command::new("true");
        // SAFETY: as in `Held::launch`.
        unsafe { child.pre_exec(move || wait_before_exec(report_end.as_fd(), gate_end.as_fd(), pidfd.as_fd())) };
        let ended = child.spawn().unwrap().wait().unwrap();
        assert_eq!(ended.code(), Some(UNBEGUN));
        assert!(read_report(&report).unwrap().is_some());
    }
}
