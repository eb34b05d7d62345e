//! How polls are drawn, and what threads do to tasks.

use std::sync::Arc;

use polletto_common::{
    id::{Tgid, Tid},
    polled::Polled,
};

use super::{
    Polls, TaskKey,
    judging::{findings, show_finding},
    presence::{Presence, Stretch},
};
use crate::{
    timeline::{
        extent::Extent,
        findings::Fault,
        seen::Seen,
        task_code::Future,
        task_lives::{End, Lived},
        task_waits::{Awaited, ShownWait},
        tokio_tracks::{Poller, TokioTracks},
        vocabulary::Vocabulary,
        wakes::Led,
    },
    trace::{Argument, PacketBuffer, SliceBegin, SliceCallstack, Weights},
};

/// What a thread does that gives its worker away, and the time in which it has none.
const BLOCK_IN_PLACE: &str = "block in place";

/// What a thread did to a task.
pub(super) struct Deed {
    /// Its category too.
    pub(super) name: &'static str,
    pub(super) task: TaskKey,
    /// Under which argument it is told which task did it, if one did.
    pub(super) by: Option<(&'static str, u64)>,
    /// What begins with it.
    pub(super) flow: u64,
}

/// What of a poll is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// All of it that was a worker's.
    Whole {
        /// When the thread gave its worker away in it, to block, if it did.
        blocks_ns: Option<u64>,
    },
    /// The rest, in which another thread had the worker.
    InPlace,
    /// All of it, though the thread gave its worker away: when is not known.
    SomewhereInPlace,
}

/// A poll to be shown.
pub(super) struct Shown {
    pub(super) tid: Tid,
    pub(super) presence: Presence,
    pub(super) future: Arc<Future>,
    pub(super) extent: Extent,
    pub(super) part: Part,
    /// Whether it is there to block.
    pub(super) may_block: bool,
    /// What led to it.
    pub(super) led: Led,
}

/// Whether a thread was in a task's poll, and not only in what its worker does between polls.
pub(super) fn is_in_poll(polled: &Polled) -> bool {
    polled.began_ns().is_some() && (polled.awaits() || polled.runtime == 0)
}

impl Polls {
    /// See [`TokioTracks::has_several_runtimes`].
    pub fn has_several_runtimes(&self, tgid: Tgid) -> bool {
        self.tracks.has_several_runtimes(tgid)
    }

    /// Where polls are shown, and what else there is of runtimes.
    pub fn tracks(&mut self) -> &mut TokioTracks {
        &mut self.tracks
    }

    /// Whether a thread may be in the middle of a poll, for all that is known: not if this is the task that it is itself.
    pub fn may_be_in_poll(&self, tid: Tid, polled: &Polled) -> bool {
        let is_known = polled.began_ns().is_some();
        if is_known { is_in_poll(polled) } else { !polled.is_nothing() && self.own.get(&tid) != Some(&polled.task) }
    }

    /// Shows what a thread did to a task: on its worker's track in the middle of a poll, else on its own.
    #[expect(clippy::too_many_arguments, reason = "where instants go and what they are made of")]
    pub(super) fn show_deed(
        &mut self,
        time_ns: u64,
        tid: Tid,
        polled: &Polled,
        deed: &Deed,
        future: &Future,
        words: &mut Vocabulary,
        out: &mut PacketBuffer,
    ) {
        let tgid = deed.task.tgid;
        let is_in_poll = is_in_poll(polled);
        let poller =
            if is_in_poll { self.poller(tgid, tid, polled, !polled.awaits()) } else { Poller::Thread { tgid, tid } };
        let track = self.tracks.track(poller, future.family, time_ns, out);
        let mut arguments = vec![
            words.task(deed.task.id, future.family, out),
            words.text("future", &future.full_name, out),
            words.text("name_tier", future.tier, out),
            words.number("tid", u64::from(tid.0), out),
        ];
        arguments.extend(deed.by.map(|(name, task)| words.number(name, task, out)));
        let instant = SliceBegin {
            time_ns,
            track,
            category: words.category(deed.name, out),
            name: words.event(deed.name, out),
            callstack: None,
            arguments: &arguments,
            flows: &[deed.flow],
        };
        out.push_instant(&instant);
    }

    /// Shows tasks from their beginnings to their ends.
    pub(super) fn show_lives(
        &mut self,
        mut over: Vec<Lived>,
        words: &mut Vocabulary,
        seen: &mut Seen,
        out: &mut PacketBuffer,
    ) {
        // What runs to its end in one poll is shown by that, and addresses may have been those of several tasks.
        over.retain(|lived| !lived.life.body.may_block && lived.life.body.future.family.has_ids());
        // So that as few tracks as possible hold them, and the same record makes the same trace.
        over.sort_by_key(|lived| (lived.life.since_ns, lived.task.tgid, lived.task.id));
        for Lived { task, life, until_ns, end } in over {
            seen.tasks += 1;
            let future = &life.body.future;
            let track = self.tracks.life(task.tgid, &future.name, (life.since_ns, until_ns), out);
            let mut arguments = vec![
                words.task(task.id, future.family, out),
                words.text("future", &future.full_name, out),
                words.text("name_tier", future.tier, out),
                words.number("polls", life.polls, out),
                words.text("begin", life.begin.name(), out),
                words.text("end", end.name(), out),
            ];
            arguments.extend(self.wakes.parent(task).map(|parent| words.number("parent", parent, out)));
            arguments.extend(future.place.as_ref().map(|place| words.text("written_at", place, out)));
            arguments.extend(life.spawned_at.as_ref().map(|place| words.text("spawned_at", place, out)));
            // Of one that has ended, what it waited for last has come.
            if let Some(awaited) = life.waits.now().filter(|_| end == End::Alive) {
                arguments.extend(waits_for(awaited, words, out));
            }
            let slice = SliceBegin {
                time_ns: life.since_ns,
                track,
                category: words.category("task", out),
                name: words.event(&future.name, out),
                callstack: None,
                arguments: &arguments,
                flows: &[],
            };
            out.push_slice_begin(&slice);
            for wait in life.waits.shown(task.tgid, life.since_ns, until_ns, &self.gaps) {
                show_wait(&wait, task, track, words, out);
            }
            out.push_slice_end(until_ns, track);
        }
    }

    /// Whether a thread that slept did so in a poll of a task that awaits, as far as is known.
    pub fn is_kept(&self, task: TaskKey, polled: &Polled) -> bool {
        self.future(task).map_or(polled.awaits(), |body| !body.may_block)
    }

    /// Shows a poll with what the thread slept in it, and what is wrong with it.
    pub(super) fn show(&mut self, shown: &Shown, words: &mut Vocabulary, out: &mut PacketBuffer) {
        let Shown { tid, presence, future, extent, part, may_block, led } = shown;
        let tgid = presence.task.tgid;
        self.holders.polled(*tid, (presence.since_ns, presence.last_ns), presence.task.id, future);
        let poller = match part {
            Part::Whole { .. } => self.poller(tgid, *tid, &presence.polled, *may_block),
            // What the worker polls meanwhile is on its track.
            Part::InPlace | Part::SomewhereInPlace => Poller::Thread { tgid, tid: *tid },
        };
        let track = self.tracks.track(poller, future.family, presence.since_ns, out);
        let mut arguments = vec![
            words.task(presence.task.id, future.family, out),
            words.text("future", &future.full_name, out),
            words.text("name_tier", future.tier, out),
            words.text("extent", extent.name(), out),
            words.number("tid", u64::from(tid.0), out),
        ];
        if *part == Part::SomewhereInPlace {
            arguments.push(words.text("kind", "blocked in place", out));
        }
        if *may_block {
            arguments.push(words.text("kind", "blocking closure", out));
            let queued_ns = led.since_ns.map(|since_ns| presence.since_ns - since_ns);
            arguments.extend(queued_ns.map(|queued_ns| words.number("queued_ns", queued_ns, out)));
        }
        // As `polletto_closures` and `polletto_blocks_in_place` count them.
        self.closures_run += u64::from(*may_block && *part != Part::InPlace);
        self.without_worker += u64::from(matches!(part, Part::InPlace | Part::SomewhereInPlace));
        let weights = presence.weights();
        // Most polls run all the time, and there are many.
        if weights.off_cpu_ns + weights.run_queue_ns > 0 {
            arguments.extend(split(weights, words, out));
        }
        arguments.extend(self.wakes.parent(presence.task).map(|parent| words.number("parent", parent, out)));
        arguments.extend(future.place.as_ref().map(|place| words.text("written_at", place, out)));
        let (category, name) = match part {
            Part::InPlace => (BLOCK_IN_PLACE, BLOCK_IN_PLACE),
            Part::Whole { .. } | Part::SomewhereInPlace => ("poll", &*future.name),
        };
        let slice = SliceBegin {
            time_ns: presence.since_ns,
            track,
            category: words.category(category, out),
            name: words.event(name, out),
            callstack: None,
            arguments: &arguments,
            flows: &led.flows,
        };
        out.push_slice_begin(&slice);
        for mut finding in findings(shown, poller, self.threshold_ns) {
            match finding.fault {
                Fault::Starved => {
                    let waited = (finding.since_ns, presence.since_ns);
                    finding.meanwhile = self.meanwhile(poller, *tid, waited);
                }
                fault => self.keeps(poller, shown, fault),
            }
            show_finding(&finding, presence.since_ns, track, self.threshold_ns, words, out);
            self.findings.push(finding);
        }
        let mut blocks_ns = match part {
            Part::Whole { blocks_ns } => *blocks_ns,
            Part::InPlace | Part::SomewhereInPlace => None,
        };
        for stretch in &presence.stretches {
            if let Some(time_ns) = blocks_ns.take_if(|time_ns| *time_ns <= stretch.absence.left_ns) {
                show_block_in_place(shown, time_ns, track, words, out);
            }
            show_stretch(stretch, presence.last_ns, track, words, out);
        }
        if let Some(time_ns) = blocks_ns {
            show_block_in_place(shown, time_ns, track, words, out);
        }
        out.push_slice_end(presence.last_ns, track);
    }
}

/// Shows that the thread gives its worker away in the middle of a poll.
fn show_block_in_place(shown: &Shown, time_ns: u64, track: u64, words: &mut Vocabulary, out: &mut PacketBuffer) {
    let arguments = [
        words.task(shown.presence.task.id, shown.future.family, out),
        words.text("future", &shown.future.full_name, out),
        words.text("name_tier", shown.future.tier, out),
        words.number("tid", u64::from(shown.tid.0), out),
    ];
    let instant = SliceBegin {
        time_ns,
        track,
        category: words.category(BLOCK_IN_PLACE, out),
        name: words.event(BLOCK_IN_PLACE, out),
        callstack: None,
        arguments: &arguments,
        flows: &[],
    };
    out.push_instant(&instant);
}

/// Shows that the thread slept in the middle of a poll which ended then.
fn show_stretch(stretch: &Stretch, last_ns: u64, track: u64, words: &mut Vocabulary, out: &mut PacketBuffer) {
    let Stretch { absence, callstack, wait } = stretch;
    let weights = absence.weights();
    let arguments = [
        words.number("sleep_ns", weights.off_cpu_ns, out),
        words.number("runqueue_ns", weights.run_queue_ns, out),
        words.text("waited_for", wait.name(), out),
    ];
    let slice = SliceBegin {
        time_ns: absence.left_ns,
        track,
        category: words.category("blocked", out),
        name: words.event(wait.slice_name(), out),
        callstack: Some(SliceCallstack { callstack: *callstack, weight_ns: weights.wall_ns() }),
        arguments: &arguments,
        flows: &[],
    };
    out.push_slice_begin(&slice);
    out.push_slice_end(absence.returned_ns.min(last_ns), track);
}

/// Shows what a task waited for between two polls.
fn show_wait(wait: &ShownWait, task: TaskKey, track: u64, words: &mut Vocabulary, out: &mut PacketBuffer) {
    let extent = if wait.is_exact { Extent::Exact } else { Extent::AtLeast };
    let mut arguments = vec![words.number("task_id", task.id, out), words.text("extent", extent.name(), out)];
    arguments.extend(waits_for(&wait.awaited, words, out));
    let slice = SliceBegin {
        time_ns: wait.since_ns,
        track,
        category: words.category("await", out),
        name: words.event(&wait.awaited.waits_for, out),
        callstack: None,
        arguments: &arguments,
        flows: &[],
    };
    out.push_slice_begin(&slice);
    out.push_slice_end(wait.until_ns, track);
}

/// What a task awaits, as arguments.
fn waits_for(awaited: &Awaited, words: &mut Vocabulary, out: &mut PacketBuffer) -> [(u64, Argument); 2] {
    [words.text("waits_for", &awaited.waits_for, out), words.text("awaits", &awaited.chain, out)]
}

/// What time went to, as arguments.
pub(super) fn split(weights: Weights, words: &mut Vocabulary, out: &mut PacketBuffer) -> [(u64, Argument); 3] {
    [("cpu_ns", weights.cpu_ns), ("off_cpu_ns", weights.off_cpu_ns), ("runqueue_ns", weights.run_queue_ns)]
        .map(|(name, nanoseconds)| words.number(name, nanoseconds, out))
}
