//! Stacks of programs that nobody here wrote or built: large, stripped, of other languages.
//!
//! These scenarios need root and a kernel that takes BPF programs, and a C compiler and Python. They fail without.

use std::{
    collections::{BTreeMap, HashMap},
    fmt::Write,
    fs,
    path::{Path, PathBuf},
};

use polletto_tests::{plugin, recorder::Record, symbols::entry_point, trace::StackSample, turn::Turn};

/// The share of stacks that must reach the root, in percent.
const WHOLE_PERCENT: usize = 98;

/// How long it may take from the first sample in a program's code until all of it can be followed: for the Rust compiler
/// these are tables of a hundred megabytes of code.
const LEARNT_NS: u64 = 1_000_000_000;

/// A program's `_start` is no longer than this.
const LONGEST_START: u64 = 64;

/// Where programs and threads begin.
#[derive(Default)]
struct Roots {
    entry_points: HashMap<String, Option<u64>>,
}

impl Roots {
    /// The first thread of a process begins where its program's file says, or the dynamic linker's; others in libc.
    fn reached_by(&mut self, sample: &StackSample) -> bool {
        let Some(outermost) = sample.stack.user_frames().next_back() else { return false };
        let (false, Some(path)) = (sample.stack.is_incomplete(), outermost.path()) else { return false };
        let entry_point = *self.entry_points.entry(path.to_owned()).or_insert_with(|| entry_point(Path::new(path)));
        let is_entry = entry_point.is_some_and(|entry| (entry..entry + LONGEST_START).contains(&outermost.rel_pc));
        is_entry || (sample.tid != sample.pid && path.contains("/libc.so"))
    }
}

/// Records a command that burns CPU with everything that it starts. `file` is where most of its stacks must be.
fn assert_stacks_are_whole(command: &[&str], file: &str) {
    let options = ["-F", "997", "--follow", "--"];
    let outcome = Record::new().arguments(options).arguments(command).run().expect_success();
    let trace = outcome.trace();
    let is_inside = |sample: &&StackSample| {
        sample.stack.frames().iter().any(|frame| frame.path().is_some_and(|path| path.contains(file)))
    };
    let inside = trace.samples.iter().filter(is_inside).count();
    assert!(inside * 2 > trace.samples.len(), "{inside} of {} samples are in {file}", trace.samples.len());
    let begin = trace.samples.iter().find(is_inside).expect("there is one").at;
    let mut roots = Roots::default();
    // A blocked thread's stack is looked at when it leaves.
    let seen_at = |sample: &StackSample| if sample.is_blocked() { sample.stretch().start } else { sample.at };
    for is_blocked in [false, true] {
        let samples: Vec<_> = trace.samples.iter().filter(|sample| sample.is_blocked() == is_blocked).collect();
        let what = format!("{} {}", command[0], if is_blocked { "blocked" } else { "on a CPU" });
        let (early, samples): (Vec<&StackSample>, Vec<&StackSample>) =
            samples.into_iter().partition(|sample| seen_at(sample) < begin + LEARNT_NS);
        let early_whole = early.iter().filter(|sample| roots.reached_by(sample)).count();
        let (whole, others): (Vec<&StackSample>, Vec<&StackSample>) =
            samples.iter().partition(|sample| roots.reached_by(sample));
        println!(
            "{what}: first {early_whole} of {} reach the root, then {} of {}",
            early.len(),
            whole.len(),
            samples.len()
        );
        let mut endings: BTreeMap<_, usize> = BTreeMap::new();
        for sample in others {
            let file = sample.stack.user_frames().next_back().and_then(|frame| frame.path());
            *endings.entry((sample.unwind_error.as_deref(), file)).or_default() += 1;
        }
        // Compilers hardly ever block: of so few, one could be more than what is allowed.
        if is_blocked && samples.len() < 100 / (100 - WHOLE_PERCENT) {
            continue;
        }
        assert!(is_blocked || samples.len() >= 500, "{what}: only {} samples", samples.len());
        let is_enough = whole.len() * 100 >= samples.len() * WHOLE_PERCENT;
        assert!(is_enough, "{what}: {} of {} reach the root; others: {endings:#?}", whole.len(), samples.len());
    }
}

/// The distribution's own, where there is one: some machines have a shell script of that name in front of another.
fn python() -> &'static str {
    if Path::new("/usr/bin/python3").is_file() { "/usr/bin/python3" } else { "python3" }
}

#[test]
fn python_is_whole() {
    let _turn = Turn::with_others();
    let script = "
import json, re, threading, time
def work():
    for turn in range(200):
        value = {str(i): [i, i * 2.5, {'nested': 'x' * (i % 17)}] for i in range(2000)}
        text = json.dumps(value)
        assert json.loads(text) == value
        re.sub(r'(x+)', lambda match: match[0].upper(), text)
        sorted(text.split(','), key=lambda part: part[::-1])
        time.sleep(0.002)
threads = [threading.Thread(target=work) for _ in range(2)]
for thread in threads: thread.start()
work()
for thread in threads: thread.join()
";
    assert_stacks_are_whole(&[python(), "-c", script], "python3");
}

/// Source code that keeps a compiler busy for a second or more.
fn source(directory: &Path, name: &str, functions: usize, function: impl Fn(&mut String, usize)) -> PathBuf {
    let mut text = String::new();
    (0..functions).for_each(|index| function(&mut text, index));
    let path = directory.join(name);
    fs::write(&path, text).expect("the directory is writable");
    path
}

#[test]
fn the_rust_compiler_is_whole() {
    let _turn = Turn::with_others();
    let directory = tempfile::tempdir().expect("a directory");
    let source = source(directory.path(), "busy.rs", 20, |text, index| {
        writeln!(
            text,
            "#[derive(Clone, Debug, PartialEq, PartialOrd, Hash)] pub struct S{index} {{ pub a: Vec<u64>, pub b: String }}
             pub fn f{index}(mut s: Vec<S{index}>) -> Option<String> {{
                 s.sort_by(|x, y| x.b.cmp(&y.b).then_with(|| x.a.cmp(&y.a))); s.dedup();
                 s.iter().filter(|x| x.a.len() > {index}).map(|x| format!(\"{{x:?}}\")).max() }}"
        )
        .expect("a string takes everything");
    });
    let (compiler, output) = (plugin::rustc(), directory.path().join("busy.o"));
    let (compiler, source, output) = (text(&compiler), text(&source), text(&output));
    let arguments = ["--crate-type", "lib", "--edition", "2024", "--emit", "obj", "-O", "-o", output, source];
    assert_stacks_are_whole(&[&[compiler], &arguments[..]].concat(), "librustc_driver");
}

/// Stripped, and written in C++.
#[test]
fn the_c_compiler_is_whole() {
    let _turn = Turn::with_others();
    let directory = tempfile::tempdir().expect("a directory");
    let source = source(directory.path(), "busy.c", 400, |text, index| {
        writeln!(
            text,
            "double f{index}(const double *a, double *b, int n) {{ double s = {index}; for (int i = 1; i < n - 1; i++) {{
                 b[i] = (a[i - 1] + a[i + 1]) * s; if (b[i] > {index}) s += b[i] / (a[i] + i); else s -= a[i] * b[i - 1];
                 switch (i % 7) {{ case 0: s *= 2; break; case 3: s = -s; break; case 5: s += i; break; }} }} return s; }}"
        )
        .expect("a string takes everything");
    });
    let output = directory.path().join("busy.o");
    assert_stacks_are_whole(&["cc", "-O2", "-c", "-o", text(&output), text(&source)], "cc1");
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a plain path")
}
