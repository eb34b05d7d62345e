//! Where Tokio keeps what threads poll, where the kernel programs find it.

use anyhow::{Context, Result};
use aya::{
    Ebpf,
    maps::{HashMap, MapData},
};
use polletto_common::{id::Tgid, polled::RuntimeLayout};

use super::Shared;

/// The layouts of all recorded processes.
pub struct RuntimeMap(HashMap<MapData, u32, Shared<RuntimeLayout>>);

impl RuntimeMap {
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<RuntimeMap> {
        let map = ebpf.take_map("RUNTIMES").context("no map `RUNTIMES`")?;
        Ok(RuntimeMap(HashMap::try_from(map)?))
    }

    /// Says how a process's program keeps it.
    pub fn set(&mut self, process: Tgid, layout: RuntimeLayout) -> Result<()> {
        self.0
            .insert(process.0, Shared(layout), 0)
            .with_context(|| format!("could not tell the kernel programs what {process} polls tasks by"))
    }

    /// The process has ended.
    pub fn remove(&mut self, process: Tgid) {
        // Most have none.
        self.0.remove(&process.0).ok();
    }
}
