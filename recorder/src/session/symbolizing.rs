//! Answers about addresses → what a trace says of them.

use std::collections::BTreeMap;

use polletto_protos::{AddressSymbols, Line, ModuleSymbols};
use prost::Message;
use rustc_hash::FxHashSet;

use crate::{
    symbols::{Answer, Evidence, Function, Symbols, crate_of, origin_of},
    trace::{Attribute, AttributeValue, Batch, PacketBuffer, add_attributes},
};

/// Bytes at which a message is closed. Compressed packets hold 256 KiB, and no reader has to wait for more than that.
const MESSAGE_BYTES: usize = 64 << 10;

/// What an address says at most, in bytes: functions that this one was inlined into are left out beyond that.
const ADDRESS_BYTES: usize = 64 << 10;

/// The longest name or path, in bytes. A thousand times that of an honest one.
const TEXT_BYTES: usize = 16 << 10;

/// Writes names, and whose code they are of.
#[derive(Debug, Default)]
pub struct NameWriter {
    packets: PacketBuffer,
    /// Attributes that tell kinds: those that were written already, with none.
    kinds: BTreeMap<String, Option<&'static str>>,
    /// Files, and functions of no file, that were looked at.
    seen: FxHashSet<Box<str>>,
}

/// Attributes with these keys and the beginning of a path, or the name of a crate, say of which kind code is that was
/// written in such a file, or in that crate if no file is known.
const KIND_OF_PATH: &str = "polletto.frame_kind.path.";
const KIND_OF_CRATE: &str = "polletto.frame_kind.crate.";

/// How many of these there are at most: several times what the largest programs depend on.
const MAX_KINDS: usize = 10_000;

impl NameWriter {
    /// Writes what was found for a module, by the path that the trace has for it.
    pub fn push(&mut self, answer: Answer) {
        for function in answer.symbols.iter().flat_map(|symbols| &symbols.functions) {
            self.note_kind(function);
        }
        module_symbols(answer).for_each(|symbols| self.packets.push_module_symbols(symbols));
    }

    /// The batches that are full.
    pub fn take_full(&mut self) -> impl Iterator<Item = Batch> + '_ {
        self.packets.take_full()
    }

    /// Everything so far.
    pub fn take_all(&mut self) -> impl Iterator<Item = Batch> + '_ {
        let new = self.kinds.iter_mut().filter_map(|(key, kind)| {
            let value = AttributeValue::Text(kind.take()?.to_owned());
            Some(Attribute { key: key.clone().into(), value })
        });
        let new: Vec<Attribute> = new.collect();
        if !new.is_empty() {
            add_attributes(new, &mut self.packets);
        }
        self.packets.take_all()
    }

    fn note_kind(&mut self, function: &Function) {
        let file = function.file.as_deref();
        let looked_at = file.unwrap_or(&function.name);
        if self.seen.contains(looked_at) || self.kinds.len() >= MAX_KINDS {
            return;
        }
        self.seen.insert(looked_at.into());
        let told = function.told();
        let key = match file.and_then(origin_of) {
            Some(path) => format!("{KIND_OF_PATH}{path}"),
            // What is told from the path alone, a query can tell too.
            None if told.evidence != Evidence::Name => return,
            None => match crate_of(&function.name) {
                Some(name) => format!("{KIND_OF_CRATE}{name}"),
                None => return,
            },
        };
        self.kinds.entry(key).or_insert(Some(told.kind.name()));
    }
}

/// The messages that say what was found for a module. None is larger than 128 KiB.
fn module_symbols(answer: Answer) -> impl Iterator<Item = ModuleSymbols> {
    let Answer { path, build_id, symbols } = answer;
    let mut symbols = symbols.into_iter().map(address_symbols).peekable();
    std::iter::from_fn(move || {
        symbols.peek()?;
        let mut message = ModuleSymbols {
            path: Some(path.clone()),
            build_id: build_id.as_ref().map(|id| id.bytes().to_vec()),
            address_symbols: Vec::new(),
        };
        let mut bytes = 0;
        while bytes < MESSAGE_BYTES
            && let Some(symbols) = symbols.next()
        {
            bytes += symbols.encoded_len();
            message.address_symbols.push(symbols);
        }
        Some(message)
    })
}

fn address_symbols(symbols: Symbols) -> AddressSymbols {
    let mut room = ADDRESS_BYTES;
    let lines = symbols.functions.into_iter().map(line).take_while(|line| {
        let length = line.encoded_len();
        let fits = length <= room;
        room = room.saturating_sub(length);
        fits
    });
    AddressSymbols { address: Some(symbols.address), lines: lines.collect() }
}

fn line(function: Function) -> Line {
    Line {
        function_name: Some(shortened(function.name)),
        source_file_name: function.file.map(shortened),
        line_number: function.line,
    }
}

fn shortened(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(TEXT_BYTES));
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::target::image::BuildId;

    fn named(address: u64, name: &str) -> Symbols {
        let function = |name: &str| Function {
            name: name.into(),
            file: Some("f.rs".into()),
            line: Some(7),
            ..Function::default()
        };
        Symbols { address, functions: vec![function(name), function("outer")] }
    }

    fn answer(symbols: Vec<Symbols>) -> Answer {
        Answer { path: "/usr/thing".into(), build_id: BuildId::new(&[1, 2]), symbols }
    }

    #[test]
    fn every_address_is_said_once_in_messages_of_bounded_size() {
        let name = "n".repeat(1000);
        let messages: Vec<_> = module_symbols(answer((0..500).map(|at| named(at, &name)).collect())).collect();
        assert!(messages.len() > 1);
        assert!(messages.iter().all(|message| message.encoded_len() <= 128 << 10 && message.path() == "/usr/thing"));
        assert!(messages.iter().all(|message| message.build_id() == [1, 2]));
        let addresses = messages.iter().flat_map(|message| &message.address_symbols).map(AddressSymbols::address);
        assert_eq!(addresses.collect::<Vec<_>>(), (0..500).collect::<Vec<_>>());
    }

    #[test]
    fn functions_stand_from_the_innermost_to_the_outermost() {
        let message = module_symbols(answer(vec![named(9, "inner")])).next().unwrap();
        let lines: Vec<_> = message.address_symbols[0].lines.iter().map(Line::function_name).collect();
        assert_eq!(lines, ["inner", "outer"]);
        assert_eq!(message.address_symbols[0].lines[0].line_number(), 7);
    }

    #[test]
    fn names_without_end_are_cut() {
        let symbols = Symbols {
            address: 1,
            functions: vec![Function { name: "ü".repeat(100_000), ..Function::default() }; 100],
        };
        let messages: Vec<_> = module_symbols(answer(vec![symbols])).collect();
        assert_eq!(messages.len(), 1);
        assert!(messages[0].encoded_len() <= 128 << 10);
        assert!(!messages[0].address_symbols[0].lines.is_empty());
    }

    #[test]
    fn no_answer_is_no_message() {
        assert_eq!(module_symbols(answer(Vec::new())).count(), 0);
    }
}
