use std::ops::Range;

use super::*;
use crate::{code::Seen, target::image::Image};

/// A program whose one function has this code.
fn with_function<T>(code: &[u8], look: impl FnOnce(&PollCode, &Image, &Vec<u8>) -> T) -> T {
    let mut padded = code.to_vec();
    padded.resize(0x1000, 0xc3);
    let example = ExampleProgram {
        code: padded,
        functions: vec![code.len() as u32],
        data: vtable(CODE, 0x100, 0x20, 0x28),
        ..ExampleProgram::default()
    };
    let bytes = example.bytes();
    let image = Image::read(&bytes).unwrap();
    let program = examine(&image, &bytes).unwrap();
    look(&program.poll_code(&image, &bytes), &image, &bytes)
}

type Cost = &'static str;

const CHEAP: Cost = "carried out by the kernel";
const STEPPED: Cost = "run elsewhere";

/// Where a probe stands that sees every call of this code, and how far the stack pointer has moved by then.
fn entry(code: &[u8]) -> Result<(u64, i64, Cost), Unprobed> {
    with_function(code, |code, _, _| {
        let [Entry { place: entry, .. }] = code.entries() else { panic!("one function polls") };
        let cost = |place: &Place| if place.is_stepped { STEPPED } else { CHEAP };
        entry.clone().map(|place| (place.address - CODE, place.moved, cost(&place)))
    })
}

/// What comes behind a call whose next instruction is at `next`.
fn after(code: &[u8], next: u64) -> Result<AfterReturn, Unprobed> {
    with_function(code, |polls, image, source| polls.after_return(image, source, CODE + next))
}

#[test]
fn a_poll_begins_where_its_first_instruction_is_carried_out_by_the_kernel() {
    for (claim, code, expected) in [
        ("push %rbp", &[0x55, 0xc3][..], Ok((0, 0, CHEAP))),
        ("push %r15", &[0x41, 0x57, 0xc3], Ok((0, 0, CHEAP))),
        ("jmp", &[0xeb, 0x10, 0xc3], Ok((0, 0, CHEAP))),
        ("mov %rsp, %rax; push %rbp", &[0x48, 0x89, 0xe0, 0x55, 0xc3], Ok((3, 0, CHEAP))),
        ("endbr64; push %rbp", &[0xf3, 0x0f, 0x1e, 0xfa, 0x55, 0xc3], Ok((4, 0, CHEAP))),
        ("sub $0x18, %rsp; call", &[0x48, 0x83, 0xec, 0x18, 0xe8, 0, 0, 0, 0, 0xc3], Ok((4, -0x18, CHEAP))),
        ("mov %rsi, %rdi; push %rbp", &[0x48, 0x89, 0xf7, 0x55, 0xc3], Ok((0, 0, STEPPED))),
        ("mov %rdi, %rsp; push %rbp", &[0x48, 0x89, 0xfc, 0x55, 0xc3], Ok((0, 0, STEPPED))),
        ("sub $0x18, %rsp; ret", &[0x48, 0x83, 0xec, 0x18, 0xc3], Ok((0, 0, STEPPED))),
        ("endbr64; sub $0x18, %rsp; ret", &[0xf3, 0x0f, 0x1e, 0xfa, 0x48, 0x83, 0xec, 0x18, 0xc3], Ok((4, 0, STEPPED))),
        ("sub $0x18, %rsp; ret; jmp to it", &[0x48, 0x83, 0xec, 0x18, 0xc3, 0xeb, 0xf9], Err(Unprobed::NoPlace)),
        ("mov 0x10(%rdi), %rax; ret", &[0x48, 0x8b, 0x47, 0x10, 0xc3], Err(Unprobed::NoPlace)),
        ("mov 0x10(%rip), %rax; ret", &[0x48, 0x8b, 0x05, 0x10, 0, 0, 0, 0xc3], Err(Unprobed::NoPlace)),
        ("push %rbp; jmp to it", &[0x55, 0xeb, 0xfd, 0xc3], Err(Unprobed::NoPlace)),
        ("ret", &[0xc3], Err(Unprobed::NoPlace)),
        ("no instruction", &[0x06, 0x55], Err(Unprobed::NoPlace)),
    ] {
        assert_eq!(entry(code), expected, "{claim}");
    }
}

#[test]
fn a_poll_has_ended_at_the_first_such_instruction_behind_its_call() {
    // With what stands there, once it is known.
    let of = |address, moved, seen: Range<usize>, is_stepped| {
        let seen = Seen { address: CODE + seen.start as u64, bytes: vec![0; seen.len()].into() };
        Ok(AfterReturn::Place(Place { address: CODE + address, moved, seen, is_stepped }))
    };
    let place = |address, moved, seen| of(address, moved, seen, false);
    let stepped = |address, seen| of(address, 0, seen, true);
    let call = [0xff, 0x10];
    for (claim, behind, expected) in [
        ("cmp $2, %bpl; je", &[0x40, 0x80, 0xfd, 0x02, 0x74, 0x00][..], place(6, 0, 2..8)),
        ("nop", &[0x90], place(2, 0, 2..3)),
        ("test; jne near", &[0x85, 0xc0, 0x0f, 0x85, 0, 0, 0, 0], place(4, 0, 2..10)),
        ("add $8, %rsp; jmp", &[0x48, 0x83, 0xc4, 0x08, 0xeb, 0x00], place(6, 8, 2..8)),
        ("pop %rax; ret", &[0x58, 0xc3], Ok(AfterReturn::Outwards { bytes: 16 })),
        ("ret", &[0xc3], Ok(AfterReturn::Outwards { bytes: 8 })),
        ("call of a pointer", &[0xff, 0x10, 0x90], Err(Unprobed::NoPlace)),
        ("mov %rbp, %rsp", &[0x48, 0x89, 0xec, 0x90], stepped(2, 2..5)),
        ("mov 8(%rsp), %rdi; call of a pointer", &[0x48, 0x8b, 0x7c, 0x24, 8, 0xff, 0x10], stepped(2, 2..7)),
        ("syscall", &[0x0f, 0x05, 0x90], Err(Unprobed::NoPlace)),
    ] {
        let code = [&call[..], behind, &[0xc3; 4]].concat();
        let expected = expected.map(|expected| match expected {
            AfterReturn::Place(mut place) => {
                let from = (place.seen.address - CODE) as usize;
                place.seen.bytes = code[from..from + place.seen.bytes.len()].into();
                AfterReturn::Place(place)
            }
            outwards => outwards,
        });
        assert_eq!(after(&code, 2), expected, "{claim}");
    }
    assert_eq!(after(&[0xff, 0x10, 0x90, 0xc3], 1), Err(Unprobed::NoInstruction), "in the middle of one");
    assert_eq!(after(&[0xff, 0x10, 0x90, 0xc3], 0x9000), Err(Unprobed::NoFunction), "elsewhere");
}

#[test]
fn calls_that_look_like_those_of_polls_are_found() {
    for (claim, code, expected) in [
        // mov 0x10(%r13), %rax; mov %r13, %rdi; call *(%rax)
        ("as compilers write it", &[0x49, 0x8b, 0x45, 0x10, 0x4c, 0x89, 0xef, 0xff, 0x10, 0x90][..], Some(9)),
        // mov %rbx, %rdi; mov 0x10(%rbx), %rcx; nop; call *(%rcx)
        ("in another order", &[0x48, 0x89, 0xdf, 0x48, 0x8b, 0x4b, 0x10, 0x90, 0xff, 0x11, 0x90], Some(10)),
        // mov 0x10(%rdi), %rax; call *(%rax)
        ("of the own argument", &[0x48, 0x8b, 0x47, 0x10, 0xff, 0x10, 0x90], Some(6)),
        // mov 0x18(%r13), %rax; mov %r13, %rdi; call *(%rax)
        ("of another pointer", &[0x49, 0x8b, 0x45, 0x18, 0x4c, 0x89, 0xef, 0xff, 0x10, 0x90], None),
        // mov 0x10(%r13), %rax; mov %r14, %rdi; call *(%rax)
        ("with another argument", &[0x49, 0x8b, 0x45, 0x10, 0x4c, 0x89, 0xf7, 0xff, 0x10, 0x90], None),
        // mov 0x10(%r13), %rax; mov %r13, %rdi; call *8(%rax)
        ("of another function", &[0x49, 0x8b, 0x45, 0x10, 0x4c, 0x89, 0xef, 0xff, 0x50, 0x08, 0x90], None),
    ] {
        let found = with_function(code, |polls, _, _| polls.likely_returns().to_vec());
        assert_eq!(found, expected.map(|next| CODE + next).into_iter().collect::<Vec<u64>>(), "{claim}");
    }
}

#[test]
fn calls_of_async_task_are_found_wherever_the_vtable_is_in_the_header() {
    for (claim, code, expected) in [
        // mov (%r14), %rax; mov %r14, %rdi; call *0x28(%rax)
        ("in front", &[0x49, 0x8b, 0x06, 0x4c, 0x89, 0xf7, 0xff, 0x50, 0x28, 0x90][..], Some(9)),
        // mov 0x10(%rdi), %rax; call *0x28(%rax)
        ("behind", &[0x48, 0x8b, 0x47, 0x10, 0xff, 0x50, 0x28, 0x90], Some(7)),
        // mov 0x28(%rdi), %rax; call *0x28(%rax)
        ("outside of it", &[0x48, 0x8b, 0x47, 0x28, 0xff, 0x50, 0x28, 0x90], None),
        // mov (%rdi), %rax; call *0x20(%rax)
        ("another function", &[0x48, 0x8b, 0x07, 0xff, 0x50, 0x20, 0x90], None),
        // mov 0x8(%r14), %rax; mov (%r14), %rdi; call *0x28(%rax)
        ("an object and its vtable", &[0x49, 0x8b, 0x46, 0x08, 0x49, 0x8b, 0x3e, 0xff, 0x50, 0x28, 0x90], None),
    ] {
        let found = with_function(code, |_, image, bytes| {
            let polls = std::iter::once((CODE, Polls::Own { may_block: false }));
            PollCode::of(polls, &crate::async_task::POLL_CALL, image, bytes).likely_returns().to_vec()
        });
        assert_eq!(found, expected.map(|next| CODE + next).into_iter().collect::<Vec<u64>>(), "{claim}");
    }
}

#[test]
fn calls_of_what_hands_polls_over_are_found() {
    // At CODE + 0x20: mov 0x10(%rdi), %rax; jmp *(%rax)
    let handover = [0x48, 0x8b, 0x47, 0x10, 0xff, 0x20];
    let relative = |from: u64, to: u64| (to.wrapping_sub(from) as u32).to_le_bytes();
    let direct = [&[0xe8][..], &relative(CODE + 5, CODE + 0x20)].concat();
    let elsewhere = [&[0xe8][..], &relative(CODE + 5, CODE + 0x21)].concat();
    // The first word of data is the address of the code.
    let slot = |at: u64| [&[0xff, 0x15][..], &relative(CODE + 6, DATA + at)].concat();
    for (claim, call, hands_over_at, expected) in [
        ("directly", direct, 0x20, Some(5)),
        ("something else", elsewhere, 0x20, None),
        ("through a pointer", slot(0), 0x0, None),
        ("through what is no pointer", slot(0x38), 0x20, None),
    ] {
        let mut code = vec![0x90; 0x40];
        code[..call.len()].copy_from_slice(&call);
        if hands_over_at > 0 {
            code[hands_over_at..hands_over_at + handover.len()].copy_from_slice(&handover);
        }
        let found = with_function(&code, |polls, _, _| polls.likely_returns().to_vec());
        assert_eq!(found, expected.map(|next| CODE + next).into_iter().collect::<Vec<u64>>(), "{claim}");
    }
    // The function itself hands over, and something behind it calls that through the pointer to it.
    let mut code = handover.to_vec();
    code.resize(0x10, 0x90);
    code.extend([&[0xff, 0x15][..], &relative(CODE + 0x16, DATA)].concat());
    let found = with_function(&code, |polls, _, _| polls.likely_returns().to_vec());
    assert_eq!(found, [CODE + 0x16]);
}
