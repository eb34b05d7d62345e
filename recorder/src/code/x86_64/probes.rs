//! Where probes can stand in code of x86_64.
//!
//! A probe is cheap where the kernel carries the instruction out itself. Which it does is in its
//! `arch/x86/kernel/uprobes.c`: `nop`, `push` of a register, jumps and calls to fixed places. Others the thread runs as a copy
//! elsewhere, in a single step, which takes ten times as long: they are the last resort, and only those are taken that do
//! the same wherever they stand.

use std::{
    collections::VecDeque,
    ops::{Range, RangeInclusive},
};

use iced_x86::{
    Code, Decoder, DecoderOptions, FlowControl, Instruction, InstructionInfoFactory, Mnemonic, OpAccess, OpKind,
    Register,
};

use crate::code::{AfterReturn, Place, Seen, Unprobed};

/// Instructions that are looked at.
const MAX_STEPS: usize = 48;

/// Which argument of a function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Argument {
    First,
    Second,
}

impl Argument {
    /// Where callers put it.
    pub(crate) fn register(self) -> Register {
        match self {
            Argument::First => Register::RDI,
            Argument::Second => Register::RSI,
        }
    }
}

/// The first place, from a function's first instruction on, at which every call comes by with an argument still in its
/// register. `bytes` are the function's.
pub(crate) fn at_entry(bytes: &[u8], function: &Range<u64>, entry: u64, argument: Argument) -> Result<Place, Unprobed> {
    let mut facts = InstructionInfoFactory::new();
    let mut moved = 0;
    let mut place = Err(Unprobed::NoPlace);
    for (instruction, code) in steps(bytes, function, entry)? {
        if is_emulated(code) {
            place = Ok(Place::emulated(bytes, function, &instruction, entry, moved));
            break;
        }
        if place.is_err() && is_the_same_elsewhere(&instruction) {
            place = Ok(Place::stepped(bytes, function, &instruction, entry, moved));
        }
        let keeps = facts.info(&instruction).used_registers().iter().all(|used| {
            used.register().full_register() != argument.register()
                || matches!(used.access(), OpAccess::Read | OpAccess::CondRead)
        });
        let step = stack_step(&instruction, &mut facts);
        match step {
            Ok(step) if keeps && instruction.flow_control() == FlowControl::Next => moved += step,
            _ => break,
        }
    }
    place.and_then(|place| {
        if is_jumped_to(bytes, function, &place.seen.addresses()) { Err(Unprobed::NoPlace) } else { Ok(place) }
    })
}

/// The first place behind a call, which every return from it comes by.
pub(crate) fn after_return(bytes: &[u8], function: &Range<u64>, address: u64) -> Result<AfterReturn, Unprobed> {
    let mut facts = InstructionInfoFactory::new();
    let mut moved = 0;
    let mut place = Err(Unprobed::NoPlace);
    for (instruction, code) in steps(bytes, function, address)? {
        if is_emulated(code) {
            return Ok(AfterReturn::Place(Place::emulated(bytes, function, &instruction, address, moved)));
        }
        if place.is_err() && is_the_same_elsewhere(&instruction) {
            place = Ok(AfterReturn::Place(Place::stepped(bytes, function, &instruction, address, moved)));
        }
        match (instruction.flow_control(), stack_step(&instruction, &mut facts)) {
            (FlowControl::Next, Ok(step)) => moved += step,
            (FlowControl::Return, _) if instruction.code() == Code::Retnq && moved >= 0 => {
                return Ok(AfterReturn::Outwards { bytes: moved as u64 + 8 });
            }
            _ => break,
        }
    }
    place
}

impl Place {
    /// At an instruction that the kernel carries out itself, to which those from `from` on lead. `bytes` are the function's.
    pub(crate) fn emulated(
        bytes: &[u8],
        function: &Range<u64>,
        instruction: &Instruction,
        from: u64,
        moved: i64,
    ) -> Place {
        let seen = Seen::of(bytes, function, from..instruction.next_ip());
        Place { address: instruction.ip(), moved, seen, is_stepped: false }
    }

    /// At one of which the thread runs a copy.
    fn stepped(bytes: &[u8], function: &Range<u64>, instruction: &Instruction, from: u64, moved: i64) -> Place {
        Place { is_stepped: true, ..Place::emulated(bytes, function, instruction, from, moved) }
    }
}

/// What the calls look like that poll: through a slot of a vtable whose address was read from the task, which is the
/// argument.
#[derive(Debug)]
pub struct PollCall {
    /// Where tasks may have the address of their vtable, bytes.
    pub vtable: RangeInclusive<u64>,
    /// Where the vtable has the address of the function, bytes.
    pub slot: u8,
    /// A function that does nothing but that: it jumps there.
    pub handover: [u8; 6],
}

/// Whether a call that polls may begin in these bytes: `call *(register)` or `call *slot(register)`.
pub(crate) fn may_be_call(bytes: &[u8], polls: &PollCall) -> bool {
    match bytes {
        [0xff, 0x10..=0x13 | 0x16 | 0x17, ..] => polls.slot == 0,
        [0xff, 0x50..=0x53 | 0x55..=0x57, slot] => polls.slot != 0 && *slot == polls.slot,
        _ => false,
    }
}

/// Where the calls return to that are made as those of polls.
pub(crate) fn likely_returns(bytes: &[u8], function: &Range<u64>, polls: &PollCall) -> Vec<u64> {
    /// Instructions before the call.
    const NEAR: usize = 6;
    let mut before: VecDeque<Instruction> = VecDeque::with_capacity(NEAR + 1);
    let mut found = Vec::new();
    for instruction in super::instructions(bytes, function) {
        let is_call = instruction.flow_control() == FlowControl::IndirectCall
            && instruction.op0_kind() == OpKind::Memory
            && instruction.memory_index() == Register::None
            && instruction.memory_displacement64() == u64::from(polls.slot);
        if is_call {
            let vtable = instruction.memory_base();
            let header = before.iter().rev().find_map(|earlier| {
                let is_load = earlier.mnemonic() == Mnemonic::Mov
                    && earlier.op0_register() == vtable
                    && earlier.op1_kind() == OpKind::Memory
                    && earlier.memory_index() == Register::None
                    && polls.vtable.contains(&earlier.memory_displacement64());
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

/// Where functions begin that do nothing but hand a poll over. Counted from the first byte.
pub(crate) fn handovers(code: &[u8], polls: &PollCall) -> impl Iterator<Item = u64> {
    let handover = polls.handover;
    code.windows(handover.len()).zip(0..).filter(move |(bytes, _)| *bytes == handover).map(|(_, at)| at)
}

/// Where calls of these functions return to, for all that bytes look like: calls of a fixed place, and through a pointer
/// at one. The first byte stands at `start`.
pub(crate) fn returns_of_calls(
    code: &[u8],
    start: u64,
    pointed_to: impl Fn(u64) -> Option<u64>,
    is_one: impl Fn(u64) -> bool,
) -> impl Iterator<Item = u64> {
    let called = move |bytes: &[u8], at: u64| {
        let place = |distance: &[u8], next: u64| {
            let distance = distance.try_into().map(i32::from_le_bytes).unwrap_or_default();
            next.wrapping_add_signed(distance.into())
        };
        match bytes {
            [0xe8, distance @ .., _] => Some((place(distance, at + 5), at + 5)),
            [0xff, 0x15, distance @ ..] => Some((pointed_to(place(distance, at + 6))?, at + 6)),
            _ => None,
        }
    };
    code.windows(6)
        .zip(start..)
        .filter_map(move |(bytes, at)| called(bytes, at))
        .filter_map(move |(to, next)| is_one(to).then_some(next))
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

/// Whether an instruction does the same wherever it stands, and nothing that a debugger would have to know of: it moves or
/// compares what is in registers or on the stack.
fn is_the_same_elsewhere(instruction: &Instruction) -> bool {
    let is_plain = matches!(
        instruction.mnemonic(),
        Mnemonic::Mov | Mnemonic::Lea | Mnemonic::Add | Mnemonic::Sub | Mnemonic::Test | Mnemonic::Cmp | Mnemonic::Xor
    );
    let is_near = |operand| match instruction.op_kind(operand) {
        OpKind::Register => instruction.op_register(operand).is_gpr(),
        OpKind::Memory => matches!(instruction.memory_base(), Register::RSP | Register::RBP),
        kind => matches!(
            kind,
            OpKind::Immediate8
                | OpKind::Immediate32
                | OpKind::Immediate8to32
                | OpKind::Immediate8to64
                | OpKind::Immediate32to64
        ),
    };
    is_plain
        && !instruction.has_lock_prefix()
        && instruction.segment_prefix() == Register::None
        && (0..instruction.op_count()).all(is_near)
}

/// Whether the kernel carries an instruction out itself, since Linux 5.0 at the latest.
pub(crate) fn is_emulated(code: &[u8]) -> bool {
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
