//! What instructions tell of the stack, beside what compilers say of the same code.

use std::fs::File;

use polletto_common::unwind::{Cfa, Rule, Saved};
use rustc_hash::FxHashSet;

use crate::{
    target::image::{Image, Source, example::Numbers},
    unwind::{
        Bounds, Table,
        heights::{self, RETURN_FROM_SIGNAL, rules},
    },
};

/// Of the rows that can be compared, so many of a thousand may differ: blocks that nothing leads to, and callees that take
/// something from the stack.
const WRONG: usize = 5;

/// And of so many of a hundred something must be told: tables of jumps lead to the others.
const TOLD_PERCENT: usize = 70;

/// Compares the rules of all of a file's code, read as if nothing were said of it.
fn compare(name: &str, source: &(impl Source + ?Sized)) {
    let image = Image::read(source).unwrap();
    let table = Table::from_eh_frame(&image, &image.read_eh_frame(source).unwrap()).unwrap();
    let bounds = Bounds::read(&image, source).unwrap();
    let (mut same, mut wrong, mut silent) = (0, Vec::new(), 0);
    for code in image.code_addresses() {
        let bytes = image.read_code(source, &code).unwrap();
        let referred = heights::references(&bytes, code.start).filter(|reference| !reference.is_jump);
        let begins = referred.map(|reference| reference.to).collect();
        let rules = heights::rules(&bytes, code.start, &begins);
        for (&(at, rule), next) in rules.iter().zip(rules.iter().skip(1)) {
            for at in [at, next.0 - 1] {
                let Some(said) = table.rule(at).filter(|_| bounds.around(at).is_some()) else { continue };
                match (said.cfa, rule.cfa) {
                    // With a frame pointer, compilers say nothing of the stack pointer.
                    (Cfa::STACK_POINTER, Cfa::STACK_POINTER) if is_same(&said, &rule) => same += 1,
                    (Cfa::STACK_POINTER, Cfa::STACK_POINTER) => wrong.push((at, said, rule)),
                    (Cfa::STACK_POINTER, Cfa::UNKNOWN) => silent += 1,
                    _ => {}
                }
            }
        }
    }
    let all = same + wrong.len();
    println!("{name}: {same} of {all} rows are as they are said, of {silent} others nothing is told");
    for (at, said, rule) in wrong.iter().step_by(wrong.len().div_ceil(16).max(1)) {
        println!("  {at:#x}: {said:?}, not {rule:?}");
    }
    assert!(all > 100 && wrong.len() * 1000 <= all * WRONG, "{name}: {} of {all} are wrong", wrong.len());
    assert!(all * 100 >= (all + silent) * TOLD_PERCENT, "{name}: of {silent} nothing is told");
}

fn is_same(said: &Rule, told: &Rule) -> bool {
    (said.cfa_offset, said.return_address_offset) == (told.cfa_offset, told.return_address_offset)
}

#[test]
fn instructions_tell_of_the_c_library_s_stack_what_its_compiler_says() {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let path = maps.lines().filter_map(|line| line.split_ascii_whitespace().nth(5)).find(|path| path.contains("libc"));
    compare("libc", &File::open(path.unwrap()).unwrap());
}

#[test]
fn instructions_tell_of_the_shell_s_stack_what_its_compiler_says() {
    compare("bash", &File::open("/bin/bash").unwrap());
}

const AT: u64 = 0x1000;

/// Where the CFA is at each address of these instructions, as (address, way, offset). Functions begin at those offsets.
fn told(bytes: &[u8], begins: &[u64]) -> Vec<(u64, Cfa, i32)> {
    let begins = begins.iter().map(|offset| AT + offset).collect();
    rules(bytes, AT, &begins).into_iter().map(|(at, rule)| (at - AT, rule.cfa, rule.cfa_offset)).collect()
}

fn sp(at: u64, height: i32) -> (u64, Cfa, i32) {
    (at, Cfa::STACK_POINTER, height)
}

fn unknown(at: u64) -> (u64, Cfa, i32) {
    (at, Cfa::UNKNOWN, 0)
}

#[test]
fn a_function_s_stack_grows_and_shrinks() {
    // push %rbx; sub $0x20,%rsp; add $0x20,%rsp; pop %rbx; ret; int3
    let code = [0x53, 0x48, 0x83, 0xec, 0x20, 0x48, 0x83, 0xc4, 0x20, 0x5b, 0xc3, 0xcc];
    assert_eq!(told(&code, &[0]), [sp(0, 8), sp(1, 16), sp(5, 48), sp(9, 16), sp(10, 8), unknown(11)]);
    assert_eq!(told(&code, &[]), [unknown(0)], "nobody says that a function begins here");
}

#[test]
fn where_the_frame_pointer_is_saved_is_told_and_it_tells_what_the_stack_pointer_does_not() {
    // push %rbp; mov %rsp,%rbp; and $-16,%rsp; leave; ret
    let code = [0x55, 0x48, 0x89, 0xe5, 0x48, 0x83, 0xe4, 0xf0, 0xc9, 0xc3];
    assert_eq!(told(&code, &[0]), [sp(0, 8), sp(1, 16), (8, Cfa::FRAME_POINTER, 16), sp(9, 8)]);
    let begins = FxHashSet::from_iter([AT]);
    let saved: Vec<_> = rules(&code, AT, &begins).iter().map(|(_, rule)| rule.frame_pointer).collect();
    assert_eq!(saved, [Saved::UNCHANGED, Saved::AT_CFA, Saved::AT_CFA, Saved::UNCHANGED]);
}

#[test]
fn jumps_carry_the_stack_along_forward_and_back() {
    // push %rbx; jmp 5; nop; nop; (5) je 9; ret; nop; (9) pop %rbx; ret
    let forward = [0x53, 0xeb, 0x02, 0x90, 0x90, 0x74, 0x02, 0xc3, 0x90, 0x5b, 0xc3];
    assert_eq!(told(&forward, &[0]), [sp(0, 8), sp(1, 16), unknown(3), sp(5, 16), unknown(8), sp(9, 16), sp(10, 8)]);
    // push %rbx; jmp 5; (3) pop %rbx; ret; (5) jmp 3
    let back = [0x53, 0xeb, 0x02, 0x5b, 0xc3, 0xeb, 0xfc];
    assert_eq!(told(&back, &[0]), [sp(0, 8), sp(1, 16), sp(4, 8), sp(5, 16)]);
}

#[test]
fn what_follows_a_call_that_may_never_return_is_taken_for_another_function_where_one_may_begin() {
    // push %rbx; call …; nop; (7) pop %rbx; ret
    let padded = [0x53, 0xe8, 0, 0, 1, 0, 0x90, 0x5b, 0xc3];
    assert_eq!(told(&padded, &[0]), [sp(0, 8), sp(1, 16), unknown(6)]);
    let known = [0x53, 0xe8, 0, 0, 1, 0, 0x5b, 0xc3];
    assert_eq!(told(&known, &[0]), [sp(0, 8), sp(1, 16), sp(7, 8)]);
}

#[test]
fn threads_begin_and_signals_return_as_musl_writes_it() {
    // xor %ebp,%ebp; pop %rdi; call *%r9; hlt
    let thread = [0x31, 0xed, 0x5f, 0x41, 0xff, 0xd1, 0xf4];
    assert_eq!(told(&thread, &[0]), [(0, Cfa::END_OF_STACK, 0)]);
    // xor %rbp,%rbp; mov %rsp,%rdi; and $-16,%rsp
    let program = [0x48, 0x31, 0xed, 0x48, 0x89, 0xe7, 0x48, 0x83, 0xe4, 0xf0];
    assert_eq!(told(&program, &[]), [(0, Cfa::END_OF_STACK, 0)], "the pattern says enough");
    // nop; mov $15,%rax; syscall; nop
    let signal = [&[0x90][..], &RETURN_FROM_SIGNAL, &[0x90]].concat();
    assert_eq!(told(&signal, &[]), [(0, Cfa::SIGNAL_FRAME, 0), unknown(10)]);
    // xor %ebp,%ebp as a number; ret
    assert_eq!(told(&[0x31, 0xed, 0xc3], &[0]), [sp(0, 8), sp(2, 8)], "with another frame pointer");
}

#[test]
fn no_bytes_lead_astray() {
    let mut numbers = Numbers(7);
    for length in 0..400 {
        let bytes: Vec<u8> = (0..length).map(|_| numbers.below(256) as u8).collect();
        let rules = rules(&bytes, AT, &FxHashSet::from_iter([AT, AT + 3]));
        assert!(rules.is_sorted_by(|a, b| a.0 < b.0 && a.1 != b.1));
        assert!(rules.iter().all(|(at, _)| (AT..AT + length).contains(at)));
    }
}
