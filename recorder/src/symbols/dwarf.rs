//! Functions, files and lines by debug information, and what was inlined.
//!
//! Debug information comes in units, mostly one for each file that was compiled. Each unit is read once, for all of its
//! addresses together, and nothing of it is kept: so the memory that this takes does not grow with the file.

mod functions;
mod lines;
mod units;

use std::{
    collections::BTreeSet,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use gimli::{Dwarf, DwarfPackage, DwoId, Section, Unit, UnitRef, UnitType};
use rustc_hash::FxHashMap;
use typed_arena::Arena;

use self::{
    functions::{CallPlace, Naming, Place, Written},
    lines::Lines,
    units::Units,
};
pub use self::{lines::path, units::UnitIndex};
use super::{
    file::{Decompressed, ElfObject, Mapped, Slice},
    names::demangle,
    request::Function,
};
use crate::target;

/// How many units are asked for an address. Several may say that it is theirs, and not know it.
const MAX_CLAIMS: usize = 8;

/// What debug information borrows from: it is read piece by piece, as it is needed.
#[derive(Default)]
pub struct Room {
    files: Arena<Mapped>,
    /// What sections were decompressed to.
    bytes: Decompressed,
    /// Files are copied.
    copies: bool,
}

impl Room {
    /// For a process that can't be spared: a file that is mapped may be cut, which ends whoever reads it.
    pub fn of_copies() -> Room {
        Room { copies: true, ..Room::default() }
    }

    /// For another thread that reads the same file.
    pub fn beside(&self) -> Room {
        Room { files: Arena::new(), bytes: self.bytes.beside(), copies: self.copies }
    }

    fn open(&self, path: &Path) -> Option<Mapped> {
        let file = target::open_regular(path).ok()?;
        if self.copies { self.bytes.copy(&file).ok() } else { Mapped::map(&file).ok() }
    }
}

/// Sections of a file, and of those that it refers to.
pub struct DebugSections<'a> {
    dwarf: Dwarf<Slice<'a>>,
    units: Units<'a>,
    /// Those of the file that it shares parts with.
    shared_units: Units<'a>,
    /// Split debug information, all in one file.
    package: Option<DwarfPackage<Slice<'a>>>,
    /// Folders of packages that look like dependencies and are the program's own.
    built_packages: BTreeSet<String>,
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
        let units = Units::list(&dwarf).map_err(|error| error.to_string())?;
        let shared_units = match dwarf.sup() {
            Some(shared) => Units::list(shared).map_err(|error| error.to_string())?,
            None => Units::default(),
        };
        let built_packages = units.built_packages();
        Ok(DebugSections { dwarf, units, shared_units, package, built_packages })
    }

    /// For each unit the addresses that it should know, sorted; they come with no unit if none does.
    pub fn by_unit(&self, addresses: &[u64]) -> Vec<(Option<UnitIndex>, Vec<u64>)> {
        self.units.claims_on(addresses.iter().copied(), 0)
    }

    /// How large a unit is.
    pub fn bytes_of(&self, unit: UnitIndex) -> usize {
        self.units.get(unit).header.length_including_self()
    }

    /// Every unit of the file.
    pub fn all_units(&self) -> impl Iterator<Item = UnitIndex> + use<> {
        self.units.all()
    }

    /// Shows all of a unit, also where the compiler left it in another file. None where that is not there.
    pub fn read_unit<T>(
        &self,
        index: UnitIndex,
        room: &'a Room,
        read: impl FnOnce(UnitRef<'_, Slice<'a>>) -> Result<T, gimli::Error>,
    ) -> Result<Option<T>, gimli::Error> {
        let unit = self.unit(index);
        match rest_of(self, unit, room)? {
            Rest::Here => read(unit).map(Some),
            Rest::Elsewhere(split) => read(UnitRef::new(&split.dwarf, &split.unit)).map(Some),
            Rest::NotThere(_) => Ok(None),
        }
    }

    fn unit<'s>(&'s self, index: UnitIndex) -> UnitRef<'s, Slice<'a>> {
        UnitRef::new(&self.dwarf, self.units.get(index))
    }

    /// A unit of this file or of the shared one, and the place in it, by a place in the section of all units.
    fn unit_around<'s>(
        &'s self,
        offset: gimli::DebugInfoOffset,
        is_shared: bool,
    ) -> Option<(UnitRef<'s, Slice<'a>>, gimli::UnitOffset)> {
        let (dwarf, units) =
            if is_shared { (self.dwarf.sup()?, &self.shared_units) } else { (&self.dwarf, &self.units) };
        let unit = UnitRef::new(dwarf, units.around(offset)?);
        Some((unit, offset.to_unit_offset(&unit.header)?))
    }
}

/// What debug information says of an address.
#[derive(Clone, Debug, Default)]
pub struct Described<'a> {
    /// The innermost first. None where it does not describe the address, and a function without a name where it knows
    /// only the line.
    pub functions: Vec<Function>,
    /// What the compiler calls the outermost one.
    pub outermost: Option<&'a [u8]>,
}

/// What is wrong with debug information.
#[derive(Debug)]
pub enum Damage {
    /// It can't be understood.
    Unreadable(gimli::Error),
    /// A part of it was left in this file, which is not there or is another build's.
    NotThere(PathBuf),
}

/// Searches debug information.
pub struct Searcher<'s, 'a> {
    sections: &'s DebugSections<'a>,
    room: &'a Room,
    /// By mangled ones.
    names: FxHashMap<Box<[u8]>, Box<str>>,
    damage: Option<Damage>,
}

impl<'s, 'a> Searcher<'s, 'a> {
    /// One that knows nothing yet, with room for files that these refer to.
    pub fn new(sections: &'s DebugSections<'a>, room: &'a Room) -> Searcher<'s, 'a> {
        Searcher { sections, room, names: FxHashMap::default(), damage: None }
    }

    /// Forgets what it keeps because it may be needed again. False if that is nothing.
    pub fn forget(&mut self) -> bool {
        !std::mem::take(&mut self.names).is_empty()
    }

    /// What was found to be wrong since the last call.
    pub fn take_damage(&mut self) -> Option<Damage> {
        self.damage.take()
    }

    /// Describes addresses, which are sorted and should be known by this unit, in their order. If it does not know them after
    /// all, others that claim to do are asked.
    pub fn describe(&mut self, unit: UnitIndex, addresses: &[u64]) -> Vec<Described<'a>> {
        let mut described = self.ask(unit, addresses);
        for claim in 1..MAX_CLAIMS {
            let unknown =
                |(address, described): (&u64, &Described<'_>)| described.functions.is_empty().then_some(*address);
            let rest: Vec<u64> = addresses.iter().zip(&described).filter_map(unknown).collect();
            if rest.is_empty() {
                break;
            }
            for (unit, some) in self.sections.units.claims_on(rest.into_iter(), claim) {
                let Some(unit) = unit else { continue };
                for (address, found) in some.iter().zip(self.ask(unit, &some)) {
                    if let Ok(at) = addresses.binary_search(address) {
                        described[at] = found;
                    }
                }
            }
        }
        described
    }

    /// Asks one unit.
    fn ask(&mut self, unit: UnitIndex, addresses: &[u64]) -> Vec<Described<'a>> {
        let sections = self.sections;
        let unit = sections.unit(unit);
        let mut written = vec![Vec::new(); addresses.len()];
        let searched = rest_of(sections, unit, self.room).and_then(|rest| {
            let (unit, place) = match &rest {
                Rest::Here | Rest::NotThere(_) => (unit, Place::Own),
                Rest::Elsewhere(split) => (UnitRef::new(&split.dwarf, &split.unit), Place::Split),
            };
            functions::find(unit, addresses, &Naming { sections, place }, &mut written)?;
            // Some compilers leave what lines need in both.
            if let Rest::NotThere(path) = rest
                && written.iter().any(Vec::is_empty)
            {
                self.damage.get_or_insert(Damage::NotThere(path));
            }
            Ok(())
        });
        let mut lines = Lines::new(unit, addresses.len());
        let searched = searched.and(lines.find(addresses));
        let described = written.iter().enumerate();
        let described = described.map(|(at, written)| self.described(written, at, &mut lines)).collect();
        self.damage = self.damage.take().or(searched.err().map(Damage::Unreadable));
        described
    }

    /// Puts functions and lines together.
    fn described(&mut self, written: &[Written<'a>], at: usize, lines: &mut Lines<'_, 'a>) -> Described<'a> {
        let mut place = lines.place(at);
        let mut functions = Vec::with_capacity(written.len().max(1));
        let built_packages = &self.sections.built_packages;
        let mut add = |name: Option<&[u8]>, place: Option<CallPlace>| {
            let name = name.map(|name| self.demangled(name)).unwrap_or_default();
            let file = place.and_then(|place| lines.path(place.file?));
            let is_in = |file: &str| built_packages.iter().any(|folder| file.starts_with(folder));
            let is_of_built_package = file.as_deref().is_some_and(is_in);
            let line = place.map(|place| place.line).filter(|&line| line > 0);
            functions.push(Function { name, file, line, is_of_built_package });
        };
        for function in written.iter().rev() {
            add(function.name, place);
            place = Some(function.called_from);
        }
        if written.is_empty() && place.is_some() {
            add(None, place);
        }
        Described { functions, outermost: written.first().and_then(|function| function.name) }
    }

    /// A name as people write it.
    fn demangled(&mut self, mangled: &[u8]) -> String {
        match self.names.get(mangled) {
            Some(name) => name.to_string(),
            None => {
                let name = demangle(&String::from_utf8_lossy(mangled)).into_owned();
                self.names.insert(mangled.into(), name.as_str().into());
                name
            }
        }
    }
}

/// What the compiler left of a unit in another file.
struct Split<'r> {
    dwarf: Dwarf<Slice<'r>>,
    unit: Unit<Slice<'r>>,
}

/// Where the rest of a unit is.
enum Rest<'r> {
    Here,
    Elsewhere(Box<Split<'r>>),
    NotThere(PathBuf),
}

/// Opens what the compiler left of a unit in another file, if it did.
fn rest_of<'r>(
    sections: &DebugSections<'r>,
    skeleton: UnitRef<'_, Slice<'r>>,
    room: &'r Room,
) -> Result<Rest<'r>, gimli::Error> {
    let Some(id) = skeleton.dwo_id else { return Ok(Rest::Here) };
    let path = path_of_rest(skeleton);
    let packaged = match &sections.package {
        Some(package) => package.find_cu(id, &sections.dwarf)?,
        None => None,
    };
    let Some(dwarf) = packaged.or_else(|| in_file_beside(sections, &path, id, room)) else {
        return Ok(Rest::NotThere(path));
    };
    let Some(header) = dwarf.units().next()? else { return Ok(Rest::NotThere(path)) };
    let mut unit = dwarf.unit(header)?;
    unit.copy_relocated_attributes(&skeleton);
    Ok(Rest::Elsewhere(Box::new(Split { dwarf, unit })))
}

/// The file that the compiler says it left the rest of a unit in.
fn path_of_rest(skeleton: UnitRef<'_, Slice<'_>>) -> PathBuf {
    let name = || skeleton.attr_string(skeleton.dwo_name().ok()??).ok();
    let parts = [skeleton.comp_dir, name()].into_iter().flatten();
    parts.map(|part| std::ffi::OsStr::from_bytes(part.slice())).collect()
}

/// Debug information that the compiler left in another file.
fn in_file_beside<'r>(
    sections: &DebugSections<'r>,
    path: &Path,
    id: DwoId,
    room: &'r Room,
) -> Option<Dwarf<Slice<'r>>> {
    let file = room.files.alloc(room.open(path)?);
    let object = ElfObject::parse(file).ok()?;
    let section = |id: gimli::SectionId| match id.dwo_name() {
        Some(name) => object.section(name, &room.bytes),
        None => Ok(Slice::new(&[], gimli::LittleEndian)),
    };
    let mut dwarf = Dwarf::load(section).ok()?;
    // Types have units of their own, in the same section or in others, and only the first unit is searched.
    dwarf.debug_info = object.sections(".debug_info.dwo", &room.bytes).find_map(|section| {
        dwarf.debug_info = section.ok()?.into();
        let rest = dwarf.debug_info.reader().slice().get(unit_of(&dwarf, id)?..)?;
        Some(Slice::new(rest, gimli::LittleEndian).into())
    })?;
    dwarf.make_dwo(&sections.dwarf);
    Some(dwarf)
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
