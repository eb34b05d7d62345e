//! What is wrong in a trace, as our package of SQL finds it.

use std::path::Path;

use anyhow::Result;
use serde::{Deserialize, Serialize};

use super::{
    asking::Processor,
    span::{self, Span},
};
use crate::timeline::{Cause, Fault, Wait};

/// Something that took too long.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Found {
    /// `long poll`, `slept in poll`, `preempted in poll`, `starved task` or `lock convoy`.
    pub kind: String,
    /// What a sleep was for, or whose fault it is that a poll was preempted, a task starved, or threads stood at a lock.
    pub detail: Option<String>,
    /// `program` if that is what it tells of, `machine` if others had the CPUs.
    pub cause: String,
    /// When it began, as in the trace, nanoseconds.
    pub ts: i64,
    /// How long it lasted, nanoseconds.
    pub dur: u64,
    pub pid: Option<i64>,
    pub tid: Option<i64>,
    pub task_id: Option<i64>,
    pub future: String,
    /// The same, short.
    pub name: Option<String>,
    /// `exact` if both ends of the poll were seen, `at least` if it lasted longer. Only of what is about one poll.
    pub extent: Option<String>,
    /// The same of the poll that it is about even if it is more than that: of a lock convoy, the one that slept there longest.
    #[serde(default, skip_serializing)]
    pub poll_extent: Option<String>,
    pub worker: Option<String>,
    /// Of a starved task there are none, and of a lock convoy only how long the poll slept that did so longest.
    pub cpu_ns: Option<u64>,
    pub off_cpu_ns: Option<u64>,
    pub runqueue_ns: Option<u64>,
    /// Of a poll that slept: for how much of that it did so there, for that.
    pub slept_there_ns: Option<u64>,
    /// What the callstack is about in which it was for most of the time.
    pub category: Option<String>,
    /// What its thread was in, for most of the time.
    pub function: Option<String>,
    /// The first of its callers, or itself, that is the program's own.
    pub own_function: Option<String>,
    /// `file:line`
    pub own_source: Option<String>,
    /// Where nothing is the program's own: the crate that it was in.
    #[serde(rename = "crate", default)]
    pub krate: Option<String>,
    #[serde(default)]
    pub crate_function: Option<String>,
    /// `file:line`
    #[serde(default)]
    pub crate_source: Option<String>,
    /// Where the future is written, if that is known: `file:line`.
    pub written_at: Option<String>,
}

/// Something wrong with a runtime as a whole.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct RuntimeFound {
    /// `blocking pool full`, `worker never parks` or `one busy worker`.
    pub kind: String,
    pub pid: Option<i64>,
    /// The group of its workers' tracks.
    pub runtime: String,
    /// Which one, if it is about one.
    pub worker: Option<String>,
    /// When it began, as in the trace, nanoseconds; none if it was so all the time.
    pub ts: Option<i64>,
    /// How long it lasted, nanoseconds.
    pub dur: u64,
    /// In words.
    pub detail: String,
}

/// A row of the answer.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Row {
    Finding(Box<Found>),
    Runtime(RuntimeFound),
    Span(Span),
}

/// What is wrong in a trace.
#[derive(Debug, Default)]
pub struct Read {
    /// The longest first.
    pub findings: Vec<Found>,
    pub runtimes: Vec<RuntimeFound>,
    /// Of how many polls, and for how long they were observed.
    pub span: Span,
}

impl Found {
    /// What is held against a threshold, nanoseconds: of a lock convoy how long one poll slept, whoever else stood there.
    pub fn kept_ns(&self) -> u64 {
        self.off_cpu_ns.filter(|_| self.kind == Fault::Convoy.name()).unwrap_or(self.dur)
    }

    /// What it tells of.
    pub fn cause(&self) -> Cause {
        if self.cause == Cause::Machine.name() { Cause::Machine } else { Cause::Program }
    }

    /// Who stood at a lock and who held it, if that is what it is.
    pub fn convoy(&self) -> Option<&str> {
        self.detail.as_deref().filter(|_| self.kind == Fault::Convoy.name())
    }

    /// What was done instead of polling it, if it is a task that starved.
    pub fn meanwhile(&self) -> Option<&str> {
        self.detail.as_deref().filter(|_| self.kind == Fault::Starved.name())
    }

    /// What it is told by where it is in a crate, and in no code of the program's own: what that is about, or else the crate.
    pub fn about(&self) -> Option<&str> {
        let krate = self.krate.as_deref().filter(|_| self.own_function.is_none())?;
        Some(self.category.as_deref().unwrap_or(krate))
    }

    /// What was slept for, if that is what it is.
    pub fn waited_for(&self) -> Option<&str> {
        self.detail.as_deref().filter(|_| self.kind == Fault::Slept(Wait::Other).name())
    }
}

#[cfg(test)]
impl Found {
    /// One of `app::f`.
    pub fn example(kind: &str, dur: u64, own_source: Option<&str>) -> Found {
        Found {
            kind: kind.to_owned(),
            detail: Some("timer".to_owned()),
            cause: if kind == "preempted in poll" { "machine" } else { "program" }.to_owned(),
            ts: 0,
            dur,
            pid: None,
            tid: None,
            task_id: Some(7),
            future: "app::f".to_owned(),
            name: None,
            extent: None,
            poll_extent: None,
            worker: None,
            cpu_ns: None,
            off_cpu_ns: None,
            runqueue_ns: None,
            slept_there_ns: (kind == "slept in poll").then(|| dur - 1_000_000),
            category: (kind == "long poll").then(|| "crypto".to_owned()),
            function: Some("burn".to_owned()),
            own_function: own_source.map(|_| "burn".to_owned()),
            own_source: own_source.map(str::to_owned),
            krate: None,
            crate_function: None,
            crate_source: None,
            written_at: Some("f.rs:7".to_owned()),
        }
    }
}

/// The file of `file:line`.
pub fn file_of(source: &str) -> &str {
    source.rsplit_once(':').map_or(source, |(file, _)| file)
}

/// What the query takes.
pub const MODULES: &str = "INCLUDE PERFETTO MODULE polletto.categories; INCLUDE PERFETTO MODULE polletto.findings;";

/// Everything that took as long, the longest first: a table with the column `object`.
pub fn query(threshold_ns: u64) -> String {
    format!(
        "SELECT json_object('kind', found.kind, 'detail', found.detail, 'cause', found.cause, 'ts', found.ts, \
         'dur', found.dur, 'pid', process.pid, 'tid', thread.tid, 'task_id', found.task_id, 'future', found.future, \
         'name', poll.name, 'extent', found.extent, 'poll_extent', poll.extent, 'worker', found.worker, 'cpu_ns', found.cpu_ns, \
         'off_cpu_ns', found.off_cpu_ns, 'runqueue_ns', found.runqueue_ns, 'slept_there_ns', found.slept_there_ns, \
         'function', found.function, 'own_function', found.own_function, 'own_source', found.own_source, \
         'crate', found.crate, 'crate_function', found.crate_function, 'crate_source', found.crate_source, \
         'written_at', found.written_at, 'category', about.category) AS object \
         FROM polletto_findings({threshold_ns}) AS found \
         LEFT JOIN polletto_categories AS about USING (callsite_id) \
         LEFT JOIN polletto_polls AS poll ON poll.id = found.poll_id \
         LEFT JOIN process ON process.upid = found.upid LEFT JOIN thread ON thread.utid = found.utid \
         ORDER BY found.dur DESC"
    )
}

/// Reads everything in a trace that took as long, and what is wrong with its runtimes.
pub fn read(processor: &Processor, trace: &Path, threshold_ns: u64) -> Result<Read> {
    let found = query(threshold_ns);
    // Of one answer: a reader takes long to load a trace.
    let rows = processor.ask(
        trace,
        &format!(
            "{MODULES} INCLUDE PERFETTO MODULE polletto.runtimes; \
             WITH probed AS ({}), found AS ({found}) \
             SELECT hex(json_object('finding', json(object))) FROM found \
             UNION ALL SELECT hex(json_object('runtime', json_object('kind', of.kind, 'pid', process.pid, \
             'runtime', of.runtime, 'worker', of.worker, 'ts', of.ts, 'dur', of.dur, 'detail', of.detail))) \
             FROM polletto_runtime_findings AS of LEFT JOIN process USING (upid) \
             UNION ALL SELECT hex(json_object('span', json(object))) FROM ({})",
            span::PROBED,
            span::QUERY
        ),
    )?;
    let mut read = Read::default();
    for row in rows {
        match row {
            Row::Finding(found) => read.findings.push(*found),
            Row::Runtime(found) => read.runtimes.push(found),
            Row::Span(span) => read.span = span,
        }
    }
    Ok(read)
}
