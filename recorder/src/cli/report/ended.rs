//! A report that is ended in the middle leaves nothing behind: no files, and nobody who reads on.

use std::{
    fs,
    io::{self, Read},
    os::unix::{net::UnixStream, process::CommandExt},
    path::Path,
    process::Command,
    thread,
};

use rustix::process::{Signal, getpid, getppid, set_parent_process_death_signal};
use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM},
    low_level::{emulate_default_handler, pipe},
};

/// Signals that end a program and leave it the time to tidy up.
const ENDING: [i32; 3] = [SIGINT, SIGTERM, SIGHUP];

/// Signals that end this program, each with what is readable once it came.
#[derive(Debug)]
pub struct Endings(Vec<(i32, UnixStream)>);

impl Endings {
    /// From now on they do nothing until [`Endings::remove`]. What who started this wants to be ignored stays so.
    pub fn hold() -> io::Result<Endings> {
        let held = ENDING.into_iter().filter(|signal| !is_ignored(*signal)).map(|signal| {
            let (came, write) = UnixStream::pair()?;
            pipe::register(signal, write)?;
            Ok((signal, came))
        });
        held.collect::<io::Result<_>>().map(Endings)
    }

    /// From now on each of them removes the directory, and then ends the program as it ever did.
    pub fn remove(self, directory: &Path) -> io::Result<()> {
        for (signal, mut came) in self.0 {
            let directory = directory.to_owned();
            thread::Builder::new().name("polletto-ended".to_owned()).spawn(move || {
                if came.read_exact(&mut [0]).is_ok() {
                    // Nobody is left to be told that it failed.
                    fs::remove_dir_all(directory).ok();
                    emulate_default_handler(signal).ok();
                }
            })?;
        }
        Ok(())
    }
}

fn is_ignored(signal: i32) -> bool {
    // SAFETY: all zeroes are an action, and this one only takes what is set.
    let current = unsafe {
        let mut current = std::mem::zeroed::<libc::sigaction>();
        libc::sigaction(signal, std::ptr::null(), &raw mut current);
        current
    };
    current.sa_sigaction == libc::SIG_IGN
}

/// What the command starts is killed when the thread ends that starts it, however it does.
pub fn end_with_us(command: &mut Command) {
    let parent = getpid();
    let follow = move || {
        set_parent_process_death_signal(Some(Signal::KILL))?;
        // Who ended before that was asked for sends no signal.
        if getppid() == Some(parent) { Ok(()) } else { Err(io::ErrorKind::BrokenPipe.into()) }
    };
    // SAFETY: it makes two system calls, and takes neither memory nor locks.
    unsafe { command.pre_exec(follow) };
}
