//! Tables say what gimli says, on real files.

use std::{fs::File, ops::Range, os::unix::fs::FileExt, time::Instant};

use super::reference::{Caller, Reference, caller_by_rule};
use crate::{
    target::image::{Image, Source, example::Numbers},
    unwind::{Cache, Table},
};

/// Functions whose every row is looked at. Of larger files some are left out, evenly.
const FUNCTIONS: usize = 4000;

/// Addresses chosen at random.
const ADDRESSES: u64 = 3000;

/// How many of a thousand addresses may be beyond a rule.
const UNSUPPORTED: u64 = 5;

struct Compared<'a> {
    table: &'a Table,
    reference: &'a Reference<'a>,
    linkage_tables: &'a [Range<u64>],
    addresses: u64,
    unsupported: u64,
}

impl Compared<'_> {
    fn at(&mut self, pc: u64, expected: Option<Caller>) {
        let rule = self.table.rule(pc).unwrap_or_default();
        self.addresses += 1;
        match (caller_by_rule(&rule, pc), expected) {
            (None, _) => self.unsupported += 1,
            // Linkers leave out what stubs need, and tables don't.
            (Some(Caller::Frame(..)), Some(Caller::Unknown)) => {
                assert!(self.linkage_tables.iter().any(|table| table.contains(&pc)), "{pc:#x}: {rule:?}")
            }
            (found, expected) => assert_eq!(found, expected, "{pc:#x}: {rule:?}"),
        }
    }

    fn looked_up(&mut self, pc: u64) {
        self.at(pc, self.reference.caller(pc));
    }
}

fn compare(source: &(impl Source + ?Sized), unsupported: u64) -> Table {
    let image = Image::read(source).unwrap();
    let eh_frame = image.read_eh_frame(source).unwrap();
    let table = Table::from_eh_frame(&image, &eh_frame).unwrap();
    let reference = Reference::new(&image, &eh_frame);
    let mut compared = Compared {
        table: &table,
        reference: &reference,
        linkage_tables: &image.linkage_tables,
        addresses: 0,
        unsupported: 0,
    };
    let code = image.code_addresses();
    let Range { start, end } = code[0].start..code[code.len() - 1].end;
    let mut numbers = Numbers(0x1234_5678_9abc_def1);
    for _ in 0..ADDRESSES {
        compared.looked_up(start + numbers.below(end - start));
    }
    let step = reference.functions.len().div_ceil(FUNCTIONS).max(1);
    for function in reference.functions.iter().step_by(step) {
        // Whom these belong to is another question than what this function says.
        for around in [function.initial_address() - 1, function.end_address()] {
            compared.looked_up(around);
        }
        reference.rows(function, |first, last, caller| {
            for pc in [first, (first + 1).min(last), last] {
                compared.at(pc, caller(pc));
            }
        });
    }
    assert_eq!(table.omissions.broken, 0);
    assert!(compared.addresses > 0 && compared.unsupported * 1000 <= compared.addresses * unsupported);
    table
}

#[test]
fn the_table_of_the_c_library_says_what_gimli_says() {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let path = maps.lines().filter_map(|line| line.split_ascii_whitespace().nth(5)).find(|path| path.contains("libc"));
    compare(&File::open(path.unwrap()).unwrap(), UNSUPPORTED);
}

#[test]
fn the_table_of_this_test_says_what_gimli_says() {
    compare(&File::open("/proc/self/exe").unwrap(), UNSUPPORTED);
}

#[test]
fn the_table_of_the_shell_says_what_gimli_says() {
    compare(&File::open("/bin/bash").unwrap(), UNSUPPORTED);
}

#[test]
fn the_table_of_the_vdso_says_what_gimli_says() {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let line = maps.lines().find(|line| line.ends_with("[vdso]")).unwrap();
    let (start, end) = line.split_once(' ').unwrap().0.split_once('-').unwrap();
    let [start, end] = [start, end].map(|hex| u64::from_str_radix(hex, 16).unwrap());
    let mut bytes = vec![0; (end - start) as usize];
    File::open("/proc/self/mem").unwrap().read_exact_at(&mut bytes, start).unwrap();
    // Few functions, of which some keep the CFA in a register of their own.
    compare(&bytes[..], 300);
}

#[test]
fn tables_of_clang_and_lld_say_what_gimli_says() {
    for file in [&include_bytes!("../testdata/frames.x86_64")[..], include_bytes!("../testdata/frames.aarch64")] {
        compare(file, 0);
    }
}

/// For others, and to see how long it takes:
/// `POLLETTO_FILES=/a:/b cargo test --release -p polletto --lib -- --nocapture files_of_your_choice`
#[test]
fn the_tables_of_files_of_your_choice_say_what_gimli_says() {
    let directory = std::env::temp_dir().join(format!("polletto-choice-{}", std::process::id()));
    let cache = Cache::open(Some(directory.clone()));
    for path in std::env::var("POLLETTO_FILES").unwrap_or_else(|_| "/bin/cat".to_owned()).split(':') {
        let file = File::open(path).unwrap();
        let table = compare(&file, 1000);
        let timed = |work: &dyn Fn(&Image) -> Table| {
            let started = Instant::now();
            assert!(work(&Image::read(&file).unwrap()) == table);
            started.elapsed()
        };
        let built = timed(&|image| Table::build(image, &file).unwrap());
        let [stored, loaded] = [(); 2].map(|()| timed(&|image| cache.table(image, &file).unwrap()));
        let eh_frame = Image::read(&file).unwrap().eh_frame.unwrap().size;
        let size = 4 * (table.pages.len() + table.rows.len()) + 16 * table.rules.len();
        println!("{path}: built in {built:?}, with cache {stored:?}, then {loaded:?}");
        println!("  {size} bytes, {:.2} of .eh_frame; {} rows", size as f64 / eh_frame as f64, table.rows.len());
        println!("  {} rules, {:?}", table.rules.len(), table.omissions);
    }
    std::fs::remove_dir_all(directory).unwrap();
}
