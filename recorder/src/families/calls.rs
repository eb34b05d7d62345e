//! What functions call, level by level.

use std::rc::Rc;

use rustc_hash::{FxHashMap, FxHashSet};

use crate::{
    code::{Code, Reference},
    target::image::{Contents, Image, Pointers},
};

/// Functions whose instructions are read, of one program.
const MAX_FUNCTIONS: usize = 1 << 16;

/// Functions that are looked at for one vtable.
const MAX_CALLED: usize = 512;

/// The code of a program, and what was read of it.
pub struct Calls<'c, 'a> {
    pub code: &'c Code<'c, 'a, [u8]>,
    pub contents: &'c Contents<'a, [u8]>,
    pub pointers: &'c Pointers,
    known: FxHashMap<u64, Rc<[Reference]>>,
}

/// Lets the code of a program's file be read as long as `use_it` lasts. None if it can't be.
pub fn with_calls<T>(binary: &[u8], use_it: impl FnOnce(&mut Calls<'_, '_>) -> T) -> Option<T> {
    let image = Image::read(binary).ok()?;
    let contents = Contents::new(&image, binary);
    let pointers = Pointers::read(&image, binary, &contents).ok()?;
    let code = Code::read(&image, binary, &contents, &pointers).ok()?;
    Some(use_it(&mut Calls::new(&code, &contents, &pointers)))
}

impl<'c, 'a> Calls<'c, 'a> {
    /// Nothing is read yet.
    fn new(code: &'c Code<'c, 'a, [u8]>, contents: &'c Contents<'a, [u8]>, pointers: &'c Pointers) -> Calls<'c, 'a> {
        Calls { code, contents, pointers, known: FxHashMap::default() }
    }

    /// What the function that begins here refers to. Nothing if it can't be read.
    pub fn references(&mut self, function: u64) -> Rc<[Reference]> {
        if let Some(known) = self.known.get(&function) {
            return Rc::clone(known);
        }
        if self.known.len() >= MAX_FUNCTIONS {
            return Rc::default();
        }
        let range = self.code.function(function).filter(|range| range.start == function);
        let references = range.and_then(|range| self.code.references(&range).ok()).unwrap_or_default();
        let references: Rc<[Reference]> = references.into();
        self.known.insert(function, Rc::clone(&references));
        references
    }

    /// The functions at this address, those that it calls, those that they call, and so on; each once. What does nothing but
    /// jump is of the level of what it jumps to.
    pub fn levels(&mut self, function: u64, levels: usize) -> Vec<Vec<u64>> {
        let mut seen = FxHashSet::default();
        let mut all: Vec<Vec<u64>> = Vec::with_capacity(levels);
        let mut next = vec![function];
        while all.len() < levels && !next.is_empty() {
            let mut level = std::mem::take(&mut next);
            let mut at = 0;
            while let Some(&function) = level.get(at) {
                at += 1;
                let references = self.references(function);
                for reference in references.iter() {
                    let (to, jumped) = match *reference {
                        Reference::Call(to) => (to, false),
                        Reference::Jump(to) => (to, references.len() == 1),
                        Reference::Data(_) => continue,
                    };
                    if seen.len() < MAX_CALLED && to != function && seen.insert(to) {
                        if jumped { level.push(to) } else { next.push(to) }
                    }
                }
            }
            all.push(level);
        }
        all
    }
}
