//! What threads do to tasks: they wake and spawn them.

use std::sync::Arc;

use polletto_common::record::{self, flags};

use super::{
    Polls, TaskKey, future_of,
    showing::{Deed, is_in_poll},
};
use crate::{
    timeline::{seen::Seen, task_code::PollBody, vocabulary::Vocabulary, wakes::Running},
    trace::PacketBuffer,
};

impl Polls {
    /// A thread has woken a task with this `body`.
    pub fn woken(
        &mut self,
        wake: &record::Wake,
        body: Option<Arc<PollBody>>,
        words: &mut Vocabulary,
        seen: &mut Seen,
        out: &mut PacketBuffer,
    ) {
        let record::Wake { header, tid, tgid, vtable, task, polled } = *wake;
        let woken = TaskKey { tgid, id: task };
        let running = match polled.began_ns() {
            Some(began_ns) if polled.task == task => Some(Running::Since(began_ns)),
            _ => (header.flags & flags::WHILE_POLLED != 0).then_some(Running::Somehow),
        };
        let flow = self.wakes.woken(woken, header.time_ns, running);
        seen.wakes += 1;
        let waker = is_in_poll(&polled).then_some(("waker_task_id", polled.task));
        let deed = Deed { name: "wake", task: woken, by: waker, flow };
        self.show_deed(header.time_ns, tid, &polled, &deed, &future_of(vtable, body), words, out);
    }

    /// A thread has spawned a task with this `body`.
    pub fn spawned(
        &mut self,
        spawn: &record::Spawn,
        body: Option<Arc<PollBody>>,
        words: &mut Vocabulary,
        seen: &mut Seen,
        out: &mut PacketBuffer,
    ) {
        let record::Spawn { header, tid, tgid, vtable, task, polled } = *spawn;
        if self.gives_worker_away(spawn, body.as_deref()) {
            // It is told with the poll, and what it spawns is no closure of the program's.
            seen.blocks_in_place += 1;
            return;
        }
        let may_block = header.flags & flags::MAY_BLOCK != 0;
        let spawned = TaskKey { tgid, id: task };
        let parent = is_in_poll(&polled).then_some(polled.task);
        self.wakes.spawned(spawned, parent);
        if let Some(body) = body.as_ref().filter(|_| !may_block) {
            self.lives.spawned(spawned, body, header.time_ns);
        }
        // What it leads to is its first poll, as if it were woken.
        let flow = self.wakes.woken(spawned, header.time_ns, None);
        let (name, count) = match may_block {
            true => ("spawn blocking", &mut seen.blocking_spawns),
            false => ("spawn", &mut seen.spawns),
        };
        *count += 1;
        let deed = Deed { name, task: spawned, by: parent.map(|parent| ("parent", parent)), flow };
        self.show_deed(header.time_ns, tid, &polled, &deed, &future_of(vtable, body), words, out);
        let crowded_out = self.lives.take_crowded_out();
        self.show_lives(crowded_out, words, seen, out);
    }
}
