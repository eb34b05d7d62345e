//! Instructions of x86_64.

pub(crate) mod probes;
mod registers;

use std::ops::Range;

use iced_x86::{Code, Decoder, DecoderOptions, FlowControl, Instruction, Mnemonic, OpKind};

use super::{Reference, ThreadLocals};

/// A reference as the instruction has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Raw {
    Direct(Reference),
    /// It calls what the word at this address holds.
    CallThrough(u64),
    /// It jumps to what the word at this address holds.
    JumpThrough(u64),
}

/// What the instructions of a function refer to, in their order.
///
/// Compilers for x86_64 put nothing but instructions between the first and the last byte of a function.
pub(super) fn references(bytes: &[u8], function: &Range<u64>) -> impl Iterator<Item = Raw> {
    instructions(bytes, function).filter_map(|instruction| reference(&instruction, function))
}

/// What the instructions of a function do with thread-locals that are at fixed distances from the thread pointer.
pub(super) fn thread_locals(
    bytes: &[u8],
    function: &Range<u64>,
    returned_by: &mut dyn FnMut(u64) -> Option<i64>,
) -> ThreadLocals {
    registers::accesses(instructions(bytes, function), function, returned_by)
}

pub(crate) fn instructions(bytes: &[u8], function: &Range<u64>) -> impl Iterator<Item = Instruction> {
    let mut decoder = Decoder::with_ip(64, bytes, function.start, DecoderOptions::NONE);
    std::iter::from_fn(move || decoder.can_decode().then(|| decoder.decode()))
        .filter(|next| next.code() != Code::INVALID)
}

fn reference(instruction: &Instruction, function: &Range<u64>) -> Option<Raw> {
    let near = instruction.near_branch_target();
    let word = instruction.is_ip_rel_memory_operand().then(|| instruction.ip_rel_memory_address());
    match (instruction.flow_control(), instruction.op0_kind()) {
        (FlowControl::Call, OpKind::NearBranch64) => Some(Raw::Direct(Reference::Call(near))),
        (FlowControl::UnconditionalBranch | FlowControl::ConditionalBranch, OpKind::NearBranch64) => {
            (!function.contains(&near)).then_some(Raw::Direct(Reference::Jump(near)))
        }
        (FlowControl::IndirectCall, _) => word.map(Raw::CallThrough),
        (FlowControl::IndirectBranch, _) => word.map(Raw::JumpThrough),
        // Padding may look like a reference.
        _ if instruction.mnemonic() == Mnemonic::Nop => None,
        _ => word.map(|word| Raw::Direct(Reference::Data(word))),
    }
}
