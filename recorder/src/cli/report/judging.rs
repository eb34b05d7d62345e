//! Whether a trace has what it must not, as `--fail-on` asks.

use std::{fmt, path::Path, time::Duration};

use serde::Serialize;

use super::{
    super::{
        arguments::{Demands, FailOn},
        counts::several,
    },
    NO_POLLS,
    found::Found,
    nanoseconds,
    span::Span,
};
use crate::timeline::Fault;

/// What is said of a trace. Its fields are what `--json` prints.
#[derive(Debug, Serialize)]
pub struct Judged {
    pub verdict: Verdict,
    /// Why, in words: each of what was found, else that nothing was or why nobody can tell.
    pub reasons: Vec<String>,
    /// For how much of the recording probes told of polls, from 0 to 1. If it is about what got worse, of the two traces the
    /// one that has less.
    observed_share: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Verdict {
    #[serde(rename = "passed")]
    Passed,
    #[serde(rename = "failed")]
    Failed,
    /// No poll was told, or for too little of the time.
    #[serde(rename = "can't tell")]
    CantTell,
}

/// A trace, as far as it is judged.
#[derive(Clone, Copy, Debug)]
pub struct Trace<'t> {
    pub path: &'t Path,
    pub span: Span,
    /// Whether anything could have been found.
    pub has_polls: bool,
}

/// What a trace is compared with, and what came of that.
#[derive(Clone, Debug)]
pub struct Compared<'t> {
    pub before: Trace<'t>,
    pub is_worse: bool,
    /// Why nothing could be compared, in words; none where something could.
    pub nothing_for: Option<String>,
}

impl Judged {
    /// None if nothing is asked.
    pub fn new(demands: &Demands, trace: Trace, found: &[Found], compared: Option<Compared>) -> Option<Judged> {
        let fail_on = &*demands.fail_on;
        if fail_on.is_empty() {
            return None;
        }
        // What it is compared with has no part in what lasts too long.
        let compared = compared.filter(|_| fail_on.contains(&FailOn::Worse));
        let share = trace.span.share();
        let observed_share = compared.as_ref().map_or(share, |compared| share.min(compared.before.span.share()));
        let (verdict, reasons) = if !trace.has_polls {
            (Verdict::CantTell, vec![format!("{}: {NO_POLLS}, so --fail-on can't tell", trace.path.display())])
        } else if let Some(Compared { before, .. }) = compared.as_ref().filter(|of| !of.before.has_polls) {
            let reason = format!("{}: {NO_POLLS}, so --fail-on worse can't tell", before.path.display());
            (Verdict::CantTell, vec![reason])
        } else {
            let is_worse = compared.as_ref().is_some_and(|compared| compared.is_worse);
            let reasons: Vec<String> = fail_on.iter().filter_map(|of| of.failed(found, is_worse)).collect();
            let least = demands.min_observed.filter(|percent| observed_share * 100.0 < *percent);
            match (reasons.is_empty(), least) {
                (false, _) => (Verdict::Failed, reasons),
                (true, Some(percent)) => (Verdict::CantTell, vec![too_little(percent, trace.span, compared.as_ref())]),
                (true, None) => (Verdict::Passed, vec![passed(fail_on, trace.span, compared.as_ref())]),
            }
        };
        Some(Judged { verdict, reasons, observed_share })
    }
}

impl FailOn {
    /// That there is what must not be, in words; none if there is not.
    fn failed(&self, found: &[Found], is_worse: bool) -> Option<String> {
        match self {
            FailOn::Longer { kind, limit } => over(found, *kind, *limit),
            FailOn::Worse => is_worse.then(|| "something got worse".to_owned()),
        }
    }
}

/// What there is of a kind that lasts too long, in words; none if nothing does.
fn over(found: &[Found], kind: Fault, limit: Duration) -> Option<String> {
    let is_over = |found: &&Found| found.kind == kind.name() && found.kept_ns() >= nanoseconds(limit);
    let lasted_ns: Vec<u64> = found.iter().filter(is_over).map(Found::kept_ns).collect();
    let longest_ms = *lasted_ns.iter().max()? as f64 / 1e6;
    let (one, more, did) = match kind {
        Fault::LongPoll => ("poll", "polls", "ran"),
        Fault::Slept(_) => ("poll", "polls", "slept"),
        Fault::Preempted if lasted_ns.len() == 1 => ("poll", "polls", "was preempted"),
        Fault::Preempted => ("poll", "polls", "were preempted"),
        Fault::Starved => ("task", "tasks", "starved"),
        Fault::Convoy => ("lock convoy", "lock convoys", "held a poll up"),
    };
    let (count, limit_ms) = (several(lasted_ns.len() as u64, one, more), limit.as_secs_f64() * 1e3);
    let the_longest = if lasted_ns.len() == 1 { ":" } else { ", the longest" };
    Some(format!("{count} {did} for {limit_ms} ms or more{the_longest} {longest_ms:.1} ms"))
}

/// That nothing was found which must not be, in words, and for how much of the time it would have been: of what it was
/// compared with as well.
fn passed(fail_on: &[FailOn], span: Span, compared: Option<&Compared>) -> String {
    let limits: Vec<String> = fail_on
        .iter()
        .filter_map(|of| match of {
            FailOn::Longer { kind, limit } => Some(format!("no {} of {} ms", kind.name(), limit.as_secs_f64() * 1e3)),
            FailOn::Worse => None,
        })
        .collect();
    let longer = (!limits.is_empty()).then(|| format!("{} or more", limits.join(", ")));
    let worse = compared.map(|compared| match &compared.nothing_for {
        Some(reason) => format!("nothing could be compared, since {reason}"),
        None => "nothing got worse that both traces could tell".to_owned(),
    });
    let told: Vec<String> = longer.into_iter().chain(worse).collect();
    format!("{}; {}", told.join("; "), observed(span, compared))
}

/// That polls were not observed for as much of the time as they must be, in words.
fn too_little(percent: f64, span: Span, compared: Option<&Compared>) -> String {
    let observed = observed(span, compared);
    format!(
        "{observed}: less than the {percent} % of --min-observed, so --fail-on can't tell; record with a larger --budget"
    )
}

/// For how much of the time polls were observed, in words.
fn observed(span: Span, compared: Option<&Compared>) -> String {
    match compared {
        Some(compared) => format!("before, {}; after, {}", compared.before.span.told(), span.told()),
        None => span.told(),
    }
}

/// What is told of a trace, and with `--json` what is said of it.
#[derive(Debug, Serialize)]
pub struct WithVerdict<'t, T> {
    #[serde(flatten)]
    pub told: &'t T,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fail_on: Option<&'t Judged>,
}

impl<T: fmt::Display> fmt::Display for WithVerdict<'_, T> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.told.fmt(out)
    }
}

#[cfg(test)]
mod tests {
    use std::slice;

    use super::*;

    fn found(kind: &str, dur: u64) -> Found {
        Found::example(kind, dur, None)
    }

    fn longer(kind: Fault, ms: u64) -> FailOn {
        FailOn::Longer { kind, limit: Duration::from_millis(ms) }
    }

    fn trace(span: Span) -> Trace<'static> {
        Trace { path: Path::new("trace"), span, has_polls: span.polls > 0 }
    }

    #[test]
    fn what_must_not_be_is_of_a_kind_and_as_long() {
        let told = |all: &[Found]| over(all, Fault::LongPoll, Duration::from_micros(8_500));
        let [long, longer] = [8_500_000, 11_720_000].map(|dur| found("long poll", dur));
        assert_eq!(told(&[found("long poll", 8_499_999), found("slept in poll", 9_000_000)]), None);
        let expected = "1 poll ran for 8.5 ms or more: 8.5 ms";
        assert_eq!(told(slice::from_ref(&long)).as_deref(), Some(expected));
        let expected = "2 polls ran for 8.5 ms or more, the longest 11.7 ms";
        assert_eq!(told(&[long, longer]).as_deref(), Some(expected));
    }

    #[test]
    fn that_nothing_was_found_which_must_not_be_is_told_and_for_how_long_it_would_have_been() {
        let span = Span::example(5_000_000_000, 1_500_000_000);
        let sampled = Span::example(5_000_000_000, 0);
        let limits = [longer(Fault::LongPoll, 50), longer(Fault::Starved, 20)];
        let expected = "no long poll of 50 ms, no starved task of 20 ms or more; \
                        polls were observed for 30.0 % of the 5.0 s";
        assert_eq!(passed(&limits, span, None), expected);
        let expected = "nothing got worse that both traces could tell; before, polls were observed for 30.0 % of the \
                        5.0 s; after, polls were told by samples and switches alone";
        let compared = |before| Compared { before: trace(before), is_worse: false, nothing_for: None };
        assert_eq!(passed(&[FailOn::Worse], sampled, Some(&compared(span))), expected);
        let nothing = Compared { nothing_for: Some("after has no polls".to_owned()), ..compared(span) };
        let told = passed(&[FailOn::Worse], sampled, Some(&nothing));
        assert!(told.starts_with("nothing could be compared, since after has no polls; before, polls were"), "{told}");
    }

    #[test]
    fn the_verdict_is_told_with_the_share_of_the_time_in_which_polls_were_observed() {
        let [little, all] = [100_000_000, 5_000_000_000].map(|observed| trace(Span::example(5_000_000_000, observed)));
        let of_all = |fail_on: &[FailOn], trace, compared| {
            let demands = Demands { fail_on: fail_on.to_vec(), min_observed: None };
            let judged = Judged::new(&demands, trace, &[found("long poll", 9_000_000)], compared).expect("it is asked");
            assert!(!judged.reasons.is_empty());
            (judged.verdict, judged.observed_share)
        };
        let [passes, fails] = [50, 9].map(|ms| longer(Fault::LongPoll, ms));
        assert_eq!(of_all(slice::from_ref(&passes), little, None), (Verdict::Passed, 0.02));
        assert_eq!(of_all(&[passes.clone(), fails], little, None), (Verdict::Failed, 0.02));
        let compared = |before, is_worse| Some(Compared { before, is_worse, nothing_for: None });
        assert_eq!(of_all(&[FailOn::Worse], all, compared(little, false)), (Verdict::Passed, 0.02));
        assert_eq!(of_all(&[FailOn::Worse], all, compared(little, true)), (Verdict::Failed, 0.02));
        assert_eq!(
            of_all(slice::from_ref(&passes), all, compared(little, true)),
            (Verdict::Passed, 1.0),
            "of AFTER alone"
        );
        let none = trace(Span::default());
        assert_eq!(of_all(slice::from_ref(&passes), none, None), (Verdict::CantTell, 0.0));
        assert_eq!(of_all(&[FailOn::Worse], all, compared(none, false)), (Verdict::CantTell, 0.0));
        assert_eq!(of_all(slice::from_ref(&passes), all, compared(none, false)), (Verdict::Passed, 1.0));
        assert!(Judged::new(&Demands::default(), all, &[], None).is_none());
    }

    #[test]
    fn nothing_passes_that_was_not_looked_for_as_long_as_is_asked() {
        let [half, all] = [2_500_000_000, 5_000_000_000].map(|observed| trace(Span::example(5_000_000_000, observed)));
        let judged = |fail_on: FailOn, percent, trace, compared| {
            let demands = Demands { fail_on: vec![fail_on], min_observed: Some(percent) };
            let judged = Judged::new(&demands, trace, &[found("long poll", 9_000_000)], compared).expect("it is asked");
            (judged.verdict, judged.reasons.concat())
        };
        let [passes, fails] = [50, 9].map(|ms| longer(Fault::LongPoll, ms));
        assert_eq!(judged(passes.clone(), 50.0, half, None).0, Verdict::Passed);
        assert_eq!(judged(fails, 60.0, half, None).0, Verdict::Failed, "what was found is there");
        let (verdict, reason) = judged(passes.clone(), 60.5, half, None);
        let expected = "polls were observed for 50.0 % of the 5.0 s: less than the 60.5 % of --min-observed, so --fail-on \
                        can't tell; record with a larger --budget";
        assert_eq!((verdict, &*reason), (Verdict::CantTell, expected));
        let compared = |before| Some(Compared { before, is_worse: false, nothing_for: None });
        assert_eq!(judged(FailOn::Worse, 60.0, all, compared(half)).0, Verdict::CantTell);
        assert_eq!(judged(passes, 60.0, all, compared(half)).0, Verdict::Passed, "of AFTER alone");
        let sampled = Trace { has_polls: true, ..trace(Span::example(5_000_000_000, 0)) };
        assert_eq!(judged(longer(Fault::LongPoll, 50), 1.0, sampled, None).0, Verdict::CantTell);
    }

    #[test]
    fn a_convoy_is_held_against_a_threshold_by_the_longest_sleep_in_a_poll() {
        let convoy = Found { off_cpu_ns: Some(9_000_000), ..found("lock convoy", 30_000_000) };
        for (limit_ms, expected) in [(9, true), (10, false)] {
            let told = over(slice::from_ref(&convoy), Fault::Convoy, Duration::from_millis(limit_ms));
            assert_eq!(told.is_some(), expected, "{limit_ms} ms");
        }
    }
}
