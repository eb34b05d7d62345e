//! Polls of which probes tell when they began and ended.

use std::sync::Arc;

use polletto_common::{
    id::Tid,
    poll::MAX_NESTED,
    polled::Polled,
    record::{self, flags},
};

use super::{
    Polls, TaskKey, future_of,
    given_away::GivenAway,
    presence::Presence,
    showing::{Part, Shown},
};
use crate::{
    timeline::{extent::Extent, seen::Seen, task_code::PollBody, vocabulary::Vocabulary, wakes::Led},
    trace::PacketBuffer,
};

impl Polls {
    /// A thread has polled a task with this `body`, and it is known from when to when.
    pub fn polled(
        &mut self,
        poll: &record::Poll,
        body: Option<Arc<PollBody>>,
        words: &mut Vocabulary,
        seen: &mut Seen,
        out: &mut PacketBuffer,
    ) {
        let record::Poll { header, tid, tgid, vtable, polled } = *poll;
        if header.flags & flags::END_UNSEEN != 0 {
            self.wakes.polled(TaskKey { tgid, id: polled.task }, header.time_ns);
            return;
        }
        let Some(began_ns) = polled.began_ns() else { return };
        self.doings.watch(header.time_ns, tid);
        self.given.seen(tgid, &polled);
        let found = self.take_exact(tid, &polled, words, seen, out);
        let is_finished = header.flags & flags::STILL_POLLING == 0;
        if !is_finished && self.is_unfinished(tid, &polled) {
            return;
        }
        if header.flags & flags::NESTED == 0 {
            self.end(tid, words, seen, out);
        }
        if self.own.get(&tid) == Some(&polled.task) {
            return;
        }
        let task = TaskKey { tgid, id: polled.task };
        let last_ns = header.time_ns.max(began_ns);
        if let Some(body) = &body {
            if !body.may_block {
                self.pollers.insert(tid);
            }
            self.lives.polled(task, body, polled.runtime, (began_ns, last_ns));
            if body.may_block && is_finished {
                // What runs to its end has come to it.
                self.lives.forget(task);
            }
        }
        let may_block = body.as_ref().map_or(!polled.awaits(), |body| body.may_block);
        let future = future_of(vtable, body);
        let extent = if is_finished {
            seen.polls_exact += 1;
            Extent::Exact
        } else {
            seen.polls_unfinished += 1;
            self.unfinished(tid, &polled);
            Extent::AtLeast
        };
        let mut led = self.wakes.polled(task, began_ns);
        // It may have been polled where nobody looked.
        led.since_ns = led.since_ns.filter(|&since_ns| !self.gaps.meet(tgid, since_ns..began_ns));
        seen.wakes_polled += led.flows.len() as u64;
        let new = |since_ns| Presence::new(task, polled, since_ns);
        // Or it is within a poll that has given it away.
        let is_gone = header.flags & flags::WORKER_GONE != 0 || self.given.is_within(tgid, &polled);
        let shown = |presence, extent, part, led| Shown {
            tid,
            presence,
            future: Arc::clone(&future),
            extent,
            part,
            may_block,
            led,
        };
        match self.given.take(tid, &polled) {
            Some(GivenAway { at_ns, before, .. }) if is_gone || !is_finished => {
                let at_ns = at_ns.clamp(began_ns, last_ns);
                let before = before.unwrap_or_else(|| new(began_ns)).lasted(began_ns, at_ns);
                let rest = found.unwrap_or_else(|| new(at_ns)).lasted(at_ns, last_ns);
                self.show(
                    &shown(before, Extent::UntilBlocked, Part::Whole { blocks_ns: Some(at_ns) }, led),
                    words,
                    out,
                );
                self.show(&shown(rest, extent, Part::InPlace, Led::default()), words, out);
            }
            Some(GivenAway { at_ns, before, .. }) => {
                let all = before.into_iter().chain(found).reduce(Presence::and).unwrap_or_else(|| new(began_ns));
                let part = Part::Whole { blocks_ns: Some(at_ns) };
                self.show(&shown(all.lasted(began_ns, last_ns), extent, part, led), words, out);
            }
            None => {
                seen.workers_gone_unseen += u64::from(is_gone);
                let part = if is_gone { Part::SomewhereInPlace } else { Part::Whole { blocks_ns: None } };
                let found = found.unwrap_or_else(|| new(began_ns)).lasted(began_ns, last_ns);
                self.show(&shown(found, extent, part, led), words, out);
            }
        }
        let crowded_out = self.lives.take_crowded_out();
        self.show_lives(crowded_out, words, seen, out);
    }

    /// What was found of a poll whose end is told. Those within it whose end was not are shown as far as they were found.
    fn take_exact(
        &mut self,
        tid: Tid,
        polled: &Polled,
        words: &mut Vocabulary,
        seen: &mut Seen,
        out: &mut PacketBuffer,
    ) -> Option<Presence> {
        let nested = self.present.get_mut(&tid)?;
        let at = nested.iter().position(|presence| presence.polled.tick == polled.tick)?;
        let within = nested.split_off(at + 1);
        let found = nested.pop();
        for presence in within {
            self.end_one(tid, presence, words, seen, out);
        }
        found
    }

    /// A poll is shown, and it is not known how long it will last.
    pub(super) fn unfinished(&mut self, tid: Tid, polled: &Polled) {
        if polled.began_ns().is_some() {
            let ticks = self.unfinished.entry(tid).or_default();
            ticks.push(polled.tick);
            let excess = ticks.len().saturating_sub(MAX_NESTED);
            ticks.drain(..excess);
        }
    }

    pub(super) fn is_unfinished(&self, tid: Tid, polled: &Polled) -> bool {
        polled.began_ns().is_some() && self.unfinished.get(&tid).is_some_and(|ticks| ticks.contains(&polled.tick))
    }
}
