use super::*;
use crate::target::image::Image;

/// `mov %fs:0,%rax; lea -0x130(%rax),%rax`: the address of an object.
const OBJECT: &[u8] = &[0x64, 0x48, 0x8b, 0x04, 0x25, 0, 0, 0, 0, 0x48, 0x8d, 0x80, 0xd0, 0xfe, 0xff, 0xff];
/// `movzbl 0x48(%rax),%ecx; cmp $1,%ecx; je .+2; ud2`: whether the thread has it.
const STATE: &[u8] = &[0x0f, 0xb6, 0x48, 0x48, 0x83, 0xf9, 0x01, 0x74, 0x02, 0x0f, 0x0b];
/// `mov 0x30(%rax),%rcx; mov %rbx,0x30(%rax); mov %rcx,%rax; ret`: puts an id there, and returns what was there.
const EXCHANGE: &[u8] = &[0x48, 0x8b, 0x48, 0x30, 0x48, 0x89, 0x58, 0x30, 0x48, 0x89, 0xc8, 0xc3];

const SIZE: usize = 0x40;

/// A program with one task, whose poll is the first of these functions. Each has [`SIZE`] bytes.
fn polling(functions: &[&[u8]]) -> ExampleProgram {
    let mut code = Vec::new();
    for (index, function) in functions.iter().enumerate() {
        code.extend(*function);
        code.resize((index + 1) * SIZE, 0xcc);
    }
    let sizes = vec![SIZE as u32; functions.len()];
    code.resize(0x1000, 0xc3);
    ExampleProgram {
        code,
        functions: sizes,
        data: vtable(CODE, 0x100, 0x20, 0x28),
        thread_locals: 0x130,
        ..ExampleProgram::default()
    }
}

fn examined(program: &ExampleProgram) -> Option<Program> {
    let bytes = program.bytes();
    examine(&Image::read(&bytes).unwrap(), &bytes)
}

fn context(program: &ExampleProgram) -> Context {
    examined(program).unwrap().context
}

/// `call` of the function after this one, as the first instruction.
const CALL_NEXT: &[u8] = &[0xe8, SIZE as u8 - 5, 0, 0, 0];

#[test]
fn the_code_of_a_poll_shows_where_the_id_is() {
    let whole = [OBJECT, STATE, EXCHANGE].concat();
    let calls = [CALL_NEXT, &[0xc3]].concat();
    // mov $-0x130,%r15; movzbl %fs:0x48(%r15),%ecx; mov %fs:0x30(%r15),%rax; mov %rbx,%fs:0x30(%r15); ret
    let register = [
        &[0x49, 0xc7, 0xc7, 0xd0, 0xfe, 0xff, 0xff, 0x64, 0x41, 0x0f, 0xb6, 0x4f, 0x48][..],
        &[0x64, 0x49, 0x8b, 0x47, 0x30, 0x64, 0x49, 0x89, 0x5f, 0x30, 0xc3],
    ]
    .concat();
    // mov %fs:0,%rdi; lea -0x130(%rdi),%rdi; call .; mov %fs:-0xe8,%al; mov %fs:-0x100,%rcx; mov %rbx,%fs:-0x100; ret
    let absolute = [
        &[0x64, 0x48, 0x8b, 0x3c, 0x25, 0, 0, 0, 0, 0x48, 0x8d, 0xbf, 0xd0, 0xfe, 0xff, 0xff, 0xe8, 0, 0, 0, 0][..],
        &[0x64, 0x8a, 0x04, 0x25, 0x18, 0xff, 0xff, 0xff, 0x64, 0x48, 0x8b, 0x0c, 0x25, 0x00, 0xff, 0xff, 0xff],
        &[0x64, 0x48, 0x89, 0x1c, 0x25, 0x00, 0xff, 0xff, 0xff, 0xc3],
    ]
    .concat();
    // cmpb $1,0x48(%rax); ret
    let getter = [OBJECT, &[0x80, 0x78, 0x48, 0x01, 0xc3]].concat();
    let calls_getter = [CALL_NEXT, EXCHANGE].concat();
    for (claim, functions) in [
        ("in the poll itself", vec![&whole]),
        ("in what it calls", vec![&calls, &calls, &whole]),
        ("counted from a register", vec![&register]),
        ("counted from nothing", vec![&absolute]),
        ("through a function that finds the object", vec![&calls_getter, &getter]),
    ] {
        let functions: Vec<&[u8]> = functions.into_iter().map(Vec::as_slice).collect();
        let found = context(&polling(&functions));
        let evidence = Evidence::Code { votes: 1, asked: 1 };
        assert_eq!(found.current_task_id, Ok(Found { offset: -0x100, evidence }), "{claim}");
        assert_eq!(found.start, Ok(Found { offset: -0x130, evidence }), "{claim}");
    }
}

#[test]
fn what_is_no_id_is_not_taken_for_one() {
    // mov 8(%rax),%rcx; inc %rcx; mov %rcx,8(%rax); ret
    let count = [0x48, 0x8b, 0x48, 0x08, 0x48, 0xff, 0xc1, 0x48, 0x89, 0x48, 0x08, 0xc3];
    // mov 0x30(%rax),%rcx; ret
    let load = [0x48, 0x8b, 0x48, 0x30, 0xc3];
    // mov 0x30(%rdi),%rcx; mov %rbx,0x30(%rdi); ret
    let elsewhere = [0x48, 0x8b, 0x4f, 0x30, 0x48, 0x89, 0x5f, 0x30, 0xc3];
    for (claim, function) in [
        ("a count", [OBJECT, STATE, &count].concat()),
        ("only read", [OBJECT, STATE, &load].concat()),
        ("without a state", [OBJECT, EXCHANGE].concat()),
        ("not of the thread", [OBJECT, STATE, &elsewhere].concat()),
        ("behind a call", [OBJECT, STATE, CALL_NEXT, EXCHANGE].concat()),
    ] {
        assert_eq!(context(&polling(&[&function])).current_task_id, Err(Unknown::Unseen), "{claim}");
    }
    let poll = [OBJECT, STATE, EXCHANGE].concat();
    let library = ExampleProgram { is_library: true, ..polling(&[&poll]) };
    assert_eq!(context(&library).current_task_id, Err(Unknown::NotFixed));
}

#[test]
fn a_program_tells_who_is_polled_at_an_address() {
    let mut program = polling(&[&[0xc3], &[0xc3]]);
    program.data = [vtable(CODE, 0x100, 0x20, 0x28), vtable(CODE, 0x80, 0x20, 0x30)].concat();
    let found = examined(&program).unwrap();
    assert_eq!(found.vtables.len(), 2);
    assert_eq!(found.polled_at(CODE + SIZE as u64 - 1), [DATA, DATA + 80]);
    assert!(found.polled_at(CODE + SIZE as u64).is_empty());
    assert!(found.polled_at(CODE - 1).is_empty());
}

#[test]
fn a_program_without_tasks_is_none_of_tokios() {
    assert_eq!(examined(&ExampleProgram::default()), None);
}

#[test]
fn paths_tell_what_a_program_was_built_from() {
    let commit = "0123456789abcdef0123456789abcdef01234567";
    for (claim, text, versions, commits) in [
        ("a version", "/registry/src/index/tokio-1.54.1/src/runtime/mod.rs", &["1.54.1"][..], 0),
        ("another crate's", "/registry/src/index/tokio-util-0.7.1/src/lib.rs", &[], 0),
        ("a copy", "/app/vendor/tokio/src/runtime/mod.rs", &[], 0),
        ("two", "a/tokio-1.9.0/src/b/tokio-1.54.1-beta.1/src/c", &["1.9.0", "1.54.1"], 0),
        ("no version", "/tokio-1.2/src/ /tokio-1.2.x/src/ /tokio-1.2.3.4/src/ /tokio-1.2.3", &[], 0),
        ("a commit", &format!("/rustc/{commit}/library/std"), &[], 1),
        ("no commit", &format!("/rustc/{}x/library", &commit[1..]), &[], 0),
    ] {
        let mut program = polling(&[&[0xc3]]);
        program.data.extend(words(text));
        let origins = examined(&program).unwrap().origins;
        assert_eq!(origins.tokio.iter().map(ToString::to_string).collect::<Vec<_>>(), versions, "{claim}");
        assert_eq!(origins.rustc, vec![commit; commits], "{claim}");
    }
}

#[test]
fn a_path_tells_that_there_may_be_a_tokio_with_parking_lot() {
    for (text, expected) in [
        ("/registry/src/index/parking_lot-0.12.5/src/condvar.rs", true),
        ("/a/parking_lot-0.9.0/src/condvar.rs", true),
        ("/registry/src/index/parking_lot_core-0.9.12/src/parking_lot.rs", false),
        ("/registry/src/index/parking_lot-0.12.5/src/mutex.rs", false),
        ("/parking_lot-", false),
    ] {
        let mut program = polling(&[&[0xc3]]);
        program.data.extend(words(&format!("/tokio-1.54.1/src/lib.rs {text}")));
        assert_eq!(examined(&program).unwrap().origins.has_parking_lot, expected, "{text}");
    }
}

/// A text as it stands in a file.
fn words(text: &str) -> Vec<Word> {
    let mut text = text.as_bytes().to_vec();
    text.resize(text.len().next_multiple_of(8), 0);
    text.as_chunks::<8>().0.iter().map(|word| Word::Number(u64::from_le_bytes(*word))).collect()
}
