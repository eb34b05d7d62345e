//! How the kernel programs can see what a program's threads poll.

use polletto_common::polled::RuntimeLayout;

use super::{
    Program,
    layout::{Build, Layout},
};

/// What can be seen of a program's threads, and why no more.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seeing {
    /// For the kernel programs, but for the process. None where no thread tells what it polls.
    pub layout: Option<RuntimeLayout>,
    /// Why there is none.
    pub tasks_unseen: Option<String>,
    /// Why threads don't tell which worker they are.
    pub workers_unseen: Option<String>,
    /// Layouts of which one may be the program's, and where the context is by each, from the thread pointer.
    pub layouts: Vec<(i64, Layout)>,
}

impl Seeing {
    /// What a program and its file, whose bytes these are, allow.
    pub fn of(program: &Program, file: &[u8]) -> Seeing {
        let task_id = match program.context.current_task_id {
            Ok(found) => found.offset,
            Err(unknown) => {
                let reason = format!("it is unknown where its threads keep what they poll: {unknown}");
                return Seeing { tasks_unseen: Some(reason), ..Seeing::default() };
            }
        };
        let bare = RuntimeLayout { task_id, has_task: task_id, ..RuntimeLayout::default() };
        let described = Layout::described_in(file).ok().flatten();
        let layouts = described.map_or_else(|| candidates(program), |layout| vec![layout]);
        let are_none = layouts.is_empty();
        let placed = |layout: Layout| Some((start(&layout, task_id).filter(|&start| is_at(program, start))?, layout));
        let layouts: Vec<(i64, Layout)> = layouts.into_iter().filter_map(placed).collect();
        let with_workers = match layouts.first() {
            None if are_none => Err(unknown_version(program)),
            None => {
                Err("its Tokio keeps what threads poll elsewhere than any of this version that is known".to_owned())
            }
            Some((_, layout)) => with_workers(bare, layout)
                .ok_or_else(|| "its debug information does not describe Tokio's schedulers".to_owned()),
        };
        let (layout, workers_unseen) = match with_workers {
            Ok(layout) => (layout, None),
            Err(reason) => (bare, Some(reason)),
        };
        Seeing { layout: Some(layout), tasks_unseen: None, workers_unseen, layouts }
    }
}

fn candidates(program: &Program) -> Vec<Layout> {
    let [version] = program.origins.tokio[..] else { return Vec::new() };
    if version.major != 1 {
        return Vec::new();
    }
    let is_unstable = program.vtables.iter().any(|vtable| vtable.spawn_location_offset.is_some());
    let unstable = is_unstable.then_some(true);
    Layout::candidates(&Build { unstable, ..Build::of_minor(u32::from(version.minor)) })
}

fn unknown_version(program: &Program) -> String {
    match program.origins.tokio[..] {
        [] => "it does not tell which version of Tokio it was built with".to_owned(),
        [version] => format!("the layout of Tokio {version} is unknown to this polletto"),
        _ => "it was built with several versions of Tokio".to_owned(),
    }
}

/// Where the context begins if its task's id is there.
fn start(layout: &Layout, task_id: i64) -> Option<i64> {
    task_id.checked_sub(i64::from(layout.context.current_task_id?))
}

/// Whether the context may begin there, for all that the program tells.
fn is_at(program: &Program, start: i64) -> bool {
    match program.context.start {
        Ok(found) => found.offset == start,
        Err(_) => true,
    }
}

/// None if the layout does not tell all that is needed.
fn with_workers(bare: RuntimeLayout, layout: &Layout) -> Option<RuntimeLayout> {
    let start = start(layout, bare.task_id)?;
    let has_task = layout.context.has_task.map_or(bare.task_id, |offset| start + i64::from(offset));
    Some(RuntimeLayout {
        has_task,
        scheduler: start + i64::from(layout.context.scheduler?),
        kind: layout.scheduler.kind?,
        several_workers: layout.scheduler.multi_thread?,
        worker: layout.scheduler.worker?,
        worker_index: layout.worker.index?,
        worker_handle: layout.worker.handle?,
        only_handle: layout.scheduler.handle?,
        ..bare
    })
}
