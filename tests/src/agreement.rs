//! Whether polletto and another symbolizer say the same of an address.

use std::{collections::BTreeMap, fs::File, sync::Mutex};

use polletto::{
    symbols::{self, Function, Means, ModuleReport, NamesIn, Request, Sink, Symbols, demangle},
    target::image::Bytes,
};

use crate::{
    generated::Generated,
    symbolizer::{Frame, Symbolizer},
};

/// What both said of an address, where it is not the same.
#[derive(Clone, Debug)]
pub struct Difference {
    /// The file's own.
    pub address: u64,
    /// Polletto's frames.
    pub ours: Vec<Frame>,
    /// The other symbolizer's.
    pub theirs: Vec<Frame>,
}

impl Difference {
    /// Whether it is nothing else than the name of the function that the others were inlined into.
    pub fn only_outermost_name(&self) -> bool {
        let (Some((ours, our_inner)), Some((theirs, their_inner))) = (self.ours.split_last(), self.theirs.split_last())
        else {
            return false;
        };
        our_inner == their_inner && (&ours.file, ours.line) == (&theirs.file, theirs.line)
    }
}

/// What both said of some addresses.
#[derive(Debug, Default)]
pub struct Comparison {
    /// Frames that the other symbolizer found, inlined ones included.
    pub frames: usize,
    /// Where both said different things.
    pub differences: Vec<Difference>,
}

/// Asks both about these addresses.
pub fn compare(program: &Generated, addresses: &[u64], symbolizer: &Symbolizer) -> Comparison {
    let (found, _) = names(program, addresses);
    let theirs = symbolizer.frames(&program.original, addresses);
    let mut comparison = Comparison::default();
    for (&address, theirs) in addresses.iter().zip(theirs) {
        let ours: Vec<_> = found.get(&address).into_iter().flatten().map(frame).collect();
        let theirs: Vec<_> = theirs.into_iter().map(normal).filter(|frame| *frame != Frame::default()).collect();
        comparison.frames += theirs.len();
        if ours != theirs {
            comparison.differences.push(Difference { address, ours, theirs });
        }
    }
    comparison
}

/// What polletto's engine says of these addresses.
pub fn names(program: &Generated, addresses: &[u64]) -> (BTreeMap<u64, Vec<Function>>, ModuleReport) {
    let request = Request {
        path: program.path.to_str().expect("a plain path").to_owned(),
        build_id: None,
        names_in: NamesIn::Binary(Bytes::File(File::open(&program.path).expect("it is there"))),
        addresses: addresses.to_vec(),
    };
    let means = Means {
        debuginfod: false,
        debug_directories: program.debug_directory.iter().cloned().collect(),
        debug_information: true,
        threads: 2,
        memory_bytes: 1 << 30,
    };
    let found = Found::default();
    let report = symbols::name(&request, &means, &found);
    (found.0.into_inner().expect("no thread panicked"), report)
}

#[derive(Default)]
struct Found(Mutex<BTreeMap<u64, Vec<Function>>>);

impl Sink for Found {
    fn found(&self, symbols: Vec<Symbols>) {
        let mut found = self.0.lock().expect("no thread panicked");
        found.extend(symbols.into_iter().map(|symbols| (symbols.address, symbols.functions)));
    }

    fn waiting(&self) {}
}

fn frame(function: &Function) -> Frame {
    let line = function.line.unwrap_or(0);
    let file = function.file.clone().unwrap_or_default();
    normal_place(Frame { function: function.name.clone(), file, line })
}

/// As polletto writes it: what is compared is who is meant, and not how the name is written.
fn normal(frame: Frame) -> Frame {
    normal_place(Frame { function: demangle(&frame.function).into_owned(), ..frame })
}

/// Paths without what leads nowhere. A file without a line says nothing of where in it the code stands.
fn normal_place(frame: Frame) -> Frame {
    let parts: Vec<_> = frame.file.split('/').filter(|part| *part != ".").collect();
    let mut file = parts.join("/");
    while file.contains("//") {
        file = file.replace("//", "/");
    }
    Frame { file: if frame.line == 0 { String::new() } else { file }, ..frame }
}
