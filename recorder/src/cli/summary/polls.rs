//! What a recording's polls came to.

use std::fmt;

use serde::Serialize;

use crate::{
    cli::counts::{Count, several},
    session::{Outcome, ProbeSummary},
};

/// Reasons that are named in the summary for people.
const NAMED_REASONS: usize = 5;

/// The part of the summary about polls.
#[derive(Debug, Default, Serialize)]
pub struct PollSummary {
    /// Polls that are shown from their begin to their end.
    polls_exact: u64,
    /// Polls whose begin was seen, and that outlasted the recording.
    polls_unfinished: u64,
    /// Polls whose begin was seen, and whose end was not: mostly before it was known where they return to.
    polls_without_end: u64,
    /// Polls of which it is shown how long they lasted at least.
    polls_found: u64,
    /// Such polls that are not shown, since it is unknown what was polled.
    polls_unnamed: u64,
    /// Wakes of tasks.
    wakes: u64,
    /// Those of them whose task's next poll was told too, and spawns whose task's first was.
    wakes_polled: u64,
    /// Spawns of tasks that await.
    spawns: u64,
    /// Closures that may block, given to the threads that run them.
    blocking_spawns: u64,
    /// Closures that may block, by their polls that are in the trace: also where it is not seen that they are spawned.
    closures_run: u64,
    /// How often a thread was seen to give its worker away in the middle of a poll, to block.
    blocks_in_place: u64,
    /// Polls in which the thread gave its worker away, it is not known when.
    workers_gone_unseen: u64,
    /// Stretches, or whole polls where it is not known when the worker was given away, in which a thread had none. As many as
    /// `polletto_blocks_in_place` has.
    without_worker: u64,
    /// Probes in the programs' code; none where polls were not to be told exactly.
    poll_probes: Option<ProbeSummary>,
    /// Whether any program polls tasks: of others there is nothing to tell.
    #[serde(skip)]
    is_of_tasks: bool,
}

impl PollSummary {
    pub fn new(outcome: &Outcome) -> PollSummary {
        let Outcome { seen, kernel, tasks, .. } = outcome;
        PollSummary {
            polls_exact: seen.polls_exact,
            polls_unfinished: seen.polls_unfinished,
            polls_without_end: kernel.polls_without_end,
            polls_found: seen.polls_found,
            polls_unnamed: seen.polls_unnamed,
            wakes: seen.wakes,
            wakes_polled: seen.wakes_polled,
            spawns: seen.spawns,
            blocking_spawns: seen.blocking_spawns,
            closures_run: seen.closures_run,
            blocks_in_place: seen.blocks_in_place,
            workers_gone_unseen: seen.workers_gone_unseen,
            without_worker: seen.without_worker,
            poll_probes: tasks.probes.clone(),
            is_of_tasks: !tasks.programs.is_empty(),
        }
    }
}

impl PollSummary {
    /// What was seen of closures that may block, if anything was. In debug builds it is not seen where they are spawned.
    fn closures(&self) -> Option<String> {
        let (spawned, ran) = (self.blocking_spawns, Count(self.closures_run));
        let closures = |count| several(count, "closure", "closures");
        match (spawned, self.closures_run) {
            (0, 0) => None,
            (0, run) => Some(format!("{} ran that may block; where they were spawned was not seen", closures(run))),
            _ => Some(format!("{} spawned that may block, {ran} seen to run", closures(spawned))),
        }
    }

    /// What there is to tell, the most important first.
    fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        let probes = self.poll_probes.as_ref().filter(|probes| probes.begins > 0);
        if let Some(probes) = probes {
            let ProbeSummary { begins, ends, .. } = probes;
            lines.push(format!("{} from begin to end", several(self.polls_exact, "poll", "polls")));
            let places = several(*begins, "place", "places");
            lines.push(format!("by probes in {places} where polls begin, and {ends} where they have ended"));
            lines.extend(Cost::of(probes).map(|cost| cost.to_string()));
            lines.extend(probes.budget_for_all.map(enough));
        }
        for (count, what) in [
            (self.polls_unfinished, "had not ended when their ends were told no more"),
            (self.polls_without_end, "whose end was not seen, most of them before it was known where it is"),
            (self.polls_found, "of which samples and switches tell how long they lasted at least"),
            (self.polls_unnamed, "that lasted, of no known future: these are not in the trace"),
            (
                self.workers_gone_unseen,
                "in which a thread blocked in place, it is not known when: shown by their threads",
            ),
        ] {
            if count > 0 {
                lines.push(format!("{} {what}", Count(count)));
            }
        }
        if probes.is_none() {
            lines.push("without probes: no other poll is known, nor how long tasks waited for theirs".to_owned());
        }
        if self.blocks_in_place > 0 {
            let times = several(self.blocks_in_place, "time", "times");
            lines.push(format!("{times} a thread blocked in place, and gave its worker to another"));
        }
        let stretches = self.without_worker.saturating_sub(self.workers_gone_unseen);
        if stretches > 0 {
            let stretches = several(stretches, "stretch", "stretches");
            lines.push(format!(
                "{stretches} of threads without their workers, which they had given away to block in place"
            ));
        }
        let Some(ProbeSummary { wakes, spawns, refused, .. }) = &self.poll_probes else { return lines };
        if *wakes > 0 || *spawns > 0 {
            let counts = (several(self.wakes, "wake", "wakes"), several(self.spawns, "spawn", "spawns"));
            lines.push(format!("{} and {} of tasks that await", counts.0, counts.1));
            lines.extend(self.closures());
            let places = several(*wakes, "place", "places");
            lines.push(format!("by probes in {places} where they are woken, and {spawns} where spawned"));
        }
        let refused = refused.iter().take(NAMED_REASONS);
        lines.extend(
            refused.map(|(reason, count)| format!("{} without a probe: {reason}", several(*count, "place", "places"))),
        );
        lines
    }
}

impl fmt::Display for PollSummary {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.is_of_tasks {
            return Ok(());
        }
        for (at, line) in self.lines().into_iter().enumerate() {
            writeln!(out, "  {:<10}{line}", if at == 0 { "polls" } else { "" })?;
        }
        Ok(())
    }
}

/// What would have told all polls, by an estimate of its budget in percent.
fn enough(budget: f64) -> String {
    /// What `--budget` takes.
    const MOST: f64 = 100.0;
    match budget {
        ..=MOST => format!("by an estimate, --budget {budget} would observe all of the time"),
        _ => format!("by an estimate, --polls all would take {budget} % of a CPU, and no --budget is enough"),
    }
}

/// What telling polls took of the programs' time.
struct Cost<'a>(&'a ProbeSummary);

impl<'a> Cost<'a> {
    /// None where there were no probes.
    fn of(probes: &'a ProbeSummary) -> Option<Cost<'a>> {
        (probes.observed_ns > 0).then_some(Cost(probes))
    }
}

impl fmt::Display for Cost<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ProbeSummary { observed_ns, unobserved_ns, hits, spent_ns, .. } = *self.0;
        let all_ns = (observed_ns + unobserved_ns) as f64;
        let observed = 100.0 * observed_ns as f64 / all_ns;
        let cost = 100.0 * spent_ns as f64 / all_ns;
        write!(out, "observed for {observed:.1} % of the time, which took {cost:.2} % of a CPU from the program")?;
        if let Some(each_ns) = spent_ns.checked_div(hits) {
            let probes = several(hits, "probe", "probes");
            write!(out, ": {:.1} µs at each of {probes}", each_ns as f64 / 1e3)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_budget_would_be_enough_is_told_as_an_estimate() {
        for (budget, expected) in [
            (Some(14.0), "by an estimate, --budget 14 would observe all of the time\n"),
            (Some(0.13), "by an estimate, --budget 0.13 would observe all of the time\n"),
            (Some(140.0), "by an estimate, --polls all would take 140 % of a CPU, and no --budget is enough\n"),
            (None, "where they have ended\n"),
        ] {
            let probes = ProbeSummary { begins: 1, budget_for_all: budget, ..ProbeSummary::default() };
            let summary = PollSummary { poll_probes: Some(probes), is_of_tasks: true, ..PollSummary::default() };
            assert!(summary.to_string().ends_with(expected), "{summary}");
        }
    }

    #[test]
    fn that_polls_of_no_known_future_are_not_in_the_trace_is_told() {
        let summary = PollSummary { polls_unnamed: 7, is_of_tasks: true, ..PollSummary::default() };
        let told = "  polls     7 that lasted, of no known future: these are not in the trace\n";
        assert!(summary.to_string().starts_with(told), "{summary}");
    }

    #[test]
    fn what_is_not_known_without_probes_is_told() {
        let summary = |begins| {
            let probes = Some(ProbeSummary { begins, ..ProbeSummary::default() });
            PollSummary { polls_found: 7, poll_probes: probes, is_of_tasks: true, ..PollSummary::default() }
        };
        let told = "            without probes: no other poll is known, nor how long tasks waited for theirs\n";
        assert!(summary(0).to_string().ends_with(told), "{}", summary(0));
        assert!(!summary(1).to_string().contains("without probes"), "{}", summary(1));
        let of_nothing = PollSummary { poll_probes: None, ..PollSummary::default() };
        assert_eq!(of_nothing.to_string(), "");
    }
}
