//! Programs with much inlining, compiled in all the ways that debug information is written: for scenarios about names.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use object::{Object, ObjectSymbol, SymbolKind};
use polletto::symbols::demangle;

use crate::{check::workspace, plugin::rustc};

/// A program, and a file that other symbolizers know the same code by.
#[derive(Clone, Debug)]
pub struct Generated {
    /// What is particular about it.
    pub name: String,
    /// The program.
    pub path: PathBuf,
    /// The program before its debug information was moved away.
    pub original: PathBuf,
    /// Where its debug information was moved to.
    pub debug_directory: Option<PathBuf>,
}

impl Generated {
    /// A program as it was built.
    pub fn of(name: &str, path: &Path) -> Generated {
        let path = path.to_owned();
        Generated { name: name.to_owned(), original: path.clone(), path, debug_directory: None }
    }

    /// A path beside it.
    fn beside(&self, suffix: &str) -> PathBuf {
        let mut name = self.path.file_name().expect("it is a file").to_owned();
        name.push(suffix);
        self.path.with_file_name(name)
    }
}

/// So many addresses of each function of a file that has symbols, evenly spread, from its first one on.
pub fn addresses(path: &Path, of_each: u64) -> Vec<u64> {
    let bytes = fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let file = object::File::parse(&*bytes).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let functions = file.symbols().filter(|symbol| symbol.kind() == SymbolKind::Text && symbol.is_definition());
    let mut addresses: Vec<u64> = functions
        .flat_map(|symbol| {
            let (start, size) = (symbol.address(), symbol.size());
            (0..of_each.min(size)).map(move |index| start + size * index / of_each.min(size))
        })
        .collect();
    addresses.sort_unstable();
    addresses.dedup();
    addresses
}

/// The sources that are compiled.
fn source(name: &str) -> PathBuf {
    workspace().canonicalize().expect("the workspace is there").join("tests/sources/inlining").join(name)
}

/// Compiles the three crates of the Rust program into a directory of their own.
pub fn rust(directory: &Path, name: &str, arguments: &[&str]) -> Generated {
    let directory = directory.join(name);
    fs::create_dir(&directory).expect("a directory for the program");
    let compile = |source_name: &str, more: &[&str]| {
        let mut command = Command::new(rustc());
        command.current_dir(&directory).args([
            "--edition",
            "2024",
            "-L",
            ".",
            "-C",
            "opt-level=2",
            "-C",
            "debuginfo=line-tables-only",
        ]);
        run(command.args(arguments).args(more).arg(source(source_name)));
    };
    compile("leaf.rs", &["--crate-type", "rlib"]);
    compile("middle.rs", &["--crate-type", "rlib", "--extern", "leaf=libleaf.rlib"]);
    let both = ["--extern", "leaf=libleaf.rlib", "--extern", "middle=libmiddle.rlib"];
    compile("program.rs", &[&both[..], &["-Clink-arg=-Wl,--build-id"]].concat());
    Generated::of(name, &directory.join("program"))
}

/// Compiles the C++ program with a compiler that there may be.
pub fn cpp(directory: &Path, name: &str, compiler: &str, arguments: &[&str]) -> Option<Generated> {
    let directory = directory.join(name);
    fs::create_dir(&directory).expect("a directory for the program");
    let path = directory.join("program");
    let mut command = Command::new(compiler);
    command.current_dir(&directory).args(["-std=c++17", "-O2", "-g", "-Wl,--build-id"]).args(arguments);
    match command.arg(source("unit.cpp")).arg("-o").arg(&path).output() {
        Ok(output) if output.status.success() => Some(Generated::of(name, &path)),
        Ok(output) => panic!("{command:?}: {}", String::from_utf8_lossy(&output.stderr)),
        Err(_) => {
            println!("not compiled: {compiler} is not there");
            None
        }
    }
}

/// The same program with compressed debug information. None where this objcopy can't.
pub fn compressed(program: &Generated, how: &str) -> Option<Generated> {
    let path = program.beside(&format!(".{how}"));
    let mut objcopy = Command::new("objcopy");
    objcopy.arg(format!("--compress-debug-sections={how}")).arg(&program.path).arg(&path);
    let output = objcopy.output().unwrap_or_else(|error| panic!("{objcopy:?} does not start: {error}"));
    if !output.status.success() {
        println!("not compressed: {}", String::from_utf8_lossy(&output.stderr).trim());
        return None;
    }
    let name = format!("{}, {how}", program.name);
    Some(Generated { name, path, original: program.original.clone(), debug_directory: None })
}

/// The same program, stripped, with its debug information in a directory by its build id.
pub fn split_by_build_id(program: &Generated) -> Generated {
    let directories = program.beside(".by-build-id");
    let id = crate::symbols::build_id(&program.path);
    let directory = directories.join(".build-id").join(&id[..2]);
    fs::create_dir_all(&directory).expect("a directory for debug information");
    keep_debug(program, &directory.join(format!("{}.debug", &id[2..])));
    let path = program.beside(".stripped");
    strip(program, &path, []);
    let name = format!("{}, by build id", program.name);
    Generated { name, path, original: program.original.clone(), debug_directory: Some(directories) }
}

/// The same program, stripped, with its debug information in a directory beside it, by a name that it tells.
pub fn split_by_link(program: &Generated) -> Generated {
    let name = program.beside(".linked");
    let path = name.with_file_name("linked");
    let directory = path.with_file_name(".debug");
    fs::create_dir_all(&directory).expect("a directory for debug information");
    let debug = directory.join("of-linked.debug");
    keep_debug(program, &debug);
    let mut link = std::ffi::OsString::from("--add-gnu-debuglink=");
    link.push(&debug);
    strip(program, &path, [link.as_os_str()]);
    let name = format!("{}, by link", program.name);
    Generated { name, path, original: program.original.clone(), debug_directory: None }
}

fn keep_debug(program: &Generated, to: &Path) {
    run(Command::new("objcopy").arg("--only-keep-debug").arg(&program.path).arg(to));
}

fn strip<'a>(program: &Generated, to: &Path, arguments: impl IntoIterator<Item = &'a OsStr>) {
    run(Command::new("objcopy").arg("--strip-all").args(arguments).arg(&program.path).arg(to));
}

fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?} does not start: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Where functions begin, by their names: several can be at one place, and one at several.
pub type Starts = BTreeMap<String, BTreeSet<u64>>;

/// The functions that a file's symbols tell of, by the names that people write.
pub fn starts(path: &Path) -> Starts {
    let bytes = fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let file = object::File::parse(&*bytes).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut starts = Starts::new();
    for symbol in file.symbols().filter(|symbol| !symbol.is_undefined()) {
        let name = demangle(symbol.name().unwrap_or_default()).into_owned();
        starts.entry(name).or_default().insert(symbol.address());
    }
    starts
}
