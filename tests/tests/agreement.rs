//! Functions, files and lines are those that other symbolizers find, inlined ones included.

use std::{path::Path, thread};

use polletto_tests::{
    agreement::{Difference, compare},
    generated::{self, Generated, Starts},
    recorder::polletto,
    symbolizer::Symbolizer,
};

/// How many addresses must be compared altogether.
const ENOUGH: usize = 20_000;

/// How many addresses of one program are.
const AT_MOST: usize = 6_000;

/// How many addresses of each function are, where that is not too many.
const OF_EACH: u64 = 8;

/// Settings of rustc under which debug information looks different. What comes later replaces what comes before.
const RUST: [(&str, &[&str]); 6] = [
    ("line tables", &[]),
    (
        "line tables of DWARF 5, v0 names, not relocatable",
        &["-Cdwarf-version=5", "-Csymbol-mangling-version=v0", "-Crelocation-model=static"],
    ),
    ("everything, for size", &["-Cdebuginfo=2", "-Copt-level=s"]),
    ("everything, not optimized", &["-Cdebuginfo=2", "-Copt-level=0"]),
    ("in files beside it, DWARF 4", &["-Cdebuginfo=2", "-Csplit-debuginfo=unpacked"]),
    ("in a package beside it, DWARF 5", &["-Cdebuginfo=2", "-Csplit-debuginfo=packed", "-Cdwarf-version=5"]),
];

const CPP: [(&str, &str, &[&str]); 6] = [
    ("g++", "g++", &["-gz"]),
    ("g++, DWARF 4, linked as a whole", "g++", &["-gdwarf-4", "-flto", "-fno-pie", "-no-pie"]),
    ("g++, in files beside it", "g++", &["-gsplit-dwarf", "-fdebug-types-section"]),
    ("clang++, line tables", "clang++", &["-gline-tables-only"]),
    ("clang++, in files beside it", "clang++", &["-gsplit-dwarf", "-gdwarf-5"]),
    ("clang++, what is not used dropped", "clang++", &["-ffunction-sections", "-Wl,--gc-sections"]),
];

/// All programs, compiled by two threads.
fn programs(directory: &Path) -> Vec<Generated> {
    let mut all: Vec<Generated> = thread::scope(|scope| {
        let cpp = scope.spawn(|| {
            let compiled =
                CPP.iter().map(|(name, compiler, arguments)| generated::cpp(directory, name, compiler, arguments));
            compiled.collect::<Vec<_>>()
        });
        let rust: Vec<_> = RUST.iter().map(|(name, arguments)| generated::rust(directory, name, arguments)).collect();
        rust.into_iter().chain(cpp.join().expect("no compiler fails").into_iter().flatten()).collect()
    });
    let (first, second) = (all[0].clone(), all[2].clone());
    all.extend(["zlib", "zstd"].into_iter().filter_map(|how| generated::compressed(&first, how)));
    all.push(generated::split_by_build_id(&second));
    all.push(generated::split_by_link(&first));
    all.push(Generated::of("polletto", polletto()));
    all
}

/// Whether a difference is of a kind that is allowed.
type Allows = fn(&Difference, &Starts, &Symbolizer) -> bool;

/// Differences that are none, and why.
const ALLOWED: [(&str, Allows); 2] = [
    // The linker makes one of what is the same, and compilers give constructors several names. We take the one that debug
    // information has, if there is any; llvm-symbolizer the last one of the symbol table.
    ("one of several names of the same code", |difference, starts, _| {
        let (ours, theirs) = (difference.ours.last(), difference.theirs.last());
        let start = |name: &str| starts.get(name).cloned().unwrap_or_default();
        let names = ours.zip(theirs).map(|(ours, theirs)| (start(&ours.function), start(&theirs.function)));
        difference.only_outermost_name() && names.is_some_and(|(ours, theirs)| !ours.is_disjoint(&theirs))
    }),
    // Of what has no debug information GNU's addr2line says nothing, and it takes no name from a symbol table if debug
    // information has one, even if that is without its path, as rustc writes it for line tables.
    ("addr2line does not ask the symbol table", |difference, starts, symbolizer| {
        let by_symbol = difference.ours.last().is_some_and(|ours| starts.contains_key(&ours.function));
        let unknown = difference.theirs.is_empty() && difference.ours.len() == 1 && difference.ours[0].line == 0;
        matches!(symbolizer, Symbolizer::Binutils(_)) && by_symbol && (unknown || difference.only_outermost_name())
    }),
];

#[test]
fn every_frame_has_the_function_file_and_line_that_another_symbolizer_gives() {
    let symbolizer = Symbolizer::find();
    let directory = tempfile::tempdir().expect("a directory for the programs");
    let directory = directory.path().canonicalize().expect("it is there");
    let (mut asked, mut faults) = (0, Vec::new());
    for program in programs(&directory) {
        if !symbolizer.understands(&program) {
            println!("{}: not compared, since {symbolizer:?} does not read it", program.name);
            continue;
        }
        let all = generated::addresses(&program.original, OF_EACH);
        let addresses: Vec<_> = all.iter().copied().step_by(all.len().div_ceil(AT_MOST)).collect();
        let comparison = compare(&program, &addresses, &symbolizer);
        let starts = generated::starts(&program.original);
        let (allowed, differences): (Vec<_>, Vec<_>) = comparison
            .differences
            .into_iter()
            .partition(|difference| ALLOWED.iter().any(|(_, allows)| allows(difference, &starts, &symbolizer)));
        println!(
            "{}: {} addresses, {} frames, {} allowed differences, {} others",
            program.name,
            addresses.len(),
            comparison.frames,
            allowed.len(),
            differences.len()
        );
        asked += addresses.len();
        faults.extend(differences.into_iter().map(|difference| (program.name.clone(), difference)));
    }
    assert!(asked >= ENOUGH, "only {asked} addresses were compared");
    assert!(faults.is_empty(), "{} of {asked} differ: {:#?}", faults.len(), &faults[..faults.len().min(10)]);
}
