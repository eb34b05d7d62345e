//! What a trace's frames lack: for each file the addresses, and what is known of each.

use std::collections::{BTreeMap, btree_map::Entry};

use rustc_hash::FxHashMap;

use super::{
    budget::Budget,
    error::ReadError,
    fields::{Malformed, Message},
};

/// What an address takes in a sorted map, about, in bytes.
const ADDRESS_BYTES: u64 = 32;

/// Bytes of the longest path: four times what Linux allows.
pub(super) const MAX_PATH_BYTES: usize = 16 << 10;

/// A file, and the addresses in it of frames that have no name of their own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TracedModule {
    /// As a reader puts it together, and as symbols must say it: with a slash in front of each part. Not always UTF-8.
    pub path: Vec<u8>,
    /// The identifying bytes themselves; none if the trace has none.
    pub build_id: Vec<u8>,
    /// As the file's own symbols have them.
    pub addresses: BTreeMap<u64, Known>,
}

/// What a trace says of an address by `ModuleSymbols`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Known {
    /// Nothing.
    #[default]
    Nothing,
    /// Its function.
    Function,
    /// Its function, and the file and line of it or of one that it was inlined into.
    Line,
}

/// All files so far.
#[derive(Debug, Default)]
pub(super) struct Modules {
    all: Vec<TracedModule>,
    /// Indexes of them, by path and build id.
    index: FxHashMap<(Vec<u8>, Vec<u8>), usize>,
}

impl Modules {
    /// The number of a file, if names for it can be said and found at all.
    pub fn number(
        &mut self,
        path: Vec<u8>,
        build_id: &[u8],
        budget: &mut Budget,
        offset: u64,
    ) -> Result<Option<usize>, ReadError> {
        if is_kernel(&path) || path.is_empty() && build_id.is_empty() {
            return Ok(None);
        }
        let key = (path, build_id.to_vec());
        if let Some(&known) = self.index.get(&key) {
            return Ok(Some(known));
        }
        budget.take(2 * (key.0.len() + key.1.len()) as u64, offset)?;
        let number = self.all.len();
        self.all.push(TracedModule { path: key.0.clone(), build_id: key.1.clone(), addresses: BTreeMap::default() });
        self.index.insert(key, number);
        Ok(Some(number))
    }

    /// A frame without a name.
    pub fn add(&mut self, module: usize, address: u64, budget: &mut Budget, offset: u64) -> Result<(), ReadError> {
        if let Entry::Vacant(new) = self.all[module].addresses.entry(address) {
            budget.take(ADDRESS_BYTES, offset)?;
            new.insert(Known::Nothing);
        }
        Ok(())
    }

    /// Reads a `ModuleSymbols`. It names what was there before it, and of several for an address the last counts.
    pub fn learn(&mut self, symbols: Message<'_>) -> Result<(), Malformed> {
        let (mut path, mut build_id) = (&[][..], &[][..]);
        for field in symbols.fields() {
            let field = field?;
            match field.number {
                1 => path = field.value.message().bytes,
                2 => build_id = field.value.message().bytes,
                _ => {}
            }
        }
        let Some(&module) = self.index.get(&(path.to_vec(), build_id.to_vec())) else { return Ok(()) };
        let addresses = &mut self.all[module].addresses;
        for field in symbols.fields() {
            let field = field?;
            if field.number == 3 {
                let (address, said) = address_symbols(field.value.message())?;
                if let (Some(known), true) = (addresses.get_mut(&address), said > Known::Nothing) {
                    *known = said;
                }
            }
        }
        Ok(())
    }

    /// Those with addresses, by path and build id.
    pub fn into_sorted(self) -> Vec<TracedModule> {
        let mut all: Vec<_> = self.all.into_iter().filter(|module| !module.addresses.is_empty()).collect();
        all.sort_by(|one, other| (&one.path, &one.build_id).cmp(&(&other.path, &other.build_id)));
        all
    }
}

/// Reads an `AddressSymbols`.
fn address_symbols(symbols: Message<'_>) -> Result<(u64, Known), Malformed> {
    let (mut address, mut known) = (0, Known::Nothing);
    for field in symbols.fields() {
        let field = field?;
        match field.number {
            1 => address = field.value.number(),
            2 => known = known.max(line(field.value.message())?),
            _ => {}
        }
    }
    Ok((address, known))
}

/// Reads a `Line`. A reader forgets the number where there is no file.
fn line(line: Message<'_>) -> Result<Known, Malformed> {
    const SOURCE_FILE: u32 = 2;
    let mut known = Known::Function;
    for field in line.fields() {
        let field = field?;
        if field.number == SOURCE_FILE && !field.value.message().bytes.is_empty() {
            known = Known::Line;
        }
    }
    Ok(known)
}

/// A slash in front of each part, but one only in front of a part that is a whole path. None if no file can have it.
pub(super) fn path_of<'a>(parts: impl Iterator<Item = &'a [u8]>) -> Option<Vec<u8>> {
    let mut path = Vec::new();
    for part in parts {
        if path.len() + part.len() >= MAX_PATH_BYTES {
            return None;
        }
        path.push(b'/');
        path.extend_from_slice(part);
    }
    if path.starts_with(b"//") {
        path.remove(0);
    }
    Some(path)
}

/// Code of the kernel is named when it is recorded, since its addresses mean nothing afterwards.
fn is_kernel(path: &[u8]) -> bool {
    let name = path.strip_prefix(b"/").unwrap_or(path);
    name == b"kernel" || name == b"[kernel]" || name.starts_with(b"[kernel.kallsyms]")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_put_together_as_every_reader_does() {
        for (parts, path) in [
            (&["usr", "bin", "x"][..], "/usr/bin/x"),
            (&["/usr/bin/x"], "/usr/bin/x"),
            (&["[vdso]"], "/[vdso]"),
            (&["", "usr"], "/usr"),
            (&["usr", "", "x"], "/usr//x"),
            (&[""], "/"),
            (&[], ""),
        ] {
            assert_eq!(path_of(parts.iter().map(|part| part.as_bytes())).unwrap(), path.as_bytes(), "{parts:?}");
        }
    }

    #[test]
    fn a_path_that_grows_out_of_little_is_no_path() {
        assert_eq!(path_of(std::iter::repeat_n(&[b'x'; 1000][..], 17)), None);
    }

    #[test]
    fn the_kernel_is_left_out() {
        for (path, is_the_kernel) in [
            ("/kernel", true),
            ("/[kernel]", true),
            ("/[kernel.kallsyms]", true),
            ("[kernel.kallsyms]_text", true),
            ("/usr/lib/kernel", false),
            ("/[vdso]", false),
        ] {
            assert_eq!(is_kernel(path.as_bytes()), is_the_kernel, "{path}");
        }
    }
}
