//! Where findings are.

use std::{cmp::Reverse, fmt};

use serde::{Serialize, Serializer};

use super::{AtLeast, InBrackets, MostlyIn, OtherLines, SleptThere, WrittenAt};
use crate::{
    cli::counts::several,
    session,
    symbols::{Function, told_file},
    timeline::{Cause, ConvoyHeld, Keeper, Meanwhile},
};

/// Findings of one kind and cause, of one future, in one function.
#[derive(Debug, Serialize)]
pub struct Alike {
    kind: &'static str,
    waited_for: Option<&'static str>,
    /// `program` if that is what they tell of, `machine` if others had the CPUs.
    #[serde(serialize_with = "by_name")]
    pub cause: Cause,
    pub count: u64,
    total_ns: u64,
    future: String,
    /// What the callstacks are about that most of the time went to: `compression`, `database` and the like.
    category: Option<String>,
    /// Where that stands in the source, if it is known: `file:line`.
    written_at: Option<String>,
    /// Where nothing on the callstack is the program's own: the crate in which most of the time went by.
    #[serde(rename = "crate")]
    krate: Option<String>,
    /// Where nothing on the callstack is the program's own: the function in which most of the time went by, of the crate if there
    /// is one, else the one that the thread was in, if that has a name.
    innermost: Option<Place>,
    /// The first function in the program's own code.
    own: Option<Place>,
    /// The lines of that, or else of the crate's, that were reached, those first in which most of the time went by.
    lines: Vec<Line>,
    /// The longest of them.
    longest: Longest,
    /// The future, short.
    #[serde(skip)]
    name: String,
}

fn by_name<S: Serializer>(cause: &Cause, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(cause.name())
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
    /// Of a starved task: that, or else what the worker did that polled it in the end, in words; null if that is not
    /// known.
    meanwhile: Option<String>,
    /// Of a lock convoy: what is told besides of it. The rest is then about the longest sleep in a poll.
    convoy: Option<Convoy>,
}

/// A poll that kept a worker from others.
#[derive(Debug, Serialize)]
struct KeptBy {
    worker: String,
    /// The group of the worker's track, if its process has several runtimes.
    runtime: Option<String>,
    future: String,
    duration_ns: u64,
}

impl KeptBy {
    fn of(keeper: &Keeper) -> KeptBy {
        let Keeper { poller, runtime, future, lasted_ns, .. } = keeper;
        let (worker, future) = (poller.name(), future.full_name.clone());
        KeptBy { worker, runtime: runtime.clone(), future, duration_ns: *lasted_ns }
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
        write!(out, "; {} at once", several(self.at_once, "thread", "threads"))?;
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
    pub fn of(place: &session::Place) -> Alike {
        let finding = &place.group.longest;
        let keeper = match &finding.meanwhile {
            Some(Meanwhile::Polled(keeper)) => Some(keeper),
            Some(Meanwhile::Did(_)) | None => None,
        };
        Alike {
            kind: finding.fault.name(),
            waited_for: finding.fault.wait().map(|wait| wait.name()),
            cause: finding.cause(),
            count: place.group.count,
            total_ns: place.group.total_ns,
            future: finding.future.full_name.clone(),
            category: place.category().map(str::to_owned),
            written_at: finding.future.place.clone(),
            krate: place.krate.clone(),
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
                kept_by: keeper.map(KeptBy::of),
                meanwhile: finding.meanwhile.as_ref().map(ToString::to_string),
                convoy: finding.convoy.as_ref().map(|convoy| Convoy::of(convoy, place.held_in.as_ref())),
            },
            name: finding.future.name.clone(),
        }
    }
}

#[cfg(test)]
impl Alike {
    /// One, of which nothing else is known.
    pub fn example(cause: Cause) -> Alike {
        Alike {
            kind: "long poll",
            waited_for: None,
            cause,
            count: 1,
            total_ns: 9_000_000,
            future: "app::f".to_owned(),
            category: None,
            written_at: None,
            krate: None,
            innermost: None,
            own: None,
            lines: Vec::new(),
            longest: Longest {
                duration_ns: 9_000_000,
                extent: "exact",
                cpu_ns: 9_000_000,
                off_cpu_ns: 0,
                runqueue_ns: 0,
                slept_there_ns: None,
                since_ns: 0,
                pid: 1,
                tid: 1,
                worker: "worker 0".to_owned(),
                task_id: Some(7),
                kept_by: None,
                meanwhile: Some("its worker had no CPU".to_owned()),
                convoy: None,
            },
            name: "f".to_owned(),
        }
    }
}

impl fmt::Display for Alike {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let times = format!("{} ×", self.count);
        write!(out, "{times:>7} up to {:.1} ms: {}", self.longest.duration_ns as f64 / 1e6, self.kind)?;
        write!(out, "{}", InBrackets([self.waited_for, self.category.as_deref()]))?;
        write!(out, ", {}", self.name)?;
        let in_crate = self.innermost.as_ref().filter(|_| self.krate.is_some());
        if let Some(place) = self.own.as_ref().or(in_crate) {
            let mostly_in = MostlyIn(self.krate.as_deref());
            write!(out, ", in {mostly_in}{place}{}", OtherLines(self.lines.len().saturating_sub(1)))?;
        }
        let has_line = self.own.as_ref().is_some_and(|own| own.line.is_some());
        if let Some(told) = WrittenAt::of(self.written_at.as_deref().filter(|_| !has_line), &self.name) {
            write!(out, ", {told}")?;
        }
        if let (None, None, Some(function)) = (&self.own, &self.krate, &self.innermost) {
            write!(out, ", mostly in {}", function.function)?;
        }
        let Longest { duration_ns, extent, slept_there_ns, meanwhile, convoy, .. } = &self.longest;
        if let Some(told) = AtLeast::of(extent) {
            write!(out, "; {told}")?;
        }
        if let Some(meanwhile) = meanwhile {
            write!(out, "; meanwhile {meanwhile}")?;
        }
        if let Some(told) = slept_there_ns.and_then(|slept_ns| SleptThere::of(slept_ns, *duration_ns)) {
            write!(out, "; {told}")?;
        }
        convoy.as_ref().map_or(Ok(()), |convoy| write!(out, "{convoy}"))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use polletto_common::id::Tid;

    use super::*;
    use crate::timeline;

    #[test]
    fn what_was_done_meanwhile_is_told() {
        let told = Alike::example(Cause::Machine).to_string();
        assert_eq!(told, "    1 × up to 9.0 ms: long poll, f; meanwhile its worker had no CPU");
    }

    #[test]
    fn of_what_is_in_no_code_of_the_program_s_own_the_crate_is_told() {
        let innermost =
            Place { function: "flate2::run".to_owned(), file: Some("src/mem.rs".to_owned()), line: Some(7) };
        let lines = [7, 9].map(|line| Line { line, total_ns: 1 }).into();
        let of_crate = Alike {
            krate: Some("flate2".to_owned()),
            innermost: Some(innermost),
            lines,
            ..Alike::example(Cause::Program)
        };
        let expected =
            ", in no code of the program's own; mostly in flate2: flate2::run at src/mem.rs:7 (and 1 other line); ";
        assert!(of_crate.to_string().contains(expected), "{of_crate}");
    }

    #[test]
    fn where_no_function_is_the_program_s_own_it_is_told_by_where_the_future_is_written() {
        let innermost = || Some(Place { function: "memcpy".to_owned(), file: None, line: None });
        let written_at = Some(
            "/root/.cargo/registry/src/index.crates.io-1949cf8c6b5b557f/axum-0.8.9/src/serve/mod.rs:389".to_owned(),
        );
        let place = "axum-0.8.9/src/serve/mod.rs:389";
        for (name, innermost, expected) in [
            ("f", innermost(), format!("long poll, f, written at {place}, mostly in memcpy; ")),
            (place, innermost(), format!("long poll, {place}, mostly in memcpy; ")),
            (place, None, format!("long poll, {place}; ")),
        ] {
            let (name, written_at) = (name.to_owned(), written_at.clone());
            let stripped = Alike { name, innermost, written_at, ..Alike::example(Cause::Program) };
            assert!(stripped.to_string().contains(&expected), "{stripped}");
        }
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
            ..Function::default()
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
