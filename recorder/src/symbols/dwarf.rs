//! Functions, files and lines by debug information, and what was inlined.

use std::{cell::RefCell, os::unix::ffi::OsStrExt, path::PathBuf, sync::Arc};

use addr2line::{Context, LookupContinuation, LookupResult, SplitDwarfLoad};
use gimli::{Dwarf, DwarfPackage, DwoId, Section, UnitType};
use rustc_hash::FxHashMap;
use typed_arena::Arena;

use super::{
    file::{ElfObject, Mapped, Slice},
    names::demangle,
    request::Function,
};
use crate::target;

/// What debug information borrows from: it is read piece by piece, as it is needed.
#[derive(Default)]
pub struct Room {
    files: Arena<Mapped>,
    /// What sections were decompressed to.
    bytes: Arena<Vec<u8>>,
}

/// Sections of a file, and of those that it refers to.
pub struct DebugSections<'a> {
    dwarf: Arc<Dwarf<Slice<'a>>>,
    /// Split debug information, all in one file.
    package: Option<DwarfPackage<Slice<'a>>>,
}

impl<'a> DebugSections<'a> {
    /// The sections of a file, and of the one that it shares parts with, if there is one.
    pub fn load(
        object: &ElfObject<'a>,
        shared: Option<&ElfObject<'a>>,
        package: Option<&ElfObject<'a>>,
        room: &'a Room,
    ) -> Result<DebugSections<'a>, String> {
        let mut dwarf = Dwarf::load(|id| object.section(id.name(), &room.bytes))?;
        if let Some(shared) = shared {
            dwarf.load_sup(|id| shared.section(id.name(), &room.bytes))?;
        }
        dwarf.populate_abbreviations_cache(gimli::AbbreviationsCacheStrategy::Duplicates);
        let empty = Slice::new(&[], gimli::LittleEndian);
        let section = |object: &ElfObject<'a>, id: gimli::SectionId| match id.dwo_name() {
            Some(name) => object.section(name, &room.bytes).map_err(|_| gimli::Error::Io),
            None => Ok(empty),
        };
        // Without it, what is split stays without lines, and its functions have their symbols.
        let package = package.and_then(|object| DwarfPackage::load(|id| section(object, id), empty).ok());
        Ok(DebugSections { dwarf: Arc::new(dwarf), package })
    }
}

/// What debug information says of an address.
#[derive(Debug, Default)]
pub struct Described<'a> {
    /// The innermost first. None where it does not describe the address, and a function without a name where it knows
    /// only the line.
    pub functions: Vec<Function>,
    /// What the compiler calls the outermost one.
    pub outermost: Option<&'a [u8]>,
}

/// Debug information that can be searched. What it has read of it once, it keeps.
pub struct DebugInformation<'a> {
    context: Context<Slice<'a>>,
    package: Option<&'a DwarfPackage<Slice<'a>>>,
    /// For files with split debug information.
    room: &'a Room,
    /// Demangled names, by where the mangled ones stand.
    names: RefCell<FxHashMap<usize, Box<str>>>,
}

impl<'a> DebugInformation<'a> {
    /// Lists the units, which takes longer the more there are.
    pub fn new(sections: &'a DebugSections<'a>, room: &'a Room) -> Result<DebugInformation<'a>, gimli::Error> {
        let context = Context::from_arc_dwarf(Arc::clone(&sections.dwarf))?;
        Ok(DebugInformation { context, package: sections.package.as_ref(), room, names: RefCell::default() })
    }

    /// The functions that an address lies in.
    pub fn find(&self, address: u64) -> Result<Described<'a>, gimli::Error> {
        let mut lookup = self.context.find_frames(address);
        let mut frames = loop {
            match lookup {
                LookupResult::Output(frames) => break frames?,
                LookupResult::Load { load, continuation } => lookup = continuation.resume(self.split(&load)),
            }
        };
        let mut functions = Vec::new();
        let mut outermost = None;
        while let Some(frame) = frames.next()? {
            outermost = frame.function.map(|function| function.name.slice());
            let name = outermost.map(|name| self.demangled(name)).unwrap_or_default();
            let (file, line) = match frame.location {
                Some(location) => (location.file.map(str::to_owned), location.line.filter(|&line| line > 0)),
                None => (None, None),
            };
            functions.push(Function { name, file, line });
        }
        Ok(Described { functions, outermost })
    }

    /// A name of these files as people write it.
    fn demangled(&self, mangled: &'a [u8]) -> String {
        let mut names = self.names.borrow_mut();
        let name = names.entry(mangled.as_ptr() as usize).or_insert_with(|| {
            let mangled = String::from_utf8_lossy(mangled);
            demangle(&mangled).into()
        });
        (**name).to_owned()
    }

    /// Debug information that the compiler left in another file.
    fn split(&self, load: &SplitDwarfLoad<Slice<'a>>) -> Option<Arc<Dwarf<Slice<'a>>>> {
        if let Some(package) = self.package
            && let Ok(Some(unit)) = package.find_cu(load.dwo_id, &load.parent)
        {
            return Some(Arc::new(unit));
        }
        let mut path = PathBuf::new();
        for part in [load.comp_dir, load.path] {
            path.push(std::ffi::OsStr::from_bytes(part?.slice()));
        }
        let room = self.room;
        let file = room.files.alloc(Mapped::map(&target::open_regular(&path).ok()?).ok()?);
        let object = ElfObject::parse(file).ok()?;
        let section = |id: gimli::SectionId| match id.dwo_name() {
            Some(name) => object.section(name, &room.bytes),
            None => Ok(Slice::new(&[], gimli::LittleEndian)),
        };
        let mut dwarf = Dwarf::load(section).ok()?;
        // Types have units of their own, in the same section or in others, and only the first unit is searched.
        dwarf.debug_info = object.sections(".debug_info.dwo", &room.bytes).find_map(|section| {
            dwarf.debug_info = section.ok()?.into();
            let rest = dwarf.debug_info.reader().slice().get(unit_of(&dwarf, load.dwo_id)?..)?;
            Some(Slice::new(rest, gimli::LittleEndian).into())
        })?;
        dwarf.make_dwo(&load.parent);
        Some(Arc::new(dwarf))
    }
}

/// Where the unit of this id begins. None if there is none: built again since, the file describes other code.
fn unit_of(dwarf: &Dwarf<Slice<'_>>, id: DwoId) -> Option<usize> {
    let mut units = dwarf.units();
    while let Some(header) = units.next().ok()? {
        let is_type = matches!(header.type_(), UnitType::Type { .. } | UnitType::SplitType { .. });
        if !is_type && dwarf.unit(header).ok()?.dwo_id == Some(id) {
            return Some(header.debug_info_offset()?.0);
        }
    }
    None
}
