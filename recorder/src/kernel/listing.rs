//! Which threads there are, as the kernel lists them.

use std::io::Read;

use anyhow::{Context, Result, bail};
use aya::{Btf, Ebpf, EbpfLoader, programs::Iter};
use polletto_common::record::{Record, Task};

use super::{OBJECT, Shared, btf, program};

/// Maps that only a recording needs; all of their elements would take memory from the beginning.
const OF_RECORDINGS: [&str; 4] = ["SLEEPERS", "OPEN_POLLS", "RETURNS", "ALLOWANCES"];

/// Everything.
const SYSTEM: u32 = polletto_common::scope::Scope::System as u32;

/// The threads that exist now, all of the machine. Nothing is attached and nothing recorded.
pub fn threads() -> Result<Vec<Task>> {
    let kernel = btf::Kernel::read()?;
    let offsets = Shared(kernel.offsets);
    let btf = Btf::from_sys_fs().context("could not read the kernel's type information")?;
    let mut loader = EbpfLoader::new();
    loader.btf(Some(&btf)).override_global("TASK_OFFSETS", &offsets, true).override_global("SCOPE", &SYSTEM, true);
    for map in OF_RECORDINGS {
        loader.map_max_entries(map, 1);
    }
    let mut ebpf = loader.load(OBJECT).context("the kernel did not take polletto's maps")?;
    load(&mut ebpf, &btf)?;
    list(&mut ebpf)
}

/// Loads the program that lists threads.
pub(super) fn load(ebpf: &mut Ebpf, btf: &Btf) -> Result<()> {
    program::<Iter>(ebpf, "tasks")?
        .load("task", btf)
        .context("the kernel did not accept the program that lists threads")
}

/// Asks it.
pub(super) fn list(ebpf: &mut Ebpf) -> Result<Vec<Task>> {
    let program = program::<Iter>(ebpf, "tasks")?;
    let id = program.attach().context("could not list threads")?;
    let mut bytes = Vec::new();
    program.take_link(id)?.into_file()?.read_to_end(&mut bytes).context("could not list threads")?;
    let task = |chunk| match Record::decode(chunk)? {
        Record::Task(task) => Ok(task),
        other => bail!("the list of threads holds {other:?}"),
    };
    bytes.chunks_exact(size_of::<Task>()).map(task).collect()
}
