//! The registers that a stack is unwound by, one module per CPU.

use core::ffi::c_void;

#[cfg_attr(bpf_target_arch = "aarch64", path = "aarch64.rs")]
#[cfg_attr(bpf_target_arch = "x86_64", path = "x86_64.rs")]
mod native;

pub use native::Native;

/// Registers of a program.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Registers {
    /// The next instruction.
    pub pc: u64,
    /// The stack pointer.
    pub sp: u64,
    /// The frame pointer, if the program uses that register as one.
    pub fp: u64,
    /// The link register; 0 on CPUs that have none.
    pub ra: u64,
}

/// Where a program entered the kernel.
#[derive(Clone, Copy)]
pub struct Entry {
    pub registers: Registers,
    /// By a system call: the instruction that was executed last stands in front of `pc`, as with any call.
    pub is_system_call: bool,
    /// By an exception, which a breakpoint may have been.
    pub is_exception: bool,
    /// By code of another instruction set, of which the registers say nothing.
    pub is_foreign: bool,
}

/// A system call that a thread is in.
#[derive(Clone, Copy)]
pub struct SystemCall {
    /// Its number; negative if the thread is in none, or that is not known.
    pub number: i32,
    /// Its first argument. Means nothing if it is none.
    pub argument: u64,
    /// Its second argument, likewise.
    pub second: u64,
}

impl SystemCall {
    /// None, or none that is known.
    pub const NONE: SystemCall = SystemCall { number: -1, argument: 0, second: 0 };
}

/// A function that was called.
#[derive(Clone, Copy)]
pub struct Call {
    /// Its first argument.
    pub argument: u64,
    /// The stack pointer.
    pub sp: u64,
}

/// A CPU, as far as unwinding knows it.
pub trait Cpu {
    /// The number of the system call in which a thread sleeps on a word of memory.
    const FUTEX: i32;

    /// The code of a breakpoint, if one leaves the program behind itself.
    const BREAKPOINT: Option<u8>;

    /// Registers at these bytes behind the stack pointer of a signal frame, of which [`Cpu::signal_registers`] are read.
    const SIGNAL_FRAME_OFFSET: u64;

    /// Words of a signal frame that are read.
    const SIGNAL_FRAME_WORDS: usize;

    /// What those words say.
    fn signal_registers(words: &[u64; 8]) -> Registers;

    /// What the kernel saved when the program entered it. `saved` is a `pt_regs` that the verifier trusts.
    ///
    /// # Safety
    /// `saved` comes from `bpf_task_pt_regs`.
    unsafe fn entry(saved: *const c_void) -> Entry;

    /// The system call by which the program entered the kernel.
    ///
    /// # Safety
    /// As for [`Cpu::entry`].
    unsafe fn system_call(saved: *const c_void) -> SystemCall;

    /// What an event interrupted, if that was a program and not the kernel.
    ///
    /// # Safety
    /// `event` is the context of a perf event program.
    unsafe fn interrupted(event: *const c_void) -> Option<Entry>;

    /// What the registers are when a function is entered.
    ///
    /// # Safety
    /// `context` is that of a program that is attached to code.
    unsafe fn call(context: *const c_void) -> Call;

    /// An address of code as it is without what the CPU hides in it.
    fn code_address(value: u64) -> u64;
}

/// One register of a context or a `pt_regs`. Volatile, so that it stays one load of eight bytes at a constant offset.
///
/// # Safety
/// `base` is a pointer of a kind that the verifier checks loads from.
#[inline(always)]
unsafe fn word(base: *const c_void, index: usize) -> u64 {
    // SAFETY: the verifier checks the access.
    unsafe { base.cast::<u64>().add(index).read_volatile() }
}
