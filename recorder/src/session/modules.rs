//! Files whose code the recorded processes run, each read once.

use std::{collections::BTreeSet, sync::Arc};

use polletto_common::id::Tgid;
use rustc_hash::FxHashMap;

use super::reader::Reader;
use crate::{
    symbols::{NamesIn, Request},
    target::{
        CodeOrigin, CodeRange,
        image::{BuildId, Bytes, Image},
    },
    timeline::Module,
};

/// A file whose code is mapped somewhere.
#[derive(Debug)]
pub struct ModuleFile {
    /// What the trace says of it.
    pub module: Arc<Module>,
    /// What it says of itself; nothing if it could not be read or understood.
    pub image: Option<Image>,
    /// Its bytes. A file stays open, so that it can be read after its processes have ended and its path leads elsewhere.
    pub source: Bytes,
    /// Counts files, in the order in which they were first seen.
    pub index: usize,
}

/// What tells files apart.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    device: (u32, u32),
    inode: u64,
    name: std::path::PathBuf,
}

/// All files so far.
#[derive(Debug, Default)]
pub struct Modules {
    known: FxHashMap<Key, Arc<ModuleFile>>,
    unreadable: BTreeSet<Unreadable>,
    /// Files that were read or tried.
    seen: usize,
    reader: Reader,
}

/// A file that could not be read.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
pub struct Unreadable {
    /// Its path as its process sees it.
    pub path: String,
    /// Why not.
    pub reason: String,
}

impl Modules {
    /// The file that a process has mapped; none where the program compiled the code itself. One that can't be read is told
    /// as such, and has a name and nothing else.
    pub fn of(&mut self, process: Tgid, range: &CodeRange) -> Option<Arc<ModuleFile>> {
        let file = self.read(process, range)?;
        Some(file.unwrap_or_else(|reason| {
            let path = range.name().to_string_lossy().into_owned();
            self.refuse(Unreadable { path: path.clone(), reason });
            // Not kept: another process may have the file where it can be opened.
            Arc::new(self.number(path, Bytes::Memory(Vec::new()), None))
        }))
    }

    /// The file that a process has mapped, or why it can't be read; none where the program compiled the code itself.
    pub fn read(&mut self, process: Tgid, range: &CodeRange) -> Option<Result<Arc<ModuleFile>, String>> {
        if range.origin() == CodeOrigin::Anonymous {
            return None;
        }
        let key = Key { device: range.device, inode: range.inode, name: range.name().to_owned() };
        if let Some(known) = self.known.get(&key) {
            return Some(Ok(Arc::clone(known)));
        }
        Some(self.reader.read(process, range).map(|(source, image)| {
            let file = Arc::new(self.number(range.name().to_string_lossy().into_owned(), source, Some(image)));
            self.known.insert(key, Arc::clone(&file));
            file
        }))
    }

    fn number(&mut self, path: String, source: Bytes, image: Option<Image>) -> ModuleFile {
        let build_id = image.as_ref().and_then(|image| image.build_id.as_ref());
        let module = Module {
            path,
            build_id: build_id.map(|id| id.bytes().to_vec()).unwrap_or_default(),
            load_bias: image.as_ref().map_or(0, Image::load_bias),
        };
        let index = self.seen;
        self.seen += 1;
        ModuleFile { module: Arc::new(module), image, source, index }
    }

    /// What to ask of the symbols for these addresses of a file.
    pub fn request(&self, module: &Module, addresses: Vec<u64>) -> Request {
        let file = self.known.values().find(|file| *file.module == *module);
        Request {
            path: module.path.clone(),
            build_id: BuildId::new(&module.build_id),
            // Where that fails, it is looked for at its path.
            names_in: file.and_then(|file| file.source.try_clone().ok()).map_or(NamesIn::Path, NamesIn::Binary),
            addresses,
        }
    }

    /// Keeps what could not be read, and why.
    pub fn refuse(&mut self, unreadable: Unreadable) {
        self.unreadable.insert(unreadable);
    }

    /// How many files there are.
    pub fn count(&self) -> usize {
        self.known.len()
    }

    /// Those that could not be read.
    pub fn unreadable(&self) -> &BTreeSet<Unreadable> {
        &self.unreadable
    }
}

/// Bytes of unwind information beyond which making a table takes tens of milliseconds.
const LARGE_EH_FRAME: u64 = 1 << 20;

impl ModuleFile {
    /// Whether its table takes long to make.
    pub fn takes_long(&self) -> bool {
        self.image.as_ref().and_then(|image| image.eh_frame).is_some_and(|eh_frame| eh_frame.size > LARGE_EH_FRAME)
    }

    /// What to subtract (wrapping) from an address of this mapping to get the file's own.
    pub fn bias(&self, range: &CodeRange) -> u64 {
        let own = self.image.as_ref().and_then(|image| image.address_of(range.file_offset));
        range.start.wrapping_sub(own.unwrap_or(range.file_offset))
    }
}
