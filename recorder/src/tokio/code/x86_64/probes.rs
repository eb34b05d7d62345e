//! Where probes can stand in code of x86_64.
//!
//! A probe is cheap, and safe whatever else the thread does, where the kernel carries the instruction out itself: then it
//! never runs a copy of it elsewhere. Which it does is in its `arch/x86/kernel/uprobes.c`: `nop`, `push` of a register,
//! jumps and calls to fixed places.

use std::{collections::VecDeque, ops::Range};

use iced_x86::{
    Code, Decoder, DecoderOptions, FlowControl, Instruction, InstructionInfoFactory, Mnemonic, OpAccess, OpKind,
    Register,
};

use crate::tokio::probes::{AfterReturn, Place, Unprobed};

/// Instructions that are looked at.
const MAX_STEPS: usize = 48;

/// The first place, from a function's first instruction on, at which every call comes by with its first argument still in
/// its register. `bytes` are the function's.
pub(in crate::tokio) fn at_entry(bytes: &[u8], function: &Range<u64>, entry: u64) -> Result<Place, Unprobed> {
    let mut facts = InstructionInfoFactory::new();
    let mut moved = 0;
    for (instruction, code) in steps(bytes, function, entry)? {
        if is_emulated(code) {
            let place = Place { address: instruction.ip(), moved, seen: entry..instruction.next_ip() };
            return if is_jumped_to(bytes, function, &place.seen) { Err(Unprobed::NoPlace) } else { Ok(place) };
        }
        let keeps = facts.info(&instruction).used_registers().iter().all(|used| {
            used.register().full_register() != Register::RDI
                || matches!(used.access(), OpAccess::Read | OpAccess::CondRead)
        });
        if !keeps || instruction.flow_control() != FlowControl::Next {
            return Err(Unprobed::NoPlace);
        }
        moved += stack_step(&instruction, &mut facts)?;
    }
    Err(Unprobed::NoPlace)
}

/// The first place behind a call, which every return from it comes by.
pub(in crate::tokio) fn after_return(
    bytes: &[u8],
    function: &Range<u64>,
    address: u64,
) -> Result<AfterReturn, Unprobed> {
    let mut facts = InstructionInfoFactory::new();
    let mut moved = 0;
    for (instruction, code) in steps(bytes, function, address)? {
        if is_emulated(code) {
            return Ok(AfterReturn::Place(Place {
                address: instruction.ip(),
                moved,
                seen: address..instruction.next_ip(),
            }));
        }
        match instruction.flow_control() {
            FlowControl::Next => moved += stack_step(&instruction, &mut facts)?,
            FlowControl::Return if instruction.code() == Code::Retnq && moved >= 0 => {
                return Ok(AfterReturn::Outwards { bytes: moved as u64 + 8 });
            }
            _ => return Err(Unprobed::NoPlace),
        }
    }
    Err(Unprobed::NoPlace)
}

/// Whether a call through memory may begin in these bytes: `call *(register)`.
pub(in crate::tokio) fn may_be_call(bytes: &[u8]) -> bool {
    matches!(bytes, [0xff, 0x10..=0x13 | 0x16 | 0x17, ..])
}

/// Where the calls return to that are made as those of polls: `call *(vtable)`, with the `Header` as the argument from which
/// the vtable was read.
pub(in crate::tokio) fn likely_returns(bytes: &[u8], function: &Range<u64>) -> Vec<u64> {
    /// Of the vtable within Tokio's `Header`, bytes.
    const VTABLE: u64 = 0x10;
    /// Instructions before the call.
    const NEAR: usize = 6;
    let mut before: VecDeque<Instruction> = VecDeque::with_capacity(NEAR + 1);
    let mut found = Vec::new();
    for instruction in super::instructions(bytes, function) {
        let is_call = instruction.flow_control() == FlowControl::IndirectCall
            && instruction.op0_kind() == OpKind::Memory
            && instruction.memory_index() == Register::None
            && instruction.memory_displacement64() == 0;
        if is_call {
            let vtable = instruction.memory_base();
            let header = before.iter().rev().find_map(|earlier| {
                let is_load = earlier.mnemonic() == Mnemonic::Mov
                    && earlier.op0_register() == vtable
                    && earlier.op1_kind() == OpKind::Memory
                    && earlier.memory_index() == Register::None
                    && earlier.memory_displacement64() == VTABLE;
                is_load.then_some(earlier.memory_base())
            });
            let is_argument = |header: Register| {
                let moves = |earlier: &Instruction| {
                    earlier.mnemonic() == Mnemonic::Mov
                        && earlier.op0_register() == Register::RDI
                        && earlier.op1_register() == header
                };
                header == Register::RDI || before.iter().any(moves)
            };
            if header.is_some_and(is_argument) {
                found.push(instruction.next_ip());
            }
        }
        before.push_back(instruction);
        if before.len() > NEAR {
            before.pop_front();
        }
    }
    found
}

/// The instructions from an address on, each with its bytes. The address must be one at which the instructions of the
/// function arrive when they are read from its beginning.
fn steps<'b>(
    bytes: &'b [u8],
    function: &Range<u64>,
    address: u64,
) -> Result<impl Iterator<Item = (Instruction, &'b [u8])>, Unprobed> {
    let start = function.start;
    let mut decoder = Decoder::with_ip(64, bytes, start, DecoderOptions::NONE);
    while decoder.ip() < address {
        if !decoder.can_decode() || decoder.decode().code() == Code::INVALID {
            return Err(Unprobed::NoInstruction);
        }
    }
    if decoder.ip() != address {
        return Err(Unprobed::NoInstruction);
    }
    let steps = std::iter::from_fn(move || decoder.can_decode().then(|| decoder.decode()))
        .take_while(|step| step.code() != Code::INVALID)
        .map(move |step| (step, &bytes[(step.ip() - start) as usize..(step.next_ip() - start) as usize]))
        .take(MAX_STEPS);
    Ok(steps)
}

/// Whether the function itself jumps to any of these addresses: then it is not only its callers who come by.
fn is_jumped_to(bytes: &[u8], function: &Range<u64>, addresses: &Range<u64>) -> bool {
    super::instructions(bytes, function).any(|instruction| {
        let is_jump =
            matches!(instruction.flow_control(), FlowControl::UnconditionalBranch | FlowControl::ConditionalBranch);
        is_jump && addresses.contains(&instruction.near_branch_target())
    })
}

/// How far an instruction moves the stack pointer up, bytes.
fn stack_step(instruction: &Instruction, facts: &mut InstructionInfoFactory) -> Result<i64, Unprobed> {
    let is_fixed = matches!(instruction.op1_kind(), OpKind::Immediate8to64 | OpKind::Immediate32to64);
    if instruction.op0_kind() == OpKind::Register && instruction.op0_register() == Register::RSP && is_fixed {
        let bytes = instruction.immediate(1) as i64;
        match instruction.mnemonic() {
            Mnemonic::Add => return Ok(bytes),
            Mnemonic::Sub => return Ok(-bytes),
            _ => {}
        }
    }
    match instruction.mnemonic() {
        Mnemonic::Pop if instruction.op0_register() != Register::RSP => return Ok(8),
        Mnemonic::Push => return Ok(-8),
        _ => {}
    }
    let changes = facts.info(instruction).used_registers().iter().any(|used| {
        used.register().full_register() == Register::RSP
            && !matches!(used.access(), OpAccess::Read | OpAccess::CondRead)
    });
    if changes { Err(Unprobed::NoPlace) } else { Ok(0) }
}

/// Whether the kernel carries an instruction out itself, since Linux 5.0 at the latest.
pub(super) fn is_emulated(code: &[u8]) -> bool {
    match code {
        // nop; push of a register; jcc and jmp of a byte's distance
        [0x90 | 0x50..=0x57] | [0x41, 0x50..=0x57] | [0x70..=0x7f | 0xeb, _] => true,
        // call and jmp
        [0xe8 | 0xe9, _, _, _, _] => true,
        // jcc
        [0x0f, 0x80..=0x8f, _, _, _, _] => true,
        _ => false,
    }
}
