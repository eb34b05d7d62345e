//! Finds names for addresses of a program, by polletto or by others.
//!
//! `name-addresses list FILE COUNT` prints addresses that are spread over the program's functions, the same every time.
//! `name-addresses polletto|in-process|blazesym FILE` reads addresses from standard input and prints, as JSON, how many
//! frames they have, and the most anonymous memory of this process.

use std::{
    collections::BTreeSet,
    env,
    error::Error,
    fs::File,
    io::Read,
    path::PathBuf,
    sync::atomic::{AtomicU64, AtomicUsize, Ordering},
    time::Duration,
};

use blazesym::symbolize::{
    Input, Symbolized, Symbolizer,
    source::{Elf, Source},
};
use object::{Object, ObjectSymbol, SymbolKind};
use polletto::{
    symbols::{self, Answer, Means, ModuleReport, NamesIn, Observer, Options, Request, Sink, Symbols},
    target::image::Bytes,
};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Addresses that are given to blazesym at a time.
const AT_A_TIME: usize = 4096;

fn main() -> Result<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        [symbols::WORKER] => Ok(symbols::work()?),
        ["list", file, count] => list(file, count.parse()?),
        [by, file] => {
            let addresses = addresses_from_input()?;
            std::thread::spawn(watch_memory);
            let frames = match by {
                "polletto" => polletto(file, addresses)?,
                "in-process" => in_process(file, addresses)?,
                "blazesym" => blazesym(file, &addresses)?,
                other => return Err(format!("{other} finds no names").into()),
            };
            println!("{{\"frames\":{frames},\"anonymous_kib\":{}}}", PEAK_KIB.load(Ordering::Relaxed));
            Ok(())
        }
        _ => Err("list FILE COUNT, or polletto|in-process|blazesym FILE".into()),
    }
}

fn list(file: &str, count: usize) -> Result<()> {
    let bytes = std::fs::read(file)?;
    let object = object::File::parse(&*bytes)?;
    let is_function = |symbol: &object::Symbol<'_, '_>| symbol.kind() == SymbolKind::Text && symbol.size() > 0;
    let functions: BTreeSet<(u64, u64)> =
        object.symbols().filter(is_function).map(|symbol| (symbol.address(), symbol.size())).collect();
    let functions: Vec<_> = functions.into_iter().collect();
    let mut state = 88_172_645_463_325_252_u64;
    let mut random = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let mut addresses = BTreeSet::new();
    while addresses.len() < count {
        let (start, size) = functions[(random() % functions.len() as u64) as usize];
        addresses.insert(start + random() % size);
    }
    addresses.iter().for_each(|address| println!("{address:#x}"));
    Ok(())
}

fn addresses_from_input() -> Result<Vec<u64>> {
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text)?;
    Ok(text
        .lines()
        .map(|line| u64::from_str_radix(line.trim_start_matches("0x"), 16))
        .collect::<std::result::Result<_, _>>()?)
}

fn request(file: &str, addresses: Vec<u64>) -> Result<Request> {
    Ok(Request { path: file.to_owned(), build_id: None, names_in: NamesIn::Binary(Bytes::File(File::open(file)?)), addresses })
}

/// As a recording does it.
fn polletto(file: &str, addresses: Vec<u64>) -> Result<usize> {
    struct Frames(usize);

    impl Observer for Frames {
        fn answer(&mut self, answer: Answer) -> anyhow::Result<()> {
            self.0 += answer.symbols.iter().map(|symbols| symbols.functions.len()).sum::<usize>();
            Ok(())
        }

        fn progress(&mut self, _: u64, _: u64) {}

        fn is_cancelled(&self) -> bool {
            false
        }
    }

    let mut frames = Frames(0);
    let reports: Vec<ModuleReport> =
        symbols::resolve(vec![request(file, addresses)?], &Options::default(), &mut frames)?;
    match reports.iter().find(|report| report.named == 0) {
        Some(report) => Err(format!("{report:?}").into()),
        None => Ok(frames.0),
    }
}

/// What the process does that a recording starts for it.
fn in_process(file: &str, addresses: Vec<u64>) -> Result<usize> {
    struct Frames(AtomicUsize);

    impl Sink for Frames {
        fn found(&self, symbols: Vec<Symbols>) {
            let frames = symbols.iter().map(|symbols| symbols.functions.len()).sum();
            self.0.fetch_add(frames, Ordering::Relaxed);
        }

        fn waiting(&self) {}
    }

    let means = Means {
        debug_directories: vec![PathBuf::from("/usr/lib/debug")],
        debuginfod: false,
        debug_information: true,
        threads: std::thread::available_parallelism()?.into(),
        memory_bytes: Options::default().memory_bytes,
    };
    let frames = Frames(AtomicUsize::new(0));
    symbols::name(&request(file, addresses)?, &means, &frames);
    Ok(frames.0.into_inner())
}

fn blazesym(file: &str, addresses: &[u64]) -> Result<usize> {
    let symbolizer =
        Symbolizer::builder().enable_inlined_fns(true).enable_code_info(true).enable_demangling(true).build();
    let source = Source::Elf(Elf::new(file));
    let mut frames = 0;
    for some in addresses.chunks(AT_A_TIME) {
        for found in symbolizer.symbolize(&source, Input::VirtOffset(some))? {
            if let Symbolized::Sym(symbol) = found {
                frames += 1 + symbol.inlined.len();
            }
        }
    }
    Ok(frames)
}

/// The most anonymous memory that this process was seen to have.
static PEAK_KIB: AtomicU64 = AtomicU64::new(0);

fn watch_memory() {
    const PERIOD: Duration = Duration::from_millis(2);
    // 0 where the kernel does not tell, which nobody takes for a figure.
    let anonymous = || {
        let status = std::fs::read_to_string("/proc/self/status").ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"))?;
        line.trim().trim_end_matches(" kB").parse().ok()
    };
    loop {
        PEAK_KIB.fetch_max(anonymous().unwrap_or(0), Ordering::Relaxed);
        std::thread::sleep(PERIOD);
    }
}
