//! Threads that the user says are workers, by their names: where a runtime's memory can't be read, nothing else tells.

use polletto_common::{
    id::{Tgid, Tid},
    limits::COMM_BYTES,
};
use rustc_hash::{FxHashMap, FxHashSet};

/// Bytes of a name that the kernel keeps; the rest of longer ones is cut off.
const KEPT_BYTES: usize = COMM_BYTES - 1;

/// The threads with such names, and which workers of their processes they are.
#[derive(Debug, Default)]
pub struct NamedWorkers {
    prefixes: Vec<String>,
    threads: FxHashMap<Tid, Named>,
    workers: u64,
}

#[derive(Clone, Copy, Debug)]
struct Named {
    tgid: Tgid,
    /// What the name ends with.
    number: Option<u64>,
    /// None before any such thread of the process has polled a task.
    index: Option<u64>,
    is_worker: bool,
}

impl NamedWorkers {
    /// By beginnings of names.
    pub fn new(prefixes: Vec<String>) -> NamedWorkers {
        NamedWorkers { prefixes, ..NamedWorkers::default() }
    }

    /// Whether there are any names to go by.
    pub fn is_wanted(&self) -> bool {
        !self.prefixes.is_empty()
    }

    /// A thread has this name from now on.
    pub fn named(&mut self, tid: Tid, tgid: Tgid, comm: &[u8; COMM_BYTES]) {
        let name = comm.split(|&byte| byte == 0).next().unwrap_or_default();
        let name = &name[..name.len().min(KEPT_BYTES)];
        let prefix = self.prefixes.iter().find(|prefix| {
            let prefix = prefix.as_bytes();
            name.starts_with(&prefix[..prefix.len().min(KEPT_BYTES)])
        });
        let Some(prefix) = prefix else {
            self.threads.remove(&tid);
            return;
        };
        let number = number_at_end(name, prefix.len());
        let known = self.threads.get(&tid).filter(|known| known.tgid == tgid && known.number == number);
        if known.is_none() {
            self.threads.insert(tid, Named { tgid, number, index: None, is_worker: false });
        }
    }

    /// The thread has ended.
    pub fn forget(&mut self, tid: Tid) {
        self.threads.remove(&tid);
    }

    /// Which worker of its process a thread is that polls a task which awaits; none if its name does not say that it is any.
    pub fn index(&mut self, tid: Tid) -> Option<u64> {
        let named = *self.threads.get(&tid)?;
        if self.is_named_as_program(tid, named) {
            return None;
        }
        if named.index.is_none() {
            self.count(named.tgid);
        }
        let named = self.threads.get_mut(&tid)?;
        if !std::mem::replace(&mut named.is_worker, true) {
            self.workers += 1;
        }
        named.index
    }

    /// How many threads were taken for workers.
    pub fn workers(&self) -> u64 {
        self.workers
    }

    /// Whether a thread has such a name only because its program has: a process's first thread is called like that, and where
    /// others have such names too, they are the workers.
    fn is_named_as_program(&self, tid: Tid, named: Named) -> bool {
        let has_others = || self.threads.iter().any(|(other, of)| of.tgid == named.tgid && *other != tid);
        tid == named.tgid.leader() && !named.is_worker && has_others()
    }

    /// Gives an index to each of a process's threads that has none: its own number if that is free, else the first free one,
    /// in the order of their ids.
    fn count(&mut self, process: Tgid) {
        let of_process = self.threads.iter().filter(|(_, named)| named.tgid == process);
        let own = of_process.filter(|(tid, named)| !self.is_named_as_program(**tid, **named));
        let mut taken: FxHashSet<u64> = own.clone().filter_map(|(_, named)| named.index).collect();
        let mut new: Vec<(Tid, Option<u64>)> =
            own.filter(|(_, named)| named.index.is_none()).map(|(tid, named)| (*tid, named.number)).collect();
        new.sort_unstable_by_key(|(tid, number)| (number.is_none(), *tid));
        let mut first_free = 0;
        for (tid, number) in new {
            let index = number.filter(|number| !taken.contains(number)).unwrap_or_else(|| {
                while taken.contains(&first_free) {
                    first_free += 1;
                }
                first_free
            });
            taken.insert(index);
            if let Some(named) = self.threads.get_mut(&tid) {
                named.index = Some(index);
            }
        }
    }
}

/// The number behind a prefix at the end of a name that was not cut off.
fn number_at_end(name: &[u8], prefix: usize) -> Option<u64> {
    let name = std::str::from_utf8(name).ok()?;
    let digits = name.len() - name.trim_end_matches(|letter: char| letter.is_ascii_digit()).len();
    let is_whole = name.len() > prefix && name.len() < KEPT_BYTES;
    if is_whole && digits > 0 { name[name.len() - digits..].parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROCESS: Tgid = Tgid(10);

    fn comm(name: &str) -> [u8; COMM_BYTES] {
        let mut comm = [0; COMM_BYTES];
        let kept = name.len().min(KEPT_BYTES);
        comm[..kept].copy_from_slice(&name.as_bytes()[..kept]);
        comm
    }

    fn workers(prefix: &str, names: &[(u32, &str)]) -> NamedWorkers {
        let mut workers = NamedWorkers::new(vec![prefix.to_owned()]);
        names.iter().for_each(|(tid, name)| workers.named(Tid(*tid), PROCESS, &comm(name)));
        workers
    }

    fn indices<const N: usize>(workers: &mut NamedWorkers, tids: [u32; N]) -> [Option<u64>; N] {
        tids.map(|tid| workers.index(Tid(tid)))
    }

    #[test]
    fn workers_are_counted_in_the_order_of_their_threads_whoever_polls_first() {
        let mut workers = workers("tokio", &[(13, "tokio-rt"), (11, "tokio-rt"), (12, "other"), (14, "tokio-rt")]);
        assert_eq!(indices(&mut workers, [14, 11, 12, 13]), [Some(2), Some(0), None, Some(1)]);
        assert_eq!(workers.workers(), 3);
        workers.named(Tid(9), PROCESS, &comm("tokio-rt"));
        assert_eq!(indices(&mut workers, [9, 11]), [Some(3), Some(0)]);
    }

    #[test]
    fn a_first_thread_that_is_named_as_its_program_is_a_worker_where_no_other_thread_has_such_a_name() {
        let mut smol = workers("smol", &[(10, "smolecho"), (11, "smol-1"), (12, "smol")]);
        assert_eq!(indices(&mut smol, [10, 11, 12]), [None, Some(1), Some(0)]);
        assert_eq!(smol.workers(), 2);
        let mut alone = workers("web", &[(10, "web-server"), (11, "other")]);
        assert_eq!(indices(&mut alone, [10, 11]), [Some(0), None]);
        // It stays one.
        alone.named(Tid(12), PROCESS, &comm("web"));
        assert_eq!(indices(&mut alone, [10, 12]), [Some(0), Some(1)]);
    }

    #[test]
    fn a_number_that_a_name_ends_with_is_the_index_while_no_other_thread_has_it() {
        let names = [(11, "web-7"), (12, "web-0"), (13, "web-7"), (14, "web"), (15, "web-99999999")];
        let mut workers = workers("web", &names);
        let expected = [Some(7), Some(0), Some(1), Some(2), Some(99_999_999)];
        assert_eq!(indices(&mut workers, [11, 12, 13, 14, 15]), expected);
        workers.forget(Tid(11));
        workers.named(Tid(16), PROCESS, &comm("web-7"));
        assert_eq!(workers.index(Tid(16)), Some(7));
    }

    #[test]
    fn digits_of_the_prefix_and_of_names_that_were_cut_off_are_no_number() {
        let mut one = workers("srv1", &[(11, "srv1"), (12, "srv1-5")]);
        assert_eq!(indices(&mut one, [11, 12]), [Some(0), Some(5)]);
        let mut cut = workers("tokio-runtime-worker", &[(11, "tokio-runtime-worker"), (12, "tokio-runtime-x")]);
        assert_eq!(indices(&mut cut, [11, 12]), [Some(0), None]);
        let mut long = workers("a-pool-of-wor", &[(11, "a-pool-of-work12")]);
        assert_eq!(long.index(Tid(11)), Some(0), "12 may have been 123");
    }

    #[test]
    fn a_name_holds_until_the_thread_has_another_or_its_id_is_of_another_process() {
        let mut workers = workers("web", &[(11, "web-4")]);
        assert_eq!(workers.index(Tid(11)), Some(4));
        workers.named(Tid(11), Tgid(20), &comm("web-4"));
        workers.named(Tid(12), PROCESS, &comm("web-4"));
        assert_eq!(indices(&mut workers, [11, 12]), [Some(4), Some(4)]);
        workers.named(Tid(12), PROCESS, &comm("web-5"));
        assert_eq!(workers.index(Tid(12)), Some(5));
        workers.named(Tid(12), PROCESS, &comm("else"));
        assert_eq!(workers.index(Tid(12)), None);
        assert_eq!(NamedWorkers::default().index(Tid(12)), None);
    }
}
