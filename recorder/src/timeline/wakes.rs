//! What woke tasks and what spawned them, and to which poll that led.
//!
//! A wake leads to the task's next poll: the first that begins after it. So it gets the number of a flow that begins with
//! it, and waits for that poll to be told. Where it never is, the flow has no end.

use std::collections::VecDeque;

use polletto_common::id::Tgid;
use rustc_hash::FxHashMap;

use super::polls::TaskKey;

/// Tasks of which wakes are remembered until they are polled. Most are within microseconds, others never.
const MAX_TASKS: usize = 1 << 16;

/// Wakes of one task that are remembered until it is polled.
const MAX_WAKES: usize = 64;

/// Tasks whose parents are remembered.
const MAX_CHILDREN: usize = 1 << 18;

/// Wakes that have led to no poll yet, and who spawned whom.
#[derive(Debug, Default)]
pub struct Wakes {
    /// Never empty, in the order in which they were told.
    waiting: FxHashMap<TaskKey, Vec<Flow>>,
    /// Of `waiting`, the first flow of each, the oldest first, and of others that wait no more.
    oldest: VecDeque<(TaskKey, u64)>,
    flows: u64,
    parents: FxHashMap<TaskKey, u64>,
    /// Of `parents` and some that are forgotten, the oldest first.
    children: VecDeque<TaskKey>,
}

/// What begins when a task is woken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Flow {
    number: u64,
    since_ns: u64,
    /// The poll that it leads to has begun by then, as far as known: later ones are told first at times.
    until_ns: u64,
    while_polled: Option<Running>,
}

/// What has led to a poll.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Led {
    /// Numbers of flows.
    pub flows: Vec<u64>,
    /// Since when the task had to wait: nobody polled it from then on.
    pub since_ns: Option<u64>,
}

/// A poll in which its own task was woken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Running {
    /// By itself, in the poll that began then.
    Since(u64),
    /// By others. When the poll began is not known, but that it had by then.
    Somehow,
}

impl Wakes {
    /// A task is woken, maybe in the middle of its poll. The number of the flow that begins with that.
    pub fn woken(&mut self, task: TaskKey, time_ns: u64, while_polled: Option<Running>) -> u64 {
        self.flows += 1;
        let flow = Flow { number: self.flows, since_ns: time_ns, until_ns: u64::MAX, while_polled };
        let waiting = self.waiting.entry(task).or_default();
        // A task that is woken in a poll may be polled by another worker before that poll has come to its end, and so may
        // the new one be told before. What led to the first does not lead there.
        for earlier in waiting.iter_mut() {
            match while_polled {
                Some(Running::Since(began_ns)) if earlier.since_ns <= began_ns => {
                    earlier.until_ns = earlier.until_ns.min(began_ns);
                }
                // What was told in the middle of a poll may have been in this very one.
                Some(Running::Somehow) if earlier.while_polled.is_none() => {
                    earlier.until_ns = earlier.until_ns.min(time_ns);
                }
                _ => {}
            }
        }
        if waiting.is_empty() {
            self.oldest.push_back((task, flow.number));
        }
        if waiting.len() < MAX_WAKES {
            waiting.push(flow);
        }
        self.forget_oldest();
        self.flows
    }

    /// A task that nobody has polled yet is spawned by the poll of another, or by none.
    pub fn spawned(&mut self, task: TaskKey, parent: Option<u64>) {
        if let Some(parent) = parent
            && self.parents.insert(task, parent).is_none()
        {
            self.children.push_back(task);
            if self.children.len() > MAX_CHILDREN
                && let Some(oldest) = self.children.pop_front()
            {
                self.parents.remove(&oldest);
            }
        }
    }

    /// The task that spawned this one, if that was told.
    pub fn parent(&self, task: TaskKey) -> Option<u64> {
        self.parents.get(&task).copied()
    }

    /// The task is polled from `began_ns` on. What leads there.
    pub fn polled(&mut self, task: TaskKey, began_ns: u64) -> Led {
        let Some(mut waiting) = self.waiting.remove(&task) else { return Led::default() };
        let is_led = |flow: &mut Flow| (flow.since_ns..=flow.until_ns).contains(&began_ns);
        let led: Vec<Flow> = waiting.extract_if(.., is_led).collect();
        // One that is woken in the middle of its poll only waits once that is over, and when that is was not told here.
        let is_waiting = led.iter().all(|flow| flow.while_polled.is_none());
        let since_ns = led.iter().map(|flow| flow.since_ns).min().filter(|_| is_waiting);
        let led = Led { flows: led.iter().map(|flow| flow.number).collect(), since_ns };
        if let Some(first) = waiting.first() {
            self.oldest.push_back((task, first.number));
            self.waiting.insert(task, waiting);
            self.forget_oldest();
        }
        led
    }

    /// Polls are missing: what was woken before may have been polled in one of them.
    pub fn lost(&mut self) {
        self.waiting.clear();
        self.oldest.clear();
    }

    /// The process has ended or runs another program.
    pub fn forget_process(&mut self, tgid: Tgid) {
        self.waiting.retain(|task, _| task.tgid != tgid);
        self.oldest.retain(|(task, _)| task.tgid != tgid);
        self.parents.retain(|task, _| task.tgid != tgid);
        self.children.retain(|task| task.tgid != tgid);
    }

    fn forget_oldest(&mut self) {
        while self.oldest.len() > MAX_TASKS {
            let Some((task, first)) = self.oldest.pop_front() else { return };
            if self.waiting.get(&task).is_some_and(|waiting| waiting[0].number == first) {
                self.waiting.remove(&task);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TASK: TaskKey = TaskKey { tgid: Tgid(10), id: 7 };

    #[test]
    fn wakes_lead_to_the_first_poll_that_begins_after_them() {
        let mut wakes = Wakes::default();
        let [one, two, late] = [100, 110, 250].map(|time_ns| wakes.woken(TASK, time_ns, None));
        assert_eq!(wakes.polled(TASK, 200).flows, [one, two]);
        assert_eq!(wakes.polled(TASK, 240).flows, [0; 0]);
        assert_eq!(wakes.polled(TASK, 300).flows, [late]);
        assert_eq!(wakes.polled(TASK, 400).flows, [0; 0]);
    }

    #[test]
    fn a_poll_that_is_told_before_the_one_in_which_its_task_was_woken_takes_only_its_own() {
        for running in [Running::Since(110), Running::Somehow] {
            let mut wakes = Wakes::default();
            let first = wakes.woken(TASK, 100, None);
            let second = wakes.woken(TASK, 120, Some(running));
            assert_eq!(wakes.polled(TASK, 130).flows, [second], "{running:?}");
            assert_eq!(wakes.polled(TASK, 110).flows, [first], "{running:?}");
        }
    }

    #[test]
    fn all_wakes_in_one_poll_lead_to_the_next() {
        for running in [Running::Since(110), Running::Somehow] {
            let mut wakes = Wakes::default();
            let flows = [120, 125].map(|time_ns| wakes.woken(TASK, time_ns, Some(running)));
            assert_eq!(wakes.polled(TASK, 110).flows, [0; 0], "{running:?}");
            assert_eq!(wakes.polled(TASK, 130).flows, flows, "{running:?}");
        }
    }

    #[test]
    fn a_task_waits_from_its_first_wake_on_unless_that_was_in_its_own_poll() {
        let mut wakes = Wakes::default();
        for time_ns in [100, 110] {
            wakes.woken(TASK, time_ns, None);
        }
        assert_eq!(wakes.polled(TASK, 200).since_ns, Some(100));
        wakes.woken(TASK, 210, Some(Running::Since(200)));
        wakes.woken(TASK, 220, None);
        assert_eq!(wakes.polled(TASK, 300).since_ns, None);
    }

    #[test]
    fn what_may_have_led_to_a_poll_that_is_missing_leads_to_none() {
        let mut wakes = Wakes::default();
        wakes.woken(TASK, 100, None);
        wakes.lost();
        let later = wakes.woken(TASK, 150, None);
        assert_eq!(wakes.polled(TASK, 200).flows, [later]);
    }

    #[test]
    fn tasks_that_are_never_polled_are_forgotten_before_others() {
        let mut wakes = Wakes::default();
        let tasks = (0..MAX_TASKS as u64 + 1).map(|id| TaskKey { id, ..TASK });
        let flows: Vec<u64> = tasks.map(|task| wakes.woken(task, task.id, None)).collect();
        assert_eq!(wakes.polled(TaskKey { id: 0, ..TASK }, 1 << 20).flows, [0; 0]);
        assert_eq!(wakes.polled(TaskKey { id: 1, ..TASK }, 1 << 20).flows, [flows[1]]);
        for time_ns in 0..2 * MAX_WAKES as u64 {
            wakes.woken(TaskKey { id: 2, ..TASK }, time_ns, None);
        }
        assert_eq!(wakes.polled(TaskKey { id: 2, ..TASK }, 1 << 20).flows.len(), MAX_WAKES);
        for id in 0..MAX_CHILDREN as u64 + 1 {
            wakes.spawned(TaskKey { id, ..TASK }, Some(5));
        }
        assert_eq!([0, 1].map(|id| wakes.parent(TaskKey { id, ..TASK })), [None, Some(5)]);
    }

    #[test]
    fn a_process_that_ends_takes_its_tasks_with_it() {
        let mut wakes = Wakes::default();
        wakes.woken(TASK, 100, None);
        wakes.spawned(TASK, Some(3));
        assert_eq!(wakes.parent(TASK), Some(3));
        wakes.forget_process(TASK.tgid);
        assert_eq!((wakes.parent(TASK), wakes.polled(TASK, 200)), (None, Led::default()));
    }
}
