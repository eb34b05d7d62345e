//! Which threads live, what they are called, and whose they are.

use polletto_common::{
    id::{Tgid, Tid},
    limits::COMM_BYTES,
};
use rustc_hash::{FxHashMap, FxHashSet};

use super::pseudo;

#[derive(Clone, Copy, Debug)]
struct Thread {
    tgid: Tgid,
    comm: [u8; COMM_BYTES],
}

#[derive(Clone, Copy, Debug, Default)]
struct Process {
    /// Threads that live, the leader included.
    threads: u32,
    /// The leader has ended. The kernel keeps its id until the last thread has.
    leader_ended: bool,
}

/// What the end of a thread means.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct End {
    /// Ids that are free now, in order.
    pub gone: Vec<Tid>,
    /// The process, if this was its last thread.
    pub process: Option<Tgid>,
}

/// What it means that a thread was heard of.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Insert {
    /// It was not known.
    pub is_new: bool,
    /// What has ended before, since another had its id.
    pub end: End,
}

/// The threads that the timeline knows.
#[derive(Debug, Default)]
pub struct Threads {
    threads: FxHashMap<Tid, Thread>,
    processes: FxHashMap<Tgid, Process>,
}

impl Threads {
    /// Adds a thread or gives it a new name.
    pub fn insert(&mut self, tid: Tid, tgid: Tgid, comm: [u8; COMM_BYTES]) -> Insert {
        let before = self.threads.get(&tid).map(|before| before.tgid);
        let end = match before {
            Some(before) if before == tgid => {
                self.threads.insert(tid, Thread { tgid, comm });
                return Insert::default();
            }
            // What the id meant before ended unseen. A leader's is free only after its last thread.
            Some(before) if before.leader() == tid => self.remove_process(before),
            Some(before) => self.remove(tid, before),
            None => End::default(),
        };
        self.threads.insert(tid, Thread { tgid, comm });
        self.processes.entry(tgid).or_default().threads += 1;
        Insert { is_new: true, end }
    }

    /// How many live.
    pub fn len(&self) -> usize {
        self.threads.len()
    }

    /// The thread's name, if it is known.
    pub fn name(&self, tid: Tid) -> Option<String> {
        self.threads.get(&tid).map(|thread| name(&thread.comm))
    }

    /// What the trace calls a thread, real or not.
    pub fn shown_name(&self, tid: Tid) -> String {
        match pseudo::name(tid) {
            Some(name) => name.to_owned(),
            None => self.name(tid).unwrap_or_else(|| format!("thread {tid}")),
        }
    }

    /// Whether any of its threads lives.
    pub fn has_process(&self, tgid: Tgid) -> bool {
        self.processes.contains_key(&tgid)
    }

    /// Those that are not among `these`.
    pub fn all_but(&self, these: &FxHashSet<Tid>) -> Vec<Tid> {
        self.threads.keys().filter(|tid| !these.contains(tid)).copied().collect()
    }

    /// Whether the thread is the first of its process and has run for the last time, while others of it live.
    pub fn has_ended(&self, tid: Tid) -> bool {
        self.processes.get(&Tgid(tid.0)).is_some_and(|process| process.leader_ended)
    }

    /// Whether the first is the other's leader, and another thread.
    pub fn is_leader_of(&self, leader: Tid, tid: Tid) -> bool {
        tid != leader && self.threads.get(&tid).is_some_and(|thread| thread.tgid.leader() == leader)
    }

    /// A thread has run for the last time.
    pub fn end(&mut self, tid: Tid) -> End {
        self.threads.get(&tid).map(|thread| thread.tgid).map_or_else(End::default, |tgid| self.remove(tid, tgid))
    }

    /// A thread of a process lives no more, and with the last one neither does the process.
    fn remove(&mut self, tid: Tid, tgid: Tgid) -> End {
        let process = self.processes.entry(tgid).or_default();
        if tid == tgid.leader() && process.leader_ended {
            return End::default();
        }
        process.threads = process.threads.saturating_sub(1);
        let is_last = process.threads == 0;
        let mut end = End::default();
        if tid == tgid.leader() {
            process.leader_ended = true;
        } else {
            self.threads.remove(&tid);
            end.gone.push(tid);
        }
        if is_last {
            self.threads.remove(&tgid.leader());
            self.processes.remove(&tgid);
            end.gone.push(tgid.leader());
            end.process = Some(tgid);
        }
        end
    }

    /// A process lives no more, nor does any thread of it.
    fn remove_process(&mut self, tgid: Tgid) -> End {
        let is_of_it = |thread: &Thread| thread.tgid == tgid;
        let of_it = self.threads.iter().filter(|(_, thread)| is_of_it(thread));
        let mut gone: Vec<Tid> = of_it.map(|(&tid, _)| tid).collect();
        gone.sort_unstable();
        self.threads.retain(|_, thread| !is_of_it(thread));
        self.processes.remove(&tgid);
        End { gone, process: Some(tgid) }
    }

    /// A process has replaced its program: the thread that did so goes on under the leader's id, and no other is left.
    /// Returns those that are gone.
    pub fn keep_only_leader(&mut self, tgid: Tgid) -> Vec<Tid> {
        let leader = tgid.leader();
        let is_gone = |tid: Tid, thread: &Thread| thread.tgid == tgid && tid != leader;
        let mut gone: Vec<Tid> =
            self.threads.iter().filter(|&(&tid, thread)| is_gone(tid, thread)).map(|(&tid, _)| tid).collect();
        gone.sort_unstable();
        self.threads.retain(|&tid, thread| !is_gone(tid, thread));
        self.processes.insert(tgid, Process { threads: 1, leader_ended: false });
        gone
    }
}

/// A name as it can be written: what the kernel keeps may be any bytes up to a NUL.
pub fn name(comm: &[u8; COMM_BYTES]) -> String {
    let end = comm.iter().position(|&byte| byte == 0).unwrap_or(comm.len());
    String::from_utf8_lossy(&comm[..end]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROCESS: Tgid = Tgid(10);
    const COMM: [u8; COMM_BYTES] = *b"name\0\0\0\0\0\0\0\0\0\0\0\0";

    fn threads(tids: &[u32]) -> Threads {
        let mut threads = Threads::default();
        for &tid in tids {
            assert_eq!(threads.insert(Tid(tid), PROCESS, COMM), Insert { is_new: true, end: End::default() });
        }
        threads
    }

    #[test]
    fn a_leader_s_id_is_free_only_after_its_last_thread() {
        let mut threads = threads(&[10, 11]);
        assert_eq!(threads.end(Tid(10)), End::default());
        assert_eq!(threads.end(Tid(11)), End { gone: vec![Tid(11), Tid(10)], process: Some(PROCESS) });
    }

    #[test]
    fn a_leader_ends_once() {
        let mut threads = threads(&[10, 11]);
        for _ in 0..2 {
            assert_eq!(threads.end(Tid(10)), End::default());
        }
        assert!(threads.has_process(PROCESS));
    }

    #[test]
    fn an_exec_leaves_the_leader_alone_even_if_it_had_ended() {
        let mut threads = threads(&[10, 11, 12]);
        threads.end(Tid(10));
        assert_eq!(threads.keep_only_leader(PROCESS), [Tid(11), Tid(12)]);
        assert_eq!(threads.end(Tid(10)), End { gone: vec![Tid(10)], process: Some(PROCESS) });
    }

    #[test]
    fn ids_that_are_another_s_tell_of_ends_that_were_not_seen() {
        let other = Tgid(20);
        let ended = |gone: &[u32], process| End { gone: gone.iter().map(|&tid| Tid(tid)).collect(), process };
        // Who has ended and was seen to, the ids that are another's, one after the other, and what each tells.
        for (seen, reused) in [
            (vec![], vec![(10, ended(&[10, 11], Some(PROCESS))), (11, End::default())]),
            (vec![10], vec![(10, ended(&[10, 11], Some(PROCESS))), (11, End::default())]),
            (vec![10], vec![(11, ended(&[11, 10], Some(PROCESS))), (10, End::default())]),
            (vec![], vec![(11, ended(&[11], None)), (10, ended(&[10], Some(PROCESS)))]),
        ] {
            let mut threads = threads(&[10, 11]);
            for &tid in &seen {
                threads.end(Tid(tid));
            }
            for (tid, end) in &reused {
                assert_eq!(
                    threads.insert(Tid(*tid), other, COMM),
                    Insert { is_new: true, end: end.clone() },
                    "{reused:?}"
                );
            }
            assert!(!threads.has_process(PROCESS) && threads.has_process(other), "{reused:?}");
            assert_eq!(threads.len(), 2);
            assert_eq!(threads.insert(Tid(11), other, COMM), Insert::default());
        }
    }

    #[test]
    fn a_name_may_be_any_bytes() {
        assert_eq!(name(&COMM), "name");
        assert_eq!(name(&[0xff; COMM_BYTES]), "\u{fffd}".repeat(16));
    }
}
