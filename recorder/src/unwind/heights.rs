//! Instructions of x86_64 → how high the stack stands at each, for code of which nothing is said.
//!
//! From the first address to the last, as compilers put functions: each begins with the address that it returns to on top of
//! the stack, pushes, makes room, and undoes that before it returns. Jumps carry along how high the stack stood, forward in
//! the same pass and back in the next. Where that is not certain nothing is said.

use std::{collections::hash_map::Entry, iter};

use iced_x86::{Code, Decoder, DecoderOptions, FlowControl, Instruction, Mnemonic, OpKind, Register};
use polletto_common::unwind::{Cfa, Rule, Saved};
use rustc_hash::{FxHashMap, FxHashSet};

use super::rule::{CfaPart, bare};

/// Bytes of a word, which pushing takes.
const WORD: i64 = 8;

/// Stacks that no function makes.
const HIGHEST: i64 = 1 << 20;

/// Where functions begin, unless they are compiled to be small; bytes.
const FUNCTION_ALIGNMENT: u64 = 16;

/// Passes at most. Blocks that only later ones jump back to need a second.
const MAX_PASSES: usize = 4;

/// What a signal's handler returns to: `mov $15, %rax; syscall`.
pub(super) const RETURN_FROM_SIGNAL: [u8; 9] = [0x48, 0xc7, 0xc0, 0x0f, 0, 0, 0, 0x0f, 0x05];

/// Where the caller's frame pointer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FramePointer {
    Unchanged,
    /// So many bytes below the CFA.
    Saved(i64),
    Lost,
}

/// A function between two instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct State {
    /// From the stack pointer to the CFA, bytes, if that is known.
    height: Option<i64>,
    /// From where the frame pointer points to the CFA, if it points into this frame.
    frame: Option<i64>,
    frame_pointer: FramePointer,
    /// Nobody has called it: a thread or a program begins here.
    is_outermost: bool,
    trust: Trust,
    /// The instruction before was a call.
    is_behind_call: bool,
}

/// How certain a state is, the least first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Trust {
    /// Nothing is known that leads here: as if a function began.
    Guess,
    /// A call does, which may never return.
    Returned,
    Certain,
}

/// A function begins right below its return address.
const BEGIN: State = State {
    height: Some(WORD),
    frame: None,
    frame_pointer: FramePointer::Unchanged,
    is_outermost: false,
    trust: Trust::Certain,
    is_behind_call: false,
};

/// The rules of these instructions, each with the first address where it holds. Functions begin at `begins`, as far as is
/// known.
pub(super) fn rules(bytes: &[u8], address: u64, begins: &FxHashSet<u64>) -> Vec<(u64, Rule)> {
    let mut pass = Pass { bytes, address, begins, ahead: FxHashMap::default() };
    let mut rules = Vec::new();
    for _ in 0..MAX_PASSES {
        let told_more;
        (rules, told_more) = pass.run();
        if !told_more {
            break;
        }
    }
    rules
}

/// An instruction that leads to code, or takes its address.
pub(super) struct Reference {
    /// Where it stands.
    pub(super) at: u64,
    pub(super) to: u64,
    /// It jumps there, mostly within a function.
    pub(super) is_jump: bool,
}

/// What these instructions lead to.
pub(super) fn references(bytes: &[u8], address: u64) -> impl Iterator<Item = Reference> {
    let mut decoder = Decoder::with_ip(64, bytes, address, DecoderOptions::NONE);
    let instructions = iter::from_fn(move || decoder.can_decode().then(|| decoder.decode()));
    instructions.filter_map(|next| {
        let to = if next.is_call_near() || is_branch(&next) {
            next.near_branch_target()
        } else if next.mnemonic() == Mnemonic::Lea && next.is_ip_rel_memory_operand() {
            next.ip_rel_memory_address()
        } else {
            return None;
        };
        Some(Reference { at: next.ip(), to, is_jump: is_branch(&next) })
    })
}

fn is_branch(instruction: &Instruction) -> bool {
    let branches =
        matches!(instruction.flow_control(), FlowControl::ConditionalBranch | FlowControl::UnconditionalBranch);
    branches && instruction.op0_kind() == OpKind::NearBranch64
}

struct Pass<'b> {
    bytes: &'b [u8],
    address: u64,
    begins: &'b FxHashSet<u64>,
    /// Where jumps lead, and how the stack stands then.
    ahead: FxHashMap<u64, State>,
}

impl Pass<'_> {
    /// Goes over all instructions. The rules, and whether a jump told more than was known before.
    fn run(&mut self) -> (Vec<(u64, Rule)>, bool) {
        let (mut rules, mut told_more) = (Vec::new(), false);
        let mut state: Option<State> = None;
        let mut decoder = Decoder::with_ip(64, self.bytes, self.address, DecoderOptions::NONE);
        while decoder.can_decode() {
            let at = decoder.ip();
            let here = &self.bytes[(at - self.address) as usize..];
            let instruction = decoder.decode();
            if here.starts_with(&RETURN_FROM_SIGNAL) {
                // Handlers return to its first byte, and callers are looked up in front of where they return to.
                say(&mut rules, at.saturating_sub(1).max(self.address), bare(Cfa::SIGNAL_FRAME));
                let length = RETURN_FROM_SIGNAL.len();
                decoder = Decoder::with_ip(64, &here[length..], at + length as u64, DecoderOptions::NONE);
                state = None;
                continue;
            }
            let Some(mut now) = self.state_at(&instruction, state) else {
                say(&mut rules, at, bare(Cfa::UNKNOWN));
                state = None;
                continue;
            };
            if begins_stack(&instruction, here.get(instruction.len()..).unwrap_or_default()) {
                (now.is_outermost, now.trust) = (true, Trust::Certain);
            }
            say(&mut rules, at, now.rule());
            now.step(&instruction);
            told_more |= self.jump(&instruction, now);
            state = goes_on(&instruction).then_some(now);
        }
        (rules, told_more)
    }

    /// How the stack stands in front of an instruction, of which the one before tells a state if it goes on here. None in
    /// padding.
    fn state_at(&self, instruction: &Instruction, before: Option<State>) -> Option<State> {
        if self.begins.contains(&instruction.ip()) {
            return Some(BEGIN);
        }
        // Behind a call that never returns, the next function follows.
        let is_next = is_padding(instruction) || instruction.ip().is_multiple_of(FUNCTION_ALIGNMENT);
        let before = before.filter(|before| !(before.is_behind_call && is_next));
        let by_jump = self.ahead.get(&instruction.ip()).copied();
        let guess = || (!is_padding(instruction)).then_some(State { trust: Trust::Guess, ..BEGIN });
        match (before, by_jump) {
            (Some(before), Some(by_jump)) if before.trust > by_jump.trust => Some(before),
            (before, by_jump) => by_jump.or(before).or_else(guess),
        }
    }

    /// Keeps how the stack stands where an instruction jumps to. Whether that was not known.
    fn jump(&mut self, instruction: &Instruction, state: State) -> bool {
        if !is_branch(instruction) {
            return false;
        }
        match self.ahead.entry(instruction.near_branch_target()) {
            Entry::Vacant(target) => {
                target.insert(state);
                true
            }
            Entry::Occupied(mut target) if target.get().trust < state.trust => {
                target.insert(state);
                true
            }
            Entry::Occupied(_) => false,
        }
    }
}

/// Adds a rule that holds from an address on, whatever was said of it and behind it.
fn say(rules: &mut Vec<(u64, Rule)>, address: u64, rule: Rule) {
    rules.pop_if(|last| last.0 >= address);
    if rules.last().is_none_or(|last| last.1 != rule) {
        rules.push((address, rule));
    }
}

/// Whether the next instruction may follow.
fn goes_on(instruction: &Instruction) -> bool {
    let may_follow = matches!(
        instruction.flow_control(),
        FlowControl::Next | FlowControl::ConditionalBranch | FlowControl::Call | FlowControl::IndirectCall
    );
    may_follow && !matches!(instruction.mnemonic(), Mnemonic::Hlt)
}

/// What stands between functions.
fn is_padding(instruction: &Instruction) -> bool {
    matches!(instruction.mnemonic(), Mnemonic::Nop | Mnemonic::Int3 | Mnemonic::Ud2)
        || instruction.code() == Code::INVALID
}

/// Programs and threads begin by clearing the frame pointer, and take what they were given from the stack.
fn begins_stack(instruction: &Instruction, next: &[u8]) -> bool {
    let clears = instruction.mnemonic() == Mnemonic::Xor
        && is_frame_pointer(instruction.op0_register())
        && instruction.op0_register() == instruction.op1_register();
    let takes = |next: Instruction| match next.mnemonic() {
        Mnemonic::Pop => next.op0_register() == Register::RDI,
        Mnemonic::Mov => next.op0_register() == Register::RDI && next.op1_register() == Register::RSP,
        _ => false,
    };
    clears && takes(Decoder::new(64, next, DecoderOptions::NONE).decode())
}

fn is_frame_pointer(register: Register) -> bool {
    register != Register::None && register.full_register() == Register::RBP
}

impl State {
    fn rule(&self) -> Rule {
        const RETURN_ADDRESS: (Saved, i16) = (Saved::AT_CFA, -8);
        if self.is_outermost {
            return bare(Cfa::END_OF_STACK);
        }
        if self.trust == Trust::Guess {
            return bare(Cfa::UNKNOWN);
        }
        let frame_pointer = match self.frame_pointer {
            FramePointer::Unchanged => (Saved::UNCHANGED, 0),
            FramePointer::Saved(below) => (Saved::AT_CFA, -below as i32),
            FramePointer::Lost => (Saved::LOST, 0),
        };
        let (kind, offset) = match (self.height, self.frame) {
            (Some(height), _) => (Cfa::STACK_POINTER, height),
            (None, Some(frame)) => (Cfa::FRAME_POINTER, frame),
            (None, None) => return bare(Cfa::UNKNOWN),
        };
        CfaPart::new(kind, offset as i32).with(RETURN_ADDRESS, frame_pointer)
    }

    /// Does what an instruction does to the stack.
    fn step(&mut self, instruction: &Instruction) {
        self.is_behind_call = matches!(instruction.flow_control(), FlowControl::Call | FlowControl::IndirectCall)
            && instruction.mnemonic() == Mnemonic::Call;
        if self.is_behind_call {
            self.trust = self.trust.min(Trust::Returned);
        }
        let (to, from) = (instruction.op0_register(), instruction.op1_register());
        match instruction.mnemonic() {
            Mnemonic::Push | Mnemonic::Pushfq => {
                self.grow(WORD);
                if let (true, FramePointer::Unchanged, Some(height)) =
                    (to == Register::RBP, self.frame_pointer, self.height)
                {
                    self.frame_pointer = FramePointer::Saved(height);
                }
            }
            Mnemonic::Pop | Mnemonic::Popfq => {
                let popped = self.height;
                self.grow(-WORD);
                if to == Register::RBP {
                    let was_saved = popped.is_some_and(|height| self.frame_pointer == FramePointer::Saved(height));
                    self.frame_pointer = if was_saved { FramePointer::Unchanged } else { FramePointer::Lost };
                    self.frame = None;
                } else if to == Register::RSP {
                    self.height = None;
                }
            }
            Mnemonic::Sub | Mnemonic::Add if to == Register::RSP => match immediate(instruction) {
                Some(bytes) if instruction.mnemonic() == Mnemonic::Sub => self.grow(bytes),
                Some(bytes) => self.grow(-bytes),
                None => self.height = None,
            },
            Mnemonic::Lea if to == Register::RSP => {
                let offset = instruction.memory_displacement64() as i64;
                self.height = match (instruction.memory_base(), instruction.memory_index()) {
                    (Register::RSP, Register::None) => self.height.and_then(|height| height.checked_sub(offset)),
                    (Register::RBP, Register::None) => self.frame.and_then(|frame| frame.checked_sub(offset)),
                    _ => None,
                };
                self.grow(0);
            }
            Mnemonic::Mov if to == Register::RBP && from == Register::RSP => self.frame = self.height,
            Mnemonic::Mov if to == Register::RSP => {
                self.height = self.frame.filter(|_| from == Register::RBP);
            }
            Mnemonic::Leave => {
                self.height = self.frame;
                self.grow(-WORD);
                (self.frame, self.frame_pointer) = (None, FramePointer::Unchanged);
            }
            Mnemonic::Cmp | Mnemonic::Test => {}
            _ if to == Register::RSP => self.height = None,
            _ if is_frame_pointer(to) => {
                self.frame = None;
                if self.frame_pointer == FramePointer::Unchanged {
                    self.frame_pointer = FramePointer::Lost;
                }
            }
            _ => {}
        }
    }

    fn grow(&mut self, bytes: i64) {
        let height = self.height.and_then(|height| height.checked_add(bytes));
        self.height = height.filter(|height| (WORD..HIGHEST).contains(height));
    }
}

fn immediate(instruction: &Instruction) -> Option<i64> {
    let is_immediate = matches!(instruction.op1_kind(), OpKind::Immediate8to64 | OpKind::Immediate32to64);
    is_immediate.then(|| instruction.immediate(1) as i64)
}
