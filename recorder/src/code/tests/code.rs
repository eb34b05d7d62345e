use super::*;
use crate::target::image::{Contents, Image, Pointers};

/// Looks at a program's code.
fn with_code<T>(program: &ExampleProgram, look: impl FnOnce(&Code<'_, '_, Vec<u8>>) -> T) -> T {
    let bytes = program.bytes();
    let image = Image::read(&bytes).unwrap();
    let contents = Contents::new(&image, &bytes);
    let pointers = Pointers::read(&image, &bytes, &contents).unwrap();
    look(&Code::read(&image, &bytes, &contents, &pointers).unwrap())
}

fn references(code: &[u8], data: Vec<Word>) -> Vec<Reference> {
    let functions = vec![code.len() as u32];
    let program = ExampleProgram { code: code.to_vec(), functions, data, ..ExampleProgram::default() };
    with_code(&program, |code| code.references(&code.function(CODE).unwrap()).unwrap())
}

/// What to add to the address of the next instruction.
fn distance(to: u64, next: u64) -> [u8; 4] {
    (to.wrapping_sub(next) as u32).to_le_bytes()
}

#[test]
fn instructions_refer_to_functions_and_to_data() {
    for (claim, opcode, to, expected) in [
        ("call", &[0xe8][..], CODE + 0x100, Some(Reference::Call(CODE + 0x100))),
        ("jmp", &[0xe9], CODE + 0x100, Some(Reference::Jump(CODE + 0x100))),
        ("jne", &[0x0f, 0x85], CODE + 0x100, Some(Reference::Jump(CODE + 0x100))),
        ("jmp to itself", &[0xe9], CODE, None),
        ("lea (%rip), %rdi", &[0x48, 0x8d, 0x3d], DATA, Some(Reference::Data(DATA))),
        ("mov (%rip), %rax", &[0x48, 0x8b, 0x05], DATA, Some(Reference::Data(DATA))),
        ("mov %rax, (%rip)", &[0x48, 0x89, 0x05], DATA, Some(Reference::Data(DATA))),
        ("nop (%rip)", &[0x0f, 0x1f, 0x05], DATA, None),
        ("call *(%rip)", &[0xff, 0x15], DATA, Some(Reference::Call(CODE + 0x40))),
        ("jmp *(%rip)", &[0xff, 0x25], DATA, Some(Reference::Jump(CODE + 0x40))),
        ("call of what another file holds", &[0xff, 0x15], DATA + 8, None),
        ("call of data", &[0xff, 0x15], DATA + 16, None),
        ("lea 0x80000(%rax), %rdi", &[0x48, 0x8d, 0xb8], DATA, None),
    ] {
        let next = CODE + opcode.len() as u64 + 4;
        let mut code = [opcode, &distance(to, next)].concat();
        code.resize(0x80, 0xc3);
        let data = vec![Word::Address(CODE + 0x40), Word::Number(0), Word::Address(DATA)];
        assert_eq!(references(&code, data), expected.into_iter().collect::<Vec<_>>(), "{claim}");
    }
}

#[test]
fn bytes_that_are_no_instructions_refer_to_nothing() {
    assert_eq!(references(&[0x06; 32], Vec::new()), []);
    assert_eq!(references(&[0xe8, 0, 0], Vec::new()), []);
}

#[test]
fn a_poll_that_only_jumps_is_on_no_stack() {
    let thunk = [&[0xe9][..], &distance(CODE + 8, CODE + 5), &[0xcc; 3]].concat();
    let program = ExampleProgram {
        code: [&thunk[..], &[0x90; 64]].concat(),
        functions: vec![5, 3, 40, 24],
        ..ExampleProgram::default()
    };
    let (body, thunk) = (CODE + 8..CODE + 48, CODE..CODE + 5);
    with_code(&program, |code| {
        assert_eq!(code.bodies(CODE).unwrap(), [thunk, body.clone()]);
        assert_eq!(code.bodies(CODE + 8).unwrap(), [body]);
        assert_eq!(code.bodies(CODE + 0x1000).unwrap(), []);
    });
}

#[test]
fn thunks_that_lead_to_themselves_end() {
    let thunk = |at: u64, to: u64| [&[0xe9][..], &distance(to, at + 5)].concat();
    let code = [thunk(CODE, CODE + 5), thunk(CODE + 5, CODE)].concat();
    let program = ExampleProgram { code, functions: vec![5, 5], ..ExampleProgram::default() };
    with_code(&program, |code| assert!(code.bodies(CODE).unwrap().len() < 10));
}
