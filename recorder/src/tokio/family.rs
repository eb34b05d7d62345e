//! Tokio as one of the families of runtimes.

use rustc_hash::FxHashMap;

use super::{Program, SchedulerKind, Seeing, WakeCode, awaits_may_be_known, name, walk::Places};
use crate::families::{CodeFile, Family, FamilyName, PolledFuture, ProbedCode, ProgramFiles, TaskFile, Wanted};

/// The family of Tokio's runtimes.
pub struct Tokio;

impl Family for Tokio {
    fn examine(&self, file: &CodeFile<'_>, wanted: Wanted) -> Option<TaskFile> {
        let program = Program::with(file.image, file.source, &file.contents, file.pointers()?).ok()??;
        // What can't be read has names of a lower tier, and a layout by its version.
        let bytes = file.bytes();
        let probed = wanted.probes.then(|| ProbedCode {
            polls: program.poll_code(file.image, file.source),
            wakes: Some(WakeCode::read(&program, file.image, file.source, bytes)),
        });
        let files = ProgramFiles { binary: bytes, ..ProgramFiles::default() };
        let named = program.vtables.iter().zip(name(&program.vtables, &files).futures);
        let futures = named.map(|(vtable, name)| PolledFuture {
            key: vtable.address,
            name,
            may_block: vtable.kind() == SchedulerKind::Blocking,
        });
        let futures: Vec<PolledFuture> = futures.collect();
        let by_vtable: FxHashMap<u64, usize> =
            program.vtables.iter().enumerate().map(|(index, vtable)| (vtable.address, index)).collect();
        let bodies = program.poll_bodies.iter().map(|body| {
            let polled = body.vtables.iter().filter_map(|vtable| by_vtable.get(vtable).copied());
            (body.addresses.clone(), polled.collect())
        });
        let mut seeing = Seeing::of(&program, bytes);
        let places = match std::mem::take(&mut seeing.layouts) {
            layouts if layouts.is_empty() => {
                Err(seeing.tasks_unseen.clone().or(seeing.workers_unseen.clone()).unwrap_or_default())
            }
            layouts => Ok(Places::new(layouts, &program.vtables)),
        };
        Some(TaskFile {
            family: FamilyName::Tokio,
            versions: program.origins.tokio.iter().map(ToString::to_string).collect(),
            futures,
            bodies: bodies.collect(),
            seeing,
            places: Some(places),
            may_tell_awaits: awaits_may_be_known(&files),
            probed,
        })
    }
}
