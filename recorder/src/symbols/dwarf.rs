//! Functions, files and lines by debug information, and what was inlined.

use std::{cell::RefCell, os::unix::ffi::OsStrExt, path::PathBuf, sync::Arc};

use addr2line::{Context, LookupContinuation, LookupResult, SplitDwarfLoad};
use gimli::{Dwarf, DwarfPackage};
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

    /// The functions that an address lies in, the innermost first. None where it does not describe the address, and a
    /// function without a name where it knows only the line.
    pub fn find(&self, address: u64) -> Result<Vec<Function>, gimli::Error> {
        let mut lookup = self.context.find_frames(address);
        let mut frames = loop {
            match lookup {
                LookupResult::Output(frames) => break frames?,
                LookupResult::Load { load, continuation } => lookup = continuation.resume(self.split(&load)),
            }
        };
        let mut functions = Vec::new();
        while let Some(frame) = frames.next()? {
            let name = frame.function.map(|function| self.demangled(&function.name)).unwrap_or_default();
            let (file, line) = match frame.location {
                Some(location) => (location.file.map(str::to_owned), location.line.filter(|&line| line > 0)),
                None => (None, None),
            };
            functions.push(Function { name, file, line });
        }
        Ok(functions)
    }

    fn demangled(&self, mangled: &Slice<'a>) -> String {
        let mut names = self.names.borrow_mut();
        let name = names.entry(mangled.slice().as_ptr() as usize).or_insert_with(|| {
            let mangled = String::from_utf8_lossy(mangled.slice());
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
        let header = dwarf.units().next().ok()??;
        // Built again since, it describes other code.
        if dwarf.unit(header).ok()?.dwo_id != Some(load.dwo_id) {
            return None;
        }
        dwarf.make_dwo(&load.parent);
        Some(Arc::new(dwarf))
    }
}
