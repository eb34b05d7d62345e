//! A comparison, for people.

use std::{collections::BTreeMap, fmt};

use super::{Change, ComparedPolls, Comparison, Lacking, Polls, PollsOfFuture, Side, Told, Verdict};
use crate::{
    cli::{
        counts::{Count, several},
        summary::{InBrackets, OF_MACHINE, WrittenAt},
    },
    symbols::told_place,
    timeline::Cause,
};

/// How many places of a verdict people are told of, and how many that are new or gone without being a change.
const TOLD: usize = 10;
const TOLD_OF_FEW: usize = 5;
/// How many futures.
const TOLD_FUTURES: usize = 8;

impl fmt::Display for Comparison {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(out, "before: {}\nafter:  {}\npolls:  {}", self.before, self.after, self.polls_told())?;
        if let Some(told) = self.told_by.told(self.told_less) {
            writeln!(out, "\n{told}")?;
        }
        if self.places.is_empty() {
            writeln!(out, "\nnothing took {} ms or more, before or after", self.threshold_ns as f64 / 1e6)?;
        }
        for (cause, whose) in [(Cause::Program, String::new()), (Cause::Machine, format!("{OF_MACHINE}, "))] {
            for (verdict, name) in [(Verdict::Worse, "worse"), (Verdict::Better, "better")] {
                let is_told = |change: &&Change| change.verdict == verdict && change.place.cause == cause;
                let changes: Vec<&Change> = self.places.iter().filter(is_told).collect();
                if !changes.is_empty() {
                    writeln!(out, "\n{whose}{name}:")?;
                    tell(out, &changes, TOLD)?;
                }
            }
        }
        let same: Vec<&Change> = self.places.iter().filter(|change| change.verdict == Verdict::Same).collect();
        if !same.is_empty() {
            writeln!(out, "\nno clear change in {}", several(same.len() as u64, "place", "places"))?;
        }
        let whose = [(Cause::Program, "of which are".to_owned()), (Cause::Machine, format!("{OF_MACHINE},"))];
        for (cause, whose) in whose {
            let is_told = |change: &&&Change| change.is_in_one_alone() && change.place.cause == cause;
            let few: Vec<&Change> = same.iter().filter(is_told).copied().collect();
            if !few.is_empty() {
                writeln!(out, "{whose} new or gone, but too few to tell:")?;
                tell(out, &few, TOLD_OF_FEW)?;
            }
        }
        self.tell_not_observed(out)?;
        self.tell_futures(out)
    }
}

/// Changes, as many as are told, and how many more there are.
fn tell(out: &mut fmt::Formatter<'_>, changes: &[&Change], most: usize) -> fmt::Result {
    for change in changes.iter().take(most) {
        write!(out, "{change}")?;
    }
    match changes.len().checked_sub(most) {
        Some(more) if more > 0 => writeln!(out, "  and {more} more, which --json has"),
        _ => Ok(()),
    }
}

impl fmt::Display for Told {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Told { span, means } = self;
        write!(out, "{:.1} s", span.recorded_ns as f64 / 1e9)?;
        if !means.tell_polls() {
            write!(out, ", no poll told")
        } else if span.has_probes {
            write!(out, ", polls observed for {:.1} s of it", span.observed_ns as f64 / 1e9)
        } else {
            write!(out, ", polls told by samples and switches alone")
        }
    }
}

impl Change {
    fn is_in_one_alone(&self) -> bool {
        self.before.is_none() || self.after.is_none()
    }
}

impl fmt::Display for Change {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mark = match (&self.before, &self.after) {
            (None, Some(_)) => "new: ",
            (Some(_), None) => "gone: ",
            _ => "",
        };
        write!(out, "  {mark}{}", self.place.kind)?;
        let about = InBrackets([self.place.waited_for.as_deref(), self.category.as_deref()]);
        write!(out, "{about}")?;
        if let Some(name) = &self.name {
            write!(out, ", {name}")?;
        }
        if let Some(told) = self.name.as_ref().and_then(|name| WrittenAt::of(self.written_at.as_deref(), name)) {
            write!(out, ", {told}")?;
        }
        let source = self.after.as_ref().or(self.before.as_ref()).and_then(|side| side.source.as_deref());
        match (&self.place.function, source) {
            (Some(function), Some(source)) => writeln!(out, ", in {function} at {}", told_place(source))?,
            (Some(function), None) => writeln!(out, ", in {function}")?,
            (None, _) => match &self.krate {
                Some(krate) => writeln!(out, ", in no code of the program's own; mostly in {krate}")?,
                None => writeln!(out)?,
            },
        }
        match (&self.before, &self.after) {
            (Some(before), Some(after)) => writeln!(
                out,
                "      {} → {} × up to {:.1} → {:.1} ms; {:.2} → {:.2} a second; {:.1} → {:.1} ms of each second: {:.2} ×",
                before.count,
                after.count,
                before.longest_ns as f64 / 1e6,
                after.longest_ns as f64 / 1e6,
                before.count_per_second,
                after.count_per_second,
                before.ns_per_second / 1e6,
                after.ns_per_second / 1e6,
                after.ns_per_second / before.ns_per_second.max(1.0),
            ),
            (Some(side), None) | (None, Some(side)) => writeln!(out, "      {side}"),
            (None, None) => Ok(()),
        }
    }
}

impl fmt::Display for Side {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Side { count, longest_ns, count_per_second, ns_per_second, .. } = self;
        let longest = *longest_ns as f64 / 1e6;
        let of_second = ns_per_second / 1e6;
        write!(out, "{count} × up to {longest:.1} ms; {count_per_second:.2} a second; {of_second:.1} ms of each second")
    }
}

impl Comparison {
    /// Which polls are compared, and which are not.
    fn polls_told(&self) -> String {
        let left_out = [&self.before, &self.after].map(|told| told.span.polls_found);
        match self.polls_compared {
            ComparedPolls::Exact if left_out == [0, 0] => "those that probes told from begin to end".to_owned(),
            ComparedPolls::Exact => {
                let [before, after] = left_out.map(Count);
                format!(
                    "those that probes told from begin to end; left out are {before} before and {after} after that are only \
                     known to have lasted at least as long"
                )
            }
            ComparedPolls::AtLeast => {
                "those of which samples and switches tell that they lasted at least as long; starved tasks are not known"
                    .to_owned()
            }
            ComparedPolls::None(lacking) => format!("none are compared, since {lacking}"),
        }
    }

    /// What one of the traces could not have told, by kind, and why not.
    fn tell_not_observed(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut kinds = BTreeMap::<(&str, Lacking), (u64, [u64; 2])>::new();
        for change in &self.places {
            let Some(lacking) = change.lacking else { continue };
            let (places, counts) = kinds.entry((&change.place.kind, lacking)).or_default();
            *places += 1;
            for (count, side) in counts.iter_mut().zip([&change.before, &change.after]) {
                *count += side.as_ref().map_or(0, |side| side.count);
            }
        }
        if !kinds.is_empty() {
            writeln!(out, "\nnot compared, since one of the two could not have told it as the other did:")?;
        }
        for ((kind, lacking), (places, [before, after])) in kinds {
            let places = several(places, "place", "places");
            writeln!(out, "  {kind}: {} → {} × in {places}; {lacking}", Count(before), Count(after))?;
        }
        Ok(())
    }

    fn tell_futures(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.futures.is_empty() {
            return Ok(());
        }
        let is_named_alike = self.futures.iter().any(|of| of.before.is_some() && of.after.is_some());
        let are_in_both = [&self.before, &self.after].iter().all(|of| of.span.polls > 0);
        match self.polls_compared {
            ComparedPolls::None(lacking) => return writeln!(out, "\nall polls: not compared, since {lacking}"),
            _ if are_in_both && !is_named_alike => {
                return writeln!(out, "\nall polls: not compared, since no future has the same name in both");
            }
            ComparedPolls::Exact => writeln!(out, "\nall polls, by what changed most:")?,
            ComparedPolls::AtLeast => {
                writeln!(out, "\npolls of which samples and switches tell, by what changed most:")?;
            }
        }
        writeln!(out, "{:>19} {:>19} {:>19} {:>19}  future", "a second", "p50", "p99", "longest")?;
        let seconds = [self.before.span.seconds(), self.after.span.seconds()];
        for PollsOfFuture { name, before, after, .. } in self.futures.iter().take(TOLD_FUTURES) {
            let both = |of: &dyn Fn(&Polls, f64) -> String| {
                let side =
                    |polls: &Option<Polls>, seconds| polls.as_ref().map_or("–".to_owned(), |it| of(it, seconds));
                format!("{} → {}", side(before, seconds[0]), side(after, seconds[1]))
            };
            writeln!(
                out,
                "{:>19} {:>19} {:>19} {:>19}  {name}",
                both(&|polls, seconds| format!("{:.1}", polls.polls as f64 / seconds)),
                both(&|polls, _| in_its_unit(polls.p50_ns)),
                both(&|polls, _| in_its_unit(polls.p99_ns)),
                both(&|polls, _| in_its_unit(polls.longest_ns)),
            )?;
        }
        Ok(())
    }
}

/// A time in the unit that fits.
fn in_its_unit(nanoseconds: u64) -> String {
    match nanoseconds as f64 / 1e3 {
        microseconds if microseconds < 1e3 => format!("{microseconds:.0} µs"),
        microseconds => format!("{:.1} ms", microseconds / 1e3),
    }
}
