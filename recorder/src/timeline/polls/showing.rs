//! How polls are drawn, and what threads do to tasks.

use polletto_common::{id::Tid, polled::Polled};

use super::{Polls, Presence, Stretch, TaskKey};
use crate::{
    timeline::{task_code::Future, vocabulary::Vocabulary, worker_tracks::Poller},
    trace::{PacketBuffer, SliceBegin, SliceCallstack},
};

/// How long a poll lasted: as long as it is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Extent {
    Exact,
    AtLeast,
}

impl Extent {
    fn name(self) -> &'static str {
        match self {
            Extent::Exact => "exact",
            Extent::AtLeast => "at least",
        }
    }
}

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

/// Whether a thread was in a task's poll, and not only in what its worker does between polls.
pub(super) fn is_in_poll(polled: &Polled) -> bool {
    polled.began_ns().is_some() && (polled.awaits() || polled.runtime == 0)
}

impl Polls {
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
        let poller = if is_in_poll(polled) { Poller::of(tgid, tid, polled) } else { Poller::Thread { tgid, tid } };
        let track = self.tracks.track(poller, time_ns, out);
        let mut arguments = vec![
            words.number("task_id", deed.task.id, out),
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

    /// Shows a poll to which these `flows` lead, with what the thread slept in it.
    #[expect(clippy::too_many_arguments, reason = "where slices go and what they are made of")]
    pub(super) fn show(
        &mut self,
        tid: Tid,
        presence: &Presence,
        future: &Future,
        extent: Extent,
        flows: &[u64],
        words: &mut Vocabulary,
        out: &mut PacketBuffer,
    ) {
        let poller = Poller::of(presence.task.tgid, tid, &presence.polled);
        let track = self.tracks.track(poller, presence.since_ns, out);
        let mut arguments = vec![
            words.number("task_id", presence.task.id, out),
            words.text("future", &future.full_name, out),
            words.text("name_tier", future.tier, out),
            words.text("extent", extent.name(), out),
            words.number("tid", u64::from(tid.0), out),
            words.number("away_ns", presence.away_ns, out),
        ];
        arguments.extend(self.wakes.parent(presence.task).map(|parent| words.number("parent", parent, out)));
        arguments.extend(future.place.as_ref().map(|place| words.text("written_at", place, out)));
        let slice = SliceBegin {
            time_ns: presence.since_ns,
            track,
            category: words.category("poll", out),
            name: words.event(&future.name, out),
            callstack: None,
            arguments: &arguments,
            flows,
        };
        out.push_slice_begin(&slice);
        for Stretch { absence, callstack } in &presence.stretches {
            let weights = absence.weights();
            let arguments = [
                words.number("sleep_ns", weights.off_cpu_ns, out),
                words.number("runqueue_ns", weights.run_queue_ns, out),
            ];
            let slice = SliceBegin {
                time_ns: absence.left_ns,
                track,
                category: words.category("blocked", out),
                name: words.event("blocked", out),
                callstack: Some(SliceCallstack { callstack: *callstack, weight_ns: weights.wall_ns() }),
                arguments: &arguments,
                flows: &[],
            };
            out.push_slice_begin(&slice);
            out.push_slice_end(absence.returned_ns.min(presence.last_ns), track);
        }
        out.push_slice_end(presence.last_ns, track);
    }
}
