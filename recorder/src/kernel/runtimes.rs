//! Where programs keep what their threads poll, and what they wait for, where the kernel programs find it.

use anyhow::{Context, Result};
use aya::{
    Ebpf,
    maps::{HashMap, MapData},
};
use polletto_common::{id::Tgid, parked::ThreadLocals, polled::RuntimeLayout};

use super::Shared;

/// That of all recorded processes.
pub struct RuntimeMap {
    layouts: HashMap<MapData, u32, Shared<RuntimeLayout>>,
    thread_locals: HashMap<MapData, u32, Shared<ThreadLocals>>,
}

impl RuntimeMap {
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<RuntimeMap> {
        let mut take = |name: &str| ebpf.take_map(name).with_context(|| format!("no map `{name}`"));
        Ok(RuntimeMap {
            layouts: HashMap::try_from(take("RUNTIMES")?)?,
            thread_locals: HashMap::try_from(take("THREAD_LOCALS")?)?,
        })
    }

    /// Says how a process's program keeps what Tokio polls.
    pub fn set(&mut self, process: Tgid, layout: RuntimeLayout) -> Result<()> {
        self.layouts
            .insert(process.0, Shared(layout), 0)
            .with_context(|| format!("could not tell the kernel programs what {process} polls tasks by"))
    }

    /// Says where a process's program has the variables of each thread, among which `parking_lot`'s are.
    pub fn set_thread_locals(&mut self, process: Tgid, locals: ThreadLocals) -> Result<()> {
        self.thread_locals
            .insert(process.0, Shared(locals), 0)
            .with_context(|| format!("could not tell the kernel programs what {process} waits at locks by"))
    }

    /// The process has ended.
    pub fn remove(&mut self, process: Tgid) {
        // Most have none.
        self.layouts.remove(&process.0).ok();
        self.thread_locals.remove(&process.0).ok();
    }
}
