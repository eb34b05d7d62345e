//! What the packets of a sequence refer to by number, as far as it leads from stacks to addresses.

use rustc_hash::FxHashMap;

use super::{
    budget::Budget,
    error::ReadError,
    fields::{Malformed, Message},
    modules::{MAX_PATH_BYTES, Modules, path_of},
};
use crate::trace::wire::push_varint;

/// Tables of `InternedData`. Of several entries with a number the first counts.
#[derive(Debug, Default)]
pub(super) struct Interned {
    build_ids: FxHashMap<u64, Box<[u8]>>,
    paths: FxHashMap<u64, Box<[u8]>>,
    /// Whether a name is empty, which is all that matters.
    function_names: FxHashMap<u64, bool>,
    mappings: FxHashMap<u64, Mapping>,
    frames: FxHashMap<u64, Frame>,
    /// Numbers of frames, as varints. Empty once the stack was used: all of it is known then.
    callstacks: FxHashMap<u64, Box<[u8]>>,
    /// What the tables have taken of the budget.
    taken: u64,
}

/// `Mapping`
#[derive(Debug)]
enum Mapping {
    /// Not used yet.
    Unresolved { build_id: u64, path: Vec<u64> },
    /// The number of its file; none if that has no names, or the mapping makes no sense.
    Resolved(Option<usize>),
}

/// `Frame`
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Frame {
    pub iid: u64,
    pub function_name: u64,
    pub mapping: u64,
    pub address: u64,
    /// Code that no file holds: of the kernel, interpreted, or compiled by the program itself.
    is_elsewhere: bool,
}

impl Interned {
    /// What they have taken of the budget.
    pub fn taken(&self) -> u64 {
        self.taken
    }

    /// Reads an `InternedData`.
    pub fn learn(&mut self, data: Message<'_>, budget: &mut Budget) -> Result<(), ReadError> {
        for field in data.fields() {
            let field = field?;
            let entry = field.value.message();
            let bytes = match field.number {
                5 => {
                    let (iid, name) = string(entry)?;
                    self.function_names.entry(iid).or_insert(name.is_empty());
                    0
                }
                6 => {
                    let frame = Frame::read(entry)?;
                    self.frames.entry(frame.iid).or_insert(frame);
                    0
                }
                7 => {
                    let (iid, frames) = callstack(entry)?;
                    let bytes = frames.len();
                    self.callstacks.entry(iid).or_insert(frames);
                    bytes
                }
                16 | 17 => {
                    let (iid, text) = string(entry)?;
                    let table = if field.number == 16 { &mut self.build_ids } else { &mut self.paths };
                    table.entry(iid).or_insert_with(|| text.into());
                    text.len()
                }
                19 => {
                    let (iid, build_id, path) = mapping(entry)?;
                    let bytes = path.len() * size_of::<u64>();
                    self.mappings.entry(iid).or_insert(Mapping::Unresolved { build_id, path });
                    bytes
                }
                _ => continue,
            };
            self.taken += budget.take(bytes as u64, entry.offset)?;
        }
        Ok(())
    }

    /// Adds the frames of a stack that something of the trace has. `offset` is where that stands.
    pub fn use_callstack(
        &mut self,
        iid: u64,
        modules: &mut Modules,
        budget: &mut Budget,
        offset: u64,
    ) -> Result<(), ReadError> {
        let Some(callstack) = self.callstacks.get_mut(&iid) else { return Ok(()) };
        let callstack = std::mem::take(callstack);
        for frame in (Message { bytes: &callstack, offset }).packed() {
            let Some(&frame) = self.frames.get(&frame?) else {
                // A reader gives up the stack, but has seen the frames before this one.
                return Ok(());
            };
            if !self.use_frame(frame, modules, budget, offset)? {
                return Ok(());
            }
        }
        Ok(())
    }

    /// False if it makes no sense.
    fn use_frame(
        &mut self,
        frame: Frame,
        modules: &mut Modules,
        budget: &mut Budget,
        offset: u64,
    ) -> Result<bool, ReadError> {
        let is_named = match frame.function_name {
            0 => false,
            name => match self.function_names.get(&name) {
                Some(is_empty) => !is_empty,
                None => return Ok(false),
            },
        };
        if is_named || frame.mapping == 0 || frame.is_elsewhere {
            return Ok(true);
        }
        if let Some(module) = self.module(frame.mapping, modules, budget, offset)? {
            modules.add(module, frame.address, budget, offset)?;
        }
        Ok(true)
    }

    fn module(
        &mut self,
        mapping: u64,
        modules: &mut Modules,
        budget: &mut Budget,
        offset: u64,
    ) -> Result<Option<usize>, ReadError> {
        let (build_id, path) = match self.mappings.get(&mapping) {
            None => return Ok(None),
            Some(Mapping::Resolved(module)) => return Ok(*module),
            Some(Mapping::Unresolved { build_id, path }) => (*build_id, path),
        };
        let build_id = if build_id == 0 { Some(&[][..]) } else { self.build_ids.get(&build_id).map(|id| &id[..]) };
        // A reader takes the parts up to the first that it does not know.
        let parts = path.iter().map_while(|part| self.paths.get(part).map(|part| &part[..]));
        let module = match (path_of(parts), build_id) {
            (Some(path), Some(build_id)) => modules.number(path, build_id, budget, offset)?,
            _ => None,
        };
        self.mappings.insert(mapping, Mapping::Resolved(module));
        Ok(module)
    }
}

impl Frame {
    pub fn read(message: Message<'_>) -> Result<Frame, Malformed> {
        const KERNEL: u64 = 2;
        const INTERPRETED: u64 = 3;
        const JIT: u64 = 4;
        let mut frame = Frame::default();
        for field in message.fields() {
            let field = field?;
            let number = field.value.number();
            match field.number {
                1 => frame.iid = number,
                2 => frame.function_name = number,
                3 => frame.mapping = number,
                4 => frame.address = number,
                7 => frame.is_elsewhere = matches!(number, KERNEL | INTERPRETED | JIT),
                _ => {}
            }
        }
        Ok(frame)
    }
}

/// Reads an `InternedString`.
pub(super) fn string(message: Message<'_>) -> Result<(u64, &[u8]), Malformed> {
    let (mut iid, mut text) = (0, &[][..]);
    for field in message.fields() {
        let field = field?;
        match field.number {
            1 => iid = field.value.number(),
            2 => text = field.value.message().bytes,
            _ => {}
        }
    }
    Ok((iid, text))
}

/// Reads a `Mapping`: its number, and those of its build id and of the parts of its path.
pub(super) fn mapping(message: Message<'_>) -> Result<(u64, u64, Vec<u64>), Malformed> {
    let (mut iid, mut build_id, mut path) = (0, 0, Vec::new());
    for field in message.fields() {
        let field = field?;
        match field.number {
            1 => iid = field.value.number(),
            2 => build_id = field.value.number(),
            7 => {
                // Each part has a slash, so more of them make no path.
                for part in field.value.numbers().take(MAX_PATH_BYTES - path.len()) {
                    path.push(part?);
                }
            }
            _ => {}
        }
    }
    Ok((iid, build_id, path))
}

/// Reads a `Callstack`: its number, and those of its frames as varints.
fn callstack(message: Message<'_>) -> Result<(u64, Box<[u8]>), Malformed> {
    let (mut iid, mut frames) = (0, Vec::new());
    for field in message.fields() {
        let field = field?;
        match field.number {
            1 => iid = field.value.number(),
            2 => {
                for frame in field.value.numbers() {
                    push_varint(&mut frames, frame?);
                }
            }
            _ => {}
        }
    }
    Ok((iid, frames.into_boxed_slice()))
}
