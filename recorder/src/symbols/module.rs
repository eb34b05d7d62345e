//! Names the addresses of one module, from all files that there are for it, on as many threads as are given.

use std::{
    cmp::Reverse,
    fs::File,
    io::BufReader,
    iter,
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use super::{
    dwarf::{Damage, DebugSections, Described, Room, Searcher, UnitIndex},
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

/// Addresses of which no unit of debug information knows that are handed out together, and names that are passed on together.
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
    let mut rooms_of_others: Vec<Room> = (1..means.threads).map(|_| room.beside()).collect();
    let (sections, mut missing) = match objects.with_debug_information().filter(|_| means.debug_information) {
        None => (None, lacking(request, &sources, &functions)),
        Some(object) => match DebugSections::load(object, objects.shared.as_ref(), objects.package.as_ref(), &room) {
            Ok(sections) => (Some(sections), None),
            Err(reason) => (None, Some(Missing::Damaged(reason))),
        },
    };
    let work = Work {
        groups: groups(&addresses, sections.as_ref()),
        next: AtomicUsize::new(0),
        functions: &functions,
        sections: sections.as_ref(),
        memory: memory::Ceiling::new(means.memory_bytes),
        damage: Mutex::new(None),
        sink,
    };
    let counts: Vec<Counts> = thread::scope(|scope| {
        let rooms = rooms_of_others.iter_mut().take(work.groups.len().saturating_sub(1));
        let work = &work;
        let others: Vec<_> = rooms.map(|room| scope.spawn(move || work.run(false, room))).collect();
        let own = work.run(true, &room);
        others.into_iter().filter_map(|thread| thread.join().ok()).chain([own]).collect()
    });
    let named = counts.iter().map(|counts| counts.named).sum();
    let with_lines = counts.iter().map(|counts| counts.with_lines).sum();
    if let Some(damage) = work.damage.into_inner().unwrap_or_default() {
        missing = Some(damage);
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
        let function = Function { name: map.find(address)?.to_owned(), ..Function::default() };
        Some(Symbols { address, functions: vec![function] })
    });
    let symbols: Vec<Symbols> = symbols.collect();
    let named = symbols.len() as u64;
    sink.found(symbols);
    ModuleReport { named, missing: (named < report.addresses).then_some(Missing::Described), ..report }
}

/// Why there are no lines.
fn lacking(request: &Request, sources: &Sources, functions: &FunctionTable<'_>) -> Option<Missing> {
    if let Some(reason) = &sources.not_fetched {
        return Some(Missing::NotFetched(reason.clone()));
    }
    if let Some(reason) = &sources.refused {
        return Some(Missing::Refused(reason.clone()));
    }
    match &request.names_in {
        // What the kernel gives to programs has no more than that, ever.
        NamesIn::Binary(Bytes::Memory(_)) => None,
        _ if functions.has_only_exported() => Some(Missing::Symbols),
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

impl From<Damage> for Missing {
    fn from(damage: Damage) -> Missing {
        match damage {
            Damage::Unreadable(error) => Missing::Damaged(error.to_string()),
            Damage::NotThere(path) => Missing::Split(path.display().to_string()),
        }
    }
}

/// Addresses that one unit of debug information should know, or none.
struct Group {
    unit: Option<UnitIndex>,
    addresses: Vec<u64>,
}

/// Groups addresses so that each unit is read once. Large units come first, as one of them takes long.
fn groups(addresses: &[u64], sections: Option<&DebugSections<'_>>) -> Vec<Group> {
    const LARGE: usize = 1 << 20;
    let by_unit = match sections {
        Some(sections) => sections.by_unit(addresses),
        None => vec![(None, addresses.to_vec())],
    };
    let mut groups = Vec::with_capacity(by_unit.len());
    for (unit, addresses) in by_unit {
        match unit {
            Some(_) => groups.push(Group { unit, addresses }),
            None => groups.extend(addresses.chunks(PIECE).map(|some| Group { unit, addresses: some.to_vec() })),
        }
    }
    let size = |group: &Group| group.unit.zip(sections).map_or(0, |(unit, sections)| sections.bytes_of(unit));
    groups.sort_by_cached_key(|group| Reverse(size(group) / LARGE));
    groups
}

/// What threads share.
struct Work<'w, 'a> {
    groups: Vec<Group>,
    /// The first group that nobody has taken yet.
    next: AtomicUsize,
    functions: &'w FunctionTable<'a>,
    sections: Option<&'w DebugSections<'a>>,
    memory: memory::Ceiling,
    /// What is wrong with the debug information, if anything is.
    damage: Mutex<Option<Missing>>,
    sink: &'w dyn Sink,
}

impl<'a> Work<'_, 'a> {
    /// Takes groups until there are none. When memory is short, one thread goes on.
    fn run(&self, goes_on: bool, room: &'a Room) -> Counts {
        let mut counts = Counts::default();
        let mut searcher = self.sections.map(|sections| Searcher::new(sections, room));
        while let Some(Group { unit, addresses }) = self.groups.get(self.next.fetch_add(1, Ordering::Relaxed)) {
            let described = match (*unit, &mut searcher) {
                (Some(unit), Some(searcher)) => self.guarded(|| {
                    let described = searcher.describe(unit, addresses);
                    (described, searcher.take_damage().map(Missing::from))
                }),
                _ => Vec::new(),
            };
            let described = described.into_iter().chain(iter::repeat_with(Described::default));
            let pairs = addresses.iter().zip(described);
            let mut symbols: Vec<Symbols> =
                pairs.filter_map(|(&address, described)| self.symbols(address, described)).collect();
            counts.add(&symbols);
            while !symbols.is_empty() {
                let rest = symbols.split_off(symbols.len().min(PIECE));
                self.sink.found(std::mem::replace(&mut symbols, rest));
            }
            if self.memory.is_reached() {
                if searcher.as_mut().is_some_and(Searcher::forget) {
                    memory::give_back();
                }
                if !goes_on {
                    break;
                }
            }
        }
        counts
    }

    fn symbols(&self, address: u64, described: Described<'_>) -> Option<Symbols> {
        let Described { mut functions, outermost } = described;
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
                None => functions.push(Function { name, ..Function::default() }),
                Some(outermost) => outermost.name = name,
            }
        }
        functions.retain(|function| !function.name.is_empty());
        (!functions.is_empty()).then_some(Symbols { address, functions })
    }

    /// Remembers what is wrong: what is damaged in one place can be whole in others.
    fn guarded(&self, describe: impl FnOnce() -> (Vec<Described<'a>>, Option<Missing>)) -> Vec<Described<'a>> {
        let failed = |_| (Vec::new(), Some(Missing::Damaged("reading it fails".to_owned())));
        let (described, damage) = catch_unwind(AssertUnwindSafe(describe)).unwrap_or_else(failed);
        if let (Some(damage), Ok(mut known)) = (damage, self.damage.lock()) {
            known.get_or_insert(damage);
        }
        described
    }
}
