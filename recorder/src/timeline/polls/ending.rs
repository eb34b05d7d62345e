//! How polls end whose end is not told.

use std::sync::Arc;

use polletto_common::{id::Tid, polled::Polled};

use super::{
    MAX_UNDECIDED, Polls,
    given_away::GivenAway,
    presence::Presence,
    showing::{Part, Shown},
};
use crate::{
    timeline::{extent::Extent, seen::Seen, vocabulary::Vocabulary, wakes::Led},
    trace::PacketBuffer,
};

impl Polls {
    /// Shows the polls that the thread was found in, once it is certain that they are any.
    pub(super) fn end(&mut self, tid: Tid, words: &mut Vocabulary, seen: &mut Seen, out: &mut PacketBuffer) {
        if self.own.contains_key(&tid) {
            self.decide(tid, words, seen, out);
        }
        for presence in self.present.remove(&tid).into_iter().flatten() {
            let Polled { runtime, worker, .. } = presence.polled;
            let is_decided = self.own.contains_key(&tid)
                || presence.polled.began_ns().is_some()
                || runtime == 0
                || worker == Polled::ONLY_WORKER;
            let undecided = self.undecided.get(&tid).map_or(0, Vec::len);
            if is_decided || undecided >= MAX_UNDECIDED {
                self.end_one(tid, presence, words, seen, out);
            } else {
                self.undecided.entry(tid).or_default().push(presence);
            }
        }
    }

    /// Shows what the thread was found in while it was not known which task it is itself.
    pub(super) fn decide(&mut self, tid: Tid, words: &mut Vocabulary, seen: &mut Seen, out: &mut PacketBuffer) {
        for presence in self.undecided.remove(&tid).into_iter().flatten() {
            self.end_one(tid, presence, words, seen, out);
        }
    }

    /// Shows a poll that the thread was found in, if it is known to have lasted, and what was polled.
    pub(super) fn end_one(
        &mut self,
        tid: Tid,
        presence: Presence,
        words: &mut Vocabulary,
        seen: &mut Seen,
        out: &mut PacketBuffer,
    ) {
        let is_own = self.own.get(&tid) == Some(&presence.task.id);
        if presence.last_ns == presence.since_ns || is_own {
            return;
        }
        // Without a stack, it could be the task that the thread is itself.
        let Some(body) = self.lives.body(presence.task).cloned() else {
            seen.polls_unnamed += 1;
            return;
        };
        self.lives.found(presence.task, &body, presence.polled.runtime, presence.last_ns);
        seen.polls_found += 1;
        let (future, may_block) = (Arc::clone(&body.future), body.may_block);
        self.unfinished(tid, &presence.polled);
        // Whose end is not told may have given its worker away all the same.
        let is_gone = presence.has_given || self.given.has_given(presence.task.tgid, tid, &presence.polled);
        let shown = |presence, extent, part| Shown {
            tid,
            presence,
            future: Arc::clone(&future),
            extent,
            part,
            may_block,
            led: Led::default(),
        };
        let (given, polled) = (self.given.take(tid, &presence.polled), presence.polled);
        let rest = match given.zip(polled.began_ns()) {
            Some((GivenAway { at_ns, before, .. }, began_ns)) => {
                let at_ns = at_ns.max(began_ns);
                let before = before.unwrap_or_else(|| Presence::new(presence.task, polled, began_ns));
                let before = before.lasted(began_ns, at_ns);
                self.show(&shown(before, Extent::UntilBlocked, Part::Whole { blocks_ns: Some(at_ns) }), words, out);
                let last_ns = presence.last_ns.max(at_ns);
                shown(presence.lasted(at_ns, last_ns), Extent::AtLeast, Part::InPlace)
            }
            // By its ticks, it is only told what it did after that.
            None if is_gone && polled.began_ns().is_none() => shown(presence, Extent::AtLeast, Part::InPlace),
            None if is_gone => {
                seen.workers_gone_unseen += 1;
                shown(presence, Extent::AtLeast, Part::SomewhereInPlace)
            }
            None => shown(presence, Extent::AtLeast, Part::Whole { blocks_ns: None }),
        };
        self.show(&rest, words, out);
    }
}
