//! What tasks await between their polls, as it was found whenever their memory was read.
//!
//! A task that is not polled goes on waiting for the same. So what it was found waiting for, it had awaited since the poll
//! before, and did until the next, if every poll was observed; else at least from the first time it was found so to the
//! last.

use std::{ops::Range, sync::Arc};

use polletto_common::id::Tgid;
use rustc_hash::FxHashMap;

/// Stretches of one task that are kept.
const MAX_STRETCHES: usize = 256;

/// Times of a process in which polls were not observed that are kept one by one.
const MAX_GAPS: usize = 1 << 16;

/// What a task awaits, in words.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Awaited {
    /// What is at the end of the chain.
    pub waits_for: String,
    /// From the task's own future on.
    pub chain: String,
    /// The same for people, without what dependencies await within themselves.
    pub short: String,
}

/// What tasks of a process were found waiting for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AwaitingProcess {
    /// The process.
    pub tgid: Tgid,
    /// Those that were found.
    pub tasks: Vec<AwaitingTask>,
}

/// What a task was found waiting for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AwaitingTask {
    /// Its id.
    pub id: u64,
    /// When it was read, CLOCK_BOOTTIME nanoseconds.
    pub time_ns: u64,
    /// None if it was being polled, or can't be told.
    pub awaited: Option<Arc<Awaited>>,
    /// Where it was spawned, if that is known.
    pub spawned_at: Option<String>,
}

/// A time in which a task awaited the same.
#[derive(Clone, Debug)]
struct Stretch {
    awaited: Arc<Awaited>,
    /// The end of the last poll before that was told; 0 if there was none.
    after_ns: u64,
    first_ns: u64,
    last_ns: u64,
    /// The begin of the first poll behind that was told.
    before_ns: Option<u64>,
}

/// Such a time as it is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShownWait {
    pub awaited: Arc<Awaited>,
    pub since_ns: u64,
    pub until_ns: u64,
    /// From one poll to the next, and not only as long as it was found.
    pub is_exact: bool,
}

/// What one task awaited.
#[derive(Clone, Debug, Default)]
pub struct TaskWaits {
    stretches: Vec<Stretch>,
}

/// When polls were not all told.
#[derive(Clone, Debug, Default)]
pub struct Gaps {
    /// Of each process, in the order of time.
    unobserved: FxHashMap<Tgid, Vec<Range<u64>>>,
    /// Records were lost until then, and may have been of any time before.
    lost_until_ns: u64,
}

impl TaskWaits {
    /// A task whose last poll ended at `polled_ns` is found waiting. False if that is not kept.
    pub fn found(&mut self, time_ns: u64, awaited: &Arc<Awaited>, polled_ns: u64) -> bool {
        if let Some(last) = self.stretches.last_mut()
            && last.before_ns.is_none()
            && last.awaited == *awaited
        {
            last.last_ns = last.last_ns.max(time_ns);
            return true;
        }
        let is_kept = self.stretches.len() < MAX_STRETCHES;
        if is_kept {
            self.stretches.push(Stretch {
                awaited: Arc::clone(awaited),
                after_ns: polled_ns,
                first_ns: time_ns,
                last_ns: time_ns,
                before_ns: None,
            });
        }
        is_kept
    }

    /// The task is polled.
    pub fn polled(&mut self, began_ns: u64) {
        if let Some(last) = self.stretches.last_mut() {
            last.before_ns.get_or_insert(began_ns);
        }
    }

    /// What it awaits, if it was not polled since that was found.
    pub fn now(&self) -> Option<&Awaited> {
        self.stretches.last().filter(|last| last.before_ns.is_none()).map(|last| &*last.awaited)
    }

    /// Those between `since_ns` and `until_ns`, in their order and without overlap.
    pub fn shown(&self, process: Tgid, mut since_ns: u64, until_ns: u64, gaps: &Gaps) -> Vec<ShownWait> {
        let mut shown = Vec::new();
        for stretch in &self.stretches {
            let Stretch { awaited, after_ns, first_ns, last_ns, before_ns } = stretch;
            let is_since_poll = *after_ns != 0 && !gaps.meet(process, *after_ns..*first_ns);
            let begin = if is_since_poll { *after_ns } else { *first_ns }.max(since_ns);
            let until_poll = before_ns.filter(|&before_ns| !gaps.meet(process, *last_ns..before_ns));
            let end = until_poll.unwrap_or(*last_ns).min(until_ns);
            if begin > end {
                continue;
            }
            let is_exact = is_since_poll && until_poll.is_some();
            shown.push(ShownWait { awaited: Arc::clone(awaited), since_ns: begin, until_ns: end, is_exact });
            since_ns = end;
        }
        shown
    }
}

impl Gaps {
    /// A process's polls were not told from then to then. Tells of them come in the order of time.
    pub fn unobserved(&mut self, process: Tgid, gap: Range<u64>) {
        let gaps = self.unobserved.entry(process).or_default();
        let is_full = gaps.len() >= MAX_GAPS;
        match gaps.last_mut() {
            Some(last) if is_full || last.end >= gap.start => {
                *last = last.start.min(gap.start)..last.end.max(gap.end);
            }
            _ => gaps.push(gap),
        }
    }

    /// Records are missing from some time before.
    pub fn lost(&mut self, time_ns: u64) {
        self.lost_until_ns = self.lost_until_ns.max(time_ns);
    }

    /// The process has ended or runs another program.
    pub fn forget_process(&mut self, process: Tgid) {
        self.unobserved.remove(&process);
    }

    /// Whether polls of the process may be missing from any of that time.
    pub fn meet(&self, process: Tgid, range: Range<u64>) -> bool {
        let of_process = self.unobserved.get(&process).map(Vec::as_slice).unwrap_or_default();
        // The latest first: what is asked for has mostly just happened, and there may be many.
        let mut not_before = of_process.iter().rev().take_while(|gap| range.start < gap.end);
        range.start < self.lost_until_ns || not_before.any(|gap| gap.start < range.end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROCESS: Tgid = Tgid(10);

    fn gaps(gap: Range<u64>) -> Gaps {
        let mut gaps = Gaps::default();
        gaps.unobserved(PROCESS, gap);
        gaps
    }

    fn awaited(name: &str) -> Arc<Awaited> {
        Arc::new(Awaited { waits_for: name.into(), chain: format!("f → {name}"), short: String::new() })
    }

    fn told(waits: &TaskWaits, gaps: &Gaps) -> Vec<(String, u64, u64, bool)> {
        let told = |wait: ShownWait| (wait.awaited.waits_for.clone(), wait.since_ns, wait.until_ns, wait.is_exact);
        waits.shown(PROCESS, 0, 1_000, gaps).into_iter().map(told).collect()
    }

    fn wait(name: &str, since_ns: u64, until_ns: u64, is_exact: bool) -> (String, u64, u64, bool) {
        (name.to_owned(), since_ns, until_ns, is_exact)
    }

    /// Polled until 100, found twice, polled at 400, and found once with something else.
    fn example() -> TaskWaits {
        let mut waits = TaskWaits::default();
        waits.found(200, &awaited("lock"), 100);
        waits.found(300, &awaited("lock"), 100);
        waits.polled(400);
        waits.found(500, &awaited("timer"), 450);
        waits
    }

    #[test]
    fn what_is_awaited_is_from_one_poll_to_the_next_where_all_are_told() {
        let expected = [wait("lock", 100, 400, true), wait("timer", 450, 500, false)];
        assert_eq!(told(&example(), &Gaps::default()), expected);
        assert_eq!(example().now().map(|awaited| &*awaited.waits_for), Some("timer"));
    }

    #[test]
    fn where_polls_may_be_missing_it_is_as_long_as_it_was_found() {
        assert_eq!(told(&example(), &gaps(150..180))[0], wait("lock", 200, 400, false));
        assert_eq!(told(&example(), &gaps(310..320))[0], wait("lock", 100, 300, false));
        assert_eq!(told(&example(), &gaps(460..470))[1], wait("timer", 500, 500, false));
        let mut lost = Gaps::default();
        lost.lost(150);
        assert_eq!(told(&example(), &lost), [wait("lock", 200, 400, false), wait("timer", 450, 500, false)]);
    }

    #[test]
    fn the_same_before_and_after_a_poll_is_told_twice() {
        let mut waits = TaskWaits::default();
        waits.found(200, &awaited("lock"), 0);
        waits.polled(300);
        waits.found(400, &awaited("lock"), 350);
        assert_eq!(told(&waits, &Gaps::default()), [wait("lock", 200, 300, false), wait("lock", 350, 400, false)]);
        waits.polled(500);
        assert_eq!(waits.now(), None);
    }

    #[test]
    fn what_was_read_when_the_recording_was_over_is_not_shown_as_a_time() {
        let mut waits = TaskWaits::default();
        waits.found(1_200, &awaited("lock"), 900);
        assert_eq!(told(&waits, &gaps(1_000..u64::MAX)), []);
        assert!(waits.now().is_some());
    }

    #[test]
    fn gaps_are_kept_even_if_not_one_by_one() {
        let mut gaps = Gaps::default();
        (0..2 * MAX_GAPS as u64).for_each(|at| gaps.unobserved(PROCESS, 10 * at..10 * at + 5));
        assert_eq!(gaps.unobserved[&PROCESS].len(), MAX_GAPS);
        assert!(gaps.meet(PROCESS, 3..4) && !gaps.meet(PROCESS, 5..10));
        assert!(gaps.meet(PROCESS, 20 * MAX_GAPS as u64 - 20..20 * MAX_GAPS as u64 - 19));
    }
}
