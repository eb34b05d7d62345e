//! Facts about the machine. Nothing is judged here, and what cannot be read is told as such.

use std::{
    fs::{self, File},
    io::{self, Read},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use btf_rs::{Btf, Type};
use rustix::{
    io::Errno,
    process::{Resource, getrlimit},
    thread::{CapabilitySet, capabilities},
};

use crate::kernel;

use super::{
    memory::{MemoryLimit, tightest_limit},
    probe,
};

/// What is read of any file here, in bytes.
const FILE_BYTES: u64 = 64 * 1024;

/// Namespaces of which every container has one of its own, and the inodes of those that the kernel itself makes at boot
/// (`include/uapi/linux/nsfs.h`). Mounts are not among them: their first namespace had no fixed inode before 6.18.
const FIRST_NAMESPACES: [(&str, u64); 4] =
    [("uts", 0xEFFF_FFFE), ("ipc", 0xEFFF_FFFF), ("pid", 0xEFFF_FFFC), ("cgroup", 0xEFFF_FFFB)];

/// What the checks judge by. `None` stands for what this kernel does not have or does not tell.
#[derive(Clone, Debug)]
pub struct Machine {
    /// As `uname -r` prints it.
    pub kernel_release: String,
    /// CPUs that exist or could be plugged in, by the highest number plus one.
    pub possible_cpus: Option<usize>,
    /// The kernel's type information.
    pub types: KernelTypes,
    /// Whether programs can call `bpf_loop`. Not known without the kernel's types.
    pub has_loop: Option<bool>,
    /// What we may do, as far as capabilities go.
    pub capabilities: CapabilitySet,
    /// Inode of our user namespace.
    pub user_namespace: Option<u64>,
    /// Inode of our pid namespace.
    pub pid_namespace: Option<u64>,
    /// Inode of our time namespace.
    pub time_namespace: Option<u64>,
    /// What happened when a program was loaded.
    pub program_load: Result<(), Errno>,
    /// `kernel.unprivileged_bpf_disabled`.
    pub unprivileged_bpf_disabled: Option<i64>,
    /// How far the kernel is locked down.
    pub lockdown: Option<Lockdown>,
    /// What kind of container we run in, if any.
    pub container: Option<&'static str>,
    /// Where tracefs is mounted.
    pub tracefs: Option<PathBuf>,
    /// `kernel.perf_event_paranoid`.
    pub perf_event_paranoid: Option<i64>,
    /// `kernel.kptr_restrict`.
    pub kptr_restrict: Option<i64>,
    /// Files that we may have open, and may raise that to. `None` is no limit.
    pub open_files: (Option<u64>, Option<u64>),
    /// How much memory we may use.
    pub memory: Option<MemoryLimit>,
    /// Where our own executable is.
    pub program: Option<PathBuf>,
}

/// What the kernel tells of its types.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KernelTypes {
    /// There are none.
    Absent,
    /// They could not be read or understood.
    Unreadable(String),
    /// They do not tell how `sched_switch` calls a program.
    NoSwitch,
    /// `sched_switch` calls a program with `(preempt, prev, next)`.
    SwitchWithoutState,
    /// `sched_switch` calls a program with `(preempt, prev, next, prev_state)`.
    SwitchWithState,
}

/// How far the kernel keeps even root out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lockdown {
    /// Not at all.
    None,
    /// It cannot be changed.
    Integrity,
    /// Nor can its memory be read.
    Confidentiality,
}

impl Machine {
    /// Gathers the facts about this machine.
    pub fn read() -> Machine {
        let open_files = getrlimit(Resource::Nofile);
        let (types, has_loop) = kernel_types(Path::new("/sys/kernel/btf/vmlinux"));
        Machine {
            kernel_release: rustix::system::uname().release().to_string_lossy().into_owned(),
            possible_cpus: read("/sys/devices/system/cpu/possible").and_then(|list| cpus_in(&list)),
            types,
            has_loop,
            capabilities: capabilities(None).map_or(CapabilitySet::empty(), |sets| sets.effective),
            user_namespace: namespace("user"),
            pid_namespace: namespace("pid"),
            time_namespace: namespace("time"),
            program_load: probe::load_a_program(),
            unprivileged_bpf_disabled: setting("unprivileged_bpf_disabled"),
            lockdown: read("/sys/kernel/security/lockdown").and_then(|modes| lockdown(&modes)),
            container: container(),
            tracefs: tracefs(),
            perf_event_paranoid: setting("perf_event_paranoid"),
            kptr_restrict: setting("kptr_restrict"),
            open_files: (open_files.current, open_files.maximum),
            memory: tightest_limit(),
            program: std::env::current_exe().ok(),
        }
    }
}

fn read(path: impl AsRef<Path>) -> Option<String> {
    let mut bytes = Vec::new();
    File::open(path).and_then(|file| file.take(FILE_BYTES).read_to_end(&mut bytes)).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

fn setting(name: &str) -> Option<i64> {
    read(Path::new("/proc/sys/kernel").join(name))?.trim().parse().ok()
}

fn namespace(kind: &str) -> Option<u64> {
    fs::metadata(Path::new("/proc/self/ns").join(kind)).map(|file| file.ino()).ok()
}

/// The highest number in a list like `0-3,8`, plus one.
fn cpus_in(list: &str) -> Option<usize> {
    let last = list.trim().split(',').filter_map(|range| range.rsplit('-').next()?.parse::<usize>().ok()).max()?;
    last.checked_add(1)
}

/// The mode in brackets: `none [integrity] confidentiality`.
fn lockdown(modes: &str) -> Option<Lockdown> {
    match modes.split_once('[')?.1.split_once(']')?.0 {
        "none" => Some(Lockdown::None),
        "integrity" => Some(Lockdown::Integrity),
        "confidentiality" => Some(Lockdown::Confidentiality),
        _ => None,
    }
}

/// What the kernel tells of its types, and whether it has `bpf_loop`.
fn kernel_types(file: &Path) -> (KernelTypes, Option<bool>) {
    match File::open(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => (KernelTypes::Absent, None),
        Err(error) => (KernelTypes::Unreadable(error.to_string()), None),
        Ok(_) => match kernel::open_types(file) {
            Ok(types) => {
                let has_loop = types.resolve_types_by_name("bpf_loop").is_ok_and(|found| !found.is_empty());
                (switch_signature(&types), Some(has_loop))
            }
            Err(error) => (KernelTypes::Unreadable(error.to_string()), None),
        },
    }
}

/// Reads `typedef void (*btf_trace_sched_switch)(void *, bool, struct task_struct *, struct task_struct *, …)`.
fn switch_signature(types: &Btf) -> KernelTypes {
    let typedefs = types.resolve_types_by_name("btf_trace_sched_switch").unwrap_or_default();
    let chain = typedefs.iter().filter_map(Type::as_btf_type).flat_map(|typedef| types.chained_type_iter(typedef));
    let prototype = chain.filter_map(|next| if let Type::FuncProto(prototype) = next { Some(prototype) } else { None });
    let Some(parameters) = prototype.map(|prototype| prototype.parameters).next() else {
        return KernelTypes::NoSwitch;
    };
    let kind = |index: usize| types.resolve_chained_type(parameters.get(index)?).ok();
    match (kind(2), kind(3), kind(4)) {
        (Some(Type::Ptr(_)), Some(Type::Ptr(_)), Some(Type::Int(_))) => KernelTypes::SwitchWithState,
        (Some(Type::Ptr(_)), Some(Type::Ptr(_)), _) => KernelTypes::SwitchWithoutState,
        _ => KernelTypes::NoSwitch,
    }
}

fn container() -> Option<&'static str> {
    // The marks of an image are also found where it was unpacked to be a machine of its own.
    let isolated = FIRST_NAMESPACES.iter().any(|&(kind, first)| namespace(kind).is_some_and(|inode| inode != first));
    let groups = read("/proc/self/cgroup").unwrap_or_default();
    container_by(|path| Path::new(path).exists(), &groups).filter(|_| isolated)
}

/// Recognizes a container by the files that its engine leaves in it, or by the names of its control groups.
fn container_by(exists: impl Fn(&str) -> bool, groups: &str) -> Option<&'static str> {
    let files = [
        ("/var/run/secrets/kubernetes.io", "kubernetes"),
        ("/run/.containerenv", "podman"),
        ("/.dockerenv", "docker"),
        ("/dev/lxd", "lxd"),
    ];
    let group_names = [("kubepods", "kubernetes"), ("libpod", "podman"), ("docker", "docker"), ("lxc", "lxc")];
    let by_file = files.into_iter().find(|(file, _)| exists(file));
    // `docker.service` is the engine's own group, not a container.
    let in_group =
        |name: &str| groups.split(['/', '\n']).any(|part| part.contains(name) && !part.ends_with(".service"));
    by_file.or_else(|| group_names.into_iter().find(|(name, _)| in_group(name))).map(|(_, engine)| engine)
}

fn tracefs() -> Option<PathBuf> {
    let mounts = read("/proc/self/mounts")?;
    mounts.lines().find_map(|mount| {
        let mut fields = mount.split(' ').skip(1);
        let (place, kind) = (fields.next()?, fields.next()?);
        (kind == "tracefs").then(|| PathBuf::from(place))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_can_be_read_by_anyone() {
        let machine = Machine::read();
        assert!(machine.kernel_release.starts_with(|digit: char| digit.is_ascii_digit()));
        assert!(machine.possible_cpus.is_some_and(|cpus| cpus > 0));
        assert!(machine.pid_namespace.is_some());
        assert_eq!(machine.program, std::env::current_exe().ok());
    }

    #[test]
    fn cpus_are_counted_by_the_highest_number() {
        for (list, expected) in [
            ("0-1\n", Some(2)),
            ("0\n", Some(1)),
            ("0-3,8-11", Some(12)),
            ("8,0-3", Some(9)),
            ("", None),
            ("x-y", None),
            ("0-18446744073709551615", None),
        ] {
            assert_eq!(cpus_in(list), expected, "{list}");
        }
    }

    #[test]
    fn lockdown_is_the_mode_in_brackets() {
        for (modes, expected) in [
            ("[none] integrity confidentiality\n", Some(Lockdown::None)),
            ("none [integrity] confidentiality\n", Some(Lockdown::Integrity)),
            ("none integrity [confidentiality]\n", Some(Lockdown::Confidentiality)),
            ("none integrity\n", None),
            ("[other]", None),
        ] {
            assert_eq!(lockdown(modes), expected, "{modes}");
        }
    }

    #[test]
    fn a_container_is_known_by_its_files_or_its_groups() {
        for (file, groups, expected) in [
            ("", "0::/user.slice/user-1000.slice/session-1.scope\n", None),
            ("", "0::/system.slice/docker.service\n", None),
            ("/.dockerenv", "0::/\n", Some("docker")),
            ("/run/.containerenv", "0::/\n", Some("podman")),
            ("", "0::/system.slice/docker-0123.scope\n", Some("docker")),
            ("", "4:memory:/kubepods/burstable/pod1\n0::/\n", Some("kubernetes")),
            ("", "0::/machine.slice/libpod-01.scope/container\n", Some("podman")),
        ] {
            assert_eq!(container_by(|path| path == file, groups), expected, "{file} {groups}");
        }
    }

    #[test]
    fn types_that_are_absent_or_broken_are_told_apart() {
        let file = std::env::temp_dir().join(format!("polletto-types-{}", std::process::id()));
        assert_eq!(kernel_types(&file), (KernelTypes::Absent, None));
        for broken in [&b""[..], b"\x9f\xeb", &[0xff; 4096]] {
            fs::write(&file, broken).unwrap();
            assert!(matches!(kernel_types(&file), (KernelTypes::Unreadable(_), None)), "{broken:?}");
        }
        fs::remove_file(file).unwrap();
    }
}
