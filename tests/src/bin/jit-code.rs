//! Machine code that is in no file, keeps frame pointers as most that is generated does, and calls back into Rust.
//!
//! `jit-code [--turns 100]`
//!
//! Lists its functions as `outer` and `inner` in `/tmp/perf-PID.map`, which it leaves behind. Prints `ready PID`. When a line comes on standard input it burns CPU and blocks, by turns, through two such functions
//! that call each other, so many times. Then it prints one line of JSON: its thread, when it began and ended, and the
//! addresses of the code.

use std::{fs, hint::black_box, io, process, ptr::null_mut, thread, time::Duration};

use polletto_tests::workload::{boottime, line_came, option, own_tid, say, spin};

const PAGE: usize = 4096;

/// `outer(inner, callback)`: calls `inner(callback)`.
const OUTER: [u8; 15] = [
    0x55, // push rbp
    0x48, 0x89, 0xe5, // mov rbp, rsp
    0x48, 0x89, 0xf8, // mov rax, rdi
    0x48, 0x89, 0xf7, // mov rdi, rsi
    0xff, 0xd0, // call rax
    0x5d, // pop rbp
    0xc3, // ret
    0xcc, // int3
];

/// `inner(callback)`: calls `callback()`, with some room on the stack that nobody uses.
const INNER: [u8; 12] = [
    0x55, // push rbp
    0x48, 0x89, 0xe5, // mov rbp, rsp
    0x48, 0x83, 0xec, 0x20, // sub rsp, 32
    0xff, 0xd7, // call rdi
    0xc9, // leave
    0xc3, // ret
];

type Callback = extern "C" fn() -> u64;
type Outer = extern "C" fn(inner: *const u8, callback: Callback) -> u64;

/// A page with both functions, `OUTER` at its begin and `INNER` in its middle.
struct Generated(*mut u8);

impl Generated {
    fn new() -> io::Result<Generated> {
        let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        // SAFETY: a new mapping, wherever there is room.
        let page = unsafe { libc::mmap(null_mut(), PAGE, protection, flags, -1, 0) };
        if page == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let generated = Generated(page.cast());
        for (code, at) in [(&OUTER[..], generated.0), (&INNER[..], generated.inner().cast_mut())] {
            // SAFETY: the page is ours and writable, and either half is longer than the code.
            unsafe { at.copy_from_nonoverlapping(code.as_ptr(), code.len()) };
        }
        // SAFETY: the page is ours.
        match unsafe { libc::mprotect(page, PAGE, libc::PROT_READ | libc::PROT_EXEC) } {
            0 => Ok(generated),
            _ => Err(io::Error::last_os_error()),
        }
    }

    fn inner(&self) -> *const u8 {
        // SAFETY: the page is longer than that.
        unsafe { self.0.add(PAGE / 2) }
    }

    #[inline(never)]
    fn call(&self, callback: Callback) -> u64 {
        // SAFETY: there stands a function of this type.
        let outer = unsafe { std::mem::transmute::<*mut u8, Outer>(self.0) };
        black_box(outer(self.inner(), callback))
    }
}

#[inline(never)]
extern "C" fn callback() -> u64 {
    let burnt = burn();
    black_box(burnt ^ rest())
}

#[inline(never)]
fn burn() -> u64 {
    spin(Duration::from_millis(5));
    black_box(1)
}

#[inline(never)]
fn rest() -> u64 {
    thread::sleep(Duration::from_millis(5));
    black_box(2)
}

#[inline(never)]
fn through_generated_code(generated: &Generated, turns: u64) {
    for _ in 0..turns {
        black_box(generated.call(callback));
    }
}

fn main() -> io::Result<()> {
    let generated = Generated::new()?;
    let [outer, inner] = [generated.0.addr(), generated.inner().addr()];
    let list = format!("{outer:x} {:x} outer\n{inner:x} {:x} inner\n", OUTER.len(), INNER.len());
    fs::write(format!("/tmp/perf-{}.map", process::id()), list)?;
    say(format_args!("ready {}", process::id()));
    if !line_came() {
        return Ok(());
    }
    let begin = boottime();
    through_generated_code(&generated, option("--turns", 100));
    let (end, code) = (boottime(), generated.0.addr());
    say(format_args!(
        r#"{{"tid":{},"begin":{begin},"end":{end},"code_start":{code},"code_end":{}}}"#,
        own_tid(),
        code + PAGE
    ));
    say("done");
    Ok(())
}
