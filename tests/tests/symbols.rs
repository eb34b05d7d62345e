//! Names in recordings of programs whose files are unusual, damaged, or gone.
//!
//! These scenarios need root and a kernel that takes BPF programs. They fail where it does not.

use std::{
    ffi::OsStr,
    fs::{self, File},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::Duration,
};

use object::{LittleEndian, Object, ObjectSection, elf::FileHeader64, read::elf::FileHeader};
use polletto_tests::{
    plugin, program,
    program::Program,
    recorder::{Outcome, Record},
    symbols::{build_id, short_name},
    trace::{StackSample, Trace},
    turn::Turn,
};
use rustix::fs::{CWD, FileType, Mode, mknodat};
use serde_json::Value;

/// How long a recording may take to end, whatever the files are: a worker that finds nothing for 20 s is given up.
const PATIENCE: Duration = Duration::from_secs(60);

/// A recording of a program that calls `plugin_work` of a library.
struct Recorded {
    outcome: Outcome,
    trace: Trace,
    library: PathBuf,
    build_id: String,
}

impl Recorded {
    /// `meanwhile` comes once the library was called, and before anything is named.
    fn with(library: &Path, arguments: &[&OsStr], meanwhile: impl FnOnce()) -> Recorded {
        let build_id = build_id(library);
        let path = library.to_str().expect("a plain path");
        let mut shifter =
            Program::start(program!("shape-shifter"), &["wait", "open", path, "call", "300", "spin", "50"]);
        let recording = Record::new().process(shifter.pid()).arguments(["-F", "997"]).arguments(arguments).start();
        shifter.begin();
        shifter.wait_for("called ");
        meanwhile();
        let outcome = recording.wait_at_most(PATIENCE).expect_success();
        shifter.finish();
        let trace = outcome.trace();
        Recorded { outcome, trace, library: library.to_owned(), build_id }
    }

    /// The program's functions in the library, the innermost first, as the trace names them. Inlined ones are left out.
    fn names(&self, sample: &StackSample) -> Vec<String> {
        let path = self.library.to_str().expect("a plain path");
        let own = sample.stack.user_frames().filter(|frame| frame.path() == Some(path));
        own.map(|frame| {
            let lines = self.trace.symbols.lines(path, &self.build_id, frame.rel_pc);
            lines.and_then(<[_]>::last).map_or("?".to_owned(), |line| short_name(&line.function))
        })
        .collect()
    }

    /// Those of all samples that lead through the library. Those from before its tables were compiled are left out.
    fn all_names(&self) -> Vec<Vec<String>> {
        let complete = self.trace.samples.iter().filter(|sample| sample.unwind_error.is_none());
        let all: Vec<_> = complete.map(|sample| self.names(sample)).collect();
        let own: Vec<_> = all.into_iter().filter(|names| !names.is_empty()).collect();
        assert!(own.len() >= 50, "{} samples in {}", own.len(), self.library.display());
        own
    }

    /// Whatever is wrong with the library, the program itself has all its names.
    fn assert_others_are_named(&self) {
        let told = self.outcome.told(program!("shape-shifter"));
        assert!(told["named"].as_u64().is_some_and(|named| named > 0), "{told}");
        assert_eq!(told["named"], told["addresses"], "{told}");
    }

    fn assert_missing(&self, reason: &str) {
        self.outcome.assert_missing(&self.library, reason);
    }

    fn assert_named(&self) {
        let all = self.all_names();
        let right = all.iter().filter(|names| names.last().is_some_and(|name| name == "plugin_work")).count();
        assert!(right * 100 >= all.len() * 99, "{right} of {} are in plugin_work", all.len());
    }
}

fn directory() -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().canonicalize().expect("it is there");
    (directory, path)
}

fn pipe(path: &Path) {
    mknodat(CWD, path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).expect("a pipe can be made");
}

/// Strips a library, and lets it tell where its debug information went.
fn strip(library: &Path, debug: &Path) {
    fs::write(debug, "nothing").expect("the directory is writable");
    let mut objcopy = Command::new("objcopy");
    let mut link = std::ffi::OsString::from("--add-gnu-debuglink=");
    link.push(debug);
    let status = objcopy.arg("--strip-all").arg(link).arg(library).status();
    assert!(status.is_ok_and(|status| status.success()), "objcopy fails");
    fs::remove_file(debug).expect("it is there");
}

/// Lets a library's symbol table claim so many bytes.
fn lie_about_symbols(library: &Path, claimed: u64) {
    let bytes = fs::read(library).expect("it is there");
    let header = FileHeader64::<LittleEndian>::parse(&*bytes).expect("it is an ELF file");
    let file = object::File::parse(&*bytes).expect("it is an ELF file");
    let index = file.section_by_name(".symtab").expect("it has symbols").index().0 as u64;
    let file = File::options().write(true).open(library).expect("it is ours");
    let size_of_section = header.e_shoff.get(LittleEndian) + index * 64 + 32;
    file.write_all_at(&claimed.to_le_bytes(), size_of_section).expect("it is writable");
}

fn make_sparse(library: &Path) {
    lie_about_symbols(library, (8 << 30) / 24 * 24);
    let file = File::options().write(true).open(library).expect("it is ours");
    file.set_len(10 << 30).expect("holes take no room");
}

#[test]
fn a_library_that_was_cut_is_told_and_the_rest_is_named() {
    let _turn = Turn::with_others();
    let (_kept, directory) = directory();
    let library = plugin::build(&directory, "cut", 4);
    let cut = || File::options().write(true).open(&library).and_then(|file| file.set_len(100)).expect("it is ours");
    let recorded = Recorded::with(&library, &[], cut);
    recorded.assert_others_are_named();
    assert_ne!(recorded.outcome.told(&library)["missing"], Value::Null);
}

#[test]
fn a_library_that_is_cut_while_it_is_read_costs_its_own_names_at_most() {
    let _turn = Turn::with_others();
    let (_kept, directory) = directory();
    let library = plugin::build(&directory, "shrinks", 4);
    make_sparse(&library);
    let file = File::options().write(true).open(&library).expect("it is ours");
    let mut cutting = None;
    // Reading what it claims takes a second.
    let recorded = Recorded::with(&library, &[], || {
        cutting = Some(thread::spawn(move || {
            thread::sleep(Duration::from_millis(400));
            file.set_len(1 << 20)
        }));
    });
    cutting.expect("it was started").join().expect("it does not panic").expect("it is ours");
    recorded.assert_others_are_named();
}

#[test]
fn a_huge_file_of_holes_that_lies_about_its_symbols_is_survived() {
    let _turn = Turn::with_others();
    let (_kept, directory) = directory();
    let library = plugin::build(&directory, "sparse", 4);
    make_sparse(&library);
    let recorded = Recorded::with(&library, &[], || {});
    recorded.assert_others_are_named();
    recorded.all_names();
}

#[test]
fn pipes_and_devices_where_debug_information_may_be_are_passed_over() {
    let _turn = Turn::with_others();
    let (_kept, directory) = directory();
    let library = plugin::build(&directory, "piped", 4);
    let debug = directory.join("piped.debug");
    strip(&library, &debug);
    pipe(&debug);
    let id = build_id(&library);
    let by_build_id = directory.join(".build-id").join(&id[..2]);
    fs::create_dir_all(&by_build_id).expect("the directory is writable");
    pipe(&by_build_id.join(format!("{}.debug", &id[2..])));
    fs::create_dir_all(directory.join(".debug")).expect("the directory is writable");
    std::os::unix::fs::symlink("/dev/zero", directory.join(".debug/piped.debug")).expect("the directory is writable");
    let recorded = Recorded::with(&library, &["--debug-dir".as_ref(), directory.as_os_str()], || {});
    recorded.assert_others_are_named();
    recorded.assert_missing("not a regular file");
    recorded.assert_named();
}

#[test]
fn a_path_may_have_any_letter() {
    let _turn = Turn::with_others();
    let (_kept, directory) = directory();
    let directory = directory.join("new\nline \u{1b}[31m");
    fs::create_dir(&directory).expect("the directory is writable");
    let library = plugin::build(&directory, "named", 4);
    let recorded = Recorded::with(&library, &[], || {});
    recorded.assert_others_are_named();
    recorded.assert_named();
}

/// Its code is in two segments, of which the second is far from where the file has it. `far_calls_last` ends with a call.
const FAR: &str = r#"
#include <setjmp.h>
typedef int (*callback)(void *);
static jmp_buf back;
static volatile unsigned long sink;
#define FAR __attribute__((noinline, section(".far")))

FAR unsigned long far_burn(unsigned long seed) {
    for (int turn = 0; turn < 20000; turn++) seed = (sink = seed * 6364136223846793005UL + 1);
    return seed;
}
FAR __attribute__((noreturn)) void far_forever(callback until, void *context) {
    for (;;) {
        sink = far_burn(sink);
        if (until(context) == 0) longjmp(back, 1);
    }
}
FAR void far_calls_last(callback until, void *context) {
    sink = 1;
    far_forever(until, context);
}
FAR int far_behind(int value) { return value + 3; }

__attribute__((visibility("default"))) unsigned long plugin_work(callback until, void *context) {
    if (setjmp(back) == 0) far_calls_last(until, context);
    return sink + far_behind(2);
}
"#;

/// Makes a library of it.
fn compile(directory: &Path, name: &str, arguments: &[&str]) -> PathBuf {
    let (source, library) = (directory.join(format!("{name}.c")), directory.join(format!("lib{name}.so")));
    fs::write(&source, FAR).expect("the directory is writable");
    let mut compiler = Command::new("cc");
    compiler.args(["-O2", "-g", "-fno-toplevel-reorder", "-falign-functions=1"]);
    compiler.args(["-shared", "-fPIC", "-fvisibility=hidden", "-Wl,--build-id"]).args(arguments);
    compiler.arg("-o").arg(&library).arg(&source).current_dir(directory);
    assert!(compiler.status().is_ok_and(|status| status.success()), "{compiler:?} fails");
    library
}

#[test]
fn a_part_of_debug_information_that_is_not_there_is_told() {
    let _turn = Turn::with_others();
    let (_kept, directory) = directory();
    let library = compile(&directory, "parts", &["-gsplit-dwarf"]);
    let all = fs::read_dir(&directory).expect("it is there").map(|entry| entry.expect("it is there").path());
    let mut parts: Vec<PathBuf> =
        all.filter(|path| path.extension().is_some_and(|extension| extension == "dwo")).collect();
    let part = parts.pop().expect("the compiler leaves a part in another file");
    let recorded = Recorded::with(&library, &[], || fs::remove_file(&part).expect("it is there"));
    recorded.assert_missing(part.to_str().expect("a plain path"));
    recorded.assert_named();
}

#[test]
fn callers_are_where_they_called_in_segments_that_are_elsewhere_than_in_the_file() {
    let _turn = Turn::with_others();
    let (_kept, directory) = directory();
    let elsewhere = ["-Wl,-z,separate-code", "-Wl,--section-start=.far=0x812340"];
    let library = compile(&directory, "far", &elsewhere);
    let recorded = Recorded::with(&library, &[], || {});
    let all = recorded.all_names();
    let whole = ["far_burn", "far_forever", "far_calls_last", "plugin_work"];
    let right = all
        .iter()
        .filter(|names| names.len() <= whole.len() && names.iter().rev().eq(whole.iter().rev().take(names.len())))
        .count();
    assert!(right * 100 >= all.len() * 98, "{right} of {} are right: {:?}", all.len(), &all[..5]);
    assert!(all.iter().flatten().all(|name| name != "far_behind"), "a call is in the function behind it");
    assert_eq!(recorded.outcome.told(&library)["missing"], Value::Null, "{}", recorded.outcome.told(&library));
}
