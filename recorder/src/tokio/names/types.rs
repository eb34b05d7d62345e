//! Tasks by debug information: their functions, their types, and where their futures were written.

use std::{
    path::Path,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

use gimli::{AttributeValue, UnitOffset, UnitRef};
use rustc_hash::FxHashMap;

use super::evidence::{FUNCTIONS, Tasks};
use crate::{
    families::written,
    symbols::{
        dwarf::{DebugSections, Room, UnitIndex, path},
        file::{ElfObject, Slice},
    },
    tokio::described::{Entries, EntryAt, PathHash, TASK_CORE, file, line, text},
};

/// Threads that read debug information. All of it has to be read, as no table says where tasks are.
const THREADS: usize = 2;

/// The modules that the functions of vtables are in.
const RAW: [&str; 4] = ["tokio", "runtime", "task", "raw"];

/// What debug information says of tasks.
#[derive(Debug, Default)]
pub struct Types {
    pub tasks: Tasks,
    /// Files and lines of the bodies of futures, by the hashes of their paths.
    places: FxHashMap<PathHash, (String, u32)>,
}

impl Types {
    /// Where a future was written.
    pub fn place(&self, future: &str) -> Option<&(String, u32)> {
        self.places.get(&hash_of_body(future)?)
    }

    /// Those of some futures that are among the blocks which are polled: code that tells of different places is not alike.
    /// All of them if none is.
    pub fn written_at<'f>(&self, futures: Vec<&'f str>, blocks: &[(String, u32)]) -> Vec<&'f str> {
        let is_at = |(file, line): &(String, u32)| {
            blocks.iter().any(|(of_block, at)| at == line && Path::new(file).ends_with(of_block))
        };
        let places = futures.iter().map(|future| self.place(future));
        let is_known = places.map(|place| place.map(is_at)).collect::<Vec<_>>();
        if !is_known.contains(&Some(true)) {
            return futures;
        }
        // What has no place was not written as a block, and may still hold one.
        futures.into_iter().zip(is_known).filter(|(_, known)| *known != Some(false)).map(|(future, _)| future).collect()
    }
}

/// What one unit says of them. Names are the section's.
#[derive(Default)]
struct Found<'a> {
    functions: Vec<(Function, &'a [u8], Option<u64>)>,
    /// Names of types of tasks, and where their trailers are.
    cells: Vec<(&'a [u8], u64)>,
    /// Hashes of paths of bodies, and their places.
    bodies: Vec<(PathHash, UnitIndex, u64, u32)>,
}

/// Which function of a vtable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Function {
    /// One of [`FUNCTIONS`].
    OfTask(usize),
    Schedule,
}

/// Reads all of a file's debug information. Nothing if it can't be read; what is damaged in one unit can be whole in others.
pub fn read<'a>(object: &ElfObject<'a>, shared: Option<&ElfObject<'a>>, package: Option<&ElfObject<'a>>) -> Types {
    let room = Room::of_copies();
    let mut others: [Room; THREADS - 1] = std::array::from_fn(|_| room.beside());
    read_in(object, shared, package, &room, &mut others)
}

fn read_in<'a>(
    object: &ElfObject<'a>,
    shared: Option<&ElfObject<'a>>,
    package: Option<&ElfObject<'a>>,
    room: &'a Room,
    others: &'a mut [Room],
) -> Types {
    let Ok(sections) = DebugSections::load(object, shared, package, room) else { return Types::default() };
    let mut units: Vec<UnitIndex> = sections.all_units().collect();
    // One that takes long comes first.
    units.sort_by_cached_key(|&unit| std::cmp::Reverse(sections.bytes_of(unit)));
    let next = AtomicUsize::new(0);
    let run = |room: &'a Room| {
        let mut found = Found::default();
        while let Some(&unit) = units.get(next.fetch_add(1, Ordering::Relaxed)) {
            // What was read before an error counts.
            if let Err(_damaged) = sections.read_unit(unit, room, |read| found.read(read, unit)) {}
        }
        found
    };
    let found: Vec<Found<'a>> = thread::scope(|scope| {
        let others: Vec<_> = others
            .iter_mut()
            .map(|room| {
                let run = &run;
                scope.spawn(move || run(room))
            })
            .collect();
        let own = run(room);
        others.into_iter().filter_map(|thread| thread.join().ok()).chain([own]).collect()
    });
    together(&sections, room, &found)
}

fn together<'a>(sections: &DebugSections<'a>, room: &'a Room, found: &[Found<'a>]) -> Types {
    let mut types = Types::default();
    for (function, name, address) in found.iter().flat_map(|found| &found.functions) {
        add_function(&mut types.tasks, *function, &String::from_utf8_lossy(name), *address);
    }
    for (name, trailer) in found.iter().flat_map(|found| &found.cells) {
        let name = String::from_utf8_lossy(name);
        let Some([future, scheduler]) = written::arguments(&name) else { continue };
        let Some(task) = types.tasks.task(future, scheduler) else { break };
        if !task.trailer_offsets.contains(trailer) {
            task.trailer_offsets.push(*trailer);
        }
    }
    let wanted: FxHashMap<PathHash, ()> =
        types.tasks.futures().filter_map(hash_of_body).map(|hash| (hash, ())).collect();
    for &(hash, unit, file, line) in found.iter().flat_map(|found| &found.bodies) {
        if !wanted.contains_key(&hash) || types.places.contains_key(&hash) {
            continue;
        }
        let file = sections.read_unit(unit, room, |unit| {
            let header = unit.line_program.as_ref().map(|program| program.header());
            Ok(header.and_then(|header| path(unit, header, file)))
        });
        if let Ok(Some(Some(file))) = file {
            types.places.insert(hash, (file, line));
        }
    }
    types
}

/// Adds a function by its name with arguments. Without an address it is one that the linker left out.
fn add_function(tasks: &mut Tasks, function: Function, name: &str, address: Option<u64>) {
    match function {
        Function::Schedule => {
            if let (Some([scheduler]), Some(address)) = (written::arguments(name), address) {
                tasks.add_schedule(scheduler, address);
            }
        }
        Function::OfTask(function) => {
            let Some([future, scheduler]) = written::arguments(name) else { return };
            let Some(task) = tasks.task(future, scheduler) else { return };
            match address {
                Some(address) => task.add(function, address),
                None => task.dropped[function] = true,
            }
        }
    }
}

impl<'a> Found<'a> {
    /// Reads all entries of a unit once.
    fn read(&mut self, unit: UnitRef<'_, Slice<'a>>, index: UnitIndex) -> Result<(), gimli::Error> {
        // The depth of a type of tasks around the entry, and its name.
        let mut cell: Option<(isize, &'a [u8])> = None;
        let mut inlined: FxHashMap<UnitOffset, (Function, &'a [u8])> = FxHashMap::default();
        let mut copies: Vec<(UnitOffset, Option<u64>)> = Vec::new();
        let mut entries = Entries::of(unit)?;
        while let Some(EntryAt { tag, offset, depth }) = entries.next()? {
            cell = cell.filter(|(of_cell, _)| depth > *of_cell);
            match tag {
                gimli::DW_TAG_structure_type if entries.is_in(&TASK_CORE) => {
                    let name = Entry::read(&mut entries)?.name;
                    cell = name.filter(|name| name.starts_with(b"Cell<")).map(|name| (depth, name));
                }
                gimli::DW_TAG_member if cell.is_some_and(|(of_cell, _)| depth == of_cell + 1) => {
                    let entry = Entry::read(&mut entries)?;
                    if let (Some((_, name)), Some(b"trailer"), Some(offset)) = (cell, entry.name, entry.member) {
                        self.cells.push((name, offset));
                    }
                }
                gimli::DW_TAG_subprogram => {
                    let entry = Entry::read(&mut entries)?;
                    if let Some(name) = entry.name.filter(|name| name.first() == Some(&b'{'))
                        && let Some(file) = entry.file
                    {
                        self.bodies.push((entries.path().join(name), index, file, entry.line));
                    }
                    let function = entry.name.filter(|_| entries.is_in(&RAW)).and_then(function_of);
                    match (function, entry.name, entry.begin, entry.origin) {
                        (Some(function), Some(name), Some(begin), _) => {
                            self.functions.push((function, name, begin.code()));
                        }
                        (Some(function), Some(name), None, _) => drop(inlined.insert(offset, (function, name))),
                        (None, None, Some(begin), Some(origin)) => copies.push((origin, begin.code())),
                        _ => {}
                    }
                }
                _ => {}
            }
        }
        if !inlined.is_empty() {
            let known = |(origin, begin)| inlined.get(&origin).map(|&(function, name)| (function, name, begin));
            self.functions.extend(copies.into_iter().filter_map(known));
        }
        Ok(())
    }
}

/// Which function of a vtable has this name.
fn function_of(name: &[u8]) -> Option<Function> {
    let is = |function: &str| name.strip_prefix(function.as_bytes()).is_some_and(|rest| rest.starts_with(b"<"));
    let of_task = FUNCTIONS.iter().position(|function| is(function)).map(Function::OfTask);
    of_task.or_else(|| is("schedule").then_some(Function::Schedule))
}

/// Where code begins.
#[derive(Clone, Copy)]
struct Begin(u64);

impl Begin {
    /// None if the linker left it out.
    fn code(self) -> Option<u64> {
        Some(self.0).filter(|&begin| begin > 1 && begin < u64::MAX - 1)
    }
}

/// What counts of an entry.
#[derive(Default)]
struct Entry<'a> {
    name: Option<&'a [u8]>,
    begin: Option<Begin>,
    /// Another entry that says more.
    origin: Option<UnitOffset>,
    file: Option<u64>,
    line: u32,
    /// Where a part of a type is, bytes.
    member: Option<u64>,
}

impl<'a> Entry<'a> {
    fn read(entries: &mut Entries<'_, 'a>) -> Result<Entry<'a>, gimli::Error> {
        let (unit, mut entry) = (entries.unit(), Entry::default());
        entries.read_attributes(|attribute| {
            let value = attribute.value();
            match attribute.name() {
                gimli::DW_AT_name => entry.name = text(unit, value),
                gimli::DW_AT_low_pc => entry.begin = unit.attr_address(value)?.map(Begin),
                gimli::DW_AT_abstract_origin | gimli::DW_AT_specification => {
                    entry.origin = match value {
                        AttributeValue::UnitRef(offset) => Some(offset),
                        AttributeValue::DebugInfoRef(offset) => offset.to_unit_offset(&unit.header),
                        _ => None,
                    };
                }
                gimli::DW_AT_decl_file => entry.file = file(value),
                gimli::DW_AT_decl_line => entry.line = line(value).unwrap_or(0),
                gimli::DW_AT_data_member_location => entry.member = attribute.udata_value(),
                _ => {}
            }
            Ok(())
        })?;
        Ok(entry)
    }
}

/// The hash of the path of the function that is compiled of a future's body, or of what blocks. None for others.
fn hash_of_body(future: &str) -> Option<PathHash> {
    let path = written::without_arguments(written::inside_of_blocking(future));
    let (parents, own) = path.rsplit_once("::")?;
    let own = own.strip_prefix('{')?.replacen("_env#", "#", 1);
    Some(PathHash::of(parents.split("::").map(str::as_bytes)).join(format!("{{{own}").as_bytes()))
}
