//! `polletto tasks`

use std::{
    collections::BTreeMap,
    fmt,
    io::{self, Write},
    process::ExitCode,
};

use anyhow::{Context, Result};
use polletto_common::id::Tgid;
use serde_json::{Value, json};

use super::{arguments::TasksArguments, counts::several, tell, unless_nobody_reads};
use crate::{
    families::NameTier,
    preflight::{self, Needs},
    session::{self, GivingWay, Inspection, LiveTask},
    symbols::told_file,
    target::{self, SelectError, printable},
    tokio::{
        Await,
        walk::{RuntimeKind, TaskState},
    },
};

/// The command line can't be followed.
const USAGE: u8 = 2;

/// Ids of tasks that are alike which are told.
const MAX_IDS: usize = 8;

/// Lists the tasks of a process.
pub fn run(arguments: &TasksArguments) -> ExitCode {
    match list(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tell(format_args!("polletto: {error:#}\n"));
            if error.is::<SelectError>() { ExitCode::from(USAGE) } else { ExitCode::FAILURE }
        }
    }
}

fn list(arguments: &TasksArguments) -> Result<()> {
    // What the program does must not wait for a list.
    let way = GivingWay::begin();
    let process = match (&arguments.name, arguments.pid) {
        (Some(name), _) => target::select(name)?.tgid,
        (None, pid) => Tgid(pid.unwrap_or_default()),
    };
    let found = target::Process::read(process)?;
    if let Some(check) = preflight::run(&Needs::default()).first_fatal() {
        anyhow::bail!("this machine does not allow it (`polletto doctor` checks everything)\n{check}");
    }
    let inspection = session::inspect(process, !arguments.no_awaits)?;
    let mut out = io::stdout().lock();
    let written = if arguments.json {
        serde_json::to_writer(&mut out, &as_json(process, &inspection))
            .map_err(io::Error::from)
            .and_then(|()| writeln!(out))
    } else {
        write!(out, "{}", List { name: &found.whole_name(), process, inspection: &inspection, each: arguments.each })
    };
    // Nor for the memory that was taken for it: the kernel takes it back when this process ends.
    way.for_good();
    unless_nobody_reads(written).context("could not print the tasks")
}

fn state_name(state: TaskState) -> &'static str {
    match state {
        TaskState::Idle => "idle",
        TaskState::Notified => "notified",
        TaskState::Running => "running",
        TaskState::Cancelled => "cancelled",
        TaskState::Complete => "complete",
    }
}

fn runtime_name(kind: RuntimeKind) -> &'static str {
    match kind {
        RuntimeKind::CurrentThread => "current_thread",
        RuntimeKind::MultiThread => "multi_thread",
    }
}

fn as_json(process: Tgid, inspection: &Inspection) -> Value {
    let place =
        |place: &Option<(String, u32)>| place.as_ref().map(|(file, line)| json!({ "file": file, "line": line }));
    let task = |task: &LiveTask| {
        json!({
            "id": task.id,
            "runtime": task.runtime_index,
            "runtime_kind": runtime_name(task.runtime),
            "state": state_name(task.state),
            "future": task.future.full,
            "name_tier": task.future.tier.name(),
            "written_at": place(&task.future.place),
            "no_line_for": task.future.no_place_for(),
            "spawned_at": place(&task.spawned_at),
            "awaits": task.waits.awaits,
            "awaits_end_for": task.waits.ends_for,
        })
    };
    json!({
        "pid": process.0,
        "program": inspection.program,
        "tokio": inspection.tokio,
        "runtimes": inspection.runtimes,
        "took_ms": inspection.took.as_secs_f64() * 1e3,
        "lists_given_up": inspection.given_up,
        "cut_short": inspection.is_cut_short,
        "no_awaits": inspection.no_awaits,
        "tasks": inspection.tasks.iter().map(task).collect::<Vec<_>>(),
    })
}

/// What people read.
struct List<'l> {
    name: &'l str,
    process: Tgid,
    inspection: &'l Inspection,
    each: bool,
}

/// Tasks that are alike, as far as that is told.
type Alike<'l> = BTreeMap<(&'l str, &'static str, &'l [Await], Option<&'static str>), Vec<&'l LiveTask>>;

impl fmt::Display for List<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inspection { tasks, tokio, runtimes, no_awaits, given_up, is_cut_short, took, .. } = self.inspection;
        let (count, runtimes) =
            (several(tasks.len() as u64, "task", "tasks"), several(*runtimes as u64, "runtime", "runtimes"));
        write!(out, "{} ({}): {count} of {runtimes}", printable(self.name), self.process)?;
        if let [version] = &tokio[..] {
            write!(out, ", Tokio {version}")?;
        }
        writeln!(out, "; read within {:.0} ms, while it ran", took.as_secs_f64() * 1e3)?;
        if *given_up > 0 {
            let lists = several(*given_up, "list", "lists");
            writeln!(out, "tasks may be missing: {lists} changed whenever they were read")?;
        }
        if *is_cut_short {
            writeln!(out, "tasks are missing: to read all of them would take too long")?;
        }
        if tasks.is_empty() {
            writeln!(
                out,
                "no runtime has a task in its lists; those of a `LocalSet`, as actix has, are in none that can be read"
            )?;
        } else if let Some(reason) = no_awaits {
            writeln!(out, "what they wait for is not known: {reason}")?;
        }
        for alike in self.groups() {
            writeln!(out)?;
            write_group(&alike, out)?;
        }
        Ok(())
    }
}

impl List<'_> {
    /// The largest first.
    fn groups(&self) -> Vec<Vec<&LiveTask>> {
        let tasks = &self.inspection.tasks;
        if self.each {
            return tasks.iter().map(|task| vec![task]).collect();
        }
        let mut alike = Alike::new();
        for task in tasks {
            let key = (&*task.future.full, state_name(task.state), &*task.waits.awaits, task.waits.ends_for);
            alike.entry(key).or_default().push(task);
        }
        let mut groups: Vec<_> = alike.into_values().collect();
        groups.sort_by_key(|group| (std::cmp::Reverse(group.len()), group[0].id));
        groups
    }
}

fn write_group(tasks: &[&LiveTask], out: &mut fmt::Formatter<'_>) -> fmt::Result {
    let [first, ..] = tasks else { return Ok(()) };
    let future = &first.future;
    match tasks {
        [only] => write!(out, "#{}", only.id)?,
        _ => write!(out, "{} ×", tasks.len())?,
    }
    write!(out, "  {}  {}", state_name(first.state), printable(&future.short))?;
    // In programs without symbols that is all that there is of a name.
    if let Some((file, line)) = future.place.as_ref().filter(|_| future.tier != NameTier::Location) {
        write!(out, "  {}:{line}", printable(&told_file(file)))?;
    }
    if let Some(reason) = future.no_place_for() {
        write!(out, "  (no line: {reason})")?;
    }
    writeln!(out)?;
    if let Some((file, line)) = &first.spawned_at {
        writeln!(out, "    spawned at {}:{line}", printable(&told_file(file)))?;
    }
    for (depth, Await { what, file, line }) in first.waits.awaits.iter().enumerate() {
        write!(out, "    {:indent$}{}", "", printable(what), indent = 2 * depth)?;
        if let (Some(file), Some(line)) = (file, line) {
            write!(out, "  {}:{line}", printable(&told_file(file)))?;
        }
        writeln!(out)?;
    }
    if let Some(reason) = first.waits.ends_for {
        writeln!(out, "    ({reason})")?;
    }
    if tasks.len() > 1 {
        let ids: Vec<String> = tasks.iter().take(MAX_IDS).map(|task| format!("#{}", task.id)).collect();
        let more = if tasks.len() > MAX_IDS { ", …" } else { "" };
        writeln!(out, "    {}{more}", ids.join(", "))?;
    }
    Ok(())
}
