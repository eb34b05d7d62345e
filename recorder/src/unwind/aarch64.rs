//! ARM, 64 bit: a call puts the return address into the link register, and functions that call others save it.

use gimli::{AArch64 as Registers, Register, RegisterRule, Vendor};
use polletto_common::unwind::{Cfa, Rule, Saved};

use super::rule::{CfaPart, Cpu, Frame, bare};

pub(super) struct Aarch64;

impl Cpu for Aarch64 {
    const STACK_POINTER: Register = Registers::SP;
    const FRAME_POINTER: Register = Registers::X29;
    /// Its own instruction says whether a return address is signed. Signed ones are saved at the same places.
    const VENDOR: Vendor = Vendor::AArch64;

    fn rule(frame: &Frame<'_, '_>) -> Rule {
        if frame.common.return_address_register() != Registers::X30 {
            return bare(Cfa::UNSUPPORTED);
        }
        let return_address = match frame.register(Registers::X30) {
            Some(RegisterRule::Undefined) => return bare(Cfa::END_OF_STACK),
            None | Some(RegisterRule::SameValue) => Some((Saved::UNCHANGED, 0)),
            Some(RegisterRule::Offset(offset)) => i16::try_from(offset).ok().map(|offset| (Saved::AT_CFA, offset)),
            Some(_) => None,
        };
        match (frame.cfa::<Self>(), return_address) {
            (Some(cfa), Some(return_address)) => cfa.with(return_address, frame.frame_pointer::<Self>()),
            _ => bare(Cfa::UNSUPPORTED),
        }
    }

    /// Stubs leave the stack and the link register alone. Only what they have in common for binding a function when it is
    /// first called saves two registers, but where a linker leaves no unwind information, they are mostly bound at the start.
    fn linkage_rule() -> Rule {
        CfaPart::new(Cfa::STACK_POINTER, 0).with((Saved::UNCHANGED, 0), (Saved::UNCHANGED, 0))
    }
}
