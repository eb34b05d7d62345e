//! What gimli itself says about a file, and what its rows mean when they are executed.
//!
//! Nothing of this is shared with the tables: a row of gimli's is evaluated as DWARF defines it, a rule as
//! [`polletto_common::unwind`] does, on the same made-up registers and memory. They agree if they find the same caller.

use std::collections::HashMap;

use gimli::{
    BaseAddresses, CfaRule, CieOrFde, CommonInformationEntry, EhFrame, EvaluationResult, FrameDescriptionEntry,
    LittleEndian, Location, Register, RegisterRule, UnwindContext, UnwindExpression, UnwindSection, UnwindTableRow,
    Value, Vendor,
};
use polletto_common::unwind::{Cfa, Rule, Saved};

use crate::{
    target::image::{Architecture, Image},
    unwind::rule::Bytes,
};

/// Where a frame leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Caller {
    /// Nothing is known.
    Unknown,
    /// There is none.
    End,
    /// It is what the kernel interrupted.
    Signal,
    /// CFA, return address, and the frame pointer unless it is lost.
    Frame(u64, u64, Option<u64>),
}

/// Registers that are unlike each other.
const STACK_POINTER: u64 = 0x7fff_0000_1000;
const FRAME_POINTER: u64 = 0x7fff_0002_2000;
const LINK: u64 = 0x5555_0000_3000;

fn memory(address: u64) -> u64 {
    address.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(23)
}

/// What a rule means.
pub(super) fn caller_by_rule(rule: &Rule, pc: u64) -> Option<Caller> {
    let add = |base: u64, offset: i64| base.wrapping_add_signed(offset);
    let offset = i64::from(rule.cfa_offset);
    let cfa = match rule.cfa {
        Cfa::UNKNOWN => return Some(Caller::Unknown),
        Cfa::SIGNAL_FRAME => return Some(Caller::Signal),
        Cfa::END_OF_STACK => return Some(Caller::End),
        Cfa::STACK_POINTER => add(STACK_POINTER, offset),
        Cfa::FRAME_POINTER => add(FRAME_POINTER, offset),
        Cfa::AT_STACK_POINTER => add(memory(add(STACK_POINTER, offset)), rule.cfa_addend.into()),
        Cfa::AT_FRAME_POINTER => add(memory(add(FRAME_POINTER, offset)), rule.cfa_addend.into()),
        Cfa::LINKAGE_TABLE => STACK_POINTER + 8 + if (pc & 15) as i64 >= offset { 8 } else { 0 },
        _ => return None,
    };
    let saved = |place: Saved, offset: i64, own: u64| match place {
        Saved::UNCHANGED => Some(own),
        Saved::AT_CFA => Some(memory(add(cfa, offset))),
        Saved::AT_FRAME_POINTER => Some(memory(add(FRAME_POINTER, offset))),
        _ => None,
    };
    let return_address = saved(rule.return_address, rule.return_address_offset.into(), LINK)?;
    Some(Caller::Frame(cfa, return_address, saved(rule.frame_pointer, rule.frame_pointer_offset.into(), FRAME_POINTER)))
}

type Function<'a> = FrameDescriptionEntry<Bytes<'a>>;

/// A file's functions, as gimli reads them.
pub(super) struct Reference<'a> {
    architecture: Architecture,
    section: EhFrame<Bytes<'a>>,
    bases: BaseAddresses,
    /// In the order of their addresses, as the search of `.eh_frame_hdr` has them.
    pub(super) functions: Vec<Function<'a>>,
}

impl<'a> Reference<'a> {
    pub(super) fn new(image: &Image, eh_frame: &'a [u8]) -> Reference<'a> {
        let mut section = EhFrame::new(eh_frame, LittleEndian);
        if image.architecture == Architecture::Aarch64 {
            section.set_vendor(Vendor::AArch64);
        }
        let bases = BaseAddresses::default()
            .set_eh_frame(image.eh_frame.unwrap().address)
            .set_text(image.text.unwrap_or(0))
            .set_got(image.got.unwrap_or(0));
        let mut functions = Vec::new();
        let mut commons: HashMap<usize, CommonInformationEntry<Bytes<'_>>> = HashMap::new();
        let mut entries = section.entries(&bases);
        while let Some(entry) = entries.next().unwrap() {
            if let CieOrFde::Fde(partial) = entry {
                let function = partial
                    .parse(|section, bases, offset| {
                        let known = commons.entry(offset.0);
                        Ok(known.or_insert_with(|| section.cie_from_offset(bases, offset).unwrap()).clone())
                    })
                    .unwrap();
                functions.push(function);
            }
        }
        functions.retain(|function| function.len() > 0);
        functions.sort_by_key(|function| function.initial_address());
        functions.dedup_by_key(|function| function.initial_address());
        Reference { architecture: image.architecture, section, bases, functions }
    }

    /// What gimli's row for this address means. `None` where a rule need not be able to say it.
    pub(super) fn caller(&self, pc: u64) -> Option<Caller> {
        let behind = self.functions.partition_point(|function| function.initial_address() <= pc);
        let Some(function) = behind.checked_sub(1).map(|at| &self.functions[at]).filter(|found| found.contains(pc))
        else {
            return Some(Caller::Unknown);
        };
        let mut context = UnwindContext::new();
        match function.unwind_info_for_address(&self.section, &self.bases, &mut context, pc) {
            Ok(row) => self.caller_by_row(function, row, pc),
            Err(_) => Some(Caller::Unknown),
        }
    }

    /// Calls `check` for every row of a function with its first and its last address.
    pub(super) fn rows(
        &self,
        function: &Function<'a>,
        mut check: impl FnMut(u64, u64, &dyn Fn(u64) -> Option<Caller>),
    ) {
        let mut context = UnwindContext::new();
        let mut rows = function.rows(&self.section, &self.bases, &mut context).unwrap();
        while let Some(row) = rows.next_row().unwrap() {
            if row.start_address() < row.end_address() {
                let caller = |pc| self.caller_by_row(function, row, pc);
                check(row.start_address(), row.end_address() - 1, &caller);
            }
        }
    }

    fn caller_by_row(&self, function: &Function<'a>, row: &UnwindTableRow<usize>, pc: u64) -> Option<Caller> {
        let (frame_pointer, return_address, link) = match self.architecture {
            Architecture::X86_64 => (Register(6), Register(16), None),
            Architecture::Aarch64 => (Register(29), Register(30), Some(LINK)),
        };
        if function.is_signal_trampoline() {
            return Some(Caller::Signal);
        }
        if row.register(return_address) == Some(RegisterRule::Undefined) {
            return Some(Caller::End);
        }
        let cfa = match row.cfa() {
            CfaRule::RegisterAndOffset { register, offset } => self.value(*register, pc)?.wrapping_add_signed(*offset),
            CfaRule::Expression(expression) => self.evaluate(function, expression, pc)?,
        };
        let saved = |register: Register, own: Option<u64>| match row.register(register) {
            None | Some(RegisterRule::SameValue) => own,
            Some(RegisterRule::Offset(offset)) => Some(memory(cfa.wrapping_add_signed(offset))),
            Some(RegisterRule::Expression(expression)) => Some(memory(self.evaluate(function, &expression, pc)?)),
            _ => None,
        };
        Some(Caller::Frame(cfa, saved(return_address, link)?, saved(frame_pointer, Some(FRAME_POINTER))))
    }

    /// Only what a rule may know: stack pointer, frame pointer and program counter.
    fn value(&self, register: Register, pc: u64) -> Option<u64> {
        match (self.architecture, register) {
            (Architecture::X86_64, Register(7)) | (Architecture::Aarch64, Register(31)) => Some(STACK_POINTER),
            (Architecture::X86_64, Register(6)) | (Architecture::Aarch64, Register(29)) => Some(FRAME_POINTER),
            (Architecture::X86_64, Register(16)) => Some(pc),
            _ => None,
        }
    }

    fn evaluate(&self, function: &Function<'a>, expression: &UnwindExpression<usize>, pc: u64) -> Option<u64> {
        let mut evaluation = expression.get(&self.section).unwrap().evaluation(function.cie().encoding());
        let mut state = evaluation.evaluate().unwrap();
        loop {
            state = match state {
                EvaluationResult::Complete => break,
                EvaluationResult::RequiresRegister { register, .. } => {
                    evaluation.resume_with_register(Value::Generic(self.value(register, pc)?)).unwrap()
                }
                EvaluationResult::RequiresMemory { address, .. } => {
                    evaluation.resume_with_memory(Value::Generic(memory(address))).unwrap()
                }
                other => panic!("{other:?}"),
            };
        }
        match evaluation.result()[..] {
            [gimli::Piece { location: Location::Address { address }, .. }] => Some(address),
            ref other => panic!("{other:?}"),
        }
    }
}
