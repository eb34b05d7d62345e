//! AMD64: a call pushes the return address, so the caller's stack pointer is always right above it.

use gimli::{Operation, Register, RegisterRule, Vendor, X86_64 as Registers};
use polletto_common::unwind::{Cfa, Rule, Saved};

use super::rule::{CfaPart, Cpu, Frame, bare};

pub(super) struct X86_64;

impl Cpu for X86_64 {
    const STACK_POINTER: Register = Registers::RSP;
    const FRAME_POINTER: Register = Registers::RBP;
    const VENDOR: Vendor = Vendor::Default;

    fn rule(frame: &Frame<'_, '_>) -> Rule {
        let return_address = match frame.register(Registers::RA) {
            Some(RegisterRule::Undefined) => return bare(Cfa::END_OF_STACK),
            Some(RegisterRule::Offset(offset)) => i16::try_from(offset).ok(),
            _ => None,
        };
        let cfa = linkage_table(frame).or_else(|| frame.cfa::<Self>());
        match (cfa, return_address) {
            (Some(cfa), Some(offset)) => cfa.with((Saved::AT_CFA, offset), frame.frame_pointer::<Self>()),
            _ => bare(Cfa::UNSUPPORTED),
        }
    }

    /// Where a stub begins, the return address has just been pushed. In stubs that are bound when they are first called,
    /// the rest of it pushes more; but where a linker leaves no unwind information, they are mostly bound at the start.
    fn linkage_rule() -> Rule {
        CfaPart::new(Cfa::STACK_POINTER, 8).with((Saved::AT_CFA, -8), (Saved::UNCHANGED, 0))
    }
}

/// `rsp + 8 + ((rip & 15 >= n) << 3)`: linkers say with one expression for all stubs, each of 16 bytes, that they push
/// once before their byte `n`.
fn linkage_table(frame: &Frame<'_, '_>) -> Option<CfaPart> {
    match frame.cfa_operations()?[..] {
        [
            Operation::RegisterOffset { register: Registers::RSP, offset: 8, .. },
            Operation::RegisterOffset { register: Registers::RA, offset: 0, .. },
            Operation::UnsignedConstant { value: 15 },
            Operation::And,
            Operation::UnsignedConstant { value: pushed @ 0..=15 },
            Operation::Ge,
            Operation::UnsignedConstant { value: 3 },
            Operation::Shl,
            Operation::Plus,
        ] => Some(CfaPart::new(Cfa::LINKAGE_TABLE, pushed as i32)),
        _ => None,
    }
}
