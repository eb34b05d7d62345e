//! Code of which `.eh_frame` says nothing, of programs that bring their own C library: musl's is compiled so.

use std::ops::Range;

use polletto_common::unwind::Cfa;
use rustc_hash::FxHashSet;

use super::{
    Error,
    cfi::{self, Change, Code, Function, Functions},
    heights::{self, Reference},
    rule::{Rules, bare},
};
use crate::target::image::{Architecture, Contents, Image, Pointers, Source, is_static};

/// Bytes of such code, of all pieces together: several times as many as a C library has. More was written by a compiler that
/// never says anything, and may do as it likes with the stack.
const MAX_BYTES: u64 = 1 << 20;

/// Bytes of all code of a file, which are read at once: several times what static programs have.
const MAX_CODE: u64 = 64 << 20;

/// A piece that is shorter holds no function, but fills the space between two.
const SHORTEST: u64 = 16;

/// Code that nothing is said of, and what leads there.
#[derive(Debug, Default)]
pub(super) struct Unsaid {
    /// Its addresses, in order.
    pub(super) pieces: Vec<Range<u64>>,
    /// All of the file's code with its addresses, in order, that with unwind information too: it calls the other.
    pub(super) code: Vec<(u64, Vec<u8>)>,
    /// What of the pieces the file's data points to, sorted.
    pub(super) pointed_to: Vec<u64>,
}

impl Unsaid {
    /// That of a file. Nothing where a file asks for its C library, which has unwind information of its own; nor where there
    /// is none of the program itself.
    pub(super) fn read<S: Source + ?Sized>(image: &Image, source: &S, eh_frame: &[u8]) -> Result<Unsaid, Error> {
        let code = image.code_addresses();
        let is_of_use = image.architecture == Architecture::X86_64
            && image.eh_frame.is_some()
            && total(&code) <= MAX_CODE
            && is_static(source).unwrap_or(false);
        if !is_of_use {
            return Ok(Unsaid::default());
        }
        let mut said = cfi::bounds(image, eh_frame)?;
        said.extend(image.linkage_tables.iter().cloned());
        let pieces = between(code.clone(), said);
        if pieces.is_empty() || total(&pieces) > MAX_BYTES {
            return Ok(Unsaid::default());
        }
        // Without them, less is known of where functions begin.
        let pointers = Pointers::read(image, source, &Contents::new(image, source)).unwrap_or_default();
        let mut pointed_to: Vec<u64> = pointers.sorted().iter().map(|pointer| pointer.to).collect();
        pointed_to.retain(|&address| piece_of(&pieces, address).is_some());
        pointed_to.sort_unstable();
        pointed_to.dedup();
        let read = |code: Range<u64>| Ok((code.start, image.read_code(source, &code)?));
        Ok(Unsaid { pieces, code: code.into_iter().map(read).collect::<Result<_, Error>>()?, pointed_to })
    }

    /// Adds what their instructions tell, as if it had been said.
    pub(super) fn add_to(&self, functions: &mut Functions, code: &Code, rules: &mut Rules) {
        if self.pieces.is_empty() {
            return;
        }
        let begins = self.begins();
        for piece in &self.pieces {
            let (Some(bytes), Some(within)) = (self.bytes(piece), code.clip(piece)) else { continue };
            let first_change = functions.changes.len();
            functions.changes.push(Change { address: within.start, rule: rules.index(bare(Cfa::UNKNOWN)) });
            for (at, rule) in heights::rules(bytes, piece.start, &begins) {
                let Some(address) = code.offset(at).filter(|at| within.contains(at)) else { continue };
                functions.changes.pop_if(|last| last.address == address);
                functions.changes.push(Change { address, rule: rules.index(rule) });
            }
            let changes = (functions.changes.len() - first_change) as u32;
            let Range { start, end } = within;
            functions.functions.push(Function { start, end, first_change: first_change as u32, changes });
        }
    }

    fn bytes(&self, piece: &Range<u64>) -> Option<&[u8]> {
        let (start, bytes) = self.code.iter().rev().find(|(start, _)| *start <= piece.start)?;
        bytes.get((piece.start - start) as usize..)?.get(..(piece.end - piece.start) as usize)
    }

    /// Where functions of the pieces begin: what is called, what has its address taken, and where other code jumps to.
    fn begins(&self) -> FxHashSet<u64> {
        let mut begins: FxHashSet<u64> = self.pointed_to.iter().copied().collect();
        for (start, bytes) in &self.code {
            for Reference { at, to, is_jump } in heights::references(bytes, *start) {
                let Some(piece) = piece_of(&self.pieces, to) else { continue };
                if !is_jump || piece_of(&self.pieces, at) != Some(piece) {
                    begins.insert(to);
                }
            }
        }
        begins
    }
}

fn total(ranges: &[Range<u64>]) -> u64 {
    ranges.iter().fold(0, |total: u64, range| total.saturating_add(range.end - range.start))
}

/// Which of these, which are in order, an address is in.
fn piece_of(pieces: &[Range<u64>], address: u64) -> Option<usize> {
    let at = pieces.partition_point(|piece| piece.start <= address).checked_sub(1)?;
    (address < pieces[at].end).then_some(at)
}

/// What of these addresses, which are sorted, is not among the others.
fn between(all: Vec<Range<u64>>, mut said: Vec<Range<u64>>) -> Vec<Range<u64>> {
    said.sort_unstable_by_key(|range| range.start);
    let mut between = Vec::new();
    let mut said = said.into_iter().peekable();
    for Range { start, end } in all {
        let mut from = start;
        while let Some(next) = said.next_if(|next| next.start < end) {
            between.push(from..next.start.max(from));
            from = from.max(next.end);
        }
        between.push(from..end.max(from));
    }
    between.retain(|piece| piece.end - piece.start >= SHORTEST);
    between
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_speaks_of_lies_between() {
        let all = vec![0x1000..0x2000, 0x3000..0x3100];
        let said = vec![0x1800..0x1900, 0x1100..0x1200, 0x1110..0x1180, 0x1900..0x1ff8, 0x2800..0x2900, 0x3000..0x4000];
        assert_eq!(between(all.clone(), said), [0x1000..0x1100, 0x1200..0x1800]);
        assert_eq!(between(all.clone(), Vec::new()), all);
        assert_eq!(between(Vec::new(), all), []);
    }
}
