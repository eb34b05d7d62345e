//! What is found to be wrong with polls, and how that is shown.

use std::sync::Arc;

use super::{
    Polls, TaskKey,
    showing::{Part, Shown, split},
};
use crate::{
    timeline::{
        convoys::{Found, SleptIn, Turn},
        extent::Extent,
        findings::{ConvoyHeld, Fault, Finding, Keeper, Meanwhile},
        tokio_tracks::Poller,
        vocabulary::Vocabulary,
    },
    trace::{Argument, PacketBuffer, SliceBegin, SliceCallstack, Weights},
};

impl Polls {
    /// Shows a lock convoy, on a track of the runtime whose worker stood there longest.
    pub fn show_convoy(&mut self, found: Found, words: &mut Vocabulary, out: &mut PacketBuffer) {
        let Found { convoy, tgid, since_ns, until_ns, tid, slept_ns, slept_in } = found;
        let SleptIn { poller, task, body, callstack } = slept_in;
        let body = body.or_else(|| self.future(TaskKey { tgid, id: task }).cloned());
        // Its track may have had nothing to show until now.
        let future = body.map_or_else(|| Arc::new(super::unknown(0)), |body| Arc::clone(&body.future));
        self.tracks.track(poller, future.family, since_ns, out);
        let Some(group) = self.tracks.group_of_poller(poller) else { return };
        let of_turn = |turn: Turn| self.holders.held(turn.tid, (turn.since_ns, turn.until_ns));
        let held = convoy.held.map(of_turn).unwrap_or_default();
        let finding = Finding {
            fault: Fault::Convoy,
            since_ns,
            extent: Extent::Exact,
            poller,
            tid,
            task,
            future,
            weights: Weights { off_cpu_ns: slept_ns, ..Weights::default() },
            callstack: Some(callstack),
            slept_with: Vec::new(),
            meanwhile: None,
            convoy: Some(ConvoyHeld { lasted_ns: until_ns.saturating_sub(since_ns), convoy, held: held.clone() }),
        };
        let track = self.tracks.findings(group.track, (since_ns, until_ns), out);
        let mut arguments = vec![
            words.pointer("lock", convoy.lock, out),
            words.number("threads", convoy.threads, out),
            words.number("at_once", convoy.at_once, out),
        ];
        if let Some(turn) = convoy.held {
            arguments.push(words.number("held_by", u64::from(turn.tid.0), out));
            arguments.push(words.number("held_ns", turn.held_ns(), out));
        }
        if let Some((task, future)) = &held.task {
            if future.family.has_ids() {
                arguments.push(words.number("held_by_task_id", *task, out));
            }
            arguments.push(words.text("held_by_future", &future.full_name, out));
        }
        arguments.extend(finding_arguments(&finding, self.threshold_ns, words, out));
        let slice = SliceBegin {
            time_ns: since_ns,
            track,
            category: words.category("finding", out),
            name: words.event(finding.fault.name(), out),
            callstack: Some(SliceCallstack { callstack, weight_ns: slept_ns }),
            arguments: &arguments,
            flows: &[],
        };
        out.push_slice_begin(&slice);
        out.push_slice_end(until_ns, track);
        self.findings.push(finding);
    }
}

/// What is wrong with a poll, if what lasts as long as that is.
pub(super) fn findings(shown: &Shown, poller: Poller, threshold_ns: u64) -> Vec<Finding> {
    let Shown { tid, presence, future, extent, part, may_block, led } = shown;
    // Who has no worker keeps none from its other tasks.
    if threshold_ns == 0 || *may_block || !matches!(part, Part::Whole { .. }) {
        return Vec::new();
    }
    let finding = |fault, since_ns, weights, callstack| Finding {
        fault,
        since_ns,
        extent: Extent::Exact,
        poller,
        tid: *tid,
        task: presence.task.id,
        future: Arc::clone(future),
        weights,
        callstack,
        slept_with: Vec::new(),
        meanwhile: None,
        convoy: None,
    };
    let mut findings = Vec::new();
    let since_ns = led.since_ns.unwrap_or(presence.since_ns);
    let waited_ns = presence.since_ns.saturating_sub(since_ns);
    if waited_ns >= threshold_ns {
        let weights = Weights { run_queue_ns: waited_ns, ..Weights::default() };
        findings.push(finding(Fault::Starved, since_ns, weights, None));
    }
    let weights = presence.weights();
    if weights.wall_ns() >= threshold_ns {
        let slept = presence.callstacks.heaviest(true);
        let fault = Fault::of(weights, slept.and_then(|(_, wait)| wait));
        let heaviest = if fault.wait().is_some() { slept } else { presence.callstacks.heaviest(false) };
        let callstack = heaviest.map(|(callstack, _)| callstack);
        let slept_with = fault.wait().map(|wait| presence.callstacks.slept_for(wait)).unwrap_or_default();
        let finding = finding(fault, presence.since_ns, weights, callstack);
        findings.push(Finding { slept_with, extent: *extent, ..finding });
    }
    findings
}

/// What is told of any finding that is about a task.
fn finding_arguments(
    finding: &Finding,
    threshold_ns: u64,
    words: &mut Vocabulary,
    out: &mut PacketBuffer,
) -> [(u64, Argument); 5] {
    [
        words.task(finding.task, finding.future.family, out),
        words.text("future", &finding.future.full_name, out),
        words.number("tid", u64::from(finding.tid.0), out),
        words.number("threshold_ns", threshold_ns, out),
        words.number("duration_ns", finding.duration_ns(), out),
    ]
}

/// Shows what is wrong with the poll that begins at this moment.
pub(super) fn show_finding(
    finding: &Finding,
    time_ns: u64,
    track: u64,
    threshold_ns: u64,
    words: &mut Vocabulary,
    out: &mut PacketBuffer,
) {
    let mut arguments = finding_arguments(finding, threshold_ns, words, out).to_vec();
    arguments.extend(split(finding.weights, words, out));
    arguments.extend(finding.fault.wait().map(|wait| words.text("waited_for", wait.name(), out)));
    arguments.extend(finding.slept_there_ns().map(|slept_ns| words.number("slept_there_ns", slept_ns, out)));
    if let Some(Meanwhile::Polled(Keeper { poller, future, lasted_ns, .. })) = &finding.meanwhile {
        arguments.push(words.text("kept_by", &future.full_name, out));
        arguments.push(words.text("kept_by_worker", &poller.name(), out));
        arguments.push(words.number("kept_by_ns", *lasted_ns, out));
    }
    arguments.extend(finding.future.place.as_ref().map(|place| words.text("written_at", place, out)));
    let weight_ns = finding.duration_ns();
    let instant = SliceBegin {
        time_ns,
        track,
        category: words.category("finding", out),
        name: words.event(finding.fault.name(), out),
        callstack: finding.callstack.map(|callstack| SliceCallstack { callstack, weight_ns }),
        arguments: &arguments,
        flows: &[],
    };
    out.push_instant(&instant);
}
