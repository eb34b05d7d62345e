//! aarch64: `struct pt_regs` in words. It begins with `user_pt_regs`.

use core::ffi::c_void;

use super::{Call, Cpu, Entry, Registers, SystemCall, word};

const X0: usize = 0;
const X1: usize = 1;
const X29: usize = 29;
const X30: usize = 30;
const SP: usize = 31;
const PC: usize = 32;
const PSTATE: usize = 33;
/// `x0` as it was when the kernel was entered: a system call's first argument.
const ORIG_X0: usize = 34;
/// The system call's number in its lower half; −1 after an interrupt.
const SYSCALLNO: usize = 35;

/// `PSTATE.M`: the exception level; 0 in 64-bit programs.
const MODE: u64 = 0xf;
/// `PSTATE.M[4]`: 32-bit code.
const AARCH32: u64 = 0x10;

/// Bits of an address without those that sign it. Programs have at most 52 with the largest pages, and 48 otherwise.
const ADDRESS_BITS: u64 = (1 << 52) - 1;

/// `siginfo` (128), `uc_flags` and `uc_link` (16), `uc_stack` (24), `uc_sigmask` with its padding (128), padding to 16,
/// `fault_address` (8), then `x0`.
const SIGNAL_X29: u64 = 128 + 176 + 8 + 29 * 8;

/// See [`Cpu`].
pub struct Native;

impl Cpu for Native {
    const FUTEX: i32 = 98;
    const BREAKPOINT: Option<u8> = None;
    const SIGNAL_FRAME_OFFSET: u64 = SIGNAL_X29;
    /// `x29`, `x30`, `sp`, `pc`
    const SIGNAL_FRAME_WORDS: usize = 4;

    #[inline(always)]
    fn signal_registers(words: &[u64; 8]) -> Registers {
        Registers { fp: words[0], ra: Self::code_address(words[1]), sp: words[2], pc: words[3] }
    }

    #[inline(always)]
    unsafe fn entry(saved: *const c_void) -> Entry {
        // SAFETY: as the caller says.
        unsafe {
            Entry {
                registers: Registers {
                    pc: word(saved, PC),
                    sp: word(saved, SP),
                    fp: word(saved, X29),
                    ra: Self::code_address(word(saved, X30)),
                },
                is_system_call: (word(saved, SYSCALLNO) as i32) >= 0,
                is_exception: false,
                is_foreign: word(saved, PSTATE) & AARCH32 != 0,
            }
        }
    }

    #[inline(always)]
    unsafe fn system_call(saved: *const c_void) -> SystemCall {
        // SAFETY: as the caller says.
        let (number, pstate) = unsafe { (word(saved, SYSCALLNO), word(saved, PSTATE)) };
        // SAFETY: as above.
        let (argument, second) = unsafe { (word(saved, ORIG_X0), word(saved, X1)) };
        // 32-bit programs have other numbers.
        if pstate & AARCH32 == 0 { SystemCall { number: number as i32, argument, second } } else { SystemCall::NONE }
    }

    #[inline(always)]
    unsafe fn interrupted(event: *const c_void) -> Option<Entry> {
        // SAFETY: as the caller says: the context begins with a `user_pt_regs`, and has no system call's number.
        unsafe {
            let pstate = word(event, PSTATE);
            (pstate & MODE == 0).then_some(Entry {
                registers: Registers {
                    pc: word(event, PC),
                    sp: word(event, SP),
                    fp: word(event, X29),
                    ra: Self::code_address(word(event, X30)),
                },
                is_system_call: false,
                is_exception: false,
                is_foreign: pstate & AARCH32 != 0,
            })
        }
    }

    #[inline(always)]
    unsafe fn call(context: *const c_void) -> Call {
        // SAFETY: as the caller says: the context is a `pt_regs`.
        unsafe { Call { argument: word(context, X0), sp: word(context, SP) } }
    }

    #[inline(always)]
    fn code_address(value: u64) -> u64 {
        value & ADDRESS_BITS
    }
}
