//! Which of our threads go before the recorded program's, and which after them.

use std::{
    io,
    sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    thread::{self, JoinHandle},
    time::Duration,
};

use procfs::process::Process;
use rustix::{
    process::setpriority_process,
    thread::{Pid, gettid},
};

/// Between nice 0 and the threads of the kernel: on a machine that is busy with what is recorded, neither the rings nor
/// unwind tables must wait for their turn.
const FIRST: i32 = -15;

/// A tenth of a CPU on a machine whose CPUs are all busy.
const LAST: i32 = 10;

/// How often it is looked whether threads that give way get on.
const LOOK_PERIOD: Duration = Duration::from_millis(20);

/// For how many of these they may stand still, one after another. Much less than files are waited for.
const PATIENCE: usize = 3;

/// They stand still if they get less of a CPU than `LAST` would get them: one part in so many.
const SHARE: u32 = 10;

/// Lets the calling thread, and those that it starts, go before others.
pub fn go_first() {
    // Without CAP_SYS_NICE the recorder takes its turn like anyone, and shows what it loses.
    setpriority_process(Some(gettid()), FIRST).ok();
}

/// Until it is dropped, the thread that made it, and those that it starts, run when nobody else of their control group wants
/// the CPU: a program that wakes up has it at once. Where somebody always wants it, that would be never, so there they get a
/// tenth of one after all.
pub struct GivingWay(Option<Watched>);

/// A thread that gives way, and the one that looks after it.
struct Watched {
    thread: Pid,
    over: Sender<()>,
    watcher: JoinHandle<()>,
}

impl GivingWay {
    /// From now on.
    pub fn begin() -> GivingWay {
        let thread = gettid();
        let (over, is_over) = channel();
        let (tell, may_return) = channel();
        let watcher = thread::Builder::new().name("polletto-way".into()).spawn(move || {
            // Who asks is gone only if it has panicked.
            tell.send(may_return_from_idle()).ok();
            watch(&is_over);
        });
        // Where it is refused, all is done in turn with others.
        setpriority_process(Some(thread), LAST).ok();
        let Ok(watcher) = watcher else { return GivingWay(None) };
        let watched = Watched { thread, over, watcher };
        let is_idle = may_return.recv().unwrap_or(false) && schedule(thread, libc::SCHED_IDLE).is_ok();
        if is_idle {
            GivingWay(Some(watched))
        } else {
            watched.end();
            GivingWay(None)
        }
    }

    /// The thread stays as it is, whatever that is by now: it has little left to do.
    pub fn for_good(mut self) {
        if let Some(watched) = self.0.take() {
            watched.end();
        }
    }
}

impl Drop for GivingWay {
    fn drop(&mut self) {
        let Some(watched) = self.0.take() else { return };
        // That this is allowed was tried before.
        schedule(watched.thread, libc::SCHED_OTHER).ok();
        watched.end();
    }
}

impl Watched {
    fn end(self) {
        drop(self.over);
        // What it says, nobody needs.
        self.watcher.join().ok();
    }
}

/// Waits until it is over. If threads of ours are found to want a CPU and not to get it, all of them shall wait for their
/// turns like others: one may wait for another.
fn watch(is_over: &Receiver<()>) {
    let Ok(own) = Process::myself() else { return };
    let mut before = Duration::ZERO;
    let mut stood_still = 0;
    while is_over.recv_timeout(LOOK_PERIOD) == Err(RecvTimeoutError::Timeout) {
        let Waiting { threads, had, wants } = waiting(&own);
        let gets_on = had.saturating_sub(before) >= LOOK_PERIOD / SHARE;
        stood_still = if gets_on || !wants { 0 } else { stood_still + 1 };
        before = had;
        if stood_still == PATIENCE {
            // One that has ended needs nothing any more.
            threads.into_iter().for_each(|thread| drop(schedule(thread, libc::SCHED_OTHER)));
            return;
        }
    }
}

/// Our threads that run when nobody else does.
#[derive(Default)]
struct Waiting {
    threads: Vec<Pid>,
    /// The CPU time of all of them.
    had: Duration,
    /// One of them could run.
    wants: bool,
}

fn waiting(own: &Process) -> Waiting {
    let mut waiting = Waiting::default();
    for task in own.tasks().into_iter().flatten().flatten() {
        let Some(thread) = Pid::from_raw(task.tid).filter(|&thread| is_idle(thread)) else { continue };
        // What can't be read has ended.
        let (Ok(used), Ok(stat)) = (task.schedstat(), task.stat()) else { continue };
        waiting.threads.push(thread);
        waiting.had += Duration::from_nanos(used.sum_exec_runtime);
        waiting.wants |= stat.state == 'R';
    }
    waiting
}

/// Tries it on the calling thread, which may have to stay so.
fn may_return_from_idle() -> bool {
    let thread = gettid();
    schedule(thread, libc::SCHED_IDLE).and_then(|()| schedule(thread, libc::SCHED_OTHER)).is_ok()
}

/// Gives a thread of ours a policy that knows no priorities. Asks the kernel itself: musl's function refuses.
fn schedule(thread: Pid, policy: libc::c_int) -> io::Result<()> {
    // The kernel's `struct sched_param`.
    let none: libc::c_int = 0;
    let thread = thread.as_raw_nonzero().get();
    // SAFETY: the kernel reads `none`, which lives until it returns.
    let result = unsafe { libc::syscall(libc::SYS_sched_setscheduler, thread, policy, &raw const none) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn is_idle(thread: Pid) -> bool {
    // SAFETY: it takes no memory of ours.
    let policy = unsafe { libc::syscall(libc::SYS_sched_getscheduler, thread.as_raw_nonzero().get()) };
    policy == libc::c_long::from(libc::SCHED_IDLE)
}

#[cfg(test)]
mod tests {
    use std::{
        hint::spin_loop,
        sync::atomic::{AtomicBool, Ordering},
        time::Instant,
    };

    use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

    use super::*;

    /// On a thread of its own: the runner's may not be able to take back what it does.
    fn apart<T: Send>(test: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| scope.spawn(test).join().expect("it does not panic"))
    }

    #[test]
    fn a_thread_that_gives_way_is_as_others_are_when_it_is_over() {
        let may_return = apart(may_return_from_idle);
        apart(|| {
            let own = gettid();
            let way = GivingWay::begin();
            assert_eq!(is_idle(own), may_return);
            drop(way);
            assert!(!is_idle(own));
        });
    }

    #[test]
    fn a_thread_may_give_way_for_good() {
        let may_return = apart(may_return_from_idle);
        apart(|| {
            GivingWay::begin().for_good();
            assert_eq!(is_idle(gettid()), may_return);
        });
    }

    #[test]
    fn a_thread_that_never_gets_the_cpu_takes_turns_in_the_end() {
        let stay_on_one_cpu = || {
            let allowed = sched_getaffinity(None).expect("the kernel tells");
            let first = (0..CpuSet::MAX_CPU).find(|&cpu| allowed.is_set(cpu)).expect("there is one");
            let mut only = CpuSet::new();
            only.set(first);
            sched_setaffinity(None, &only).expect("it is allowed");
        };
        let is_over = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                stay_on_one_cpu();
                while !is_over.load(Ordering::Relaxed) {
                    spin_loop();
                }
            });
            scope.spawn(|| {
                stay_on_one_cpu();
                let way = GivingWay::begin();
                // Which only waits for another that it has started.
                let is_stuck = apart(|| {
                    let (own, began) = (gettid(), Instant::now());
                    while is_idle(own) && began.elapsed() < Duration::from_secs(20) {
                        spin_loop();
                    }
                    is_idle(own)
                });
                is_over.store(true, Ordering::Relaxed);
                assert!(!is_stuck, "it still waits");
                drop(way);
            });
        });
    }
}
