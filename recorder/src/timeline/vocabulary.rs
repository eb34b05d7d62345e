//! Words of slices that the trace has written: what they are called, and the names and texts of their arguments.

use polletto_protos::{DebugAnnotationName, EventCategory, EventName, InternedData, InternedString};

use crate::{
    families::FamilyName,
    trace::{Argument, InternTable, PacketBuffer},
};

/// Numbers of words, each of which is written when it is first needed.
#[derive(Debug, Default)]
pub struct Vocabulary {
    categories: InternTable<String>,
    events: InternTable<String>,
    arguments: InternTable<String>,
    texts: InternTable<String>,
}

impl Vocabulary {
    /// Of a category.
    pub fn category(&mut self, name: &str, out: &mut PacketBuffer) -> u64 {
        self.categories.iid(name, |iid| {
            let category = EventCategory { iid: Some(iid), name: Some(name.to_owned()) };
            out.push_interned(InternedData { event_categories: vec![category], ..InternedData::default() });
        })
    }

    /// Of what a slice is called.
    pub fn event(&mut self, name: &str, out: &mut PacketBuffer) -> u64 {
        self.events.iid(name, |iid| {
            let event = EventName { iid: Some(iid), name: Some(name.to_owned()) };
            out.push_interned(InternedData { event_names: vec![event], ..InternedData::default() });
        })
    }

    /// Of an argument's name, with a value that is a number.
    pub fn number(&mut self, name: &str, value: u64, out: &mut PacketBuffer) -> (u64, Argument) {
        (self.argument(name, out), Argument::Number(value))
    }

    /// Of an argument's name, with a value that is an address.
    pub fn pointer(&mut self, name: &str, address: u64, out: &mut PacketBuffer) -> (u64, Argument) {
        (self.argument(name, out), Argument::Pointer(address))
    }

    /// Of the argument that tells which task it is: by what is its own, or by what was others' before it.
    pub fn task(&mut self, id: u64, family: FamilyName, out: &mut PacketBuffer) -> (u64, Argument) {
        if family.has_ids() { self.number("task_id", id, out) } else { self.pointer("task_at", id, out) }
    }

    /// Of an argument's name, with a value that is a text.
    pub fn text(&mut self, name: &str, value: &str, out: &mut PacketBuffer) -> (u64, Argument) {
        let text = self.texts.iid(value, |iid| {
            let text = InternedString { iid: Some(iid), str: Some(value.into()) };
            out.push_interned(InternedData { debug_annotation_string_values: vec![text], ..InternedData::default() });
        });
        (self.argument(name, out), Argument::Text(text))
    }

    fn argument(&mut self, name: &str, out: &mut PacketBuffer) -> u64 {
        self.arguments.iid(name, |iid| {
            let argument = DebugAnnotationName { iid: Some(iid), name: Some(name.to_owned()) };
            out.push_interned(InternedData { debug_annotation_names: vec![argument], ..InternedData::default() });
        })
    }
}
