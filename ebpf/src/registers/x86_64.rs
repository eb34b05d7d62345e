//! x86-64: `struct pt_regs` in words.

use core::ffi::c_void;

use super::{Call, Cpu, Entry, Registers, SystemCall, word};

const RBP: usize = 4;
/// After `syscall`, where the program goes on.
const RCX: usize = 11;
const RSI: usize = 13;
const RDI: usize = 14;
/// The system call's number; negative after an interrupt, and −1 after most exceptions.
const ORIG_RAX: usize = 15;
const RIP: usize = 16;
const CS: usize = 17;
const RSP: usize = 19;

/// `__USER_CS`: 64-bit code of a program.
const USER_CODE: u64 = 0x33;
/// The two bits of `cs` that are set in programs of any kind.
const USER_PRIVILEGE: u64 = 3;

/// `rt_sigframe` begins with `ucontext`, since its return address has been taken: 40 bytes, then `r8`–`r15`, `rdi`, `rsi`.
const SIGNAL_RBP: u64 = 40 + 10 * 8;

/// See [`Cpu`].
pub struct Native;

impl Cpu for Native {
    const FUTEX: i32 = 202;
    const BREAKPOINT: Option<u8> = Some(0xcc);
    const SIGNAL_FRAME_OFFSET: u64 = SIGNAL_RBP;
    /// `rbp`, `rbx`, `rdx`, `rax`, `rcx`, `rsp`, `rip`
    const SIGNAL_FRAME_WORDS: usize = 7;

    #[inline(always)]
    fn signal_registers(words: &[u64; 8]) -> Registers {
        Registers { fp: words[0], sp: words[5], pc: words[6], ra: 0 }
    }

    #[inline(always)]
    unsafe fn entry(saved: *const c_void) -> Entry {
        // SAFETY: as the caller says.
        unsafe {
            let pc = word(saved, RIP);
            Entry {
                registers: Registers { pc, sp: word(saved, RSP), fp: word(saved, RBP), ra: 0 },
                // A signal's handler or a new program is also begun by a system call, from its first instruction on.
                is_system_call: (word(saved, ORIG_RAX) as i64) >= 0 && word(saved, RCX) == pc,
                is_exception: word(saved, ORIG_RAX) as i64 == -1,
                is_foreign: word(saved, CS) & 0xffff != USER_CODE,
            }
        }
    }

    #[inline(always)]
    unsafe fn system_call(saved: *const c_void) -> SystemCall {
        // SAFETY: as the caller says.
        let (number, cs) = unsafe { (word(saved, ORIG_RAX), word(saved, CS)) };
        // SAFETY: as above.
        let (argument, second) = unsafe { (word(saved, RDI), word(saved, RSI)) };
        // 32-bit programs have other numbers.
        if cs & 0xffff == USER_CODE { SystemCall { number: number as i32, argument, second } } else { SystemCall::NONE }
    }

    #[inline(always)]
    unsafe fn interrupted(event: *const c_void) -> Option<Entry> {
        // SAFETY: as the caller says: the context begins with a `pt_regs`.
        let (entry, cs) = unsafe { (Self::entry(event), word(event, CS)) };
        (cs & USER_PRIVILEGE == USER_PRIVILEGE).then_some(Entry { is_system_call: false, is_exception: false, ..entry })
    }

    #[inline(always)]
    unsafe fn call(context: *const c_void) -> Call {
        // SAFETY: as the caller says: the context is a `pt_regs`.
        unsafe { Call { argument: word(context, RDI), sp: word(context, RSP) } }
    }

    #[inline(always)]
    fn code_address(value: u64) -> u64 {
        value
    }
}
