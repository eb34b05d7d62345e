use super::*;
use crate::code::Unprobed;
use crate::target::image::Image;

/// `mov $0x40, %eax; lock xadd %rax, (%rdi)`
const COUNTS_UP: &[u8] = &[0xb8, 0x40, 0, 0, 0, 0xf0, 0x48, 0x0f, 0xc1, 0x07];
/// `mov $-0x40, %rax; lock xadd %rax, (%rdi); ret`
const COUNTS_DOWN: &[u8] = &[0x48, 0xc7, 0xc0, 0xc0, 0xff, 0xff, 0xff, 0xf0, 0x48, 0x0f, 0xc1, 0x07, 0xc3];
/// `push %rbx; mov 0x10(%rdi), %rax; call *8(%rax); pop %rbx; ret`
const WAKES: &[u8] = &[0x53, 0x48, 0x8b, 0x47, 0x10, 0xff, 0x50, 0x08, 0x5b, 0xc3];
/// `mov 0x10(%rdi), %rax; L: test $2, %al; jne L; test %al, %al; je R; jmp *8(%rax); R: ret`
const WAKES_IN_A_LOOP: &[u8] =
    &[0x48, 0x8b, 0x47, 0x10, 0xa8, 0x02, 0x75, 0xfc, 0x84, 0xc0, 0x74, 0x03, 0xff, 0x60, 0x08, 0xc3];

/// Where the vtables of wakers stand, behind that of a task.
const WAKERS: u64 = DATA + 0x80;

/// A program of these functions, and words behind the vtable of a task, which is polled by the first.
fn look(functions: &[&[u8]], words: &[Word]) -> WakeCode {
    let mut code = functions.concat();
    let sizes = functions.iter().map(|function| function.len() as u32).collect();
    code.resize(0x1000, 0xc3);
    let mut data = vtable(CODE, 0x100, 0x20, 0x28);
    data.resize(16, Word::Number(0));
    data.extend(words);
    let example = ExampleProgram { code, functions: sizes, data, ..ExampleProgram::default() };
    let bytes = example.bytes();
    let image = Image::read(&bytes).unwrap();
    let program = examine(&image, &bytes).unwrap();
    WakeCode::read(&program, &image, &bytes, &bytes)
}

/// A function that counts up and returns the address of a vtable. `before` are the bytes of code before it.
fn clone(before: usize, vtable: u64) -> Vec<u8> {
    let next = CODE + (before + COUNTS_UP.len() + 7) as u64;
    // lea vtable(%rip), %rax; ret
    [COUNTS_UP, &[0x48, 0x8d, 0x05], &((vtable - next) as u32).to_le_bytes(), &[0xc3]].concat()
}

/// Where probes stand in the functions of one waker, by where they are behind the first.
fn wakes(wake: &[u8], wake_by_ref: &[u8], vtable: u64, drop: &[u8]) -> Result<Vec<u64>, Untold> {
    let clone = clone(0, vtable);
    let functions = [&clone, wake, wake_by_ref, drop];
    let starts = [0, 1, 2, 3].map(|at| CODE + functions[..at].iter().map(|one| one.len() as u64).sum::<u64>());
    let found = look(&functions, &starts.map(Word::Address)).wakes?;
    assert!(found.iter().all(|told| told.header == polletto_common::poll::Register(14)), "in %rdi");
    Ok(found.iter().map(|told| told.place.address - starts[1]).collect())
}

#[test]
fn wakers_are_found_by_what_the_functions_of_their_vtable_do() {
    let behind = WAKES.len() as u64;
    assert_eq!(wakes(WAKES, WAKES_IN_A_LOOP, WAKERS, COUNTS_DOWN), Ok(vec![0, behind + 10]));
    for (claim, wake, vtable, drop) in [
        ("the clone returns another vtable", WAKES, WAKERS + 8, COUNTS_DOWN),
        ("what should wake calls nothing", &[0x53, 0x5b, 0xc3], WAKERS, COUNTS_DOWN),
        ("what should give back counts nothing", WAKES, WAKERS, &[0x90, 0xc3]),
    ] {
        assert_eq!(wakes(wake, WAKES_IN_A_LOOP, vtable, drop), Err(Untold::NotFound), "{claim}");
    }
}

#[test]
fn numbers_may_come_by_the_stack_where_code_is_to_be_small() {
    // push $-0x40; pop %rax; lock xadd %rax, (%rdi); ret
    let counts_down: &[u8] = &[0x6a, 0xc0, 0x58, 0xf0, 0x48, 0x0f, 0xc1, 0x07, 0xc3];
    let behind = WAKES.len() as u64;
    assert_eq!(wakes(WAKES, WAKES_IN_A_LOOP, WAKERS, counts_down), Ok(vec![0, behind + 10]));
    // push $-0x40; push %rbx; pop %rax; …
    let another: &[u8] = &[0x6a, 0xc0, 0x53, 0x58, 0xf0, 0x48, 0x0f, 0xc1, 0x07, 0xc3];
    assert_eq!(wakes(WAKES, WAKES_IN_A_LOOP, WAKERS, another), Err(Untold::NotFound));
}

#[test]
fn what_gives_a_reference_back_may_only_lead_to_what_does() {
    let clone = clone(0, WAKERS);
    for (drop, expected) in [
        // jmp to what stands behind it
        (&[0xe9, 0, 0, 0, 0][..], Ok(2)),
        // push %rbx; mov %rdi, %rbx; call what stands behind it; pop %rbx; ret
        (&[0x53, 0x48, 0x89, 0xfb, 0xe8, 2, 0, 0, 0, 0x5b, 0xc3], Ok(2)),
        // The same with mov %rbx, %rdi
        (&[0x53, 0x48, 0x89, 0xdf, 0xe8, 2, 0, 0, 0, 0x5b, 0xc3], Err(Untold::NotFound)),
        // jmp to where it stands itself
        (&[0xeb, 0xfe], Err(Untold::NotFound)),
    ] {
        let functions = [&clone, WAKES, WAKES_IN_A_LOOP, drop, COUNTS_DOWN];
        let starts = [0, 1, 2, 3].map(|at| CODE + functions[..at].iter().map(|one| one.len() as u64).sum::<u64>());
        let wakes = look(&functions, &starts.map(Word::Address)).wakes;
        assert_eq!(wakes.map(|places| places.len()), expected, "{drop:x?}");
    }
}

#[test]
fn two_kinds_of_wakers_are_no_waker() {
    let (one, other) = (clone(0, WAKERS), clone(18, WAKERS + 40));
    assert_eq!(one.len(), 18);
    let functions = [&one, &other, WAKES, WAKES_IN_A_LOOP, COUNTS_DOWN];
    let start = |at: usize| Word::Address(CODE + functions[..at].iter().map(|one| one.len() as u64).sum::<u64>());
    let rows = [start(0), start(2), start(3), start(4), Word::Number(0), start(1), start(3), start(2), start(4)];
    assert_eq!(look(&functions, &rows).wakes, Err(Untold::Ambiguous));
}

#[test]
fn a_probe_stands_where_every_call_comes_by_once_with_the_task() {
    for (claim, wake, expected) in [
        ("at the first instruction", WAKES, Ok(0)),
        ("behind a loop", WAKES_IN_A_LOOP, Ok(10)),
        // mov 0x10(%rdi), %rax; mov %rsi, %rdi; nop; jmp *8(%rax)
        ("the task is gone", &[0x48, 0x8b, 0x47, 0x10, 0x48, 0x89, 0xf7, 0x90, 0xff, 0x60, 0x08], Err(())),
        // mov 0x10(%rdi), %rax; call *8(%rax); nop; ret
        ("a call may change it", &[0x48, 0x8b, 0x47, 0x10, 0xff, 0x50, 0x08, 0x90, 0xc3], Err(())),
        // test %al, %al; mov 0x10(%rdi), %rax; L: jne L; jmp *8(%rax)
        ("it may come by again", &[0x84, 0xc0, 0x48, 0x8b, 0x47, 0x10, 0x75, 0xfe, 0xff, 0x60, 0x08], Err(())),
        // mov 0x10(%rdi), %rax; jmp *8(%rax)
        ("nothing takes a probe", &[0x48, 0x8b, 0x47, 0x10, 0xff, 0x60, 0x08], Err(())),
        // mov 0x10(%rdi), %rax; jmp into an instruction; jmp *8(%rax)
        ("its instructions overlap", &[0x48, 0x8b, 0x47, 0x10, 0xeb, 0xfb, 0xff, 0x60, 0x08], Err(())),
    ] {
        let found = wakes(wake, WAKES, WAKERS, COUNTS_DOWN);
        let told =
            found.map(|places| places[0]).map_err(|error| assert!(matches!(error, Untold::Unprobed(_)), "{claim}"));
        assert_eq!(told, expected, "{claim}");
    }
}

/// Where the probes stand in a function, and which register holds the task there.
fn spawns(code: &[u8]) -> Result<Vec<(u64, u8)>, Untold> {
    let found = look(&[code], &[]).spawns?;
    Ok(found.iter().map(|told| (told.place.address - CODE, told.header.0)).collect())
}

#[test]
fn spawns_are_found_by_what_is_done_to_a_new_task() {
    // mov 0x28(%rdi), %rax; mov %rax, 0x18(%rsi)
    let argument = [0x48, 0x8b, 0x47, 0x28, 0x48, 0x89, 0x46, 0x18];
    // mov 0x10(%rsi), %rax; mov 0x48(%rax), %rax; mov (%rsi, %rax), %rcx; ret
    let by_id = [0x48, 0x8b, 0x46, 0x10, 0x48, 0x8b, 0x40, 0x48, 0x48, 0x8b, 0x0c, 0x06, 0xc3];
    // mov (%r15), %rax; mov %rax, 0x18(%rbx); test %al, %al; je .
    let own = [0x49, 0x8b, 0x07, 0x48, 0x89, 0x43, 0x18, 0x84, 0xc0, 0x74, 0x00];
    // mov 0x10(%rbx), %rcx; mov 0x38(%rcx), %rcx; mov %rax, 8(%rbx, %rcx); ret
    let by_trailer = [0x48, 0x8b, 0x4b, 0x10, 0x48, 0x8b, 0x49, 0x38, 0x48, 0x89, 0x44, 0x0b, 0x08, 0xc3];
    const RSI: u8 = 13;
    const RBX: u8 = 5;
    for (claim, code, expected) in [
        ("the task is an argument", [&[0x55][..], &argument, &by_id].concat(), Ok(vec![(0, RSI)])),
        ("it is made here", [&[0x55][..], &own, &by_trailer].concat(), Ok(vec![(10, RBX)])),
        ("it is not listed", [&[0x55][..], &own, &[0xc3]].concat(), Err(Untold::NotFound)),
        ("another is listed", [&[0x55][..], &own, &by_id].concat(), Err(Untold::NotFound)),
        ("its owner is not loaded", [&[0x55][..], &own[3..], &by_trailer].concat(), Err(Untold::NotFound)),
        ("no place is near", [&own[..7], &[0xc3], &by_trailer].concat(), Err(Untold::NotFound)),
    ] {
        assert_eq!(spawns(&code), expected, "{claim}");
    }
}

#[test]
fn a_spawn_is_found_by_the_vtable_that_a_task_gets() {
    let code = |vtable: u64| {
        let mut code = vec![0x55, 0x48, 0x8d, 0x05];
        code.extend(((vtable - (CODE + 8)) as u32).to_le_bytes());
        // mov %rax, 0x10(%rbx); mov (%r15), %rax; mov %rax, 0x18(%rbx); je .; ret
        code.extend([0x48, 0x89, 0x43, 0x10, 0x49, 0x8b, 0x07, 0x48, 0x89, 0x43, 0x18, 0x74, 0x00, 0xc3]);
        code
    };
    assert_eq!(spawns(&code(DATA)), Ok(vec![(19, 5)]));
    assert_eq!(spawns(&code(DATA + 0x200)), Err(Untold::NotFound));
}

#[test]
fn bytes_that_are_no_instructions_tell_nothing() {
    let code = look(&[&[0x06; 64]], &[]);
    assert_eq!((code.wakes, code.spawns), (Err(Untold::NotFound), Err(Untold::NotFound)));
}

/// Where the vtable of a closure that may block stands, behind that of a task.
const CLOSURE: u64 = DATA + 0x80;

/// `lea to(%rip), %rax`, the first instruction of a function with so many bytes of code before it.
fn takes(before: usize, to: u64) -> Vec<u8> {
    let next = CODE + before as u64 + 7;
    [&[0x48, 0x8d, 0x05][..], &((to.wrapping_sub(next)) as u32).to_le_bytes()].concat()
}

/// `call`, behind so many bytes of code, of what stands behind so many.
fn calls(before: usize, to: usize) -> Vec<u8> {
    let distance = to as i32 - (before as i32 + 5);
    [&[0xe8][..], &distance.to_le_bytes()].concat()
}

/// A function that makes a task of `vtable` and gives it to the function behind it, which is `queue`, and behind that `last`.
fn closures(vtable: u64, queue: &[u8], last: &[u8]) -> Result<Vec<(u64, u8)>, Untold> {
    const MAKER: usize = 13;
    let maker = [takes(0, vtable), calls(7, MAKER), vec![0xc3]].concat();
    assert_eq!(maker.len(), MAKER);
    let words = super::super::example::vtable(CODE, 0x100, 0x20, 0x30);
    let found = look(&[&maker, queue, last], &words).blocking_spawns?;
    Ok(found.iter().map(|told| (told.place.address - CODE - MAKER as u64, told.header.0)).collect())
}

#[test]
fn closures_that_may_block_are_found_by_what_takes_them_and_shuts_them_down() {
    const RSI: u8 = 13;
    // push %rbx; mov %rsi, %rbx
    let begin = [0x53, 0x48, 0x89, 0xf3];
    // mov 0x10(%rbx), %rax; mov %rbx, %rdi; call *0x30(%rax); pop %rbx; ret
    let own = [0x48, 0x8b, 0x43, 0x10, 0x48, 0x89, 0xdf, 0xff, 0x50, 0x30, 0x5b, 0xc3];
    // mov 0x10(%rdi), %rax; jmp *0x30(%rax)
    let shutdown = [0x48, 0x8b, 0x47, 0x10, 0xff, 0x60, 0x30];
    // The maker's 13 bytes, these, and `mov %rbx, %rdi; call; pop %rbx; ret`.
    let by_another = [&begin[..], &[0x48, 0x89, 0xdf], &calls(20, 27), &[0x5b, 0xc3]].concat();
    let queue = [&begin[..], &own].concat();
    let polled = [&begin[..], &own[..9], &[0x00, 0x5b, 0xc3]].concat();
    // mov 0x28(%rdi), %rax; mov %rax, 0x18(%rsi); mov 0x10(%rsi), %rax; mov 0x48(%rax), %rax; mov (%rsi, %rax), %rcx
    let listed = [0x48, 0x8b, 0x47, 0x28, 0x48, 0x89, 0x46, 0x18, 0x48, 0x8b, 0x46, 0x10, 0x48, 0x8b, 0x40, 0x48]
        .into_iter()
        .chain([0x48, 0x8b, 0x0c, 0x06])
        .collect::<Vec<u8>>();
    let list = [&begin[..], &listed, &own].concat();
    let unprobed = [&begin[1..], &own[..10], &[0xc3]].concat();
    for (claim, vtable, queue, expected) in [
        ("it shuts its task down", CLOSURE, &queue, Ok(vec![(0, RSI)])),
        ("another function does", CLOSURE, &by_another, Ok(vec![(0, RSI)])),
        ("of a task that awaits", DATA, &queue, Err(Untold::NotFound)),
        ("it does something else with the task", CLOSURE, &polled, Err(Untold::NotFound)),
        ("it has a list of those that await", CLOSURE, &list, Err(Untold::NotFound)),
        ("nothing takes a probe", CLOSURE, &unprobed, Err(Untold::Unprobed(Unprobed::NoPlace))),
    ] {
        assert_eq!(closures(vtable, queue, &shutdown), expected, "{claim}");
    }
}

#[test]
fn two_functions_that_take_closures_are_none() {
    let queue = [0x53, 0x48, 0x89, 0xf3, 0x48, 0x8b, 0x43, 0x10, 0x48, 0x89, 0xdf, 0xff, 0x50, 0x30, 0x5b, 0xc3];
    let maker = [takes(0, CLOSURE), calls(7, 18), calls(12, 34), vec![0xc3]].concat();
    let words = super::super::example::vtable(CODE, 0x100, 0x20, 0x30);
    assert_eq!(look(&[&maker, &queue, &queue], &words).blocking_spawns, Err(Untold::Ambiguous));
}
