//! A row of unwind information → a [`Rule`].

use std::collections::HashMap;

use gimli::{
    CfaRule, CommonInformationEntry, EhFrame, EndianSlice, LittleEndian, Operation, Register, RegisterRule,
    UnwindContextStorage, UnwindExpression, UnwindTableRow, Vendor,
};
use polletto_common::unwind::{Cfa, Rule, Saved};

pub(super) type Bytes<'a> = EndianSlice<'a, LittleEndian>;

/// What differs between architectures. Registers have the numbers that DWARF gives them.
pub(super) trait Cpu {
    /// The register that points to the end of the stack.
    const STACK_POINTER: Register;
    /// The register that may point to a function's frame.
    const FRAME_POINTER: Register;
    /// Whose own instructions unwind information may contain.
    const VENDOR: Vendor;

    /// What a row says, in a form that the kernel programs can follow.
    fn rule(frame: &Frame<'_, '_>) -> Rule;

    /// What holds in stubs for functions of other files when there is no unwind information of them.
    fn linkage_rule() -> Rule;
}

/// Room for a row: twice as many registers as any function saves. Little room makes for little work in files that lie.
pub(super) struct Registers;

impl UnwindContextStorage<usize> for Registers {
    type Rules = [(Register, RegisterRule<usize>); 64];
    type Stack = Box<[UnwindTableRow<usize, Self>; 8]>;
}

/// A row, and what its expressions are read with.
pub(super) struct Frame<'row, 'bytes> {
    pub(super) row: &'row UnwindTableRow<usize, Registers>,
    pub(super) section: &'row EhFrame<Bytes<'bytes>>,
    pub(super) common: &'row CommonInformationEntry<Bytes<'bytes>>,
}

/// A rule's part about the CFA.
pub(super) struct CfaPart {
    kind: Cfa,
    offset: i32,
    addend: i16,
}

impl Frame<'_, '_> {
    /// Where the caller's register is; `None` if nothing is said of it.
    pub(super) fn register(&self, register: Register) -> Option<RegisterRule<usize>> {
        self.row.register(register)
    }

    /// The expression that computes the CFA.
    pub(super) fn cfa_operations(&self) -> Option<Vec<Operation<Bytes<'_>>>> {
        match self.row.cfa() {
            CfaRule::Expression(expression) => self.operations(expression),
            CfaRule::RegisterAndOffset { .. } => None,
        }
    }

    /// How the CFA is computed, if that is one of the ways common to all architectures.
    pub(super) fn cfa<C: Cpu>(&self) -> Option<CfaPart> {
        let (register, offset, direct, addend) = match *self.row.cfa() {
            CfaRule::RegisterAndOffset { register, offset } => (register, offset, true, 0),
            CfaRule::Expression(_) => match self.cfa_operations()?[..] {
                [
                    Operation::RegisterOffset { register, offset, .. },
                    Operation::Deref { size: 8, space: false, .. },
                ] => (register, offset, false, 0),
                [
                    Operation::RegisterOffset { register, offset, .. },
                    Operation::Deref { size: 8, space: false, .. },
                    Operation::PlusConstant { value },
                ] => (register, offset, false, value),
                _ => return None,
            },
        };
        let kind = match (register, direct) {
            (register, true) if register == C::STACK_POINTER => Cfa::STACK_POINTER,
            (register, true) if register == C::FRAME_POINTER => Cfa::FRAME_POINTER,
            (register, false) if register == C::STACK_POINTER => Cfa::AT_STACK_POINTER,
            (register, false) if register == C::FRAME_POINTER => Cfa::AT_FRAME_POINTER,
            _ => return None,
        };
        Some(CfaPart { kind, offset: offset.try_into().ok()?, addend: addend.try_into().ok()? })
    }

    /// Where the caller's frame pointer is.
    pub(super) fn frame_pointer<C: Cpu>(&self) -> (Saved, i32) {
        let lost = (Saved::LOST, 0);
        let at = |place: Saved, offset: i64| i32::try_from(offset).map_or(lost, |offset| (place, offset));
        match self.register(C::FRAME_POINTER) {
            None | Some(RegisterRule::SameValue) => (Saved::UNCHANGED, 0),
            Some(RegisterRule::Offset(offset)) => at(Saved::AT_CFA, offset),
            Some(RegisterRule::Expression(expression)) => match self.operations(&expression).as_deref() {
                Some(&[Operation::RegisterOffset { register, offset, .. }]) if register == C::FRAME_POINTER => {
                    at(Saved::AT_FRAME_POINTER, offset)
                }
                _ => lost,
            },
            Some(_) => lost,
        }
    }

    /// The operations of an expression that is short enough to be one of those known here.
    fn operations(&self, expression: &UnwindExpression<usize>) -> Option<Vec<Operation<Bytes<'_>>>> {
        const LONGEST: usize = 9;
        let mut operations = expression.get(self.section).ok()?.operations(self.common.encoding());
        let mut found = Vec::new();
        while let Some(operation) = operations.next().ok()? {
            if found.len() == LONGEST {
                return None;
            }
            found.push(operation);
        }
        Some(found)
    }
}

impl CfaPart {
    pub(super) fn new(kind: Cfa, offset: i32) -> CfaPart {
        CfaPart { kind, offset, addend: 0 }
    }

    /// The whole rule.
    pub(super) fn with(
        self,
        (return_address, return_address_offset): (Saved, i16),
        (frame_pointer, frame_pointer_offset): (Saved, i32),
    ) -> Rule {
        Rule {
            cfa: self.kind,
            frame_pointer,
            return_address,
            reserved: 0,
            cfa_offset: self.offset,
            frame_pointer_offset,
            return_address_offset,
            cfa_addend: self.addend,
        }
    }
}

/// A rule that needs no registers.
pub(super) fn bare(cfa: Cfa) -> Rule {
    Rule { cfa, ..Rule::default() }
}

/// The different rules of a table, numbered. Number 0 is always [`Rules::UNKNOWN`].
pub(super) struct Rules {
    list: Vec<Rule>,
    // Not the fastest hash, but one that a file can't be made against.
    indices: HashMap<Rule, u16>,
    refused: u64,
}

impl Rules {
    /// The number of the rule that nothing is known.
    pub(super) const UNKNOWN: u16 = 0;

    /// Several times what the largest programs have, and little of what all tables together can have: one file shall not
    /// take what others need.
    pub(super) const MAX: usize = 8192;

    /// The number of a rule. When there are too many, the number of none.
    pub(super) fn index(&mut self, rule: Rule) -> u16 {
        if let Some(&index) = self.indices.get(&rule) {
            return index;
        }
        if self.list.len() >= Self::MAX {
            self.refused += 1;
            return Self::UNKNOWN;
        }
        let index = self.list.len() as u16;
        self.list.push(rule);
        self.indices.insert(rule, index);
        index
    }

    /// How often a rule was one too many.
    pub(super) fn refused(&self) -> u64 {
        self.refused
    }

    pub(super) fn into_list(self) -> Vec<Rule> {
        self.list
    }
}

impl Default for Rules {
    fn default() -> Rules {
        let unknown = bare(Cfa::UNKNOWN);
        Rules { list: vec![unknown], indices: HashMap::from([(unknown, Self::UNKNOWN)]), refused: 0 }
    }
}

const _: () = assert!(Rules::MAX <= polletto_common::unwind::MAX_RULES);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_rules_have_one_number_and_the_first_says_nothing() {
        let mut rules = Rules::default();
        let end = rules.index(bare(Cfa::END_OF_STACK));
        assert_eq!(rules.index(Rule::default()), Rules::UNKNOWN);
        assert_eq!(rules.index(bare(Cfa::END_OF_STACK)), end);
        assert_eq!(rules.into_list(), [Rule::default(), bare(Cfa::END_OF_STACK)]);
    }

    #[test]
    fn rules_beyond_the_last_are_unknown_and_counted() {
        let mut rules = Rules::default();
        let at = |offset: usize| Rule { cfa_offset: offset as i32, ..bare(Cfa::STACK_POINTER) };
        for offset in 0..Rules::MAX + 5 {
            rules.index(at(offset));
        }
        assert_eq!(rules.index(at(0)), 1);
        assert_eq!(rules.index(at(Rules::MAX + 5)), Rules::UNKNOWN);
        assert_eq!((rules.refused(), rules.into_list().len()), (7, Rules::MAX));
    }
}
