//! Names the addresses of one module, from all files that there are for it, on as many threads as are given.

use std::{
    fs::File,
    io::BufReader,
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use super::{
    dwarf::{DebugInformation, DebugSections, Described, Room},
    file::{ElfObject, Mapped},
    functions::{FunctionTable, Names},
    memory,
    names::demangle,
    perf_map::PerfMap,
    request::{Function, Missing, ModuleReport, NamesIn, Request, Symbols},
    sources::Sources,
};
use crate::target::image::Bytes;

/// How a module is named.
#[derive(Clone, Debug)]
pub struct Means {
    /// Where debug information may be that was taken out of files.
    pub debug_directories: Vec<PathBuf>,
    /// Whether servers are asked for it.
    pub debuginfod: bool,
    /// Whether it is used at all.
    pub debug_information: bool,
    /// Threads that search.
    pub threads: usize,
    /// What may be kept of debug information at a time, bytes.
    pub memory_bytes: u64,
}

/// Addresses that are named before memory is looked at, and handed out together.
const PIECE: usize = 256;

/// Takes what was found, piece by piece, from any thread.
pub trait Sink: Sync {
    /// Some addresses with their names.
    fn found(&self, symbols: Vec<Symbols>);
    /// Nothing was found, but something is being waited for.
    fn waiting(&self);
}

/// Names a module's addresses.
pub fn name(request: &Request, means: &Means, sink: &dyn Sink) -> ModuleReport {
    let mut addresses = request.addresses.clone();
    addresses.sort_unstable();
    addresses.dedup();
    let report = ModuleReport { path: request.path.clone(), addresses: addresses.len() as u64, ..Default::default() };
    if let NamesIn::List(list) = &request.names_in {
        return by_list(list, &addresses, report, sink);
    }
    let sources = match Sources::find(request, means, &|| sink.waiting()) {
        Ok(sources) => sources,
        Err(missing) => return ModuleReport { missing: Some(missing), ..report },
    };
    let objects = Objects::parse(&sources);
    let mut functions = FunctionTable::default();
    for object in [&objects.binary, &objects.debug, &objects.small_symbols].into_iter().flatten() {
        functions.add(object);
    }
    functions.sort();
    let room = Room::default();
    let (sections, mut missing) = match objects.with_debug_information().filter(|_| means.debug_information) {
        None => (None, lacking(request, &sources, &functions)),
        Some(object) => match DebugSections::load(object, objects.shared.as_ref(), objects.package.as_ref(), &room) {
            Ok(sections) => (Some(sections), None),
            Err(reason) => (None, Some(Missing::Damaged(reason))),
        },
    };
    let work = Work {
        addresses: &addresses,
        next: AtomicUsize::new(0),
        functions: &functions,
        sections: sections.as_ref(),
        memory: memory::Ceiling::new(means.memory_bytes),
        damage: Mutex::new(None),
        sink,
    };
    let threads = means.threads.min(addresses.len().div_ceil(PIECE)).max(1);
    let counts: Vec<Counts> = thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(|| work.run(false))).collect();
        let own = work.run(true);
        others.into_iter().filter_map(|thread| thread.join().ok()).chain([own]).collect()
    });
    let named = counts.iter().map(|counts| counts.named).sum();
    let with_lines = counts.iter().map(|counts| counts.with_lines).sum();
    if let Some(reason) = work.damage.into_inner().unwrap_or_default() {
        missing = Some(Missing::Damaged(reason));
    } else if named < report.addresses || (sections.is_some() && with_lines < report.addresses) {
        missing = missing.or(Some(Missing::Described));
    }
    ModuleReport { named, with_lines, missing, ..report }
}

/// Names functions by a list that their program wrote. It has no lines.
fn by_list(list: &File, addresses: &[u64], report: ModuleReport, sink: &dyn Sink) -> ModuleReport {
    let map = match PerfMap::read(BufReader::new(list)) {
        Ok(map) => map,
        Err(error) => return ModuleReport { missing: Some(Missing::File(error.to_string())), ..report },
    };
    let symbols = addresses.iter().filter_map(|&address| {
        let function = Function { name: map.find(address)?.to_owned(), file: None, line: None };
        Some(Symbols { address, functions: vec![function] })
    });
    let symbols: Vec<Symbols> = symbols.collect();
    let named = symbols.len() as u64;
    sink.found(symbols);
    ModuleReport { named, missing: (named < report.addresses).then_some(Missing::Described), ..report }
}

/// Why there are no lines.
fn lacking(request: &Request, sources: &Sources, functions: &FunctionTable<'_>) -> Option<Missing> {
    match (&sources.not_fetched, &request.names_in) {
        (Some(reason), _) => Some(Missing::NotFetched(reason.clone())),
        _ if functions.is_empty() => Some(Missing::Symbols),
        // What the kernel gives to programs has no more than that, ever.
        (None, NamesIn::Binary(Bytes::Memory(_))) => None,
        _ => Some(Missing::DebugInformation),
    }
}

/// The files, read.
#[derive(Default)]
struct Objects<'a> {
    binary: Option<ElfObject<'a>>,
    debug: Option<ElfObject<'a>>,
    shared: Option<ElfObject<'a>>,
    package: Option<ElfObject<'a>>,
    small_symbols: Option<ElfObject<'a>>,
}

impl<'a> Objects<'a> {
    fn parse(sources: &'a Sources) -> Objects<'a> {
        let parse = |file: &'a Option<Mapped>| ElfObject::parse(file.as_ref()?).ok();
        Objects {
            binary: parse(&sources.binary),
            debug: parse(&sources.debug),
            shared: parse(&sources.shared),
            package: parse(&sources.package),
            small_symbols: parse(&sources.small_symbols),
        }
    }

    fn with_debug_information(&self) -> Option<&ElfObject<'a>> {
        [&self.debug, &self.binary].into_iter().flatten().find(|object| object.has_debug_information())
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    named: u64,
    with_lines: u64,
}

impl Counts {
    fn add(&mut self, symbols: &[Symbols]) {
        let has_line = |symbols: &&Symbols| symbols.functions.iter().any(|function| function.line.is_some());
        self.named += symbols.len() as u64;
        self.with_lines += symbols.iter().filter(has_line).count() as u64;
    }
}

/// What threads share.
struct Work<'w, 'a> {
    /// Sorted, so that neighbours need the same parts of the debug information.
    addresses: &'w [u64],
    /// The first address that nobody has taken yet.
    next: AtomicUsize,
    functions: &'w FunctionTable<'a>,
    sections: Option<&'w DebugSections<'a>>,
    memory: memory::Ceiling,
    /// What is wrong with the debug information, if anything is.
    damage: Mutex<Option<String>>,
    sink: &'w dyn Sink,
}

impl Work<'_, '_> {
    /// Takes pieces until there are none. When memory is short, one thread goes on, and begins anew after each piece.
    fn run(&self, goes_on: bool) -> Counts {
        let mut counts = Counts::default();
        while self.run_until_full(&mut counts) && goes_on {
            memory::give_back();
        }
        counts
    }

    /// True when memory is short, false when nothing is left to do.
    fn run_until_full(&self, counts: &mut Counts) -> bool {
        let room = Room::default();
        let mut debug_information = None;
        loop {
            let first = self.next.fetch_add(PIECE, Ordering::Relaxed);
            let Some(rest) = self.addresses.get(first..).filter(|rest| !rest.is_empty()) else { return false };
            let piece = &rest[..rest.len().min(PIECE)];
            if let (None, Some(sections)) = (&debug_information, self.sections) {
                debug_information = self.guarded(|| DebugInformation::new(sections, &room));
            }
            let used = debug_information.as_ref();
            let symbols: Vec<Symbols> = piece.iter().filter_map(|&address| self.symbols(address, used)).collect();
            counts.add(&symbols);
            self.sink.found(symbols);
            if self.memory.is_reached() {
                return true;
            }
        }
    }

    fn symbols(&self, address: u64, debug_information: Option<&DebugInformation<'_>>) -> Option<Symbols> {
        let Described { mut functions, outermost } =
            debug_information.and_then(|information| self.guarded(|| information.find(address))).unwrap_or_default();
        let symbol = self.functions.find(address);
        // Debug information can have less than the whole name, or that of which this is a part. What it has no name for
        // was written in assembly.
        let is_better = |names: &Names<'_, '_>| match outermost {
            Some(known) => names.is_sized && !names.iter().any(|name| name == known),
            None => true,
        };
        if let Some(name) = symbol.filter(is_better).and_then(|names| names.iter().next()) {
            let name = demangle(&String::from_utf8_lossy(name)).into_owned();
            match functions.last_mut() {
                None => functions.push(Function { name, file: None, line: None }),
                Some(outermost) => outermost.name = name,
            }
        }
        functions.retain(|function| !function.name.is_empty());
        (!functions.is_empty()).then_some(Symbols { address, functions })
    }

    /// Remembers what is wrong: what is damaged in one place can be whole in others.
    fn guarded<T>(&self, find: impl FnOnce() -> Result<T, gimli::Error>) -> Option<T> {
        let damage = match catch_unwind(AssertUnwindSafe(find)) {
            Ok(Ok(found)) => return Some(found),
            Ok(Err(error)) => error.to_string(),
            Err(_) => "reading it fails".to_owned(),
        };
        if let Ok(mut known) = self.damage.lock() {
            known.get_or_insert(damage);
        }
        None
    }
}
