//! Where the running kernel keeps what the programs read.

use std::path::Path;

use anyhow::{Context, Result, bail};
use btf_rs::{Backend, Btf, BtfType, Type};
use polletto_common::offsets::TaskOffsets;

const KERNEL_TYPES: &str = "/sys/kernel/btf/vmlinux";

/// Where `task_struct` has the thread pointer.
const THREAD_POINTER: &str = if cfg!(target_arch = "aarch64") { "thread.uw.tp_value" } else { "thread.fsbase" };

/// What the programs must know of the running kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kernel {
    /// Offsets into `task_struct`.
    pub offsets: TaskOffsets,
    /// `sched_switch` passes the state of the thread that leaves: since Linux 5.18.
    pub switch_tells_state: bool,
    /// Programs can call `bpf_loop`: since Linux 5.17.
    pub has_loop: bool,
}

impl Kernel {
    /// Reads it from the kernel's own description.
    pub fn read() -> Result<Kernel> {
        let types = kernel_types()?;
        Ok(Kernel {
            offsets: offsets_in(&types)?,
            switch_tells_state: arguments_of(&types, "btf_trace_sched_switch").is_some_and(|count| count > 4),
            has_loop: types.resolve_types_by_name("bpf_loop").is_ok_and(|found| !found.is_empty()),
        })
    }
}

/// How many arguments a tracepoint's typedef has, a context that programs don't see among them.
fn arguments_of(types: &Btf, typedef: &str) -> Option<usize> {
    let typedefs = types.resolve_types_by_name(typedef).ok()?;
    let mut chain = typedefs.iter().filter_map(Type::as_btf_type).flat_map(|typedef| types.chained_type_iter(typedef));
    chain.find_map(|next| match next {
        Type::FuncProto(prototype) => Some(prototype.parameters.len()),
        _ => None,
    })
}

fn kernel_types() -> Result<Btf> {
    open_types(Path::new(KERNEL_TYPES)).with_context(|| {
        format!("could not read {KERNEL_TYPES}: polletto needs a kernel that was built with CONFIG_DEBUG_INFO_BTF")
    })
}

/// Opens a description of types. Mapped it is read five times as fast, and takes a tenth of the memory, but kernels before
/// 6.16 cannot map theirs.
pub fn open_types(file: &Path) -> Result<Btf> {
    match Btf::from_file_with_backend(file, Backend::Mmap) {
        Ok(types) => Ok(types),
        // All at once: read piece by piece, the file takes a seek for every type.
        Err(_) => Ok(Btf::from_bytes(&std::fs::read(file)?)?),
    }
}

fn offsets_in(btf: &Btf) -> Result<TaskOffsets> {
    let offset = |path: &str| {
        offset_of(btf, "task_struct", path).with_context(|| format!("this kernel's task_struct has no `{path}`"))
    };
    Ok(TaskOffsets {
        tgid: offset("tgid")?,
        pid: offset("pid")?,
        prio: offset("prio")?,
        flags: offset("flags")?,
        state: offset("__state").or_else(|_| offset("state"))?,
        exit_state: offset("exit_state")?,
        cpu: offset("thread_info.cpu").or_else(|_| offset("cpu"))?,
        comm: offset("comm")?,
        start_boottime: offset("start_boottime")?,
        real_parent: offset("real_parent")?,
        self_exec_id: offset("self_exec_id")?,
        thread_pointer: offset(THREAD_POINTER)?,
    })
}

/// Byte offset of a member such as `thread_info.cpu`.
fn offset_of(btf: &Btf, structure: &str, path: &str) -> Result<u64> {
    let is_structure = |kind: &Type| matches!(kind, Type::Struct(_));
    let mut current = btf
        .resolve_types_by_name(structure)?
        .into_iter()
        .find(is_structure)
        .with_context(|| format!("there is no `struct {structure}`"))?;
    let mut bits = 0;
    for name in path.split('.') {
        let (at, member) = member(btf, &current, name)?.with_context(|| format!("no member `{name}`"))?;
        bits += u64::from(at);
        current = member;
    }
    Ok(bits / 8)
}

/// Bit offset and type of a member, looked for inside unnamed structures and unions too.
fn member(btf: &Btf, structure: &Type, name: &str) -> Result<Option<(u32, Type)>> {
    let (Type::Struct(structure) | Type::Union(structure)) = structure else { bail!("`{name}` is in no structure") };
    for member in &structure.members {
        let member_name = btf.resolve_name(member)?;
        if member_name == name {
            return Ok(Some((member.bit_offset(), bare(btf, member)?)));
        }
        if member_name.is_empty() {
            let inner = bare(btf, member)?;
            if matches!(inner, Type::Struct(_) | Type::Union(_))
                && let Some((at, found)) = self::member(btf, &inner, name)?
            {
                return Ok(Some((member.bit_offset() + at, found)));
            }
        }
    }
    Ok(None)
}

/// The type of a member without its typedefs and qualifiers.
fn bare(btf: &Btf, member: &dyn BtfType) -> Result<Type> {
    let mut found = btf.resolve_chained_type(member)?;
    while let Type::Typedef(_) | Type::Const(_) | Type::Volatile(_) | Type::Restrict(_) | Type::TypeTag(_) = found {
        let inner = found.as_btf_type().context("a qualifier of nothing")?;
        found = btf.resolve_chained_type(inner)?;
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_kernel_s_thread_fields_are_found_and_distinct() {
        let offsets = Kernel::read().unwrap().offsets;
        assert_eq!(offsets.tgid, offsets.pid + 4, "{offsets:?}");
        assert!(offsets.comm > offsets.flags && offsets.start_boottime.is_multiple_of(8), "{offsets:?}");
    }

    #[test]
    fn a_member_that_is_not_there_is_an_error_and_no_guess() {
        let btf = kernel_types().unwrap();
        assert!(offset_of(&btf, "task_struct", "no_such_member").is_err());
        assert!(offset_of(&btf, "no_such_struct", "pid").is_err());
        assert!(offset_of(&btf, "task_struct", "pid.deeper").is_err());
    }
}
