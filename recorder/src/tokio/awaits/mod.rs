//! What tasks wait for that are not polled: from the block that was spawned, by each that it awaits, to the future that
//! nobody of these has written.
//!
//! Debug information says where a future keeps how far it has come, and what it awaits there. It is read from the memory of
//! the process, which goes on meanwhile: whoever asks has to look before and after whether the task was polled.

mod chain;
mod index;
#[cfg(test)]
mod tests;

use std::fmt;

use rustc_hash::FxHashMap;

use self::{chain::Chain, index::Index};
use super::{
    Vtable,
    described::{self, TypeAt, Types},
};
use crate::{
    families::ProgramFiles,
    symbols::{
        file::{Decompressed, ElfObject},
        origin_of, told_file,
    },
    target::Memory,
};

/// One of the futures that a task waits in.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
pub struct Await {
    /// What it is called: the function whose body it is, or its type.
    pub what: String,
    /// The file and the line of the `.await` that it has come to, of a body.
    pub file: Option<String>,
    /// See `file`.
    pub line: Option<u32>,
}

/// What a task waits for, from the outermost future on.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
pub struct Waits {
    /// Each awaits the next.
    pub awaits: Vec<Await>,
    /// Why it is not known what the last of them awaits; none where that is what there is to wait for.
    pub ends_for: Option<&'static str>,
}

/// What debug information tells of the futures of a program's tasks.
pub struct Awaits<'d, 'a> {
    types: Types<'d, 'a>,
    index: Index<'a>,
    /// By the addresses of vtables in the file: the type of the task.
    cells: FxHashMap<u64, TypeAt>,
    /// By unit and number.
    files: FxHashMap<(usize, u64), Option<String>>,
}

/// In one line: `handle (src/main.rs:20) → read_frame (src/frame.rs:7) → Readiness`.
impl fmt::Display for Waits {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (depth, Await { what, file, line }) in self.awaits.iter().enumerate() {
            write!(out, "{}{what}", if depth > 0 { " → " } else { "" })?;
            if let (Some(file), Some(line)) = (file, line) {
                write!(out, " ({}:{line})", told_file(file))?;
            }
        }
        self.ends_for.map_or(Ok(()), |reason| write!(out, " ({reason})"))
    }
}

impl Waits {
    /// As it is in one line, without what dependencies await within themselves.
    pub fn in_short(&self) -> String {
        let is_of_others = |at: &Await| at.file.as_deref().is_none_or(|file| origin_of(file).is_some());
        let mut parts: Vec<String> = Vec::new();
        for (depth, at) in self.awaits.iter().enumerate() {
            let is_within = depth > 0 && is_of_others(at) && is_of_others(&self.awaits[depth - 1]);
            let is_last = depth + 1 == self.awaits.len();
            match (&at.file, at.line) {
                _ if is_within && !is_last => {
                    if parts.last().is_some_and(|last| last != "…") {
                        parts.push("…".to_owned());
                    }
                }
                (Some(file), Some(line)) if !is_of_others(at) => {
                    parts.push(format!("{} ({}:{line})", at.what, told_file(file)));
                }
                _ => parts.push(at.what.clone()),
            }
        }
        parts.join(" → ")
    }

    /// Nothing is known of it.
    pub fn unknown(reason: &'static str) -> Waits {
        Waits { awaits: Vec::new(), ends_for: Some(reason) }
    }
}

/// Why nothing is known of what a program's tasks wait for.
pub const NOT_DESCRIBED: &str = "the program has no debug information with types (`debug = true` in its profile)";

/// Reads a program's debug information, and hands over what it tells of tasks, or why it tells nothing.
///
/// Vtables come with what debug information calls the types of their tasks, where that is certain.
pub fn with<'v, T>(
    vtables: impl Iterator<Item = (&'v Vtable, &'v Option<String>)>,
    files: &ProgramFiles<'_>,
    use_it: impl FnOnce(Result<&mut Awaits<'_, '_>, &'static str>) -> T,
) -> T {
    let Some(object) = described_by(files) else { return use_it(Err(NOT_DESCRIBED)) };
    let room = Decompressed::default();
    let Ok(dwarf) = described::load(&object, &room) else { return use_it(Err(NOT_DESCRIBED)) };
    let Ok(units) = described::units(&dwarf) else { return use_it(Err(NOT_DESCRIBED)) };
    let types = Types::new(&dwarf, &units);
    let index = Index::read(&types);
    if index.cells.is_empty() {
        return use_it(Err(NOT_DESCRIBED));
    }
    let cells = vtables.filter_map(|(vtable, name)| {
        let cell = index.cells.get(name.as_ref()?.as_bytes())?;
        Some((vtable.address, *cell))
    });
    let cells = cells.collect();
    use_it(Ok(&mut Awaits { types, index, cells, files: FxHashMap::default() }))
}

/// Whether it is worth while to read a program's debug information for what its tasks await.
pub fn may_be_known(files: &ProgramFiles<'_>) -> bool {
    described_by(files).is_some_and(|object| described::has_variants(&object))
}

/// The file that has the program's debug information.
fn described_by<'a>(files: &ProgramFiles<'a>) -> Option<ElfObject<'a>> {
    let described = |bytes| ElfObject::parse(bytes).ok().filter(ElfObject::has_debug_information);
    [files.debug, Some(files.binary)].into_iter().flatten().find_map(described)
}

impl Awaits<'_, '_> {
    /// What the task at an address waits for, whose vtable stands at this address of its file. The file's bytes stand so
    /// much (wrapping) behind their own addresses.
    pub fn of_task(&mut self, memory: &dyn Memory, task: u64, vtable: u64, bias: u64) -> Waits {
        match self.cells.get(&vtable) {
            Some(&cell) => Chain::new(self, memory, bias).of_task(cell, task),
            None => Waits::unknown("the type of the task is not certain"),
        }
    }
}
