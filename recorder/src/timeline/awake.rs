//! Since when threads are known to have been awake.
//!
//! Who sleeps when a recording begins is first seen when it is woken. What it did before is not known, but that it held no
//! lock which others then got.

use std::collections::VecDeque;

use polletto_common::id::Tid;
use rustc_hash::FxHashMap;

/// Threads of which that is remembered. Of more it is taken for granted that they were awake all the time.
const MAX_THREADS: usize = 1 << 16;

/// Those of them that have ended: who they woke may tell of it only later.
const MAX_GONE: usize = 1 << 10;

#[derive(Clone, Copy, Debug)]
struct Thread {
    since_ns: u64,
    is_gone: bool,
}

/// When threads were first seen to run, or to be woken, nanoseconds.
#[derive(Debug, Default)]
pub struct Awake {
    threads: FxHashMap<Tid, Thread>,
    /// The oldest first.
    gone: VecDeque<Tid>,
}

impl Awake {
    /// A thread runs at that time, or could.
    pub fn seen(&mut self, time_ns: u64, tid: Tid) {
        let has_room = self.threads.len() < MAX_THREADS;
        match self.threads.get_mut(&tid) {
            // Records of several CPUs come in the order of time only nearly.
            Some(thread) if !thread.is_gone => thread.since_ns = thread.since_ns.min(time_ns),
            Some(another) => *another = Thread { since_ns: time_ns, is_gone: false },
            None if has_room => drop(self.threads.insert(tid, Thread { since_ns: time_ns, is_gone: false })),
            None => {}
        }
    }

    /// Since when it was awake, as far as that is known: else from the beginning.
    pub fn since_ns(&self, tid: Tid) -> u64 {
        self.threads.get(&tid).map_or(0, |thread| thread.since_ns)
    }

    /// The thread has ended, or its id is another's from now on.
    pub fn forget_thread(&mut self, tid: Tid) {
        let Some(thread) = self.threads.get_mut(&tid).filter(|thread| !thread.is_gone) else { return };
        thread.is_gone = true;
        self.gone.push_back(tid);
        if self.gone.len() > MAX_GONE
            && let Some(oldest) = self.gone.pop_front()
            && self.threads.get(&oldest).is_some_and(|thread| thread.is_gone)
        {
            self.threads.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_is_awake_since_it_was_first_seen_and_for_ever_if_it_never_was() {
        let mut awake = Awake::default();
        [30, 20, 40].into_iter().for_each(|time_ns| awake.seen(time_ns, Tid(7)));
        assert_eq!((awake.since_ns(Tid(7)), awake.since_ns(Tid(8))), (20, 0));
        awake.forget_thread(Tid(7));
        assert_eq!(awake.since_ns(Tid(7)), 20, "who it has woken tells of it later");
        awake.seen(90, Tid(7));
        assert_eq!(awake.since_ns(Tid(7)), 90, "another");
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut awake = Awake::default();
        (0..=MAX_THREADS as u32).for_each(|tid| awake.seen(9, Tid(tid)));
        assert_eq!((awake.threads.len(), awake.since_ns(Tid(MAX_THREADS as u32))), (MAX_THREADS, 0));
        (0..MAX_THREADS as u32).for_each(|tid| awake.forget_thread(Tid(tid)));
        assert_eq!((awake.threads.len(), awake.gone.len()), (MAX_GONE, MAX_GONE));
    }
}
