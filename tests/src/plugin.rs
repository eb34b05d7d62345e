//! Shared objects for programs to load: the same code under different names, compiled when they are asked for.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

/// Without a standard library, so that unloading it really does.
const SOURCE: &str = r#"
#![no_std]

#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    loop {}
}

#[inline(never)]
fn plugin_burn(seed: u64) -> u64 {
    let mut value = seed;
    for _ in 0..20_000 {
        value = core::hint::black_box(value.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1));
    }
    value
}

#[unsafe(no_mangle)]
pub extern "C" fn plugin_work(callback: extern "C" fn(*mut u8) -> i32, context: *mut u8) -> u64 {
    let room = core::hint::black_box([1_u64; ROOM]);
    let mut value = room[0];
    while callback(context) != 0 {
        value ^= core::hint::black_box(plugin_burn(value));
    }
    value ^ core::hint::black_box(&room)[ROOM - 1]
}
"#;

/// Makes `libNAME.so` in `directory`. It exports `plugin_work`, which spends nearly all of its time in `plugin_burn`.
///
/// `plugin_work` has `room` words on its stack: by the unwind table of another object one finds no caller.
pub fn build(directory: &Path, name: &str, room: usize) -> PathBuf {
    let source = directory.join(format!("{name}.rs"));
    fs::write(&source, format!("{SOURCE}\nconst ROOM: usize = {room};\n")).expect("the directory is writable");
    let path = directory.join(format!("lib{name}.so"));
    let mut command = Command::new(rustc());
    command.args(["--crate-type", "cdylib", "--edition", "2024", "-C", "opt-level=2", "-C", "panic=abort"]);
    command.args(["-C", "force-unwind-tables=yes", "-C", "link-arg=-Wl,--build-id", "-o"]);
    let status = command.arg(&path).arg(&source).status().expect("the compiler starts");
    assert!(status.success(), "{} does not compile", source.display());
    path
}

/// The compiler that belongs to the cargo which runs these tests.
pub fn rustc() -> PathBuf {
    let beside = env::var_os("CARGO").map(|cargo| PathBuf::from(cargo).with_file_name("rustc"));
    beside.filter(|rustc| rustc.is_file()).unwrap_or_else(|| "rustc".into())
}
