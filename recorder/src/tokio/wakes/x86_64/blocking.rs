//! Code of x86_64 that gives closures which may block to the threads that run them.

use std::ops::Range;

use iced_x86::{FlowControl, Instruction, Mnemonic, OpKind, Register};
use polletto_common::poll::HEADER_VTABLE;

use super::{changes, is_at, is_copy, is_load, saved};
use crate::{
    code::{
        Place, Unprobed,
        x86_64::{
            instructions,
            probes::{Argument, is_emulated},
        },
    },
    tokio::wakes::Told,
};

/// Of `shutdown` within Tokio's `Vtable`, bytes.
const VTABLE_SHUTDOWN: u64 = 0x30;

/// Instructions between the loading of a task's vtable and what is done with it.
const NEAR_VTABLE: usize = 4;

/// Bytes that tell whether an instruction may take an address.
pub(in crate::tokio::wakes) const TAKE_BYTES: usize = 7;

/// What `lea address(%rip), register` takes, if these bytes are one, whose first is at `address`; or what
/// `mov word(%rip), register` loads, of 8 bytes.
pub(in crate::tokio::wakes) fn taken(bytes: &[u8], address: u64) -> Option<Taken> {
    let &[0x48 | 0x4c, opcode @ (0x8b | 0x8d), modrm, first, second, third, fourth] = bytes else { return None };
    if modrm & 0xc7 != 0x05 {
        return None;
    }
    let distance = i64::from(i32::from_le_bytes([first, second, third, fourth]));
    let at = address.wrapping_add(TAKE_BYTES as u64).wrapping_add_signed(distance);
    Some(if opcode == 0x8d { Taken::Address(at) } else { Taken::Word(at) })
}

/// What an instruction takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::tokio::wakes) enum Taken {
    /// This address.
    Address(u64),
    /// What the word at this address holds.
    Word(u64),
}

/// Whether a function shuts its second argument down, if that is a task, itself or by a function that does so with its
/// first: a queue that is closed does that with what it is given.
pub(in crate::tokio::wakes) fn shuts_second_down(
    bytes: &[u8],
    function: &Range<u64>,
    shuts_first_down: impl FnMut(u64) -> bool,
) -> bool {
    let steps: Vec<Instruction> = instructions(bytes, function).collect();
    let tasks = kept_from_beginning(&steps, Argument::Second.register());
    shuts_down(&steps, &tasks) || calls_with(&steps, &tasks, shuts_first_down)
}

/// Whether a function shuts its first argument down, if that is a task.
pub(in crate::tokio::wakes) fn shuts_first_down(bytes: &[u8], function: &Range<u64>) -> bool {
    let steps: Vec<Instruction> = instructions(bytes, function).collect();
    let first = Argument::First.register();
    let tasks: Vec<Register> = std::iter::once(first).chain(kept_from_beginning(&steps, first)).collect();
    shuts_down(&steps, &tasks)
}

/// The registers into which a function copies an argument before it does anything else.
fn kept_from_beginning(steps: &[Instruction], argument: Register) -> Vec<Register> {
    let beginning =
        steps.iter().take_while(|step| step.flow_control() == FlowControl::Next && !changes(step, argument));
    beginning.filter(|step| is_copy(step) && step.op1_register() == argument).map(|step| step.op0_register()).collect()
}

/// `mov 0x10(task), vtable; mov task, %rdi; call *0x30(vtable)`
fn shuts_down(steps: &[Instruction], tasks: &[Register]) -> bool {
    steps.iter().enumerate().any(|(at, step)| {
        is_load(step, HEADER_VTABLE)
            && tasks.contains(&step.memory_base())
            && steps[at + 1..].iter().take(NEAR_VTABLE).any(|next| {
                matches!(next.flow_control(), FlowControl::IndirectCall | FlowControl::IndirectBranch)
                    && is_at(next, step.op0_register(), VTABLE_SHUTDOWN)
            })
    })
}

/// `mov task, %rdi; call function`
fn calls_with(steps: &[Instruction], tasks: &[Register], mut is_it: impl FnMut(u64) -> bool) -> bool {
    steps.windows(2).any(|pair| {
        let (copy, call) = (&pair[0], &pair[1]);
        is_copy(copy)
            && copy.op0_register() == Argument::First.register()
            && tasks.contains(&copy.op1_register())
            && call.flow_control() == FlowControl::Call
            && is_it(call.near_branch_target())
    })
}

/// The first place of a function that takes a probe, which every call comes by once, with an argument still in its register.
pub(in crate::tokio::wakes) fn at_beginning(
    bytes: &[u8],
    function: &Range<u64>,
    argument: Argument,
) -> Result<Told, Unprobed> {
    let steps: Vec<Instruction> = instructions(bytes, function).collect();
    let register = argument.register();
    let is_before = |step: &&Instruction| step.flow_control() == FlowControl::Next && !changes(step, register);
    let own = |step: &Instruction| {
        let start = (step.ip() - function.start) as usize;
        bytes.get(start..start + step.len()).unwrap_or_default()
    };
    let step = steps.iter().take_while(is_before).find(|step| is_emulated(own(step))).ok_or(Unprobed::NoPlace)?;
    let seen = function.start..step.next_ip();
    let is_entered_again = steps.iter().any(|other| {
        other.mnemonic() != Mnemonic::Call
            && other.op0_kind() == OpKind::NearBranch64
            && seen.contains(&other.near_branch_target())
    });
    if is_entered_again || steps[0].ip() != function.start {
        return Err(Unprobed::NoPlace);
    }
    let place = Place::emulated(bytes, function, step, function.start, 0);
    Ok(Told { place, header: saved(register).ok_or(Unprobed::NoPlace)? })
}
