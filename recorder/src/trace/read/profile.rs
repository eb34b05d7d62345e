//! Heap profiles (`ProfilePacket`). Old ones bring tables of their own, newer ones refer to the sequence's.

use rustc_hash::{FxHashMap, FxHashSet};

use super::{
    budget::Budget,
    error::ReadError,
    fields::Message,
    interned::{Frame, Interned, mapping, string},
    modules::{Modules, path_of},
};

/// A profile, which can have several packets.
#[derive(Debug, Default)]
pub(super) struct Profile {
    strings: FxHashMap<u64, Box<[u8]>>,
    /// Numbers of files; none where names can't be said.
    mappings: FxHashMap<u64, Option<usize>>,
    /// Numbers of stacks that are the profile's own.
    callstacks: FxHashSet<u64>,
    /// Numbers of stacks that are used, looked up when the profile is complete.
    used: FxHashSet<u64>,
    /// What it has taken of the budget.
    taken: u64,
}

impl Profile {
    /// What it has taken of the budget.
    pub fn taken(&self) -> u64 {
        self.taken
    }

    /// Reads a `ProfilePacket`.
    pub fn learn(
        &mut self,
        packet: Message<'_>,
        interned: &mut Interned,
        modules: &mut Modules,
        budget: &mut Budget,
    ) -> Result<(), ReadError> {
        // Entries refer to those of other fields, and fields come in any order.
        let is_continued = self.learn_strings(packet, budget)?;
        self.learn_mappings(packet, modules, budget)?;
        self.learn_frames(packet, modules, budget)?;
        if !is_continued {
            budget.give_back(self.taken);
            let Profile { callstacks, used, .. } = std::mem::take(self);
            for callstack in used.difference(&callstacks) {
                interned.use_callstack(*callstack, modules, budget, packet.offset)?;
            }
        }
        Ok(())
    }

    /// Whether further packets belong to the profile.
    fn learn_strings(&mut self, packet: Message<'_>, budget: &mut Budget) -> Result<bool, ReadError> {
        let mut is_continued = false;
        for field in packet.fields() {
            let field = field?;
            match field.number {
                1 => {
                    let (iid, text) = string(field.value.message())?;
                    self.taken += budget.take(text.len() as u64, packet.offset)?;
                    self.strings.entry(iid).or_insert_with(|| text.into());
                }
                6 => is_continued = field.value.number() != 0,
                _ => {}
            }
        }
        Ok(is_continued)
    }

    fn learn_mappings(
        &mut self,
        packet: Message<'_>,
        modules: &mut Modules,
        budget: &mut Budget,
    ) -> Result<(), ReadError> {
        for field in packet.fields() {
            let field = field?;
            if field.number != 4 {
                continue;
            }
            let (iid, build_id, path) = mapping(field.value.message())?;
            let path = path_of(path.iter().map_while(|part| self.strings.get(part).map(|part| &part[..])));
            // A reader tells a build id that is empty from none at all, and symbols can't say the former.
            let module = match (path, self.strings.get(&build_id)) {
                (Some(path), Some(id)) if !id.is_empty() => modules.number(path, id, budget, packet.offset)?,
                _ => None,
            };
            self.taken += budget.take(0, packet.offset)?;
            self.mappings.entry(iid).or_insert(module);
        }
        Ok(())
    }

    /// Frames of its own, which count without being used, and the stacks.
    fn learn_frames(
        &mut self,
        packet: Message<'_>,
        modules: &mut Modules,
        budget: &mut Budget,
    ) -> Result<(), ReadError> {
        for field in packet.fields() {
            let field = field?;
            let message = field.value.message();
            match field.number {
                2 => {
                    let frame = Frame::read(message)?;
                    let is_named = frame.function_name != 0
                        && self.strings.get(&frame.function_name).is_none_or(|name| !name.is_empty());
                    if let (Some(&Some(module)), false) = (self.mappings.get(&frame.mapping), is_named) {
                        modules.add(module, frame.address, budget, packet.offset)?;
                    }
                }
                3 => {
                    let (iid, _) = string(message)?;
                    self.taken += budget.take(0, packet.offset)?;
                    self.callstacks.insert(iid);
                }
                5 => self.learn_samples(message, budget)?,
                _ => {}
            }
        }
        Ok(())
    }

    /// Reads a `ProcessHeapSamples`.
    fn learn_samples(&mut self, samples: Message<'_>, budget: &mut Budget) -> Result<(), ReadError> {
        const SAMPLES: u32 = 2;
        const CALLSTACK: u32 = 1;
        for field in samples.fields() {
            let field = field?;
            if field.number != SAMPLES {
                continue;
            }
            for field in field.value.message().fields() {
                let field = field?;
                if field.number == CALLSTACK && self.used.insert(field.value.number()) {
                    self.taken += budget.take(0, samples.offset)?;
                }
            }
        }
        Ok(())
    }
}
