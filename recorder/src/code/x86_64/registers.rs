//! What registers hold: as much of it as finds thread-locals.

use std::{
    collections::{BTreeSet, HashMap},
    ops::Range,
};

use iced_x86::{
    FlowControl, Instruction, InstructionInfo, InstructionInfoFactory, Mnemonic, OpAccess, OpKind, Register, UsedMemory,
};

use super::super::{AccessKind, ThreadLocalAccess, ThreadLocals};

/// What the instructions of a function do with thread-locals. `returned_by` knows of functions that it calls.
///
/// They are followed once, from the first to the last. What a register holds where a branch leads to is remembered until
/// then; branches backwards are not followed. What is found so is mostly right, and for others to weigh.
pub(super) fn accesses(
    instructions: impl Iterator<Item = Instruction>,
    function: &Range<u64>,
    returned_by: &mut dyn FnMut(u64) -> Option<i64>,
) -> ThreadLocals {
    let mut infos = InstructionInfoFactory::new();
    let mut walk = Walk::default();
    let mut returned = BTreeSet::new();
    for instruction in instructions {
        walk.arrive(instruction.ip());
        walk.run(&instruction, infos.info(&instruction));
        match instruction.flow_control() {
            FlowControl::Call => walk.call(returned_by(instruction.near_branch_target())),
            FlowControl::IndirectCall => walk.call(None),
            FlowControl::Return => {
                returned.extend(walk.state.value(Register::RAX).object());
                walk.end();
            }
            FlowControl::ConditionalBranch => walk.branch(&instruction, function),
            FlowControl::UnconditionalBranch => {
                walk.branch(&instruction, function);
                walk.end();
            }
            FlowControl::IndirectBranch | FlowControl::Exception => walk.end(),
            _ => {}
        }
    }
    let returned = if returned.len() == 1 { returned.first().copied() } else { None };
    ThreadLocals { returned, ..walk.found }
}

/// A way through a function, from its first instruction to its last.
#[derive(Default)]
struct Walk {
    state: State,
    /// What registers hold where branches lead to.
    ahead: HashMap<u64, State>,
    found: ThreadLocals,
}

impl Walk {
    /// Comes to an instruction, to which branches may have led, too.
    fn arrive(&mut self, address: u64) {
        if let Some(other) = self.ahead.remove(&address) {
            self.state.join(&other);
        }
    }

    /// Does what an instruction does to memory and registers.
    fn run(&mut self, instruction: &Instruction, info: &InstructionInfo) {
        let state = &mut self.state;
        let accesses = info.used_memory().iter().filter_map(|memory| state.access(instruction, memory));
        self.found.accesses.extend(accesses);
        let result = state.result(instruction);
        for used in info.used_registers() {
            let writes = !matches!(used.access(), OpAccess::Read | OpAccess::CondRead | OpAccess::NoMemAccess);
            if writes && let Some(value) = state.slot(used.register()) {
                *value = value.changed();
            }
        }
        if let Some((register, value)) = result
            && let Some(slot) = state.slot(register)
        {
            *slot = value;
        }
    }

    /// Comes back from a function.
    fn call(&mut self, returned: Option<i64>) {
        self.found.given.extend(self.state.value(Register::RDI).object());
        self.state.call(returned);
    }

    /// Remembers what registers hold for where a branch leads to.
    fn branch(&mut self, instruction: &Instruction, function: &Range<u64>) {
        let (to, state) = (instruction.near_branch_target(), &self.state);
        if function.contains(&to) && to > instruction.ip() {
            self.ahead.entry(to).and_modify(|other| other.join(state)).or_insert_with(|| state.clone());
        }
    }

    /// Does not come to the next instruction.
    fn end(&mut self) {
        self.state = State::default();
    }
}

/// What a register holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Value {
    #[default]
    Unknown,
    Number(i64),
    /// The thread pointer + `offset`, where an object of which the program asked the address begins at `object`.
    ThreadPointer {
        offset: i64,
        object: Option<i64>,
    },
    /// What a thread-local held at this offset, or what was made of it.
    Loaded {
        offset: i64,
        changed: bool,
    },
}

impl Value {
    /// The thread-local that it is the address of, counted from the thread pointer.
    fn object(self) -> Option<i64> {
        match self {
            Value::ThreadPointer { offset, .. } if offset != 0 => Some(offset),
            _ => None,
        }
    }

    /// After something was done to it that isn't understood.
    fn changed(self) -> Value {
        match self {
            Value::Loaded { offset, .. } => Value::Loaded { offset, changed: true },
            _ => Value::Unknown,
        }
    }

    fn plus(self, number: i64) -> Value {
        match self {
            unchanged if number == 0 => unchanged,
            Value::Number(own) => Value::Number(own.wrapping_add(number)),
            Value::ThreadPointer { offset, object } => {
                let offset = offset.wrapping_add(number);
                // What is added first is where the object begins, what is added to that leads into it.
                Value::ThreadPointer { offset, object: object.or(Some(offset)) }
            }
            other => other.changed(),
        }
    }

    fn sum(self, other: Value) -> Value {
        match (self, other) {
            (value, Value::Number(number)) | (Value::Number(number), value) => value.plus(number),
            (loaded @ Value::Loaded { .. }, _) | (_, loaded @ Value::Loaded { .. }) => loaded.changed(),
            _ => Value::Unknown,
        }
    }
}

/// What the 16 general registers hold.
#[derive(Clone, Default)]
struct State([Value; 16]);

impl State {
    fn slot(&mut self, register: Register) -> Option<&mut Value> {
        register.is_gpr().then(|| &mut self.0[register.full_register().number()])
    }

    /// What a register of 64 bits holds.
    fn value(&self, register: Register) -> Value {
        if register.is_gpr64() { self.0[register.number()] } else { Value::Unknown }
    }

    /// Where two ways meet. A way on which nothing is known often ends before: in a panic.
    fn join(&mut self, other: &State) {
        for (own, other) in self.0.iter_mut().zip(other.0) {
            *own = match (*own, other) {
                (Value::Unknown, value) | (value, Value::Unknown) => value,
                // Nothing, instead of an object that the thread has no more.
                (Value::Number(0), object @ Value::ThreadPointer { .. })
                | (object @ Value::ThreadPointer { .. }, Value::Number(0)) => object,
                (own, other) if own == other => own,
                _ => Value::Unknown,
            };
        }
    }

    /// Functions may change these registers, and return the address of a thread-local.
    fn call(&mut self, returned: Option<i64>) {
        use Register::*;
        for register in [RAX, RCX, RDX, RSI, RDI, R8, R9, R10, R11] {
            self.0[register.number()] = Value::Unknown;
        }
        if let Some(offset) = returned {
            self.0[RAX.number()] = Value::ThreadPointer { offset, object: Some(offset) };
        }
    }

    /// The register that gets a known value.
    fn result(&self, instruction: &Instruction) -> Option<(Register, Value)> {
        if instruction.op_count() != 2 || instruction.op0_kind() != OpKind::Register {
            return None;
        }
        let register = instruction.op0_register();
        let other = || match instruction.op1_kind() {
            OpKind::Register => self.value(instruction.op1_register()),
            OpKind::Immediate32to64 | OpKind::Immediate8to64 | OpKind::Immediate64 => {
                Value::Number(instruction.immediate(1) as i64)
            }
            OpKind::Memory => self.loaded(instruction),
            _ => Value::Unknown,
        };
        let own = self.value(register);
        let value = match instruction.mnemonic() {
            Mnemonic::Mov if register.is_gpr64() => other(),
            Mnemonic::Lea if register.is_gpr64() => self.address(instruction),
            Mnemonic::Add if register.is_gpr64() => own.sum(other()),
            Mnemonic::Sub if register.is_gpr64() => match other() {
                Value::Number(number) => own.plus(number.wrapping_neg()),
                _ => own.changed(),
            },
            Mnemonic::Xor if instruction.op1_register() == register => Value::Number(0),
            _ => return None,
        };
        Some((register, value))
    }

    /// What `lea` makes.
    fn address(&self, instruction: &Instruction) -> Value {
        let part = |register: Register| match register {
            Register::None => Value::Number(0),
            register => self.value(register),
        };
        let index = match (part(instruction.memory_index()), instruction.memory_index_scale()) {
            (Value::Number(number), scale) => Value::Number(number.wrapping_mul(i64::from(scale))),
            (value, 1) => value,
            (value, _) => value.changed(),
        };
        if instruction.is_ip_rel_memory_operand() {
            return Value::Unknown;
        }
        let displacement = instruction.memory_displacement64() as i64;
        part(instruction.memory_base()).sum(index).plus(displacement)
    }

    /// What a register gets that is loaded from memory.
    fn loaded(&self, instruction: &Instruction) -> Value {
        let is_thread_pointer = instruction.memory_segment() == Register::FS
            && instruction.memory_base() == Register::None
            && instruction.memory_index() == Register::None
            && instruction.memory_displacement64() == 0;
        if is_thread_pointer {
            return Value::ThreadPointer { offset: 0, object: None };
        }
        let place = self.place(
            instruction.memory_segment(),
            instruction.memory_base(),
            (instruction.memory_index(), instruction.memory_index_scale()),
            instruction.memory_displacement64(),
        );
        place.map_or(Value::Unknown, |(offset, _)| Value::Loaded { offset, changed: false })
    }

    /// Where thread-local memory is that an instruction uses, and where its object begins.
    fn place(
        &self,
        segment: Register,
        base: Register,
        (index, scale): (Register, u32),
        displacement: u64,
    ) -> Option<(i64, Option<i64>)> {
        let part = |register: Register| match register {
            Register::None => Some(Value::Number(0)),
            register if register.is_gpr64() => Some(self.value(register)),
            _ => None,
        };
        let index = match part(index)? {
            Value::Number(number) => Value::Number(number.wrapping_mul(i64::from(scale))),
            value if scale == 1 => value,
            _ => Value::Unknown,
        };
        let displacement = displacement as i64;
        match (segment, part(base)?, index) {
            (Register::FS, Value::Number(base), Value::Number(index)) => {
                let start = base.wrapping_add(index);
                // With a register the program has the object there, and the rest leads into it.
                Some((start.wrapping_add(displacement), (start != 0).then_some(start)))
            }
            (Register::FS, ..) => None,
            (_, Value::ThreadPointer { offset, object }, Value::Number(number))
            | (_, Value::Number(number), Value::ThreadPointer { offset, object }) => {
                Some((offset.wrapping_add(number).wrapping_add(displacement), object))
            }
            _ => None,
        }
    }

    fn access(&self, instruction: &Instruction, memory: &UsedMemory) -> Option<ThreadLocalAccess> {
        let index = (memory.index(), memory.scale());
        let (offset, object) = self.place(memory.segment(), memory.base(), index, memory.displacement())?;
        let kind = match memory.access() {
            OpAccess::Read | OpAccess::CondRead => AccessKind::Load,
            OpAccess::ReadWrite | OpAccess::ReadCondWrite => AccessKind::Update,
            OpAccess::Write | OpAccess::CondWrite => match self.stored(instruction) {
                Value::Loaded { offset: of, changed: true } if of == offset => AccessKind::Update,
                _ => AccessKind::Store,
            },
            _ => return None,
        };
        // The thread pointer itself is no thread-local.
        (offset < 0).then_some(ThreadLocalAccess { offset, object, size: memory.memory_size().size(), kind })
    }

    fn stored(&self, instruction: &Instruction) -> Value {
        match instruction.op1_kind() {
            OpKind::Register => self.value(instruction.op1_register()),
            _ => Value::Unknown,
        }
    }
}
