//! Lines of a unit.

use gimli::{LineProgramHeader, Range, UnitRef};
use rustc_hash::FxHashMap;

use super::{Slice, functions::CallPlace};

/// Lines of some addresses of a unit, and the files that it was written in.
pub struct Lines<'u, 'r> {
    unit: UnitRef<'u, Slice<'r>>,
    places: Vec<Option<CallPlace>>,
    header: Option<LineProgramHeader<Slice<'r>>>,
    paths: FxHashMap<u64, Option<String>>,
}

impl<'u, 'r> Lines<'u, 'r> {
    /// Nothing is known yet of any of so many addresses.
    pub fn new(unit: UnitRef<'u, Slice<'r>>, addresses: usize) -> Lines<'u, 'r> {
        Lines { unit, places: vec![None; addresses], header: None, paths: FxHashMap::default() }
    }

    /// Finds the lines of the addresses, which are sorted. Reads all lines up to the last of them once; what was found before
    /// an error stays.
    pub fn find(&mut self, addresses: &[u64]) -> Result<(), gimli::Error> {
        let Some(program) = self.unit.line_program.clone() else { return Ok(()) };
        let mut missing = addresses.len();
        let mut rows = program.rows();
        self.header = Some(rows.header().clone());
        // Where the last row began, what it says, and the first address that is not in front of it.
        let mut last: Option<(u64, CallPlace, usize)> = None;
        while let Some((_, row)) = rows.next_row()? {
            let begin = row.address();
            let mut next = None;
            if let Some((last_begin, place, mut at)) = last {
                while addresses.get(at).is_some_and(|&address| address < begin) {
                    if self.places[at].is_none() {
                        self.places[at] = Some(place);
                        missing -= 1;
                    }
                    at += 1;
                }
                next = (begin >= last_begin).then_some(at);
            }
            if missing == 0 {
                break;
            }
            last = if row.end_sequence() {
                None
            } else {
                let line = row.line().and_then(|line| u32::try_from(line.get()).ok()).unwrap_or(0);
                let next = next.unwrap_or_else(|| addresses.partition_point(|&address| address < begin));
                Some((begin, CallPlace { file: Some(row.file_index()), line }, next))
            };
        }
        Ok(())
    }

    /// The place of the address that was the nth of those asked for.
    pub fn place(&self, at: usize) -> Option<CallPlace> {
        self.places[at]
    }

    /// A file's path.
    pub fn path(&mut self, file: u64) -> Option<String> {
        let Lines { unit, header, paths, .. } = self;
        paths.entry(file).or_insert_with(|| path(*unit, header.as_ref()?, file)).clone()
    }
}

/// Addresses that lines are known of: each sequence of them.
pub fn ranges(unit: UnitRef<'_, Slice<'_>>) -> Result<Vec<Range>, gimli::Error> {
    let Some(program) = unit.line_program.clone() else { return Ok(Vec::new()) };
    let mut ranges = Vec::new();
    let mut rows = program.rows();
    let mut begin = None;
    while let Ok(Some((_, row))) = rows.next_row() {
        let first = *begin.get_or_insert(row.address());
        if row.end_sequence() {
            ranges.push(Range { begin: first, end: row.address() });
            begin = None;
        }
    }
    ranges.retain(|range| range.begin != 0 && range.begin < range.end);
    Ok(ranges)
}

/// The path of a file: in its directory, which is in the one that the compiler was run in.
pub fn path<'r>(unit: UnitRef<'_, Slice<'r>>, header: &LineProgramHeader<Slice<'r>>, file: u64) -> Option<String> {
    let file = header.file(file)?;
    let text = |value| Some(unit.attr_string(value).ok()?.slice());
    // The first directory is that of the compiler itself.
    let directory = if file.directory_index() == 0 { None } else { file.directory(header).and_then(text) };
    let of_compiler = unit.comp_dir.map(|directory| directory.slice());
    let mut path = String::new();
    for part in [of_compiler, directory, Some(text(file.path_name())?)].into_iter().flatten() {
        let part = String::from_utf8_lossy(part);
        if part.starts_with('/') {
            path.clear();
        } else if !path.is_empty() && !path.ends_with('/') {
            path.push('/');
        }
        path.push_str(&part);
    }
    Some(path)
}
