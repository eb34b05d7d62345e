//! A process that changes what it is, as its arguments say, one after the other.
//!
//! | argument | what it does |
//! | --- | --- |
//! | `rename NAME` | names its thread NAME |
//! | `spin MS` | uses a CPU for so long |
//! | `sleep MS` | sleeps for so long |
//! | `wait` | prints `ready PID` and waits for a line on standard input |
//! | `fork` | the child goes on with what follows, up to `join`, and ends; the parent goes on after that |
//! | `thread NAME` | starts a thread of that name, which spins 20 ms, sleeps 1 ms and ends |
//! | `threads COUNT` | starts so many threads, one after the other, each of which ends at once |
//! | `exec NAME` | executes itself under another name |
//! | `exec-from-thread NAME` | the same from a thread that does not lead the process |
//! | `become PATH` | executes another program, with what follows as its arguments |
//! | `vfork MS` | the child sleeps for so long and ends; meanwhile the parent waits for it in the kernel, state `D` |
//! | `open PATH`, `close` | loads a shared object, unloads it |
//! | `call MS` | lets its `plugin_work` use a CPU for so long |
//! | `exit CODE`, `signal NUMBER` | ends |
//!
//! Every step prints `STEP PID TID BOOTTIME` before it is taken. `open` and `call` print the same as `opened` and `called`
//! after it, `opened` with the object's first address behind it.

mod shared_object;

use std::{
    env, fs, io,
    os::unix::{fs::symlink, process::CommandExt},
    path::PathBuf,
    process::{self, Command, ExitCode},
    thread,
    time::Duration,
};

use polletto_tests::workload::{boottime, line_came, own_tid, say, spin};
use shared_object::SharedObject;

use rustix::process::{Pid, WaitOptions, waitpid};

fn main() -> io::Result<ExitCode> {
    take(&env::args().skip(1).collect::<Vec<_>>())
}

/// Takes the steps in turn, until the last or one that ends the process.
fn take(mut steps: &[String]) -> io::Result<ExitCode> {
    let mut object = None;
    while let [step, rest @ ..] = steps {
        announce(step);
        steps = match (step.as_str(), rest) {
            ("wait", rest) => {
                say(format_args!("ready {}", process::id()));
                line_came();
                rest
            }
            ("fork", rest) => match forked(rest)? {
                Some(code) => return Ok(code),
                None => rest.iter().position(|step| step == "join").map_or(&[], |join| &rest[join + 1..]),
            },
            ("rename", [name, rest @ ..]) => {
                fs::write("/proc/thread-self/comm", name)?;
                rest
            }
            ("spin", [length, rest @ ..]) => {
                spin(milliseconds(length)?);
                rest
            }
            ("sleep", [length, rest @ ..]) => {
                thread::sleep(milliseconds(length)?);
                rest
            }
            ("thread", [name, rest @ ..]) => {
                thread::Builder::new().name(name.clone()).spawn(|| {
                    spin(Duration::from_millis(20));
                    thread::sleep(Duration::from_millis(1));
                })?;
                rest
            }
            ("threads", [count, rest @ ..]) => {
                for _ in 0..count.parse::<u32>().map_err(io::Error::other)? {
                    thread::Builder::new().stack_size(32 << 10).spawn(|| {})?.join().expect("it does not panic");
                }
                rest
            }
            ("exec", [name, rest @ ..]) => return Err(exec(name, rest)),
            ("exec-from-thread", [name, rest @ ..]) => {
                let (name, rest) = (name.clone(), rest.to_vec());
                let attempt = thread::Builder::new().name("shape-exec".to_owned()).spawn(move || exec(&name, &rest))?;
                return Err(attempt.join().expect("exec does not panic"));
            }
            ("become", [path, rest @ ..]) => return Err(Command::new(path).args(rest).exec()),
            ("vfork", [length, rest @ ..]) => {
                wait_for_vforked(milliseconds(length)?)?;
                rest
            }
            ("open", [path, rest @ ..]) => {
                let opened = object.insert(SharedObject::open(path)?);
                say(format_args!("opened {} {} {} {:#x}", process::id(), own_tid(), boottime(), opened.base()));
                rest
            }
            ("call", [length, rest @ ..]) => {
                let object = object.as_ref().ok_or_else(|| io::Error::other("nothing is open"))?;
                object.call(milliseconds(length)?);
                announce("called");
                rest
            }
            ("close", rest) => {
                object.take().ok_or_else(|| io::Error::other("nothing is open"))?.close()?;
                rest
            }
            ("exit", [code, ..]) => return Ok(ExitCode::from(code.parse::<u8>().map_err(io::Error::other)?)),
            ("signal", [number, ..]) => return Err(die_by(number.parse().map_err(io::Error::other)?)),
            _ => return Err(io::Error::other(format!("no step {step:?} with what follows it"))),
        };
    }
    Ok(ExitCode::SUCCESS)
}

fn announce(step: &str) {
    say(format_args!("{step} {} {} {}", process::id(), own_tid(), boottime()));
}

fn milliseconds(text: &str) -> io::Result<Duration> {
    text.parse().map(Duration::from_millis).map_err(io::Error::other)
}

/// In the child: its steps' end. In the parent: nothing, once the child has ended.
fn forked(steps: &[String]) -> io::Result<Option<ExitCode>> {
    let until = steps.iter().position(|step| step == "join").unwrap_or(steps.len());
    // SAFETY: this process has a single thread when its steps fork, so the child finds no lock held by another.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => take(&steps[..until]).map(Some),
        child => {
            waitpid(Pid::from_raw(child), WaitOptions::empty())?;
            Ok(None)
        }
    }
}

/// Makes a process that has its own memory, and yet keeps this one waiting until it ends, as `vfork` does.
fn wait_for_vforked(length: Duration) -> io::Result<()> {
    let flags = u64::try_from(libc::CLONE_VFORK | libc::SIGCHLD).expect("flags are positive");
    // SAFETY: without CLONE_VM and without a stack of its own this is `fork`, of a process with a single thread. The raw
    // call takes flags, stack, two ids and a TLS pointer.
    match unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) } {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            thread::sleep(length);
            process::exit(0)
        }
        child => {
            waitpid(Pid::from_raw(i32::try_from(child).expect("an id")), WaitOptions::empty())?;
            Ok(())
        }
    }
}

/// Only returns when it failed.
fn exec(name: &str, steps: &[String]) -> io::Error {
    match alias(name) {
        Ok(path) => Command::new(path).arg0(name).args(steps).exec(),
        Err(error) => error,
    }
}

/// A link of that name to this program: a process takes the name of the file that it executes.
fn alias(name: &str) -> io::Result<PathBuf> {
    let program = fs::canonicalize("/proc/self/exe")?;
    let directory = program.with_file_name("aliases");
    fs::create_dir_all(&directory)?;
    // Renamed into place: several of these programs may do this at once.
    let fresh = directory.join(process::id().to_string());
    symlink(&program, &fresh)?;
    let path = directory.join(name);
    fs::rename(&fresh, &path)?;
    Ok(path)
}

fn die_by(signal: i32) -> io::Error {
    // SAFETY: raising a signal in oneself touches no memory.
    unsafe { libc::raise(signal) };
    io::Error::other(format!("signal {signal} did not end this process"))
}
