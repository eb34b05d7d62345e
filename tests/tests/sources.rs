//! Where names come from: servers, other mount namespaces, debug information beside a file or compressed in it, and how
//! much memory that takes.
//!
//! These scenarios need root and a kernel that takes BPF programs. They fail where it does not.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use polletto_tests::{
    debug_server::{DebugServer, Manner, debug_path},
    named::{Named, has_line},
    plugin, program,
    program::Program,
    recorder::Record,
    symbols::{Symbols, build_id},
    trace::Line,
    turn::Turn,
};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use tempfile::TempDir;

fn directory() -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().canonicalize().expect("it is there");
    (directory, path)
}

fn run(program: &str, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) {
    let mut command = Command::new(program);
    let output = command.args(arguments).output().unwrap_or_else(|error| panic!("{command:?} does not start: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Makes `to` of `from`.
fn objcopy(options: &[&OsStr], from: &Path, to: &Path) {
    run("objcopy", options.iter().copied().chain([from.as_os_str(), to.as_os_str()]));
}

fn option(name: &str, value: impl AsRef<OsStr>) -> std::ffi::OsString {
    let mut option = std::ffi::OsString::from(name);
    option.push(value);
    option
}

/// `deep-stacks` without symbols.
fn stripped(directory: &Path, name: &str) -> PathBuf {
    let path = directory.join(name);
    objcopy(&["--strip-all".as_ref()], program!("deep-stacks"), &path);
    path
}

/// A recorder that asks this server alone, with a cache that nobody else has.
fn asking(server: &DebugServer, cache: &Path) -> Record {
    let cache = cache.to_str().expect("a plain path");
    Record::new().environment("DEBUGINFOD_URLS", &server.url()).environment("DEBUGINFOD_CACHE_PATH", cache)
}

#[test]
fn debug_information_is_fetched_from_a_server_that_has_it_if_that_is_wanted() {
    let _turn = Turn::with_others();
    let (_kept, directory) = directory();
    let path = stripped(&directory, "deep-fetched");
    let debug = directory.join("kept");
    objcopy(&["--only-keep-debug".as_ref()], program!("deep-stacks"), &debug);
    let id = build_id(&path);
    let server = DebugServer::start(Manner::Serves(id.clone(), fs::read(&debug).expect("it was made")));
    let cache = directory.join("cache");

    let named = Named::here(&path, asking(&server, &cache));
    named.assert_nameless();
    assert_eq!(server.asked(), [""; 0], "nobody wanted it to be asked");

    let named = Named::here(&path, asking(&server, &cache).arguments(["--debuginfod"]));
    named.assert_named(program!("deep-stacks"));
    named.assert_lines();
    let own = server.asked().iter().filter(|path| **path == debug_path(&id)).count();
    assert_eq!(own, 1, "{:?}", server.asked());
}

#[test]
fn what_no_server_has_is_missing_as_if_none_were_asked() {
    let _turn = Turn::with_others();
    let (_kept, directory) = directory();
    let path = stripped(&directory, "deep-unknown");
    let server = DebugServer::start(Manner::Serves("00".to_owned(), Vec::new()));
    let named = Named::here(&path, asking(&server, &directory.join("cache")).arguments(["--debuginfod"]));
    named.assert_nameless();
    named.assert_missing("it is stripped");
    assert!(server.asked().contains(&debug_path(&build_id(&path))), "{:?}", server.asked());
}

#[test]
fn a_server_that_never_answers_is_waited_for_once_and_told() {
    let _turn = Turn::with_others();
    let (_kept, directory) = directory();
    // Two files of which nothing is known.
    let library = plugin::build(&directory, "unanswered", 4);
    let program = directory.join("shape-unanswered");
    run("strip", [&library]);
    objcopy(&["--strip-all".as_ref()], program!("shape-shifter"), &program);
    let server = DebugServer::start(Manner::Silent);
    let library_path = library.to_str().expect("a plain path");
    let mut shifter = Program::start(&program, &["wait", "open", library_path, "call", "300", "spin", "50"]);
    let record = asking(&server, &directory.join("cache")).environment("DEBUGINFOD_TIMEOUT", "1");
    let recording = record.process(shifter.pid()).arguments(["-F", "997", "--debuginfod"]).start();
    shifter.begin();
    let outcome = recording.wait().expect_success();
    shifter.finish();
    for path in [&program, &library] {
        let told = outcome.told(path);
        let missing = told["missing"].as_str().unwrap_or_else(|| panic!("{told}"));
        assert!(missing.contains("could not be fetched") && missing.contains("Timer expired"), "{missing}");
    }
    // The client tries several times.
    let mut asked = server.asked();
    asked.dedup();
    assert_eq!(asked.len(), 1, "{asked:?}");
}

/// What is at a program's path for everybody else.
#[derive(Debug)]
enum Decoy {
    Nothing,
    /// Another program.
    Other,
    /// One with the same build id, but without any names.
    Stripped,
}

#[test]
fn a_program_in_another_mount_namespace_is_named_by_the_files_that_it_has_there() {
    let _turn = Turn::with_others();
    for decoy in [Decoy::Nothing, Decoy::Other, Decoy::Stripped] {
        println!("{decoy:?}");
        let (_kept, directory) = directory();
        let [inside, seen] = ["inside", "seen"].map(|name| directory.join(name));
        for directory in [&inside, &seen] {
            fs::create_dir(directory).expect("the directory above is writable");
        }
        let path = seen.join("deep-mounted");
        fs::copy(program!("deep-stacks"), inside.join("deep-mounted")).expect("the directory is writable");
        match decoy {
            Decoy::Nothing => {}
            Decoy::Other => drop(fs::copy(program!("stack-burner"), &path).expect("the directory is writable")),
            Decoy::Stripped => drop(stripped(&seen, "deep-mounted")),
        }
        let script = r#"mount --bind "$1" "$2" && shift && exec "$1/deep-mounted" --rounds 4 --threads 1"#;
        let program = in_mount_namespace(script, &[&inside, &seen]);
        let named = Named::recorded(program, &path, build_id(program!("deep-stacks")), Record::new(), || {});
        named.assert_named(program!("deep-stacks"));
        named.assert_lines();
    }
}

#[test]
fn a_program_in_a_container_is_named_by_the_files_that_it_has_there() {
    let _turn = Turn::with_others();
    let (_kept, directory) = directory();
    let [inside, seen] = ["inside", "seen"].map(|name| directory.join(name));
    fs::create_dir(&seen).expect("the directory is writable");
    let path = seen.join("app/deep-contained");
    install(program!("deep-stacks"), &inside, Path::new("/app/deep-contained"));
    for library in libraries(program!("deep-stacks")) {
        install(&library, &inside, &library);
    }
    let script = r#"mount --bind "$1" "$2" && exec chroot "$2" /app/deep-contained --rounds 4 --threads 1"#;
    let program = in_mount_namespace(script, &[&inside, &seen]);
    let named = Named::recorded(program, &path, build_id(program!("deep-stacks")), Record::new(), || {});
    assert!(!path.exists());
    named.assert_named(program!("deep-stacks"));
    named.assert_lines();
    // Its own libc has names too, which must be those of a file that is nowhere else.
    let libc = named.trace.symbols.modules().map(|(path, _)| path.to_owned()).find(|path| path.contains("libc.so"));
    assert!(libc.is_some_and(|path| Path::new(&path).starts_with(&seen)), "{:?}", named.outcome.summary()["names"]);
}

/// Starts what a shell in a mount namespace of its own becomes.
fn in_mount_namespace(script: &str, arguments: &[&Path]) -> Program {
    let arguments = arguments.iter().map(|path| path.to_str().expect("a plain path"));
    let shell = ["--mount", "--propagation", "private", "sh", "-e", "-c", script, "sh"];
    Program::start(Path::new("unshare"), &shell.into_iter().chain(arguments).collect::<Vec<_>>())
}

/// Copies a file to a path that begins at `root`.
fn install(file: &Path, root: &Path, path: &Path) {
    let to = root.join(path.strip_prefix("/").expect("paths inside are absolute"));
    fs::create_dir_all(to.parent().expect("it is in a directory")).expect("the directory is writable");
    fs::copy(file, &to).unwrap_or_else(|error| panic!("{} to {}: {error}", file.display(), to.display()));
}

/// The libraries that a program is linked with, its interpreter included.
fn libraries(program: &Path) -> Vec<PathBuf> {
    let output = Command::new("ldd").arg(program).output().expect("ldd starts");
    let output = String::from_utf8(output.stdout).expect("plain paths");
    output.split_ascii_whitespace().filter(|word| word.starts_with('/')).map(PathBuf::from).collect()
}

/// A program without a build id that tells where its debug information is, beside it.
fn linked(directory: &Path) -> (PathBuf, PathBuf) {
    let (path, debug) = (directory.join("deep-linked"), directory.join(".debug/kept.debug"));
    fs::create_dir(directory.join(".debug")).expect("the directory is writable");
    let whole = directory.join("whole");
    objcopy(&["--remove-section=.note.gnu.build-id".as_ref()], program!("deep-stacks"), &whole);
    objcopy(&["--only-keep-debug".as_ref()], &whole, &debug);
    objcopy(&["--strip-all".as_ref(), &option("--add-gnu-debuglink=", &debug)], &whole, &path);
    assert_eq!(build_id(&path), "");
    (path, debug)
}

#[test]
fn without_a_build_id_debug_information_is_known_by_its_checksum() {
    let _turn = Turn::with_others();
    let (_kept, directory) = directory();
    let (path, debug) = linked(&directory);
    let named = Named::here(&path, Record::new());
    named.assert_named(program!("deep-stacks"));
    named.assert_lines();

    let mut bytes = fs::read(&debug).expect("it is there");
    bytes.push(0);
    fs::write(&debug, bytes).expect("it is ours");
    let named = Named::here(&path, Record::new());
    named.assert_nameless();
    named.assert_missing("kept.debug: it is of another build");
}

#[test]
fn symbols_that_a_stripped_program_keeps_in_compressed_form_name_its_functions() {
    let _turn = Turn::with_others();
    let (_kept, directory) = directory();
    let [debug, small] = ["debug", "small"].map(|name| directory.join(name));
    objcopy(&["--only-keep-debug".as_ref()], program!("deep-stacks"), &debug);
    objcopy(&["--strip-debug".as_ref()], &debug, &small);
    run("xz", [&small]);
    let (bare, path) = (stripped(&directory, "bare"), directory.join("deep-small"));
    let section = option("--add-section=.gnu_debugdata=", directory.join("small.xz"));
    objcopy(&[&section], &bare, &path);
    let named = Named::here(&path, Record::new());
    named.assert_named(program!("deep-stacks"));
    named.assert_no_lines();
    named.assert_missing("it has no debug information");
}

/// A unit whose lines take a hundredth of the room in the file that they take when they are read. It sleeps at 64 places.
const UNIT: &str = r#"
void nap(void);
#define FOUR(step) step step step step
void unit(void) {
    __asm__ volatile(".rept 60000\n.loc 1 3\nnop\n.loc 1 4\nnop\n.endr");
    FOUR(FOUR(FOUR(nap();)))
}
"#;

const MAIN: &str = r#"
#include <stdio.h>
#include <time.h>
#include <unistd.h>
__attribute__((noinline)) void nap(void) { nanosleep(&(struct timespec){0, 20000}, 0); }
int main(void) {
    char line[8];
    printf("ready %d\n", getpid());
    fflush(stdout);
    if (!fgets(line, sizeof line, stdin)) return 1;
    units();
    puts("done");
    return 0;
}
"#;

/// How many units the program has.
const UNITS: usize = 64;

/// What a unit's lines take at least when they are read: an address, a file, a line and a column for each.
const READ_UNIT_BYTES: u64 = 120_000 * 24;

/// Builds a program of many units, of which each is large once it is read.
fn large_when_read(directory: &Path) -> PathBuf {
    let file = |name: &str| directory.join(name);
    fs::write(file("unit.c"), UNIT).expect("the directory is writable");
    let calls: String = (0..UNITS).map(|index| format!("void unit_{index}(void); unit_{index}(); ")).collect();
    let main = format!("{}static void units(void) {{ {calls} }}\n{}", "void nap(void);\n", MAIN);
    fs::write(file("main.c"), main).expect("the directory is writable");
    for name in ["unit", "main"] {
        let (source, object) = (file(&format!("{name}.c")), file(&format!("{name}.o")));
        let options = ["-g", "-O1", "-fno-omit-frame-pointer", "-fno-optimize-sibling-calls", "-c", "-o"];
        run("cc", options.iter().map(OsStr::new).chain([object.as_os_str(), source.as_os_str()]));
    }
    let mut objects = vec![file("main.o")];
    for index in 0..UNITS {
        let object = file(&format!("unit_{index}.o"));
        objcopy(&[&option("--redefine-sym=unit=", format!("unit_{index}"))], &file("unit.o"), &object);
        objects.push(object);
    }
    let path = file("large-when-read");
    run(
        "cc",
        ["-Wl,--build-id".as_ref(), "-o".as_ref(), path.as_os_str()]
            .into_iter()
            .chain(objects.iter().map(|object| object.as_os_str())),
    );
    path
}

/// Names of a program's addresses, and the most memory that finding them took.
fn named_within(path: &Path, megabytes: u64) -> (BTreeMap<u64, Vec<Line>>, u64) {
    let mut program = Program::start(path, &[]);
    let limit = megabytes.to_string();
    let arguments = ["--mode", "offcpu", "--min-block", "0", "--symbol-memory", &limit];
    let recording = Record::new().process(program.pid()).arguments(arguments).start();
    program.begin();
    let outcome = recording.wait().expect_success();
    program.finish();
    let (trace, id) = (outcome.trace(), build_id(path));
    let path = path.to_str().expect("a plain path");
    let mut symbols = Symbols::new();
    let mut names = BTreeMap::new();
    for frame in trace.samples.iter().flat_map(|sample| sample.stack.user_frames()) {
        let wanted = symbols.name(frame).filter(|name| name.starts_with("unit_"));
        if let Some(wanted) = wanted.filter(|_| frame.path() == Some(path)) {
            let lines = trace.symbols.lines(path, &id, frame.rel_pc).unwrap_or_else(|| panic!("{frame:?} has no name"));
            assert_eq!(lines.last().map(|line| line.function.as_str()), Some(wanted), "{frame:?}");
            assert!(has_line(Some(lines)), "{frame:?} has no line");
            names.insert(frame.rel_pc, lines.to_vec());
        }
    }
    let peak = outcome.summary()["naming_peak_memory_bytes"].as_u64().expect("it is told");
    (names, peak)
}

/// Lets what this thread starts use two CPUs at most: as many threads look for names.
fn limit_to_two_cpus() {
    let all = sched_getaffinity(None).expect("a thread has CPUs");
    let mut two = CpuSet::new();
    (0..CpuSet::MAX_CPU).filter(|&cpu| all.is_set(cpu)).take(2).for_each(|cpu| two.set(cpu));
    sched_setaffinity(None, &two).expect("they are its own");
}

#[test]
fn little_memory_gives_the_same_names() {
    let _turn = Turn::with_others();
    limit_to_two_cpus();
    let (_kept, directory) = directory();
    let path = large_when_read(&directory);
    let (all, unbounded) = named_within(&path, 512);
    let (same, bounded) = named_within(&path, 16);
    // Not every sleep takes long enough to be one each time.
    let both: Vec<_> = all.iter().filter_map(|(address, lines)| Some((lines, same.get(address)?))).collect();
    assert!(both.len() >= UNITS * 60, "{} addresses", both.len());
    assert!(both.iter().all(|(lines, others)| lines == others), "names differ");
    // The file is mapped. The process itself takes the rest, and what each of its two threads reads before it looks at its
    // memory: a few units.
    let file = fs::metadata(&path).expect("it was built").len();
    let bound = (16 << 20) + file + 2 * 5 * READ_UNIT_BYTES + (8 << 20);
    assert!(bounded <= bound, "{bounded} bytes, and {bound} were granted; {unbounded} without a bound");
    assert!(UNITS as u64 * READ_UNIT_BYTES > 2 * bound, "if it were passed over, that would not show");
}
