//! `ModuleSymbols`: names that came after the recording.
//!
//! Perfetto's definitions call the build id a string, which it is not, so generated types can't read these packets.

use std::collections::BTreeMap;

use super::{callstacks::hexadecimal, wire::Message};

/// A packet of nothing but `TracePacket.module_symbols` begins so.
const PACKET: [u8; 2] = [0xea, 0x03];
const MODULE_SYMBOLS: u32 = 61;

/// Names for the addresses of all files.
#[derive(Debug, Default)]
pub struct ModuleSymbols {
    modules: BTreeMap<(String, String), BTreeMap<u64, Vec<Line>>>,
    /// How many packets they came in.
    pub packets: usize,
}

/// The same names, in whatever order and packets they came: several threads look for them.
impl PartialEq for ModuleSymbols {
    fn eq(&self, other: &ModuleSymbols) -> bool {
        self.modules == other.modules
    }
}

/// A function, and a place in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Its name.
    pub function: String,
    /// The file that it was written in.
    pub file: Option<String>,
    /// The line in that file.
    pub line: Option<u64>,
}

impl ModuleSymbols {
    /// What an address of a file is: its path with a slash in front of each part, its build id in hexadecimal digits.
    pub fn lines(&self, path: &str, build_id: &str, address: u64) -> Option<&[Line]> {
        let module = self.modules.get(&(path.to_owned(), build_id.to_owned()))?;
        module.get(&address).map(Vec::as_slice)
    }

    /// How many addresses have a name.
    pub fn count(&self) -> usize {
        self.modules.values().map(BTreeMap::len).sum()
    }

    /// The files with names, as paths and build ids.
    pub fn modules(&self) -> impl Iterator<Item = (&str, &str)> {
        self.modules.keys().map(|(path, build_id)| (path.as_str(), build_id.as_str()))
    }

    /// False if the packet is another.
    pub(super) fn take(&mut self, packet: &[u8]) -> bool {
        if !packet.starts_with(&PACKET) {
            return false;
        }
        let packet = Message::parse("a packet with module_symbols", packet, &[MODULE_SYMBOLS]);
        for symbols in packet.bytes(MODULE_SYMBOLS) {
            self.take_message(symbols);
        }
        self.packets += 1;
        true
    }

    fn take_message(&mut self, symbols: &[u8]) {
        let symbols = Message::parse("module_symbols", symbols, &[1, 2, 3]);
        let path = symbols.text(1).expect("module_symbols has a path");
        let build_id = symbols.bytes(2).next().map(hexadecimal).unwrap_or_default();
        let module = self.modules.entry((path, build_id)).or_default();
        for symbols in symbols.bytes(3) {
            let symbols = Message::parse("address_symbols", symbols, &[1, 2]);
            let address = symbols.number(1).expect("address_symbols has an address");
            let lines: Vec<Line> = symbols.bytes(2).map(line).collect();
            assert!(!lines.is_empty(), "an address has no functions");
            module.insert(address, lines);
        }
    }
}

fn line(line: &[u8]) -> Line {
    let line = Message::parse("a line", line, &[1, 2, 3]);
    let function = line.text(1).expect("a line has a function");
    assert!(!function.is_empty(), "a function has no name");
    Line { function, file: line.text(2), line: line.number(3) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `/a`, c0ffee, address 9: `f` in `g.rs`, line 7.
    const EXAMPLE: [u8; 29] = [
        0xea, 3, 26, 10, 2, b'/', b'a', 18, 3, 0xc0, 0xff, 0xee, 26, 15, 8, 9, 18, 11, 10, 1, b'f', 18, 4, b'g', b'.',
        b'r', b's', 24, 7,
    ];

    #[test]
    fn names_are_found_by_file_and_address() {
        let mut symbols = ModuleSymbols::default();
        assert!(symbols.take(&EXAMPLE));
        let line = Line { function: "f".into(), file: Some("g.rs".into()), line: Some(7) };
        assert_eq!(symbols.lines("/a", "c0ffee", 9), Some(&[line][..]));
        assert_eq!(symbols.lines("/a", "c0ffef", 9), None);
        assert_eq!((symbols.count(), symbols.packets), (1, 1));
        assert!(!symbols.take(&[10, 0]));
    }
}
