//! What the programs under record share: their arguments, clocks, CPUs and the kernel's own accounting.

use std::{
    env, fmt, fs,
    io::{self, Read, Write},
    path::Path,
    str::FromStr,
    thread,
    time::Duration,
};

use rustix::{
    thread::{CpuSet, gettid, sched_setaffinity},
    time::{ClockId, clock_gettime},
};
use serde_json::Value;

/// Nanoseconds of `CLOCK_BOOTTIME`, the clock of a trace.
pub fn boottime() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    u64::try_from(now.tv_sec).expect("a boot lies in the past") * 1_000_000_000
        + u64::try_from(now.tv_nsec).expect("a fraction of a second is positive")
}

/// The calling thread's id.
pub fn own_tid() -> i32 {
    gettid().as_raw_nonzero().get()
}

/// Keeps the calling thread on one CPU.
pub fn pin_to(cpu: usize) -> io::Result<()> {
    let mut only = CpuSet::new();
    only.set(cpu);
    Ok(sched_setaffinity(None, &only)?)
}

/// Lets the calling thread run only where nobody else wants to.
pub fn give_way() -> io::Result<()> {
    let priority = libc::sched_param { sched_priority: 0 };
    // SAFETY: the pointer is to a live value, which the kernel only reads.
    match unsafe { libc::sched_setscheduler(0, libc::SCHED_IDLE, &raw const priority) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Uses the CPU for so long, not counting what others use meanwhile.
///
/// Tells how much longer it took than the kernel says that the thread ran and waited, in nanoseconds: a hypervisor had
/// taken the CPU away meanwhile, which the kernel counts as neither.
pub fn spin_and_count_stolen(length: Duration) -> io::Result<u64> {
    let (waited, began, ran) = (own_schedstat()?.1, boottime(), own_cpu_time());
    spin(length);
    let (ran, ended, waited) = (own_cpu_time() - ran, boottime(), own_schedstat()?.1 - waited);
    let ran = u64::try_from(ran.as_nanos()).expect("a few milliseconds");
    Ok((ended - began).saturating_sub(ran + waited))
}

/// Uses the CPU for so long, not counting what others use meanwhile.
pub fn spin(length: Duration) {
    let end = own_cpu_time() + length;
    while own_cpu_time() < end {
        std::hint::spin_loop();
    }
}

/// For how long the calling thread has used a CPU.
pub fn own_cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).expect("a fraction of a second"))
}

/// What the kernel has counted for a thread up to its last switch.
#[derive(Clone, Copy, Debug)]
pub struct Accounting {
    /// `CLOCK_BOOTTIME` when it was read.
    pub at: u64,
    /// Nanoseconds on a CPU.
    pub run_ns: u64,
    /// Nanoseconds runnable, waiting for a CPU.
    pub wait_ns: u64,
}

impl Accounting {
    /// The calling thread's, right after a sleep.
    ///
    /// The kernel adds up a thread's time when it leaves a CPU, and at ticks. Right after waking the sums are those of
    /// its finished slices, which is what a trace can be compared with.
    pub fn after_sleep(length: Duration) -> io::Result<Accounting> {
        loop {
            thread::sleep(length);
            let before = boottime();
            let (run_ns, wait_ns) = own_schedstat()?;
            let at = boottime();
            // Longer than it takes, it was taken off the CPU in between: the moment is not that of the sums.
            if at - before > 100_000 {
                continue;
            }
            return Ok(Accounting { at, run_ns, wait_ns });
        }
    }
}

impl Accounting {
    /// What [`Accounting`]'s text says.
    pub fn read(text: &Value) -> Accounting {
        let number = |name: &str| text[name].as_u64().unwrap_or_else(|| panic!("{text}: {name}"));
        Accounting { at: number("at"), run_ns: number("run_ns"), wait_ns: number("wait_ns") }
    }
}

impl fmt::Display for Accounting {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Accounting { at, run_ns, wait_ns } = self;
        write!(out, r#"{{"at":{at},"run_ns":{run_ns},"wait_ns":{wait_ns}}}"#)
    }
}

/// For how long the calling thread has run and waited for a CPU, in nanoseconds, up to its last switch or tick.
fn own_schedstat() -> io::Result<(u64, u64)> {
    read_schedstat("/proc/thread-self/schedstat")
}

/// For how long a thread has run and waited for a CPU, in nanoseconds, as its `schedstat` file says.
pub fn read_schedstat(path: impl AsRef<Path>) -> io::Result<(u64, u64)> {
    let sums = fs::read_to_string(path)?;
    let mut fields = sums.split_ascii_whitespace().map(u64::from_str);
    match (fields.next(), fields.next()) {
        (Some(Ok(run_ns)), Some(Ok(wait_ns))) => Ok((run_ns, wait_ns)),
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, format!("schedstat says {sums:?}"))),
    }
}

/// How often the calling thread has left a CPU: by its own will, and against it.
pub fn own_switches() -> io::Result<(u64, u64)> {
    let status = fs::read_to_string("/proc/thread-self/status")?;
    let count =
        |name: &str| status.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok()).unwrap_or_default();
    Ok((count("voluntary_ctxt_switches:"), count("nonvoluntary_ctxt_switches:")))
}

/// Writes one line of a program's truth at once, whatever else prints.
pub fn say(line: impl fmt::Display) {
    let mut out = io::stdout().lock();
    // Whoever listened may be gone; then there is nobody left to tell.
    if writeln!(out, "{line}").and_then(|()| out.flush()).is_err() {
        std::process::exit(0);
    }
}

/// Waits for a line on standard input. False once it is closed.
pub fn line_came() -> bool {
    let mut line = String::new();
    io::stdin().read_line(&mut line).is_ok_and(|bytes| bytes > 0)
}

/// Waits until standard input is closed, as it is when whoever started the program ends.
pub fn until_stdin_closes() {
    let mut rest = [0; 256];
    while io::stdin().read(&mut rest).is_ok_and(|bytes| bytes > 0) {}
}

/// The value behind `name` on the command line, or `default`.
pub fn option<T: FromStr>(name: &str, default: T) -> T {
    let mut arguments = env::args().skip(1).skip_while(|argument| argument != name).skip(1);
    match arguments.next().map(|value| value.parse()) {
        None => default,
        Some(Ok(value)) => value,
        Some(Err(_)) => panic!("{name} has a value that does not fit"),
    }
}

/// Whether `name` stands on the command line.
pub fn flag(name: &str) -> bool {
    env::args().skip(1).any(|argument| argument == name)
}
