//! What was found to be wrong.

use std::{cmp::Reverse, fmt};

use serde::Serialize;

use super::{AtLeast, Count, InBrackets, OtherLines, SleptThere, runtimes::RuntimeFound, several};
use crate::{
    session::{self, FindingSummary},
    symbols::{Function, told_file, told_place},
    timeline::{ConvoyHeld, Fault, Keeper},
};

/// Places that people are told of.
const TOLD: usize = 10;

/// The part of the summary about it.
#[derive(Debug, Serialize)]
pub struct Findings {
    /// Polls that were told, long or not. Of none nothing can be said.
    polls: u64,
    /// What lasted as long as that is told.
    threshold_ns: u64,
    /// How many of each kind there are.
    counts: Vec<Kind>,
    /// Those that are alike, what took most first.
    places: Vec<Alike>,
    /// What is wrong with runtimes as a whole, what lasted longest first.
    runtimes: Vec<RuntimeFound>,
    /// How often a runtime, or a worker's thread, was one too many to be judged.
    runtimes_not_kept: u64,
    /// How often lock convoys may have been told in parts, or not at all, since there were too many sleeps at locks.
    convoys_cut_short: u64,
}

#[derive(Debug, Serialize)]
struct Kind {
    #[serde(skip)]
    fault: Fault,
    kind: &'static str,
    /// What was slept for, if that is it.
    waited_for: Option<&'static str>,
    count: u64,
}

/// Findings of one kind, of one future, in one function.
#[derive(Debug, Serialize)]
struct Alike {
    kind: &'static str,
    waited_for: Option<&'static str>,
    count: u64,
    total_ns: u64,
    future: String,
    /// What the callstacks are about that most of the time went to: `compression`, `database` and the like.
    category: Option<String>,
    /// Where that stands in the source, if it is known: `file:line`.
    written_at: Option<String>,
    /// What the thread was in, and the first function in the program's own code.
    innermost: Option<Place>,
    own: Option<Place>,
    /// The lines of that, or else of the innermost, that were reached, those first in which most of the time went by.
    lines: Vec<Line>,
    /// The longest of them.
    longest: Longest,
    /// The future, short.
    #[serde(skip)]
    name: String,
}

#[derive(Debug, Serialize)]
struct Longest {
    duration_ns: u64,
    /// `exact` if both its ends were seen, `at least` if it lasted longer, maybe.
    extent: &'static str,
    cpu_ns: u64,
    off_cpu_ns: u64,
    runqueue_ns: u64,
    /// For how much of that it slept there for that; null if it is no poll that slept.
    slept_there_ns: Option<u64>,
    /// When it began, CLOCK_BOOTTIME nanoseconds, as in the trace.
    since_ns: u64,
    pid: u32,
    tid: u32,
    worker: String,
    /// Null where tasks have none.
    task_id: Option<u64>,
    /// Of a starved task: the long poll of its runtime that took most of the time meanwhile; null if none did.
    kept_by: Option<KeptBy>,
    /// Of a lock convoy: what is told besides of it. The rest is then about the longest sleep in a poll.
    convoy: Option<Convoy>,
}

/// A poll that kept a worker from others.
#[derive(Debug, Serialize)]
struct KeptBy {
    worker: String,
    future: String,
    duration_ns: u64,
    /// All of that, short.
    #[serde(skip)]
    words: String,
}

impl KeptBy {
    fn of(keeper: &Keeper) -> KeptBy {
        KeptBy {
            worker: keeper.poller.name(),
            future: keeper.future.full_name.clone(),
            duration_ns: keeper.lasted_ns,
            words: keeper.to_string(),
        }
    }
}

#[derive(Debug, Serialize)]
struct Convoy {
    /// The address on which threads slept.
    lock: String,
    /// How many there were, and how many at the same time, at most.
    threads: u64,
    at_once: u64,
    /// The thread that held the lock longest at a time, if it was seen to let it go, and for how long.
    held_by: Option<u32>,
    held_ns: u64,
    /// The task that it polled then, and where it was for most of that time, as far as known.
    held_by_task_id: Option<u64>,
    held_by_future: Option<String>,
    held_in: Option<Place>,
    /// The future, short.
    #[serde(skip)]
    held_by_name: Option<String>,
}

impl Convoy {
    fn of(ConvoyHeld { convoy, held, .. }: &ConvoyHeld, held_in: Option<&Function>) -> Convoy {
        let task = held.task.as_ref();
        Convoy {
            lock: format!("{:#x}", convoy.lock),
            threads: convoy.threads,
            at_once: convoy.at_once,
            held_by: convoy.held.map(|turn| turn.tid.0),
            held_ns: convoy.held.map_or(0, |turn| turn.held_ns()),
            held_by_task_id: task.filter(|(_, future)| future.family.has_ids()).map(|(id, _)| *id),
            held_by_future: task.map(|(_, future)| future.full_name.clone()),
            held_in: held_in.map(Place::of),
            held_by_name: task.map(|(_, future)| future.name.clone()),
        }
    }
}

impl fmt::Display for Convoy {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "; {} threads at once", self.at_once)?;
        let Some(tid) = self.held_by else { return Ok(()) };
        write!(out, ", thread {tid} held it for up to {:.1} ms", self.held_ns as f64 / 1e6)?;
        if let Some(name) = &self.held_by_name {
            write!(out, ", polling {name}")?;
        }
        if let Some(task) = self.held_by_task_id {
            write!(out, " #{task}")?;
        }
        self.held_in.as_ref().map_or(Ok(()), |place| write!(out, ", in {place}"))
    }
}

#[derive(Debug, Serialize)]
struct Place {
    function: String,
    file: Option<String>,
    line: Option<u32>,
}

/// A line of a function.
#[derive(Debug, Serialize)]
struct Line {
    line: u32,
    /// How long they lasted that were there.
    total_ns: u64,
}

impl Line {
    fn all(place: &session::Place) -> Vec<Line> {
        let mut lines: Vec<Line> = place.lines.iter().map(|(&line, &total_ns)| Line { line, total_ns }).collect();
        lines.sort_by_key(|line| Reverse(line.total_ns));
        lines
    }
}

impl Place {
    fn of(function: &Function) -> Place {
        Place { function: function.name.clone(), file: function.file.clone(), line: function.line }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}", self.function)?;
        match (&self.file, self.line) {
            (Some(file), Some(line)) => write!(out, " at {}:{line}", told_file(file)),
            _ => Ok(()),
        }
    }
}

impl Alike {
    fn of(place: &session::Place) -> Alike {
        let finding = &place.group.longest;
        Alike {
            kind: finding.fault.name(),
            waited_for: finding.fault.wait().map(|wait| wait.name()),
            count: place.group.count,
            total_ns: place.group.total_ns,
            future: finding.future.full_name.clone(),
            category: place.category().map(str::to_owned),
            written_at: finding.future.place.clone(),
            innermost: place.innermost.as_ref().map(Place::of),
            own: place.own.as_ref().map(Place::of),
            lines: Line::all(place),
            longest: Longest {
                duration_ns: finding.duration_ns(),
                extent: finding.extent.name(),
                cpu_ns: finding.weights.cpu_ns,
                off_cpu_ns: finding.weights.off_cpu_ns,
                runqueue_ns: finding.weights.run_queue_ns,
                slept_there_ns: place.slept_there_ns,
                since_ns: finding.since_ns,
                pid: finding.poller.tgid().0,
                tid: finding.tid.0,
                worker: finding.poller.name(),
                task_id: finding.future.family.has_ids().then_some(finding.task),
                kept_by: finding.kept_by.as_ref().map(KeptBy::of),
                convoy: finding.convoy.as_ref().map(|convoy| Convoy::of(convoy, place.held_in.as_ref())),
            },
            name: finding.future.name.clone(),
        }
    }
}

impl fmt::Display for Alike {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let times = format!("{} ×", self.count);
        write!(out, "{times:>7} up to {:.1} ms: {}", self.longest.duration_ns as f64 / 1e6, self.kind)?;
        write!(out, "{}", InBrackets([self.waited_for, self.category.as_deref()]))?;
        write!(out, ", {}", self.name)?;
        let place = self.own.as_ref().or(self.innermost.as_ref());
        if let Some(place) = place {
            write!(out, ", in {place}{}", OtherLines(self.lines.len().saturating_sub(1)))?;
        }
        let has_line = self.own.as_ref().is_some_and(|own| own.line.is_some());
        // Where nothing else is known of a future, this is its name.
        if let Some(place) = self.written_at.as_ref().filter(|place| !has_line && **place != self.name) {
            write!(out, ", written at {}", told_place(place))?;
        }
        let Longest { duration_ns, extent, slept_there_ns, kept_by, convoy, .. } = &self.longest;
        if let Some(told) = AtLeast::of(extent) {
            write!(out, "; {told}")?;
        }
        if let Some(KeptBy { words, .. }) = kept_by {
            write!(out, "; meanwhile {words}")?;
        }
        if let Some(told) = slept_there_ns.and_then(|slept_ns| SleptThere::of(slept_ns, *duration_ns)) {
            write!(out, "; {told}")?;
        }
        convoy.as_ref().map_or(Ok(()), |convoy| write!(out, "{convoy}"))
    }
}

impl Findings {
    /// Takes them from an outcome in which so many polls were told; none where no program polls tasks, or nothing was to be
    /// found.
    pub fn new(summary: Option<&FindingSummary>, polls: u64) -> Option<Findings> {
        let FindingSummary { threshold, counts, places, runtimes, runtimes_not_kept, convoys_cut_short } = summary?;
        let kind = |&(fault, count): &(Fault, u64)| Kind {
            fault,
            kind: fault.name(),
            waited_for: fault.wait().map(|wait| wait.name()),
            count,
        };
        Some(Findings {
            polls,
            threshold_ns: threshold.as_nanos() as u64,
            counts: counts.iter().map(kind).collect(),
            places: places.iter().map(Alike::of).collect(),
            runtimes: runtimes.iter().map(RuntimeFound::of).collect(),
            runtimes_not_kept: *runtimes_not_kept,
            convoys_cut_short: *convoys_cut_short,
        })
    }
}

impl fmt::Display for Findings {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let threshold = self.threshold_ns as f64 / 1e6;
        if self.counts.is_empty() {
            match self.polls {
                0 => writeln!(out, "  findings  none: no poll was told")?,
                _ => writeln!(out, "  findings  nothing took {threshold} ms or more")?,
            }
            return self.write_runtimes(out);
        }
        let counted = |kind: &Kind| match kind.fault {
            Fault::LongPoll => several(kind.count, "long poll", "long polls"),
            Fault::Starved => several(kind.count, "starved task", "starved tasks"),
            Fault::Convoy => several(kind.count, "lock convoy", "lock convoys"),
            Fault::Preempted => format!("{} preempted", several(kind.count, "poll", "polls")),
            Fault::Slept(wait) => format!("{} that slept ({})", several(kind.count, "poll", "polls"), wait.name()),
        };
        let counts: Vec<String> = self.counts.iter().map(counted).collect();
        writeln!(out, "  findings  of {threshold} ms or more: {}", counts.join(", "))?;
        for alike in self.places.iter().take(TOLD) {
            writeln!(out, "          {alike}")?;
        }
        let more = self.places.len().saturating_sub(TOLD) as u64;
        if more > 0 {
            writeln!(out, "            and in {} more", several(more, "place", "places"))?;
        }
        let counted: u64 = self.counts.iter().map(|kind| kind.count).sum();
        let placed: u64 = self.places.iter().map(|alike| alike.count).sum();
        if counted > placed {
            writeln!(out, "            and {} whose places were too many to keep", Count(counted - placed))?;
        }
        self.write_runtimes(out)
    }
}

impl Findings {
    fn write_runtimes(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for runtime in self.runtimes.iter().take(TOLD) {
            writeln!(out, "            {runtime}")?;
        }
        let more = self.runtimes.len().saturating_sub(TOLD) as u64;
        if more > 0 {
            writeln!(out, "            and {} of runtimes", several(more, "more finding", "more findings"))?;
        }
        if self.convoys_cut_short > 0 {
            let cut_short = Count(self.convoys_cut_short);
            writeln!(
                out,
                "            and {cut_short} times lock convoys in parts, or not at all: too many threads slept at locks"
            )?;
        }
        if self.runtimes_not_kept > 0 {
            let not_kept = Count(self.runtimes_not_kept);
            writeln!(
                out,
                "            and {not_kept} times a runtime or a worker's thread was one too many to be judged"
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use polletto_common::id::Tid;

    use super::*;
    use crate::timeline;

    #[test]
    fn where_no_poll_was_told_nothing_is_said_to_be_well() {
        let told = |polls| {
            let summary = FindingSummary {
                threshold: Duration::from_millis(5),
                counts: Vec::new(),
                places: Vec::new(),
                runtimes: Vec::new(),
                runtimes_not_kept: 0,
                convoys_cut_short: 0,
            };
            Findings::new(Some(&summary), polls).map(|findings| findings.to_string())
        };
        assert_eq!(told(0).as_deref(), Some("  findings  none: no poll was told\n"));
        assert_eq!(told(1).as_deref(), Some("  findings  nothing took 5 ms or more\n"));
    }

    #[test]
    fn of_a_convoy_it_is_told_who_held_the_lock_longest_at_a_time_and_what_it_did() {
        let turn = timeline::Turn { tid: Tid(4711), since_ns: 1_000, until_ns: 12_341_000 };
        let convoy = timeline::Convoy { lock: 0x7f00, threads: 4, at_once: 3, held: Some(turn) };
        let future = timeline::Future::example("part::{async}");
        let held = timeline::Held { task: Some((17, Arc::new(future))), callstack: Some(3) };
        let function = Function {
            name: "app::part".to_owned(),
            file: Some("/home/user/app/src/part.rs".to_owned()),
            line: Some(33),
        };
        let all = ConvoyHeld { lasted_ns: 30_000_000, convoy, held };
        let told = |of: &ConvoyHeld, held_in| Convoy::of(of, held_in).to_string();
        assert_eq!(
            told(&all, Some(&function)),
            "; 3 threads at once, thread 4711 held it for up to 12.3 ms, polling part::{async} #17, \
             in app::part at src/part.rs:33"
        );
        let little = ConvoyHeld { held: timeline::Held::default(), ..all.clone() };
        assert_eq!(told(&little, None), "; 3 threads at once, thread 4711 held it for up to 12.3 ms");
        let least = ConvoyHeld { convoy: timeline::Convoy { held: None, ..convoy }, ..little };
        assert_eq!(told(&least, None), "; 3 threads at once");
    }
}
