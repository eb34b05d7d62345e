use super::*;
use crate::preflight::memory::MemoryLimit;

/// A machine with nothing to complain of, except as a test has it.
fn machine(change: impl FnOnce(&mut Machine)) -> Machine {
    let mut machine = Machine {
        kernel_release: "6.18.44".to_owned(),
        possible_cpus: Some(2),
        types: KernelTypes::SwitchWithState,
        has_loop: Some(true),
        capabilities: CapabilitySet::all(),
        user_namespace: Some(FIRST_USER_NAMESPACE),
        pid_namespace: Some(FIRST_PID_NAMESPACE),
        time_namespace: Some(FIRST_TIME_NAMESPACE),
        program_load: Ok(()),
        unprivileged_bpf_disabled: Some(2),
        lockdown: Some(Lockdown::None),
        container: None,
        tracefs: Some("/sys/kernel/tracing".into()),
        perf_event_paranoid: Some(2),
        kptr_restrict: Some(1),
        open_files: (Some(1024), Some(4096)),
        memory: None,
        program: Some("/usr/bin/polletto".into()),
    };
    change(&mut machine);
    machine
}

const NEEDS: Needs = Needs { ring_bytes: 16 << 20 };

/// How a check judges a machine: `ok`, `warn` or `FAIL` and the first line, and the remedy.
fn outcome(name: &str, change: impl FnOnce(&mut Machine)) -> Option<(String, String)> {
    let report = all(&machine(change), &NEEDS);
    let check = report.checks().iter().find(|check| check.name == name)?.to_string();
    let (line, remedy) = check.split_once("\n     → ").unwrap_or((&check, ""));
    Some((line.replace(&format!("{name}: "), ""), remedy.to_owned()))
}

#[track_caller]
fn assert_judged(name: &str, change: impl FnOnce(&mut Machine), start: &str, remedy: &str) {
    let (line, found) = outcome(name, change).unwrap();
    assert!(line.starts_with(start), "{line}");
    assert!(if remedy.is_empty() { found.is_empty() } else { found.contains(remedy) }, "{line} → {found}");
}

#[test]
fn a_good_machine_has_nothing_to_complain_of() {
    let report = all(&machine(|_| {}), &NEEDS);
    assert!(report.is_ok(), "{report}");
    assert_eq!(report.warnings().count(), 0, "{report}");
    assert_eq!(report.checks().len(), CHECKS.len() - 1, "all but the user namespace have something to say");
}

#[test]
fn a_kernel_is_judged_by_its_version() {
    for (release, start, remedy) in [
        ("6.18.44-fc-v657", "ok   6.18.44-fc-v657", ""),
        ("6.1.0-18-amd64", "ok   6.1.0-18-amd64 (not tested", ""),
        ("7.0-rc1", "ok   7.0-rc1 (not tested", ""),
        ("5.14.0-427.el9.x86_64", "ok   5.14.0-427.el9.x86_64 (not tested", ""),
        ("5.10.0", "FAIL 5.10.0", "5.11"),
        ("4.19.0", "FAIL 4.19.0", "5.11"),
        ("lunar", "warn lunar", "uname -r"),
        ("99999999999.1", "warn 99999999999.1", "uname -r"),
    ] {
        assert_judged("kernel", |machine| machine.kernel_release = release.into(), start, remedy);
    }
}

#[test]
fn a_kernel_without_loops_unwinds_by_frame_pointers() {
    assert_judged("stacks", |machine| machine.has_loop = Some(false), "warn unwound by frame pointers alone", "5.17");
    assert_eq!(outcome("stacks", |machine| machine.has_loop = None), None);
}

#[test]
fn a_switch_without_a_state_is_good_enough() {
    assert_judged("kernel types", |machine| machine.types = KernelTypes::SwitchWithoutState, "ok   /sys", "");
}

#[test]
fn a_kernel_without_usable_types_is_fatal() {
    for (types, remedy) in [
        (KernelTypes::Absent, "CONFIG_DEBUG_INFO_BTF"),
        (KernelTypes::NoSwitch, "CONFIG_DEBUG_INFO_BTF"),
        (KernelTypes::Unreadable("permission denied".to_owned()), "/sys/kernel/btf/vmlinux"),
    ] {
        assert_judged("kernel types", |machine| machine.types = types, "FAIL ", remedy);
    }
}

#[test]
fn capabilities_are_required_or_stood_in_for() {
    use CapabilitySet as Set;
    const SETCAP: &str = "sudo /usr/bin/polletto record …; or once: sudo setcap cap_bpf,cap_perfmon,cap_sys_ptrace,\
                          cap_sys_nice,cap_dac_read_search=ep /usr/bin/polletto";
    for (capabilities, start, remedy) in [
        (Set::BPF | Set::PERFMON, "ok   CAP_BPF and CAP_PERFMON", ""),
        (Set::SYS_ADMIN, "ok   CAP_SYS_ADMIN", ""),
        (Set::BPF, "FAIL CAP_PERFMON missing", SETCAP),
        (Set::PERFMON | Set::SYS_PTRACE, "FAIL CAP_BPF missing", SETCAP),
        (Set::empty(), "FAIL CAP_BPF and CAP_PERFMON missing", SETCAP),
    ] {
        assert_judged("capabilities", |machine| machine.capabilities = capabilities, start, remedy);
    }
    let contained = |machine: &mut Machine| {
        (machine.capabilities, machine.container) = (Set::empty(), Some("podman"));
    };
    assert_judged("capabilities", contained, "FAIL ", "podman run --pid=host --cap-add=BPF");
}

#[test]
fn lesser_capabilities_only_warn_or_inform() {
    let few = |machine: &mut Machine| machine.capabilities = CapabilitySet::BPF | CapabilitySet::PERFMON;
    assert_judged("other users", few, "warn ", "setcap");
    assert_judged("priority", few, "ok   cannot be raised", "");
    assert!(all(&machine(few), &NEEDS).is_ok());
}

#[test]
fn a_remedy_names_our_executable_as_a_shell_takes_it() {
    for (path, expected) in [
        (Some("/usr/bin/polletto"), "/usr/bin/polletto"),
        (Some("/home/it's me/polletto"), r"'/home/it'\''s me/polletto'"),
        (Some("/a\nb"), "$(command -v polletto)"),
        (None, "$(command -v polletto)"),
    ] {
        assert_eq!(program(&machine(|machine| machine.program = path.map(Into::into))), expected);
    }
}

#[test]
fn a_refused_program_is_explained_by_what_refuses_it() {
    for (load, container, start, remedy) in [
        (
            Err(Errno::PERM),
            Some("docker"),
            "FAIL bpf(2) is refused in spite of the capabilities, by the seccomp",
            "seccomp=",
        ),
        (Err(Errno::PERM), None, "FAIL bpf(2) is refused in spite of the capabilities, by a seccomp", "dmesg"),
        (Err(Errno::NOSYS), None, "FAIL the kernel has no bpf(2)", "CONFIG_BPF_SYSCALL"),
        (Err(Errno::INVAL), None, "FAIL the kernel does not load", "CONFIG_BPF"),
        (Ok(()), None, "ok   ", ""),
    ] {
        assert_judged("bpf", |machine| (machine.program_load, machine.container) = (load, container), start, remedy);
    }
    let powerless = |machine: &mut Machine| {
        (machine.program_load, machine.capabilities) = (Err(Errno::PERM), CapabilitySet::empty());
    };
    assert_eq!(outcome("bpf", powerless), None, "the missing capabilities say it already");
    let rootless = |machine: &mut Machine| {
        (machine.program_load, machine.user_namespace) = (Err(Errno::PERM), Some(4026532002));
    };
    assert_eq!(outcome("bpf", rootless), None, "the user namespace says it already");
}

#[test]
fn lockdown_is_fatal_only_when_it_hides_memory() {
    for (lockdown, start, remedy) in [
        (None, "ok   not known", ""),
        (Some(Lockdown::None), "ok   none", ""),
        (Some(Lockdown::Integrity), "ok   integrity", ""),
        (Some(Lockdown::Confidentiality), "FAIL confidentiality", "lockdown=integrity"),
    ] {
        assert_judged("lockdown", |machine| machine.lockdown = lockdown, start, remedy);
    }
}

#[test]
fn namespaces_other_than_the_first_are_told_apart() {
    for (container, remedy) in
        [(None, "sudo /usr/bin/polletto record"), (Some("docker"), "--pid=host"), (Some("kubernetes"), "hostPID: true")]
    {
        let inside = |machine: &mut Machine| (machine.pid_namespace, machine.container) = (Some(4026532000), container);
        assert_judged("pid namespace", inside, "FAIL ", remedy);
    }
    assert_judged("time namespace", |machine| machine.time_namespace = Some(4026532001), "warn ", "nsenter");
    assert_judged("time namespace", |machine| machine.time_namespace = None, "ok   ", "");
    assert_judged("user namespace", |machine| machine.user_namespace = Some(4026532002), "FAIL ", "sudo");
    assert_eq!(outcome("user namespace", |_| {}), None);
}

#[test]
fn limits_are_compared_with_what_a_recording_needs() {
    assert_judged("cpus", |machine| machine.possible_cpus = Some(MAX_CPUS), "ok   1024", "");
    assert_judged("cpus", |machine| machine.possible_cpus = Some(MAX_CPUS + 1), "FAIL 1025", "nr_cpus=1024");
    assert_judged("cpus", |machine| machine.possible_cpus = None, "warn ", "/sys");
    for (open_files, start, remedy) in [
        ((None, None), "ok   no limit", ""),
        ((Some(66), Some(66)), "ok   66", ""),
        ((Some(65), Some(4096)), "warn 65", "ulimit -n 66"),
        ((Some(65), None), "warn 65", "ulimit -n 66"),
        ((Some(65), Some(65)), "warn 65", "sudo prlimit --nofile=66 --pid $$"),
    ] {
        assert_judged("open files", |machine| machine.open_files = open_files, start, remedy);
    }
    let limit =
        |used: u64| MemoryLimit { limit: 100 << 20, used: used << 20, file: "/sys/fs/cgroup/memory.max".into() };
    assert_judged("memory", |machine| machine.memory = Some(limit(20)), "ok   80 MiB left", "");
    assert_judged(
        "memory",
        |machine| machine.memory = Some(limit(21)),
        "warn /sys/fs/cgroup/memory.max says that 79 MiB are left; a recording may need 80 MiB",
        "systemd-run --scope",
    );
}

#[test]
fn what_is_not_needed_never_hinders() {
    let bare = machine(|machine| {
        (machine.tracefs, machine.unprivileged_bpf_disabled) = (None, None);
        (machine.perf_event_paranoid, machine.kptr_restrict) = (None, None);
    });
    let report = all(&bare, &NEEDS);
    assert!(report.is_ok() && report.warnings().count() == 0, "{report}");
}
