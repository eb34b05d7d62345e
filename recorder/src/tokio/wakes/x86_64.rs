//! Code of x86_64 that wakes and spawns tasks: how it is recognised, and where probes can stand in it.

pub(super) mod blocking;

use std::ops::Range;

use iced_x86::{FlowControl, Instruction, InstructionInfoFactory, Mnemonic, OpAccess, OpKind, Register};
use polletto_common::poll::{HEADER_VTABLE, Register as Saved, VTABLE_OFFSETS};

use super::Told;
use crate::code::{
    Place, Unprobed,
    x86_64::{
        instructions,
        probes::{Argument, at_entry, is_emulated},
    },
};

/// Of the owner's id within Tokio's `Header`, bytes.
const HEADER_OWNER: u64 = 0x18;
/// Of `schedule`, and of the offsets of the trailer and the id, within Tokio's `Vtable`, bytes.
const VTABLE_SCHEDULE: u64 = 0x8;
const VTABLE_TRAILER: u64 = VTABLE_OFFSETS;
const VTABLE_ID: u64 = VTABLE_OFFSETS + 0x10;

/// What one more reference adds to the word that a task begins with.
const ONE_REFERENCE: i64 = 0x40;

/// Instructions of a function that wakes. The largest have some hundred.
const MAX_WAKER: usize = 512;

/// Instructions in which a count of references is looked for, from the function's beginning.
const NEAR_ENTRY: usize = 8;

/// Instructions before a store in which what it stores was loaded.
const NEAR_STORE: usize = 4;

/// Instructions before the store of an owner's id in which the task got its vtable.
const NEAR_VTABLE: usize = 64;

/// Instructions behind the store of an owner's id in which the task is put into the owner's list.
const NEAR_LIST: usize = 160;

/// Instructions between a task's making and a place for a probe.
const NEAR_PLACE: usize = 24;

/// Registers that calls leave as they are.
const KEPT: [Register; 6] = [Register::RBX, Register::RBP, Register::R12, Register::R13, Register::R14, Register::R15];

/// `struct pt_regs`
const SAVED: [Register; 15] = [
    Register::R15,
    Register::R14,
    Register::R13,
    Register::R12,
    Register::RBP,
    Register::RBX,
    Register::R11,
    Register::R10,
    Register::R9,
    Register::R8,
    Register::RAX,
    Register::RCX,
    Register::RDX,
    Register::RSI,
    Register::RDI,
];

pub(super) fn saved(register: Register) -> Option<Saved> {
    SAVED.iter().position(|own| *own == register).map(|index| Saved(index as u8))
}

/// Whether a function begins by counting one more reference to its argument.
pub(super) fn counts_up(bytes: &[u8], function: &Range<u64>) -> bool {
    counts(bytes, function, ONE_REFERENCE)
}

/// Whether a function begins by counting one reference less.
pub(super) fn counts_down(bytes: &[u8], function: &Range<u64>) -> bool {
    counts(bytes, function, -ONE_REFERENCE)
}

/// `mov $step, register; lock xadd register, (%rdi)`, or for size `push $step; pop register` before the last.
fn counts(bytes: &[u8], function: &Range<u64>, step: i64) -> bool {
    let mut constants: Vec<(Register, i64)> = Vec::new();
    let mut pushed = None;
    for instruction in instructions(bytes, function).take(NEAR_ENTRY) {
        let (first, second) = (instruction.op0_kind(), instruction.op1_kind());
        match instruction.mnemonic() {
            Mnemonic::Xadd if instruction.has_lock_prefix() && is_at(&instruction, Register::RDI, 0) => {
                let own = instruction.op1_register();
                return constants.iter().rev().find(|known| known.0 == own).is_some_and(|known| known.1 == step);
            }
            Mnemonic::Mov if first == OpKind::Register && is_immediate(second) => {
                let value = match instruction.op0_register().size() {
                    4 => i64::from(instruction.immediate(1) as u32),
                    _ => instruction.immediate(1) as i64,
                };
                constants.push((instruction.op0_register().full_register(), value));
            }
            Mnemonic::Push => pushed = is_immediate(first).then(|| instruction.immediate(0) as i64),
            Mnemonic::Pop => constants.extend(pushed.take().map(|value| (instruction.op0_register(), value))),
            _ if instruction.flow_control() != FlowControl::Next => return false,
            _ => {}
        }
    }
    false
}

/// The other function that one calls, or jumps to, first of all that it does with its argument.
pub(super) fn leads_to(bytes: &[u8], function: &Range<u64>) -> Option<u64> {
    for step in instructions(bytes, function).take(NEAR_ENTRY) {
        let is_near = step.op0_kind() == OpKind::NearBranch64;
        match step.flow_control() {
            FlowControl::Next if !changes(&step, Register::RDI) => {}
            FlowControl::Call | FlowControl::UnconditionalBranch if is_near => {
                return Some(step.near_branch_target()).filter(|to| !function.contains(to));
            }
            _ => return None,
        }
    }
    None
}

/// Whether a function calls `schedule` of its argument's vtable.
pub(super) fn schedules(bytes: &[u8], function: &Range<u64>) -> bool {
    let mut vtables: Vec<Register> = Vec::new();
    for instruction in instructions(bytes, function).take(MAX_WAKER) {
        let is_through = matches!(instruction.flow_control(), FlowControl::IndirectCall | FlowControl::IndirectBranch);
        if is_through && vtables.iter().any(|&vtable| is_at(&instruction, vtable, VTABLE_SCHEDULE)) {
            return true;
        }
        if is_load(&instruction, HEADER_VTABLE) {
            vtables.push(instruction.op0_register());
        }
    }
    false
}

/// The first place that every call of a function comes by once before it returns, with an argument of it still in its
/// register. Calls that never return need not.
pub(super) fn passed_once(bytes: &[u8], function: &Range<u64>, argument: Argument) -> Result<Told, Unprobed> {
    let register = argument.register();
    let steps: Vec<Instruction> = instructions(bytes, function).take(MAX_WAKER + 1).collect();
    let end = steps.last().ok_or(Unprobed::NoInstruction)?.next_ip();
    // Where bytes are no instructions, more may be left out than those.
    if steps.len() > MAX_WAKER || end < function.end || !follow_one_another(&steps) {
        return Err(Unprobed::NoInstruction);
    }
    let flow = Flow::new(&steps, function)?;
    let changes: Vec<bool> = steps.iter().map(|step| changes(step, register)).collect();
    for (at, step) in steps.iter().enumerate() {
        if !is_emulated(own_bytes(bytes, function, step)) {
            continue;
        }
        let before = flow.reached(0, Some(at));
        let leads_there = |from: usize| flow.reached(from, None)[at];
        let is_missed = at != 0 && before.iter().zip(&flow.leaves).any(|(reached, leaves)| *reached && *leaves);
        let is_repeated = flow.next[at].iter().any(|&next| leads_there(next));
        let is_lost = (0..steps.len()).any(|from| from != at && before[from] && changes[from] && leads_there(from));
        if !before[at] || is_missed || is_repeated || is_lost {
            continue;
        }
        let place = Place::emulated(bytes, function, step, function.start, 0);
        return Ok(Told { place, header: saved(register).ok_or(Unprobed::NoPlace)? });
    }
    Err(Unprobed::NoPlace)
}

/// As [`passed_once`], or at the function's beginning at any cost: nobody has optimized it.
pub(super) fn passed(bytes: &[u8], function: &Range<u64>, argument: Argument) -> Result<Told, Unprobed> {
    let at_entry = || {
        let place = at_entry(bytes, function, function.start, argument)?;
        Ok(Told { place, header: saved(argument.register()).ok_or(Unprobed::NoPlace)? })
    };
    passed_once(bytes, function, argument).or_else(|_| at_entry())
}

/// Where a function's instructions lead to, by their numbers.
struct Flow {
    next: Vec<Vec<usize>>,
    /// Whether they may leave the function, other than by a call.
    leaves: Vec<bool>,
}

impl Flow {
    fn new(steps: &[Instruction], function: &Range<u64>) -> Result<Flow, Unprobed> {
        let (mut next, mut leaves) = (Vec::with_capacity(steps.len()), Vec::with_capacity(steps.len()));
        for (at, step) in steps.iter().enumerate() {
            let behind = (at + 1 < steps.len()).then_some(at + 1);
            let target = step.near_branch_target();
            let jump = || match steps.binary_search_by_key(&target, Instruction::ip) {
                Ok(index) => Ok(Some(index)),
                // Into the middle of an instruction.
                Err(_) if function.contains(&target) => Err(Unprobed::NoInstruction),
                Err(_) => Ok(None),
            };
            let (to, leaves_here) = match step.flow_control() {
                FlowControl::UnconditionalBranch => {
                    let to = jump()?;
                    (vec![to], to.is_none())
                }
                FlowControl::ConditionalBranch => {
                    let to = jump()?;
                    (vec![to, behind], to.is_none())
                }
                FlowControl::Return | FlowControl::IndirectBranch => (Vec::new(), true),
                FlowControl::Exception | FlowControl::Interrupt => (Vec::new(), false),
                _ => (vec![behind], false),
            };
            next.push(to.into_iter().flatten().collect());
            leaves.push(leaves_here);
        }
        Ok(Flow { next, leaves })
    }

    /// The instructions that may follow on this one, itself included, and not by way of `barrier`, which may be the last.
    fn reached(&self, from: usize, barrier: Option<usize>) -> Vec<bool> {
        let mut reached = vec![false; self.next.len()];
        let mut left = vec![from];
        while let Some(at) = left.pop() {
            if !std::mem::replace(&mut reached[at], true) && Some(at) != barrier {
                left.extend(&self.next[at]);
            }
        }
        reached
    }
}

/// The places in a function at which a task has just been made, and is given to the list of its owner.
///
/// Its owner's id is put into the task, and either the task got its vtable just before, or its id or trailer is found
/// through that just after: no other code does so. Where the task is an argument, the place is at the function's beginning,
/// else behind the store.
pub(super) fn spawns(bytes: &[u8], function: &Range<u64>, is_vtable: impl Fn(u64) -> bool) -> Vec<Told> {
    let steps: Vec<Instruction> = instructions(bytes, function).collect();
    if !follow_one_another(&steps) {
        return Vec::new();
    }
    let is_made = |at: usize| puts_into_list(&steps, at) || takes_vtable(&steps, at, &is_vtable);
    let stores = (0..steps.len()).filter(|&at| takes_owner(&steps, at) && is_made(at));
    let places = stores.filter_map(|at| {
        at_beginning(bytes, function, &steps, at).or_else(|| {
            let header = steps[at].memory_base();
            behind(bytes, function, &steps, at, header)
        })
    });
    places.collect()
}

/// The place behind the first call of one of these functions, which make a task and return it.
pub(super) fn behind_call(bytes: &[u8], function: &Range<u64>, makes_task: impl Fn(u64) -> bool) -> Option<Told> {
    let steps: Vec<Instruction> = instructions(bytes, function).collect();
    let is_call =
        |step: &Instruction| step.flow_control() == FlowControl::Call && makes_task(step.near_branch_target());
    let at = steps.iter().position(is_call).filter(|_| follow_one_another(&steps))?;
    behind(bytes, function, &steps, at, Register::RAX)
}

/// Bytes that tell whether a store to a task's owner may begin with them.
pub(super) const STORE_BYTES: usize = 5;

/// Whether `mov register, 0x18(register)` may begin in these bytes, of 8 bytes.
pub(super) fn may_be_owner_store(bytes: &[u8]) -> bool {
    const OWNER: u8 = HEADER_OWNER as u8;
    match bytes {
        // `rsp` and `r12` take a byte more.
        [0x48 | 0x49 | 0x4c | 0x4d, 0x89, 0x44 | 0x4c | 0x54 | 0x5c | 0x64 | 0x6c | 0x74 | 0x7c, 0x24, OWNER] => true,
        [0x48 | 0x49 | 0x4c | 0x4d, 0x89, 0x40..=0x7f, OWNER, _] => true,
        _ => false,
    }
}

/// Whether an instruction puts what was just loaded into the owner's id of a task.
fn takes_owner(steps: &[Instruction], at: usize) -> bool {
    let step = &steps[at];
    let is_store = step.mnemonic() == Mnemonic::Mov
        && step.op0_kind() == OpKind::Memory
        && step.op1_kind() == OpKind::Register
        && step.op1_register().size() == 8
        && is_at(step, step.memory_base(), HEADER_OWNER)
        && saved(step.memory_base()).is_some();
    is_store
        && steps[at.saturating_sub(NEAR_STORE)..at].iter().any(|earlier| {
            earlier.mnemonic() == Mnemonic::Mov
                && earlier.op0_kind() == OpKind::Register
                && earlier.op0_register() == step.op1_register()
                && earlier.op1_kind() == OpKind::Memory
                && earlier.memory_base() != step.memory_base()
                && saved(earlier.memory_base()).is_some()
        })
}

/// Whether the task got the address of one of these vtables, soon before the store: itself, or on the stack where it was
/// made.
fn takes_vtable(steps: &[Instruction], at: usize, is_vtable: impl Fn(u64) -> bool) -> bool {
    let task = steps[at].memory_base();
    let before = &steps[at.saturating_sub(NEAR_VTABLE)..at];
    before.windows(2).any(|pair| {
        let (take, store) = (&pair[0], &pair[1]);
        take.mnemonic() == Mnemonic::Lea
            && take.is_ip_rel_memory_operand()
            && is_vtable(take.ip_rel_memory_address())
            && store.mnemonic() == Mnemonic::Mov
            && store.op0_kind() == OpKind::Memory
            && store.op1_kind() == OpKind::Register
            && store.op1_register() == take.op0_register()
            && (is_at(store, task, HEADER_VTABLE) || store.memory_base() == Register::RSP)
    })
}

/// Whether the task's id or trailer is found through its vtable, soon behind the store.
fn puts_into_list(steps: &[Instruction], at: usize) -> bool {
    let mut tasks = vec![steps[at].memory_base()];
    // It may have another register by then.
    tasks.extend(copies(&steps[..at], steps[at].memory_base()));
    let (mut vtables, mut offsets): (Vec<Register>, Vec<Register>) = (Vec::new(), Vec::new());
    for step in steps[at + 1..].iter().take(NEAR_LIST) {
        let uses = |task: &Register| {
            offsets.iter().any(|offset| {
                let pair = (step.memory_base(), step.memory_index());
                step.memory_index_scale() == 1 && (pair == (*task, *offset) || pair == (*offset, *task))
            })
        };
        if tasks.iter().any(uses) {
            return true;
        }
        let is_of = |of: &[Register], offset: u64| is_load(step, offset) && of.contains(&step.memory_base());
        let to = step.op0_register();
        if is_of(&vtables, VTABLE_ID) || is_of(&vtables, VTABLE_TRAILER) {
            offsets.push(to);
        } else if is_of(&tasks, HEADER_VTABLE) {
            vtables.push(to);
        } else if is_copy(step) && tasks.contains(&step.op1_register()) {
            tasks.push(to);
        }
    }
    false
}

/// Registers that got a copy of this one in these instructions.
fn copies(steps: &[Instruction], of: Register) -> impl Iterator<Item = Register> {
    let near = &steps[steps.len().saturating_sub(NEAR_PLACE)..];
    near.iter().filter(move |step| is_copy(step) && step.op1_register() == of).map(Instruction::op0_register)
}

/// The place before the store, if the task is the function's second argument and nothing is decided before.
fn at_beginning(bytes: &[u8], function: &Range<u64>, steps: &[Instruction], at: usize) -> Option<Told> {
    let register = Argument::Second.register();
    let before = &steps[..at];
    let is_argument = steps[at].memory_base() == register
        && before.iter().all(|step| step.flow_control() == FlowControl::Next && !changes(step, register));
    let step = before.iter().find(|step| is_emulated(own_bytes(bytes, function, step))).filter(|_| is_argument)?;
    let place = Place::emulated(bytes, function, step, function.start, 0);
    let header = saved(register)?;
    (!is_jumped_to(steps, &place.seen.addresses())).then_some(Told { place, header })
}

/// The first place behind an instruction, if nothing is decided in between and the task is still in a register.
fn behind(bytes: &[u8], function: &Range<u64>, steps: &[Instruction], at: usize, header: Register) -> Option<Told> {
    let mut tasks = vec![header];
    for step in steps[at + 1..].iter().take(NEAR_PLACE) {
        if is_emulated(own_bytes(bytes, function, step)) {
            let place = Place::emulated(bytes, function, step, steps[at].ip(), 0);
            let entered = steps[at].next_ip()..step.next_ip();
            if is_jumped_to(steps, &entered) {
                return None;
            }
            return Some(Told { place, header: saved(*tasks.first()?)? });
        }
        match step.flow_control() {
            FlowControl::Next => {
                tasks.retain(|task| !changes(step, *task));
                if is_copy(step) && tasks.contains(&step.op1_register()) {
                    tasks.push(step.op0_register());
                }
            }
            FlowControl::Call | FlowControl::IndirectCall => tasks.retain(|task| KEPT.contains(task)),
            _ => return None,
        }
    }
    None
}

fn is_jumped_to(steps: &[Instruction], addresses: &Range<u64>) -> bool {
    steps.iter().any(|step| {
        matches!(step.flow_control(), FlowControl::UnconditionalBranch | FlowControl::ConditionalBranch)
            && addresses.contains(&step.near_branch_target())
    })
}

fn follow_one_another(steps: &[Instruction]) -> bool {
    steps.windows(2).all(|pair| pair[0].next_ip() == pair[1].ip())
}

fn own_bytes<'b>(bytes: &'b [u8], function: &Range<u64>, step: &Instruction) -> &'b [u8] {
    let start = (step.ip() - function.start) as usize;
    bytes.get(start..start + step.len()).unwrap_or_default()
}

/// `mov offset(base), register`, 8 bytes.
pub(super) fn is_load(step: &Instruction, offset: u64) -> bool {
    step.mnemonic() == Mnemonic::Mov
        && step.op0_kind() == OpKind::Register
        && step.op0_register().size() == 8
        && step.op1_kind() == OpKind::Memory
        && is_at(step, step.memory_base(), offset)
}

/// `mov register, register`, 8 bytes.
pub(super) fn is_copy(step: &Instruction) -> bool {
    step.mnemonic() == Mnemonic::Mov
        && step.op0_kind() == OpKind::Register
        && step.op1_kind() == OpKind::Register
        && step.op0_register().size() == 8
}

/// Whether an instruction's memory is so far behind what a register points to.
pub(super) fn is_at(step: &Instruction, base: Register, offset: u64) -> bool {
    step.memory_base() == base
        && step.memory_index() == Register::None
        && step.segment_prefix() == Register::None
        && step.memory_displacement64() == offset
}

fn is_immediate(kind: OpKind) -> bool {
    matches!(
        kind,
        OpKind::Immediate8
            | OpKind::Immediate8to64
            | OpKind::Immediate32
            | OpKind::Immediate32to64
            | OpKind::Immediate64
    )
}

/// Whether an instruction may leave something else in a register.
pub(super) fn changes(step: &Instruction, register: Register) -> bool {
    if matches!(step.flow_control(), FlowControl::Call | FlowControl::IndirectCall) {
        return !KEPT.contains(&register);
    }
    InstructionInfoFactory::new().info(step).used_registers().iter().any(|used| {
        used.register().full_register() == register && !matches!(used.access(), OpAccess::Read | OpAccess::CondRead)
    })
}
