//! Where the running kernel keeps what the programs read.

/// Byte offsets into `struct task_struct` of the running kernel, taken from its BTF.
///
/// The verifier treats them as constants, since the section that holds them is frozen before the programs load: a read
/// through one costs a load and no helper call.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TaskOffsets {
    /// `tgid`, a 32-bit id.
    pub tgid: u64,
    /// `pid`, the thread id, 32 bits.
    pub pid: u64,
    /// `prio`, 32 bits: 0–99 real time, 100–139 nice −20 to 19.
    pub prio: u64,
    /// `flags`, 32 bits (`PF_*`).
    pub flags: u64,
    /// `__state`, 32 bits; `state`, 64 bits, before Linux 5.14.
    pub state: u64,
    /// `exit_state`, 32 bits: non-zero once the thread is a zombie or gone.
    pub exit_state: u64,
    /// `thread_info.cpu`, 32 bits: where the thread last ran or will run.
    pub cpu: u64,
    /// `comm`, 16 bytes.
    pub comm: u64,
    /// `start_boottime`, 64 bits, nanoseconds of CLOCK_BOOTTIME.
    pub start_boottime: u64,
    /// `real_parent`, a pointer to another `task_struct`.
    pub real_parent: u64,
    /// `self_exec_id`, 64 bits: counts the programs that the process has run.
    pub self_exec_id: u64,
    /// `thread.fsbase` (x86-64) or `thread.uw.tp_value` (aarch64), 64 bits: where the thread's own variables are.
    pub thread_pointer: u64,
}
