//! What a recording has seen so far, in numbers.

use polletto_common::record::StackEnding;

/// What was seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Switches from or to a recorded thread.
    pub switches: u64,
    /// Switches between idle and programs that are not recorded.
    pub switches_of_others: u64,
    /// Wake-ups.
    pub wakings: u64,
    /// Threads that existed at the beginning or started later.
    pub threads: u64,
    /// Processes that existed at the beginning or started later.
    pub processes: u64,
    /// Records that the kernel programs had no room for, but for [`Seen::samples_lost`].
    pub lost: u64,
    /// Switches from or to a recorded thread that the kernel did not report: by the next record, the CPU ran something else
    /// than by the one before it.
    pub unreported: u64,

    /// Samples of running threads.
    pub samples: u64,
    /// Those of `samples` whose stack was found, by how it ends.
    pub samples_by_ending: Endings,
    /// Those of `samples` with frames that were found by frame pointers alone.
    pub by_frame_pointers: u64,
    /// Stretches in which a thread slept.
    pub blocked: u64,
    /// Those of `blocked` whose stack was found, by how it ends.
    pub blocked_by_ending: Endings,
    /// Different stacks.
    pub stacks: u64,
    /// Samples and blocked stretches whose stack never came.
    pub stacks_lost: u64,
    /// Samples and blocked stretches whose stack was not kept, because there were too many.
    pub stacks_not_kept: u64,
    /// Samples, blocked stretches and stacks that the kernel programs had no room for.
    pub samples_lost: u64,

    /// Polls whose begin and end were told.
    pub polls_exact: u64,
    /// Polls whose begin was told, and that had not ended when the recording did.
    pub polls_unfinished: u64,
    /// Wakes of tasks.
    pub wakes: u64,
    /// Those of `wakes`, `spawns` and `blocking_spawns` that led to a poll that was told: its task's next one.
    pub wakes_polled: u64,
    /// Spawns of tasks that await.
    pub spawns: u64,
    /// Closures that may block, given to the threads that run them.
    pub blocking_spawns: u64,
    /// Closures that may block, by their polls that are shown.
    pub closures_run: u64,
    /// How often a thread was seen to give its worker away in the middle of a poll, to block.
    pub blocks_in_place: u64,
    /// Polls in which the thread gave its worker away, it is not known when.
    pub workers_gone_unseen: u64,
    /// What is shown of polls for the time after they had given their workers away: all of the poll where it is not known when.
    pub without_worker: u64,
    /// Threads that are taken for workers by their names; none where that is not wanted.
    pub workers_by_name: Option<u64>,
    /// Samples of threads that polled a task.
    pub samples_in_polls: u64,
    /// Polls that are shown because threads were found in them more than once.
    pub polls_found: u64,
    /// Such polls that are not shown, since no stack told what was polled.
    pub polls_unnamed: u64,
    /// Tasks that were found in the lists of runtimes.
    pub tasks_walked: u64,
    /// Tasks that are shown from their beginnings to their ends.
    pub tasks: u64,
    /// Tasks of lists that are not, because there are too many.
    pub tasks_not_kept: u64,
    /// How often a task was found waiting, and that was not kept since it had waited for too many things.
    pub waits_not_kept: u64,
    /// How often a runtime, or a worker's thread, was one too many to be judged.
    pub runtimes_not_kept: u64,
    /// How often lock convoys may have been told in parts, or not at all, since there were too many sleeps at locks.
    pub convoys_cut_short: u64,
    /// Walks through such lists that ended before the lists did.
    pub walks_cut_short: u64,
}

impl Seen {
    /// Polls that were told, in whatever way.
    pub fn polls(&self) -> u64 {
        self.polls_exact + self.polls_unfinished + self.polls_found
    }
}

/// How often stacks ended how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Endings([u64; ENDINGS]);

/// The last one stands for all that have no name.
const ENDINGS: usize = StackEnding::FRAME_POINTERS_END.0 as usize + 2;

impl Endings {
    /// How many ended like this.
    pub fn of(&self, ending: StackEnding) -> u64 {
        self.0[index(ending)]
    }

    /// How many lacked nothing: they reached the root, or the thread had no part in a program.
    pub fn complete(&self) -> u64 {
        self.of(StackEnding::ROOT) + self.of(StackEnding::NONE)
    }

    pub(super) fn count(&mut self, ending: StackEnding) {
        self.0[index(ending)] += 1;
    }
}

fn index(ending: StackEnding) -> usize {
    (ending.0 as usize).min(ENDINGS - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endings_without_a_name_are_counted_together() {
        let mut endings = Endings::default();
        for ending in [StackEnding::ROOT, StackEnding(11), StackEnding(u32::MAX)] {
            endings.count(ending);
        }
        assert_eq!((endings.of(StackEnding::ROOT), endings.of(StackEnding(77))), (1, 2));
        assert_eq!(endings.of(StackEnding::FOREIGN_CODE), 0);
    }
}
