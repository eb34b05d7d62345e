//! How much of the time each worker had work.
//!
//! A worker that has nothing to do sleeps outside of polls. The rest of the time in which its threads are known is work, or
//! waiting for a CPU. Only threads that were found to be workers are kept, so other programs cost nothing here.

use std::collections::{BTreeMap, BTreeSet};

use polletto_common::{
    id::{Tgid, Tid},
    polled::Polled,
};
use rustc_hash::FxHashMap;

use super::runtimes::MAX_WORKERS;

/// Threads of workers that are kept, and runtimes of threads that have ended.
const MAX_THREADS: usize = 1 << 16;

/// Workers that one thread was found to be, one after another.
const MAX_WORKERS_OF_THREAD: usize = 8;

/// A runtime: the process, and [`Polled::runtime`].
pub type RuntimeKey = (Tgid, u64);

/// A thread that was found to be a worker.
#[derive(Debug)]
struct Thread {
    since_ns: u64,
    last_ns: u64,
    /// How long it slept outside of polls.
    parked_ns: u64,
    asleep_since_ns: Option<u64>,
    /// When it left its CPU last in the middle of a poll, and the poll's task.
    left_poll: Option<(u64, u64)>,
    /// Its last sleep in the middle of a poll: of which task, and for how long.
    slept_in: Option<(u64, u64)>,
    /// As which worker of which runtime it was found to poll, and how often.
    polled_as: Vec<((RuntimeKey, u64), u64)>,
}

/// The work of a runtime's workers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// By worker.
    busy_ns: BTreeMap<u64, u64>,
    /// How many workers it has, as far as its memory tells.
    workers: u64,
    /// A worker was several threads, or a thread several workers: tasks of it block in place. Whose work a thread's was at
    /// what time is not kept.
    has_moved: bool,
}

impl Work {
    /// The share of so much time in which each worker was busy. None where that is not known.
    pub fn shares(&self, recorded_ns: u64) -> Vec<(u64, f64)> {
        if self.has_moved {
            return Vec::new();
        }
        // One that never polled has no thread that is known as its.
        let workers: BTreeSet<u64> = (0..self.workers).chain(self.busy_ns.keys().copied()).collect();
        let busy_ns = |worker: &u64| self.busy_ns.get(worker).copied().unwrap_or_default();
        workers.iter().map(|worker| (*worker, busy_ns(worker) as f64 / recorded_ns as f64)).collect()
    }
}

/// What workers did with their time.
#[derive(Debug, Default)]
pub struct Workers {
    threads: FxHashMap<Tid, Thread>,
    work: FxHashMap<RuntimeKey, Work>,
    /// Threads and workers for which there was no room.
    not_kept: u64,
}

impl Workers {
    /// A thread was found to be the worker that says, since `since_ns` and now.
    pub fn found(&mut self, since_ns: u64, time_ns: u64, tid: Tid, polled: &Polled) {
        if !is_of_several(polled) {
            return;
        }
        if !self.threads.contains_key(&tid) && self.threads.len() >= MAX_THREADS {
            self.not_kept += 1;
            return;
        }
        let thread = self.threads.entry(tid).or_insert_with(|| Thread {
            since_ns,
            last_ns: time_ns,
            parked_ns: 0,
            asleep_since_ns: None,
            left_poll: None,
            slept_in: None,
            polled_as: Vec::new(),
        });
        thread.last_ns = thread.last_ns.max(time_ns);
    }

    /// And it polls a task. One that never does has nothing to do, however often it looks for something.
    pub fn polls(&mut self, tid: Tid, tgid: Tgid, polled: &Polled) {
        let Some(thread) = self.threads.get_mut(&tid).filter(|_| is_of_several(polled)) else { return };
        let worker = ((tgid, polled.runtime), polled.worker);
        if let Some((_, times)) = thread.polled_as.iter_mut().find(|(known, _)| *known == worker) {
            *times += 1;
        } else if thread.polled_as.len() < MAX_WORKERS_OF_THREAD {
            thread.polled_as.push((worker, 1));
        }
    }

    /// A thread leaves its CPU in the middle of a poll of that task, or in what may be one.
    pub fn leaves_poll(&mut self, time_ns: u64, tid: Tid, task: u64) {
        if let Some(thread) = self.threads.get_mut(&tid) {
            thread.left_poll = Some((time_ns, task));
        }
    }

    /// A thread leaves its CPU, wherever it is.
    pub fn leaves(&mut self, time_ns: u64, tid: Tid, is_asleep: bool) {
        if let Some(thread) = self.threads.get_mut(&tid) {
            thread.last_ns = time_ns;
            thread.asleep_since_ns = is_asleep.then_some(time_ns);
        }
    }

    /// A thread is woken, or runs again.
    pub fn is_back(&mut self, time_ns: u64, tid: Tid) {
        if let Some(thread) = self.threads.get_mut(&tid) {
            thread.end_sleep(time_ns);
        }
    }

    /// Its last sleep was in no poll, nor is this one: what it seemed to poll is the task that a worker is itself.
    pub fn was_itself(&mut self, tid: Tid, own: u64) {
        let Some(thread) = self.threads.get_mut(&tid) else { return };
        thread.left_poll = thread.left_poll.filter(|(_, task)| *task != own);
        if let Some((_, slept_ns)) = thread.slept_in.take_if(|(task, _)| *task == own) {
            thread.parked_ns += slept_ns;
        }
    }

    /// A runtime has so many workers.
    pub fn count(&mut self, runtime: RuntimeKey, workers: u64) {
        if self.work.len() < MAX_THREADS || self.work.contains_key(&runtime) {
            let work = self.work.entry(runtime).or_default();
            work.workers = work.workers.max(workers);
        }
    }

    /// The thread has ended, or its id is another's now.
    pub fn forget_thread(&mut self, tid: Tid) {
        let Some(thread) = self.threads.remove(&tid) else { return };
        // The worker that it was most of the time, and of those the first.
        let worker = thread.polled_as.iter().rev().max_by_key(|(_, times)| *times);
        let Some(&((runtime, index), _)) = worker else { return };
        if self.work.len() < MAX_THREADS || self.work.contains_key(&runtime) {
            let busy_ns = thread.last_ns.saturating_sub(thread.since_ns).saturating_sub(thread.parked_ns);
            let work = self.work.entry(runtime).or_default();
            let was = thread.polled_as.iter().filter(|((of, _), _)| *of == runtime).count();
            work.has_moved |= was > 1 || work.busy_ns.contains_key(&index);
            let known = &mut work.busy_ns;
            // A program's memory may say anything.
            if known.len() < MAX_WORKERS as usize || known.contains_key(&index) {
                *known.entry(index).or_default() += busy_ns;
                return;
            }
        }
        self.not_kept += 1;
    }

    /// The work of a process that has ended, whose threads have.
    pub fn take_process(&mut self, tgid: Tgid) -> Vec<(RuntimeKey, Work)> {
        self.work.extract_if(|(of, _), _| *of == tgid).collect()
    }

    /// All work until `now_ns`, when the recording ends.
    pub fn take_all(&mut self, now_ns: u64) -> Vec<(RuntimeKey, Work)> {
        let tids: Vec<Tid> = self.threads.keys().copied().collect();
        for tid in tids {
            if let Some(thread) = self.threads.get_mut(&tid) {
                thread.end_sleep(now_ns);
            }
            self.forget_thread(tid);
        }
        self.work.drain().collect()
    }

    /// How often there was no room for a thread that was found to be a worker, or for what one that ended had done.
    pub fn not_kept(&self) -> u64 {
        self.not_kept
    }
}

impl Thread {
    fn end_sleep(&mut self, time_ns: u64) {
        self.last_ns = self.last_ns.max(time_ns);
        let Some(since_ns) = self.asleep_since_ns.take() else { return };
        let slept_ns = time_ns.saturating_sub(since_ns);
        match self.left_poll.filter(|(at_ns, _)| *at_ns == since_ns) {
            Some((_, task)) => self.slept_in = Some((task, slept_ns)),
            None => self.parked_ns += slept_ns,
        }
    }
}

/// Whether it is known whose worker a thread is, of a runtime with several.
fn is_of_several(polled: &Polled) -> bool {
    polled.runtime != 0 && polled.worker != Polled::ONLY_WORKER
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROCESS: Tgid = Tgid(10);
    const RUNTIME: RuntimeKey = (PROCESS, 0x1000);

    fn worker(index: u64) -> Polled {
        Polled { task: 7, runtime: RUNTIME.1, worker: index, tick: 0 }
    }

    fn found(workers: &mut Workers, time_ns: u64, tid: Tid, polled: Polled) {
        workers.found(time_ns, time_ns, tid, &polled);
        workers.polls(tid, PROCESS, &polled);
    }

    fn shares(workers: &mut Workers, recorded_ns: u64) -> Vec<(u64, f64)> {
        let all = workers.take_all(recorded_ns);
        assert_eq!(all.iter().map(|(key, _)| *key).collect::<Vec<_>>(), [RUNTIME]);
        all[0].1.shares(recorded_ns)
    }

    #[test]
    fn a_worker_has_no_work_while_it_sleeps_outside_of_polls() {
        let mut workers = Workers::default();
        workers.count(RUNTIME, 3);
        found(&mut workers, 0, Tid(1), worker(0));
        found(&mut workers, 100, Tid(2), worker(2));
        workers.leaves(200, Tid(1), true);
        workers.is_back(500, Tid(1));
        // It then waits for its CPU, and makes room for another, which is no rest.
        workers.leaves(600, Tid(1), false);
        workers.is_back(700, Tid(1));
        // Whichever of the two is heard of first.
        workers.leaves_poll(700, Tid(2), 7);
        workers.leaves(700, Tid(2), true);
        workers.is_back(800, Tid(2));
        workers.leaves(850, Tid(2), true);
        workers.leaves_poll(850, Tid(2), 7);
        workers.is_back(900, Tid(2));
        assert_eq!(shares(&mut workers, 1000), [(0, 0.7), (1, 0.0), (2, 0.9)]);
    }

    #[test]
    fn a_worker_that_seemed_to_poll_itself_was_at_rest() {
        let mut workers = Workers::default();
        found(&mut workers, 0, Tid(1), worker(0));
        workers.leaves_poll(100, Tid(1), 2);
        workers.leaves(100, Tid(1), true);
        workers.is_back(400, Tid(1));
        workers.was_itself(Tid(1), 2);
        workers.was_itself(Tid(1), 2);
        // One that is not over yet.
        workers.leaves_poll(800, Tid(1), 2);
        workers.leaves(800, Tid(1), true);
        workers.was_itself(Tid(1), 2);
        assert_eq!(shares(&mut workers, 1000), [(0, 0.5)]);
    }

    #[test]
    fn one_that_still_sleeps_does_so_to_the_end_and_one_that_has_ended_is_busy_no_longer() {
        let mut workers = Workers::default();
        for tid in [Tid(1), Tid(2)] {
            found(&mut workers, 0, tid, worker(u64::from(tid.0)));
        }
        workers.leaves(300, Tid(1), true);
        workers.leaves(400, Tid(2), false);
        workers.forget_thread(Tid(2));
        assert_eq!(shares(&mut workers, 1000), [(1, 0.3), (2, 0.4)]);
    }

    #[test]
    fn whose_workers_move_between_threads_is_not_judged() {
        for (threads, expected) in [
            ([(1, 0), (2, 1), (3, 2)], vec![(0, 1.0), (1, 1.0), (2, 1.0)]),
            // A worker that was two threads, and a thread that was two workers.
            ([(1, 0), (2, 0), (3, 2)], vec![]),
            ([(1, 0), (2, 1), (2, 2)], vec![]),
        ] {
            let mut workers = Workers::default();
            for (tid, index) in threads {
                found(&mut workers, 0, Tid(tid), worker(index));
                workers.leaves(1000, Tid(tid), false);
            }
            assert_eq!(shares(&mut workers, 1000), expected, "{threads:?}");
        }
    }

    #[test]
    fn a_worker_that_only_looks_for_work_has_none() {
        let mut workers = Workers::default();
        workers.count(RUNTIME, 2);
        workers.found(0, 0, Tid(1), &worker(1));
        assert_eq!(shares(&mut workers, 1000), [(0, 0.0), (1, 0.0)]);
    }

    #[test]
    fn who_is_no_worker_of_several_is_not_kept() {
        let mut workers = Workers::default();
        found(&mut workers, 0, Tid(1), worker(Polled::ONLY_WORKER));
        found(&mut workers, 0, Tid(2), Polled { task: 7, ..Polled::default() });
        workers.leaves(100, Tid(1), true);
        assert_eq!(workers.take_all(1000), []);
        for tid in 0..=MAX_THREADS as u32 {
            found(&mut workers, 0, Tid(tid), worker(0));
        }
        assert_eq!(workers.not_kept(), 1);
    }

    #[test]
    fn of_workers_that_no_runtime_has_no_more_are_kept_than_of_others() {
        let mut workers = Workers::default();
        for index in 0..2 * MAX_WORKERS {
            found(&mut workers, 0, Tid(1), worker(index));
            workers.forget_thread(Tid(1));
        }
        assert_eq!(workers.not_kept(), MAX_WORKERS);
        assert_eq!(shares(&mut workers, 1000).len(), MAX_WORKERS as usize);
    }
}
