//! Judgments. Each check is a function from facts to an outcome, or to nothing where it does not apply.

use polletto_common::limits::MAX_CPUS;
use rustix::{io::Errno, thread::CapabilitySet};

use super::{
    Needs,
    machine::{KernelTypes, Lockdown, Machine},
    report::{Check, Outcome, Report},
};

/// The first kernel with ring buffers, task iterators, boot-time clocks in programs, CAP_BPF, arrays of any size in
/// others, and the current task as programs can read it.
const OLDEST_POSSIBLE: (u32, u32) = (5, 11);

/// The kernel that polletto is tested on.
const TESTED: (u32, u32) = (6, 18);

/// Inodes of the namespaces that the kernel itself makes at boot (`include/uapi/linux/nsfs.h`).
const FIRST_PID_NAMESPACE: u64 = 0xEFFF_FFFC;
const FIRST_USER_NAMESPACE: u64 = 0xEFFF_FFFD;
const FIRST_TIME_NAMESPACE: u64 = 0xEFFF_FFFA;

/// Open files that a recording needs besides one per CPU.
const FILES_BESIDES_RINGS: u64 = 64;

/// Memory that a recording needs besides its rings, in bytes.
const MEMORY_BESIDES_RINGS: u64 = 64 << 20;

/// What a program needs to record without being root.
const FILE_CAPABILITIES: &str = "cap_bpf,cap_perfmon,cap_sys_ptrace,cap_sys_nice,cap_dac_read_search=ep";

/// How a container is started so that programs in it can record the machine.
const CONTAINER_OPTIONS: &str = "--pid=host --cap-add=BPF --cap-add=PERFMON --cap-add=SYS_PTRACE --cap-add=SYS_NICE \
                                 --cap-add=DAC_READ_SEARCH --security-opt seccomp=unconfined";

const NEWER: &str = "boot a kernel of version 5.11 or newer, best 5.18; `uname -r` tells which one runs";

type Judge = fn(&Machine, &Needs) -> Option<Outcome>;

/// In the order in which they matter: what a later check complains of may only follow from an earlier one.
const CHECKS: [(&str, Judge); 18] = [
    ("kernel", kernel),
    ("kernel types", kernel_types),
    ("stacks", stacks),
    ("user namespace", user_namespace),
    ("capabilities", required_capabilities),
    ("lockdown", lockdown),
    ("bpf", bpf),
    ("pid namespace", pid_namespace),
    ("time namespace", time_namespace),
    ("cpus", cpus),
    ("other users", other_users),
    ("priority", priority),
    ("open files", open_files),
    ("memory", memory),
    ("container", container),
    ("unprivileged bpf", unprivileged_bpf),
    ("tracefs", tracefs),
    ("perf settings", perf_settings),
];

pub(super) fn all(machine: &Machine, needs: &Needs) -> Report {
    let checks = CHECKS.iter().filter_map(|&(name, judge)| Some(Check { name, outcome: judge(machine, needs)? }));
    Report::new(checks.collect())
}

fn ok(detail: impl Into<String>) -> Option<Outcome> {
    Some(Outcome::Ok { detail: detail.into() })
}

fn warning(what: impl Into<String>, remedy: impl Into<String>) -> Option<Outcome> {
    Some(Outcome::Warning { what: what.into(), remedy: remedy.into() })
}

fn fatal(what: impl Into<String>, remedy: impl Into<String>) -> Option<Outcome> {
    Some(Outcome::Fatal { what: what.into(), remedy: remedy.into() })
}

fn kernel(machine: &Machine, _: &Needs) -> Option<Outcome> {
    let release = &machine.kernel_release;
    let Some(version) = version(release) else {
        return warning(format!("{release} is no version that polletto understands"), NEWER);
    };
    if version < OLDEST_POSSIBLE {
        fatal(format!("{release} is older than 5.11 and cannot do what recording needs"), NEWER)
    } else if version != TESTED {
        ok(format!("{release} (not tested: polletto is tested on {}.{})", TESTED.0, TESTED.1))
    } else {
        ok(release)
    }
}

/// The first two numbers of a release like `6.1.0-18-amd64`.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|character: char| !character.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

fn kernel_types(machine: &Machine, _: &Needs) -> Option<Outcome> {
    const CONFIGURATION: &str = "boot a kernel that was built with CONFIG_DEBUG_INFO_BTF=y; this one tells by \
                                 `grep CONFIG_DEBUG_INFO_BTF /boot/config-$(uname -r)`";
    const READ: &str = "ls -l /sys/kernel/btf/vmlinux; mount -t sysfs sysfs /sys";
    match &machine.types {
        KernelTypes::SwitchWithState => ok("/sys/kernel/btf/vmlinux"),
        KernelTypes::Absent => fatal("the kernel does not describe its types", CONFIGURATION),
        KernelTypes::Unreadable(why) => fatal(format!("/sys/kernel/btf/vmlinux cannot be read: {why}"), READ),
        KernelTypes::NoSwitch => fatal("the kernel's types do not describe sched_switch", CONFIGURATION),
        KernelTypes::SwitchWithoutState => ok(
            "/sys/kernel/btf/vmlinux; states of threads are read a little late, since sched_switch does not tell them",
        ),
    }
}

fn stacks(machine: &Machine, _: &Needs) -> Option<Outcome> {
    match machine.has_loop? {
        true => ok("unwound without frame pointers"),
        false => warning(
            "unwound by frame pointers alone, which most programs don't have: this kernel has no bpf_loop",
            "boot a kernel of version 5.17 or newer, or record programs built with `-C force-frame-pointers=yes`",
        ),
    }
}

fn user_namespace(machine: &Machine, _: &Needs) -> Option<Outcome> {
    match in_first_user_namespace(machine) {
        true => None,
        false => fatal(
            "the kernel grants no tracing to a user namespace, whatever capabilities there are in it",
            format!("run it outside: {}, not in a rootless container", run_as_root(machine)),
        ),
    }
}

/// Kernels without namespaces have only one.
fn in_first_user_namespace(machine: &Machine) -> bool {
    machine.user_namespace.is_none_or(|inode| inode == FIRST_USER_NAMESPACE)
}

fn required_capabilities(machine: &Machine, _: &Needs) -> Option<Outcome> {
    let missing = missing_capabilities(machine);
    match missing.as_slice() {
        [] => ok(format!("{} to load programs and trace with them", held_capabilities(machine))),
        missing => fatal(format!("{} missing", missing.join(" and ")), grant(machine)),
    }
}

/// What there is no recording without, and no stand-in for.
fn missing_capabilities(machine: &Machine) -> Vec<&'static str> {
    let required = [(CapabilitySet::BPF, "CAP_BPF"), (CapabilitySet::PERFMON, "CAP_PERFMON")];
    let lacks = |capability| !machine.capabilities.intersects(capability | CapabilitySet::SYS_ADMIN);
    required.into_iter().filter(|&(capability, _)| lacks(capability)).map(|(_, name)| name).collect()
}

fn held_capabilities(machine: &Machine) -> &'static str {
    match machine.capabilities.contains(CapabilitySet::BPF | CapabilitySet::PERFMON) {
        true => "CAP_BPF and CAP_PERFMON",
        false => "CAP_SYS_ADMIN",
    }
}

fn grant(machine: &Machine) -> String {
    match machine.container {
        Some(engine @ ("docker" | "podman")) => {
            format!("start the container with `{engine} run {CONTAINER_OPTIONS} …`")
        }
        _ => format!("{}; or once: sudo setcap {FILE_CAPABILITIES} {}", run_as_root(machine), program(machine)),
    }
}

fn run_as_root(machine: &Machine) -> String {
    format!("sudo {} record …", program(machine))
}

/// Our executable as a shell takes it.
fn program(machine: &Machine) -> String {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"/._-+".contains(byte);
    match machine.program.as_deref().and_then(|path| path.to_str()) {
        Some(path) if path.as_bytes().iter().all(plain) => path.to_owned(),
        Some(path) if !path.contains(|character: char| character.is_control()) => {
            format!("'{}'", path.replace('\'', r"'\''"))
        }
        _ => "$(command -v polletto)".to_owned(),
    }
}

fn lockdown(machine: &Machine, _: &Needs) -> Option<Outcome> {
    match machine.lockdown {
        None => ok("not known (securityfs is not mounted) or not built in"),
        Some(Lockdown::None) => ok("none"),
        Some(Lockdown::Integrity) => ok("integrity, which leaves tracing alone"),
        Some(Lockdown::Confidentiality) => fatal(
            "confidentiality: programs may not read the kernel's memory",
            "boot with `lockdown=integrity` on the kernel's command line; `cat /proc/cmdline` shows the present one",
        ),
    }
}

fn bpf(machine: &Machine, _: &Needs) -> Option<Outcome> {
    let in_container = match machine.container {
        Some(engine) => format!("the seccomp profile of {engine}"),
        None => "a seccomp profile or a security module".to_owned(),
    };
    match machine.program_load {
        Ok(()) => ok("the kernel loads programs"),
        // It must fail, for reasons that are complained of already.
        Err(_) if !missing_capabilities(machine).is_empty() || !in_first_user_namespace(machine) => None,
        Err(Errno::PERM | Errno::ACCESS) => fatal(
            format!("bpf(2) is refused in spite of the capabilities, by {in_container}"),
            match machine.container {
                Some(_) => format!("start the container with `docker run {CONTAINER_OPTIONS} …`"),
                None => "sudo dmesg | grep -iE 'bpf|avc|apparmor'; grep Seccomp /proc/self/status".to_owned(),
            },
        ),
        Err(Errno::NOSYS) => fatal(
            "the kernel has no bpf(2)",
            "boot a kernel that was built with CONFIG_BPF_SYSCALL=y; this one tells by \
             `grep CONFIG_BPF /boot/config-$(uname -r)`",
        ),
        Err(errno) => fatal(
            format!("the kernel does not load a program that does nothing: {errno}"),
            "grep -E 'CONFIG_BPF|CONFIG_TRACEPOINTS' /boot/config-$(uname -r); sudo dmesg | tail",
        ),
    }
}

fn pid_namespace(machine: &Machine, _: &Needs) -> Option<Outcome> {
    match (machine.pid_namespace, machine.container) {
        (Some(FIRST_PID_NAMESPACE), _) => ok("the first one"),
        // Kernels without namespaces have only one.
        (None, None) => ok("there are no others"),
        (_, Some("kubernetes")) => fatal(DIFFERENT_IDS, "set `hostPID: true` in the pod's specification"),
        (_, Some(_)) => fatal(DIFFERENT_IDS, format!("start the container with `docker run {CONTAINER_OPTIONS} …`")),
        (_, None) => fatal(DIFFERENT_IDS, format!("run it outside of the namespace: {}", run_as_root(machine))),
    }
}

const DIFFERENT_IDS: &str = "not the first one: the kernel's thread ids are not those that are seen here";

fn time_namespace(machine: &Machine, _: &Needs) -> Option<Outcome> {
    match machine.time_namespace {
        Some(FIRST_TIME_NAMESPACE) => ok("the first one"),
        None => ok("there are no others"),
        Some(_) => warning(
            "not the first one: clocks read here differ from the kernel's, so times of day in the trace can be wrong",
            format!("sudo nsenter --target 1 --time {} record …", program(machine)),
        ),
    }
}

fn cpus(machine: &Machine, _: &Needs) -> Option<Outcome> {
    match machine.possible_cpus {
        Some(cpus) if cpus <= MAX_CPUS => ok(cpus.to_string()),
        Some(cpus) => fatal(
            format!("{cpus} possible; polletto has rings for {MAX_CPUS}"),
            format!("boot with `nr_cpus={MAX_CPUS}` on the kernel's command line"),
        ),
        None => {
            warning("their number is not known", "ls -l /sys/devices/system/cpu/possible; mount -t sysfs sysfs /sys")
        }
    }
}

fn other_users(machine: &Machine, _: &Needs) -> Option<Outcome> {
    match machine.capabilities.contains(CapabilitySet::SYS_PTRACE) {
        true => ok("their processes can be read (CAP_SYS_PTRACE)"),
        false => warning("which programs their processes run stays hidden (no CAP_SYS_PTRACE)", grant(machine)),
    }
}

fn priority(machine: &Machine, _: &Needs) -> Option<Outcome> {
    match machine.capabilities.contains(CapabilitySet::SYS_NICE) {
        true => ok("can be raised when the machine is busy (CAP_SYS_NICE)"),
        false => ok("cannot be raised when the machine is busy (no CAP_SYS_NICE)"),
    }
}

fn open_files(machine: &Machine, _: &Needs) -> Option<Outcome> {
    let needed = machine.possible_cpus.unwrap_or(1) as u64 + FILES_BESIDES_RINGS;
    match machine.open_files {
        (None, _) => ok("no limit"),
        (Some(limit), _) if limit >= needed => ok(format!("{limit} at most")),
        (Some(limit), hard) => warning(
            format!("{limit} at most; a recording may need {needed}"),
            match hard {
                Some(hard) if hard < needed => format!("sudo prlimit --nofile={needed} --pid $$"),
                _ => format!("ulimit -n {needed}"),
            },
        ),
    }
}

fn memory(machine: &Machine, needs: &Needs) -> Option<Outcome> {
    let needed = needs.ring_bytes.saturating_add(MEMORY_BESIDES_RINGS);
    match &machine.memory {
        None => ok("not limited by a control group"),
        Some(group) if group.left() >= needed => ok(format!("{} left of the control group's limit", mib(group.left()))),
        Some(group) => warning(
            format!(
                "{} says that {} are left; a recording may need {}",
                group.file.display(),
                mib(group.left()),
                mib(needed)
            ),
            format!("sudo systemd-run --scope {} record …", program(machine)),
        ),
    }
}

fn mib(bytes: u64) -> String {
    format!("{} MiB", bytes >> 20)
}

fn container(machine: &Machine, _: &Needs) -> Option<Outcome> {
    ok(machine.container.unwrap_or("none"))
}

fn unprivileged_bpf(machine: &Machine, _: &Needs) -> Option<Outcome> {
    match machine.unprivileged_bpf_disabled? {
        0 => ok("allowed by kernel.unprivileged_bpf_disabled; tracing needs its capabilities all the same"),
        value => ok(format!("not allowed (kernel.unprivileged_bpf_disabled={value}), and not needed")),
    }
}

fn tracefs(machine: &Machine, _: &Needs) -> Option<Outcome> {
    match &machine.tracefs {
        Some(place) => ok(format!("mounted on {}, and not needed", place.display())),
        None => ok("not mounted, and not needed"),
    }
}

fn perf_settings(machine: &Machine, _: &Needs) -> Option<Outcome> {
    let setting = |value: Option<i64>| value.map_or("not there".to_owned(), |value| value.to_string());
    let (paranoid, restrict) = (setting(machine.perf_event_paranoid), setting(machine.kptr_restrict));
    ok(format!("perf_event_paranoid {paranoid}, kptr_restrict {restrict}; neither hinders a recording"))
}

#[cfg(test)]
mod tests;
