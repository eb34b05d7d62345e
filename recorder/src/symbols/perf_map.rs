//! Functions that a program has compiled while it ran, by the list that it writes of them for profilers.
//!
//! Lines of `START SIZE NAME`, both numbers hexadecimal. What is compiled later may take the place of what was there before,
//! and stands later in the list.

use std::io::{self, BufRead};

/// What is read of a list, in bytes. Those of the largest programs have some ten millions.
const MAX_BYTES: u64 = 256 << 20;

/// A list, as far as it is of use.
#[derive(Debug, Default)]
pub struct PerfMap {
    /// Sorted by their starts; of those with the same start, only the last one that was listed.
    functions: Vec<Function>,
}

#[derive(Debug)]
struct Function {
    start: u64,
    size: u64,
    /// Where it stood in the list.
    line: usize,
    name: Box<str>,
}

/// How many functions that begin nearer to an address, but end before it, are passed over to find one that holds it.
const MAX_NESTED: usize = 16;

impl PerfMap {
    /// Reads a list. Lines that can't be understood are left out: the last one may be half written.
    pub fn read(list: impl BufRead) -> io::Result<PerfMap> {
        let mut functions = Vec::new();
        for (line, text) in list.take(MAX_BYTES).split(b'\n').enumerate() {
            functions.extend(function(line, &text?));
        }
        functions.sort_by_key(|function: &Function| (function.start, std::cmp::Reverse(function.line)));
        functions.dedup_by_key(|function| function.start);
        Ok(PerfMap { functions })
    }

    /// The name of the function at an address: of several, the one that was listed last.
    pub fn find(&self, address: u64) -> Option<&str> {
        let behind = self.functions.partition_point(|function| function.start <= address);
        let before = self.functions[..behind].iter().rev().take(MAX_NESTED);
        let holding = before.filter(|function| address - function.start < function.size);
        holding.max_by_key(|function| function.line).map(|function| &*function.name)
    }
}

fn function(line: usize, text: &[u8]) -> Option<Function> {
    let text = String::from_utf8_lossy(text);
    let mut fields = text.trim_end().splitn(3, ' ');
    let mut number = || u64::from_str_radix(fields.next()?.trim_start_matches("0x"), 16).ok();
    let (start, size) = (number()?, number()?);
    let name = fields.next().filter(|name| !name.is_empty())?;
    Some(Function { start, size, line, name: name.into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_listed_last_is_what_stands_there() {
        let list = "1000 100 first\n0x2000 0x10 second with blanks\n1080 10 third\n1000 80 fourth\nnonsense\n3000 1";
        let map = PerfMap::read(list.as_bytes()).unwrap();
        for (address, name) in [
            (0xfff, None),
            (0x1000, Some("fourth")),
            (0x1085, Some("third")),
            // `first` has lost its beginning to `fourth`, and is there no more.
            (0x10f0, None),
            (0x200f, Some("second with blanks")),
            (0x2010, None),
        ] {
            assert_eq!(map.find(address), name, "{address:x}");
        }
    }

    #[test]
    fn a_list_of_any_bytes_is_read() {
        for list in [&b""[..], b"\n\n", b"\xff\xfe 1 x", b"1 2 \xff\xff", b"ffffffffffffffff ffffffffffffffff x"] {
            PerfMap::read(list).unwrap().find(u64::MAX);
        }
    }
}
