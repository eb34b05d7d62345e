//! How the kernel programs can see what a program's threads poll.

use polletto_common::polled::RuntimeLayout;

use super::{
    Context, Program,
    layout::{self, Build, Layout},
};

/// Tasks' vtables tell of `tokio_unstable` since this minor version.
const FIRST_THAT_TELLS_UNSTABLE: u16 = 47;

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
        let described = Layout::described_in(file).ok().flatten();
        let build = build(program);
        let agreed = described.clone().or_else(|| Layout::of(&build?));
        let seeing = Seeing::by(&program.context, agreed.as_ref(), || unknown_version(program));
        let candidates = match described {
            Some(described) => vec![described],
            None => build.map(|build| Layout::candidates(&build)).unwrap_or_default(),
        };
        Seeing { layouts: seeing.placed(&program.context, candidates), ..seeing }
    }

    /// Those of the layouts that the context can have, and where it is by each.
    fn placed(&self, context: &Context, layouts: Vec<Layout>) -> Vec<(i64, Layout)> {
        let Some(seen) = self.layout else { return Vec::new() };
        let start = |layout: &Layout| {
            let start = seen.task_id.checked_sub(i64::from(layout.context.current_task_id?))?;
            context.start.as_ref().map_or(true, |found| found.offset == start).then_some(start)
        };
        layouts.into_iter().filter_map(|layout| Some((start(&layout)?, layout))).collect()
    }

    fn by(context: &Context, layout: Option<&Layout>, unknown_version: impl Fn() -> String) -> Seeing {
        let tasks = match layout {
            Some(layout) => tasks_by_layout(context, &layout.context),
            None => tasks_by_code(context),
        };
        let tasks = match tasks {
            Ok(tasks) => tasks,
            Err(reason) => return Seeing { tasks_unseen: Some(reason), ..Seeing::default() },
        };
        let with_workers = match layout {
            None => Err(unknown_version()),
            Some(layout) => with_workers(tasks, layout)
                .ok_or_else(|| "what is known of Tokio's schedulers in such a program is not enough".to_owned()),
        };
        let (layout, workers_unseen) = match with_workers {
            Ok(layout) => (layout, None),
            Err(reason) => (tasks, Some(reason)),
        };
        Seeing { layout: Some(layout), tasks_unseen: None, workers_unseen, layouts: Vec::new() }
    }
}

/// How a program without debug information was built, if it tells the version.
fn build(program: &Program) -> Option<Build> {
    let [version] = program.origins.tokio[..] else { return None };
    let is_unstable = program.vtables.iter().any(|vtable| vtable.spawn_location_offset.is_some());
    let unstable = (is_unstable || version.minor >= FIRST_THAT_TELLS_UNSTABLE).then_some(is_unstable);
    // Where there is some, it may be for the program's own use.
    let parking_lot = (!program.origins.has_parking_lot).then_some(false);
    (version.major == 1).then(|| Build { unstable, parking_lot, ..Build::of_minor(u32::from(version.minor)) })
}

fn unknown_version(program: &Program) -> String {
    match program.origins.tokio[..] {
        [] => "the program does not tell which version of Tokio it was built with".to_owned(),
        [version] => format!("this polletto does not know how Tokio {version} keeps what it knows"),
        _ => "the program was built with several versions of Tokio".to_owned(),
    }
}

/// By what the code shows alone.
fn tasks_by_code(context: &Context) -> Result<RuntimeLayout, String> {
    match context.current_task_id {
        Ok(found) => {
            let has_task = context.current_task_tag.unwrap_or(found.offset);
            Ok(RuntimeLayout { task_id: found.offset, has_task, ..RuntimeLayout::default() })
        }
        Err(unknown) => Err(unseen(unknown)),
    }
}

/// By what the code shows and the layout of what it uses, which must not contradict each other.
fn tasks_by_layout(context: &Context, layout: &layout::Context) -> Result<RuntimeLayout, String> {
    let Some(id) = layout.current_task_id.map(i64::from) else { return tasks_by_code(context) };
    let start = match (&context.start, &context.current_task_id) {
        (Ok(start), Ok(found)) if start.offset.checked_add(id) != Some(found.offset) => {
            return Err("the program's code contradicts what is known of its Tokio".to_owned());
        }
        (Ok(start), _) => start.offset,
        (Err(_), Ok(found)) => found.offset.saturating_sub(id),
        (Err(_), Err(unknown)) => {
            let starts = context.contenders.iter().filter_map(|contender| {
                contender.start.filter(|start| start.checked_add(id) == Some(contender.offset))
            });
            match starts.collect::<Vec<_>>()[..] {
                [only] => only,
                _ => return Err(unseen(*unknown)),
            }
        }
    };
    let task_id = start.saturating_add(id);
    let has_task = layout.has_task.map_or(task_id, |offset| start.saturating_add(i64::from(offset)));
    Ok(RuntimeLayout { task_id, has_task, ..RuntimeLayout::default() })
}

fn unseen(unknown: super::Unknown) -> String {
    format!("it is unknown where its threads keep what they poll: {unknown}")
}

/// None if the layout does not tell all that is needed.
fn with_workers(tasks: RuntimeLayout, layout: &Layout) -> Option<RuntimeLayout> {
    let start = tasks.task_id.checked_sub(i64::from(layout.context.current_task_id?))?;
    // Without ticks, polls are told apart by their tasks alone.
    let ticks =
        |core: Option<u32>, tick: Option<u32>| (core.unwrap_or_default(), tick.unwrap_or(RuntimeLayout::NO_TICKS));
    let (worker_core, worker_tick) = ticks(layout.scheduler.core, layout.core.tick);
    let (only_core, only_tick) = ticks(layout.scheduler.only_core, layout.only_core.tick);
    Some(RuntimeLayout {
        scheduler: start.checked_add(i64::from(layout.context.scheduler?))?,
        kind: layout.scheduler.kind?,
        several_workers: layout.scheduler.multi_thread?,
        worker: layout.scheduler.worker?,
        worker_index: layout.worker.index?,
        worker_handle: layout.worker.handle?,
        worker_core,
        worker_tick,
        only_handle: layout.scheduler.handle?,
        only_core,
        only_tick,
        ..tasks
    })
}

#[cfg(test)]
mod tests {
    use super::{
        super::{Contender, Evidence, Found, Unknown},
        *,
    };

    fn layout() -> layout::Context {
        layout::Context { current_task_id: Some(48), has_task: Some(48), scheduler: Some(40), ..Default::default() }
    }

    fn found(offset: i64) -> Found {
        Found { offset, evidence: Evidence::Symbol }
    }

    fn context(start: Option<i64>, id: Option<i64>, contenders: &[(i64, Option<i64>)]) -> Context {
        Context {
            start: start.map(found).ok_or(Unknown::Unclear),
            current_task_id: id.map(found).ok_or(Unknown::Unclear),
            current_task_tag: None,
            contenders: contenders.iter().map(|&(offset, start)| Contender { offset, start }).collect(),
        }
    }

    #[test]
    fn layout_and_code_together_tell_where_the_id_is() {
        let two = [(-0x200, Some(-0x200)), (-0x100, Some(-0x130))];
        for (claim, context, expected) in [
            ("both say so", context(Some(-0x130), Some(-0x100), &[]), Some(-0x100)),
            ("a symbol says where it begins", context(Some(-0x130), None, &[]), Some(-0x100)),
            ("code says where the id is", context(None, Some(-0x100), &[]), Some(-0x100)),
            ("they contradict each other", context(Some(-0x130), Some(-0xf8), &[]), None),
            ("one of several is where it should be in its object", context(None, None, &two), Some(-0x100)),
            ("two are", context(None, None, &[(-0x100, Some(-0x130)), (-0x40, Some(-0x70))]), None),
            ("nothing says so", context(None, None, &[]), None),
        ] {
            assert_eq!(tasks_by_layout(&context, &layout()).ok().map(|layout| layout.task_id), expected, "{claim}");
        }
    }

    #[test]
    fn a_worker_is_seen_to_be_gone_though_its_ticks_are_not_known() {
        let mut layout = Layout::of(&Build { unstable: Some(false), ..Build::of_minor(54) }).expect("it is known");
        let with = |layout: &Layout| with_workers(RuntimeLayout::default(), layout).expect("it tells workers");
        let known = with(&layout);
        assert!(known.worker_core != 0 && known.worker_tick != RuntimeLayout::NO_TICKS);
        layout.core.tick = None;
        assert_eq!(with(&layout), RuntimeLayout { worker_tick: RuntimeLayout::NO_TICKS, ..known });
        layout.scheduler.core = None;
        assert_eq!(with(&layout).worker_core, 0);
    }

    #[test]
    fn an_unknown_version_shows_tasks_and_no_workers() {
        let seeing = Seeing::by(&context(None, Some(-0x100), &[]), None, || "too new".to_owned());
        assert_eq!(seeing.layout.map(|layout| (layout.task_id, layout.scheduler)), Some((-0x100, 0)));
        assert_eq!((seeing.tasks_unseen, seeing.workers_unseen.as_deref()), (None, Some("too new")));
    }
}
