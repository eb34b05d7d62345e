//! What instructions become which rule.

use object::elf;
use polletto_common::unwind::{Cfa, Rule, Saved};

use super::written::*;
use crate::target::image::example::ExampleElf;

const UNCHANGED: (Saved, i32) = (Saved::UNCHANGED, 0);
const LOST: (Saved, i32) = (Saved::LOST, 0);

fn rule(cfa: Cfa, cfa_offset: i32, frame_pointer: (Saved, i32), return_address: (Saved, i16)) -> Rule {
    Rule {
        cfa,
        frame_pointer: frame_pointer.0,
        return_address: return_address.0,
        reserved: 0,
        cfa_offset,
        frame_pointer_offset: frame_pointer.1,
        return_address_offset: return_address.1,
        cfa_addend: 0,
    }
}

fn only(cfa: Cfa) -> Rule {
    Rule { cfa, ..Rule::default() }
}

/// The rule of the function that these instructions describe, and how many rows were unsupported.
fn rule_of(machine: elf::Machine, augmentation: &str, common: &[u8], instructions: &[u8]) -> (Rule, u64) {
    let return_address = if machine == elf::EM_AARCH64 { 30 } else { 16 };
    let example = ExampleElf { machine, ..ExampleElf::default() };
    let mut start = 0;
    let table = table_of(example, |written, code| {
        start = code;
        let common = written.common(augmentation, RELATIVE, return_address, common);
        written.function(common, code..code + 0x20, instructions);
    });
    assert_eq!(table.omissions.broken, 0);
    (table.rule(start).unwrap(), table.omissions.unsupported)
}

#[test]
fn x86_64_frames_become_rules() {
    const RA: (Saved, i16) = (Saved::AT_CFA, -8);
    let usual = [cfa(7, 8), saved(16, 1)].concat();
    let addend = |rule: Rule, cfa_addend| Rule { cfa_addend, ..rule };
    for (claim, instructions, expected) in [
        ("a function begins right below its return address", vec![], rule(Cfa::STACK_POINTER, 8, UNCHANGED, RA)),
        ("the stack has grown", cfa_offset(48), rule(Cfa::STACK_POINTER, 48, UNCHANGED, RA)),
        ("the stack is large", cfa_far(7, 300_016), rule(Cfa::STACK_POINTER, 300_016, UNCHANGED, RA)),
        (
            "the frame pointer is saved",
            [cfa_offset(16), saved(6, 2)].concat(),
            rule(Cfa::STACK_POINTER, 16, (Saved::AT_CFA, -16), RA),
        ),
        (
            "the frame pointer points to the frame",
            [cfa(6, 16), saved(6, 2)].concat(),
            rule(Cfa::FRAME_POINTER, 16, (Saved::AT_CFA, -16), RA),
        ),
        ("the frame pointer is as it was", [saved(6, 2), same(6)].concat(), rule(Cfa::STACK_POINTER, 8, UNCHANGED, RA)),
        ("the frame pointer is overwritten", undefined(6), rule(Cfa::STACK_POINTER, 8, LOST, RA)),
        ("the frame pointer is a CFA", is_cfa_minus(6, 2), rule(Cfa::STACK_POINTER, 8, LOST, RA)),
        ("the frame pointer is too far away", saved(6, 1 << 30), rule(Cfa::STACK_POINTER, 8, LOST, RA)),
        (
            "the CFA stands above the frame pointer, which is saved where it points",
            // rbp - 8, dereferenced; rbp at rbp + 0
            [cfa_expression(&[0x76, 0x78, 0x06]), saved_at(6, &[0x76, 0x00])].concat(),
            rule(Cfa::AT_FRAME_POINTER, -8, (Saved::AT_FRAME_POINTER, 0), RA),
        ),
        (
            "the CFA stands above the stack pointer",
            cfa_expression(&[0x77, 0x10, 0x06]),
            rule(Cfa::AT_STACK_POINTER, 16, UNCHANGED, RA),
        ),
        (
            "the CFA is somewhat more than what stands there",
            cfa_expression(&[0x77, 0x10, 0x06, 0x23, 0x08]),
            addend(rule(Cfa::AT_STACK_POINTER, 16, UNCHANGED, RA), 8),
        ),
        (
            "a stub pushes before its byte 11",
            cfa_expression(&[0x77, 0x08, 0x80, 0x00, 0x3f, 0x1a, 0x3b, 0x2a, 0x33, 0x24, 0x22]),
            rule(Cfa::LINKAGE_TABLE, 11, UNCHANGED, RA),
        ),
        ("a thread begins", undefined(16), only(Cfa::END_OF_STACK)),
        ("the return address is nowhere", same(16), only(Cfa::UNSUPPORTED)),
        ("the return address is too far away", saved(16, 1 << 13), only(Cfa::UNSUPPORTED)),
        ("the CFA counts from another register", cfa(10, 0), only(Cfa::UNSUPPORTED)),
        ("the CFA is too far away", cfa_far(7, 1 << 31), only(Cfa::UNSUPPORTED)),
        ("the addend is too much", cfa_expression(&[0x77, 0, 0x06, 0x23, 0x80, 0x80, 0x02]), only(Cfa::UNSUPPORTED)),
        ("the expression is another one", cfa_expression(&[0x77, 0x08, 0x06, 0x06]), only(Cfa::UNSUPPORTED)),
        ("the expression reads four bytes", cfa_expression(&[0x77, 0x08, 0x94, 0x04]), only(Cfa::UNSUPPORTED)),
        ("the expression is no expression", cfa_expression(&[0x02]), only(Cfa::UNSUPPORTED)),
        ("the expression is long", cfa_expression(&[0x96; 100]), only(Cfa::UNSUPPORTED)),
    ] {
        let unsupported = u64::from(expected.cfa == Cfa::UNSUPPORTED);
        assert_eq!(rule_of(elf::EM_X86_64, "zR", &usual, &instructions), (expected, unsupported), "{claim}");
    }
}

#[test]
fn aarch64_frames_become_rules() {
    const LINK: (Saved, i16) = (Saved::UNCHANGED, 0);
    let signed = |instructions: Vec<u8>| [vec![NEGATE_RA_STATE], instructions].concat();
    let both_saved = [saved(29, 2), saved(30, 1)].concat();
    let both = ((Saved::AT_CFA, -16), (Saved::AT_CFA, -8));
    for (claim, instructions, expected) in [
        ("a leaf has its caller in the link register", vec![], rule(Cfa::STACK_POINTER, 0, UNCHANGED, LINK)),
        ("a leaf has a stack", cfa(31, 32), rule(Cfa::STACK_POINTER, 32, UNCHANGED, LINK)),
        ("both are saved", [cfa(31, 32), both_saved.clone()].concat(), rule(Cfa::STACK_POINTER, 32, both.0, both.1)),
        (
            "the frame pointer points to the frame",
            [cfa(29, 16), both_saved.clone()].concat(),
            rule(Cfa::FRAME_POINTER, 16, both.0, both.1),
        ),
        (
            "the return address is signed",
            signed([cfa(29, 16), both_saved].concat()),
            rule(Cfa::FRAME_POINTER, 16, both.0, both.1),
        ),
        ("the link register is as it was", same(30), rule(Cfa::STACK_POINTER, 0, UNCHANGED, LINK)),
        ("a thread begins", undefined(30), only(Cfa::END_OF_STACK)),
        ("the return address is in the CFA", is_cfa_minus(30, 1), only(Cfa::UNSUPPORTED)),
        ("the return address is too far away", saved(30, 1 << 13), only(Cfa::UNSUPPORTED)),
        ("the CFA counts from another register", cfa(19, 0), only(Cfa::UNSUPPORTED)),
    ] {
        let unsupported = u64::from(expected.cfa == Cfa::UNSUPPORTED);
        assert_eq!(rule_of(elf::EM_AARCH64, "zR", &cfa(31, 0), &instructions), (expected, unsupported), "{claim}");
    }
}

#[test]
fn a_signal_trampoline_is_the_kernels_frame_whatever_it_says() {
    for machine in [elf::EM_X86_64, elf::EM_AARCH64] {
        assert_eq!(rule_of(machine, "zRS", &cfa(7, 8), &cfa(10, 0)), (only(Cfa::SIGNAL_FRAME), 0));
    }
}

#[test]
fn a_common_entry_alone_makes_a_rule() {
    let common = [cfa(6, 32), saved(16, 3), saved(6, 4)].concat();
    let expected = rule(Cfa::FRAME_POINTER, 32, (Saved::AT_CFA, -32), (Saved::AT_CFA, -24));
    assert_eq!(rule_of(elf::EM_X86_64, "zR", &common, &[]), (expected, 0));
}

#[test]
fn rules_hold_from_where_they_are_said_to_the_next() {
    let steps = [
        advance(1),
        cfa_offset(16),
        advance(3),
        vec![REMEMBER],
        cfa_offset(24),
        advance(0),
        cfa_offset(32),
        advance(0x10),
        vec![RESTORE],
    ];
    let mut start = 0;
    let table = table_of(ExampleElf::default(), |written, code| {
        start = code + 0xf8;
        let common = written.common_x86_64();
        written.function(common, start..start + 0x20, &steps.concat());
    });
    let offset = |at: u64| table.rule(start + at).map(|rule| (rule.cfa, rule.cfa_offset));
    let (before, behind) = (start.wrapping_sub(1), start + 0x20);
    for (at, expected) in [(0, 8), (1, 16), (3, 16), (4, 32), (8, 32), (0x13, 32), (0x14, 16), (0x1f, 16)] {
        assert_eq!(offset(at), Some((Cfa::STACK_POINTER, expected)), "at {at:#x}");
    }
    assert_eq!(table.rule(before), Some(Rule::default()));
    assert_eq!(table.rule(behind), Some(Rule::default()));
    assert_eq!(table.addresses(), 0x1000..0x1200);
    assert_eq!((table.rule(0xfff), table.rule(0x1200)), (None, None));
}

#[test]
fn stubs_without_unwind_information_get_the_rule_of_their_first_instruction() {
    for (machine, expected) in [
        (elf::EM_X86_64, rule(Cfa::STACK_POINTER, 8, UNCHANGED, (Saved::AT_CFA, -8))),
        (elf::EM_AARCH64, rule(Cfa::STACK_POINTER, 0, UNCHANGED, (Saved::UNCHANGED, 0))),
    ] {
        let example = ExampleElf { machine, linkage_table: 0x100, ..ExampleElf::default() };
        let table = table_of(example, |_, _| {});
        assert_eq!(table.rule(0x1f00), Some(expected));
        assert_eq!(table.rule(0x1fff), Some(expected));
        assert_eq!(table.addresses(), 0x1f00..0x2000);
    }
}

#[test]
fn a_file_without_unwind_information_has_an_empty_table() {
    let table = table_of(ExampleElf::default(), |_, _| {});
    assert!(table.addresses().is_empty());
    assert_eq!(table.rule(0x1000), None);
}
