//! Interned callstacks: what a writer has told of files, frames and stacks.

use std::{collections::HashMap, fmt, sync::Arc};

use perfetto_protos::{
    interned_data::InternedData,
    profile_common::{self, InternedString},
};
use protobuf::UnknownValueRef;

/// `Frame.kind`, which is newer than our definitions.
const FRAME_KIND: u32 = 7;

/// A file's code in a process's memory.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Mapping {
    /// The file's path.
    pub path: String,
    /// In hexadecimal digits; empty if it has none.
    pub build_id: String,
    /// First address in the process.
    pub start: u64,
    /// The address behind the last.
    pub end: u64,
    /// Where in the file the mapping begins.
    pub exact_offset: u64,
    /// `p_vaddr - p_offset` of the file's executable segment.
    pub load_bias: u64,
}

/// What code a frame is of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum FrameKind {
    /// Nobody says.
    #[default]
    Unknown,
    /// Machine code of a file.
    Native,
    /// The kernel's.
    Kernel,
    /// Generated while the program runs.
    Jit,
}

/// One function's part of a stack.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct Frame {
    /// The file that its code is of.
    pub mapping: Option<Arc<Mapping>>,
    /// The file's own address of the code.
    pub rel_pc: u64,
    /// The function, where the trace names it.
    pub name: Option<String>,
    /// What code it is.
    pub kind: FrameKind,
}

impl Frame {
    /// The path of the file that its code is of.
    pub fn path(&self) -> Option<&str> {
        self.mapping.as_deref().map(|mapping| mapping.path.as_str()).filter(|path| !path.is_empty())
    }

    /// Whether it stands for callers that could not be found.
    pub fn is_incomplete(&self) -> bool {
        self.name.as_deref().is_some_and(|name| name.starts_with("[stack incomplete"))
    }
}

impl fmt::Debug for Frame {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}+{:#x}", self.path().unwrap_or("?"), self.rel_pc)?;
        if let Some(name) = &self.name {
            write!(out, " {name}")?;
        }
        Ok(())
    }
}

/// Frames, the innermost first: the other way round than they are written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Callstack(Vec<Frame>);

impl Callstack {
    /// From the innermost to the outermost.
    pub fn frames(&self) -> &[Frame] {
        &self.0
    }

    /// Those of the program, without the kernel's and without the one that stands for callers not found.
    pub fn user_frames(&self) -> impl DoubleEndedIterator<Item = &Frame> {
        self.0.iter().filter(|frame| frame.kind != FrameKind::Kernel && !frame.is_incomplete())
    }

    /// Whether callers are missing.
    pub fn is_incomplete(&self) -> bool {
        self.0.iter().any(Frame::is_incomplete)
    }
}

/// What one writer has interned.
#[derive(Default)]
pub(super) struct Interned {
    build_ids: HashMap<u64, String>,
    paths: HashMap<u64, String>,
    function_names: HashMap<u64, String>,
    mappings: HashMap<u64, Arc<Mapping>>,
    frames: HashMap<u64, Frame>,
    callstacks: HashMap<u64, Arc<Callstack>>,
}

impl Interned {
    pub fn learn(&mut self, interned: &InternedData) {
        learn(&mut self.build_ids, interned.build_ids.iter().map(|entry| (entry.iid(), hexadecimal(entry.str()))));
        learn(&mut self.paths, interned.mapping_paths.iter().map(text));
        learn(&mut self.function_names, interned.function_names.iter().map(text));
        // Within one message entries refer to those of any other field, so the order of fields does not matter.
        for mapping in &interned.mappings {
            let known = Arc::new(self.mapping(mapping));
            learn(&mut self.mappings, [(mapping.iid(), known)]);
        }
        for frame in &interned.frames {
            let known = self.frame(frame);
            learn(&mut self.frames, [(frame.iid(), known)]);
        }
        for stack in &interned.callstacks {
            let frames = stack.frame_ids.iter().rev().map(|iid| found("a frame", &self.frames, *iid).clone());
            let known = Arc::new(Callstack(frames.collect()));
            learn(&mut self.callstacks, [(stack.iid(), known)]);
        }
    }

    pub fn callstack(&self, iid: u64) -> Arc<Callstack> {
        Arc::clone(found("a callstack", &self.callstacks, iid))
    }

    fn mapping(&self, mapping: &profile_common::Mapping) -> Mapping {
        let names = mapping.path_string_ids.iter().map(|iid| found("a path", &self.paths, *iid).as_str());
        Mapping {
            path: joined(names),
            build_id: optional("a build id", &self.build_ids, mapping.build_id()).unwrap_or_default(),
            start: mapping.start(),
            end: mapping.end(),
            exact_offset: mapping.exact_offset(),
            load_bias: mapping.load_bias(),
        }
    }

    fn frame(&self, frame: &profile_common::Frame) -> Frame {
        let mapping = optional("a mapping", &self.mappings, frame.mapping_id());
        assert!(mapping.is_none() || frame.has_rel_pc(), "a frame has a mapping and no address");
        let name = optional("a function", &self.function_names, frame.function_name_id());
        Frame { mapping, rel_pc: frame.rel_pc(), name, kind: kind(frame) }
    }
}

/// A path of components, or of one that is a whole path; what stands in brackets is none.
fn joined<'path>(components: impl Iterator<Item = &'path str>) -> String {
    let path = components.collect::<Vec<_>>().join("/");
    if path.is_empty() || path.starts_with(['/', '[']) { path } else { format!("/{path}") }
}

fn kind(frame: &profile_common::Frame) -> FrameKind {
    match frame.special_fields.unknown_fields().get(FRAME_KIND) {
        None | Some(UnknownValueRef::Varint(0)) => FrameKind::Unknown,
        Some(UnknownValueRef::Varint(1)) => FrameKind::Native,
        Some(UnknownValueRef::Varint(2)) => FrameKind::Kernel,
        Some(UnknownValueRef::Varint(4)) => FrameKind::Jit,
        other => panic!("a frame is of a kind that we don't know: {other:?}"),
    }
}

fn learn<T>(table: &mut HashMap<u64, T>, entries: impl IntoIterator<Item = (u64, T)>) {
    for (iid, entry) in entries {
        assert_ne!(iid, 0, "something is interned as 0, which means nothing");
        let before = table.insert(iid, entry);
        assert!(before.is_none(), "{iid} is interned twice");
    }
}

fn found<'table, T>(what: &str, table: &'table HashMap<u64, T>, iid: u64) -> &'table T {
    table.get(&iid).unwrap_or_else(|| panic!("{what} was never interned as {iid}"))
}

/// 0 is how a reference to nothing is written.
fn optional<T: Clone>(what: &str, table: &HashMap<u64, T>, iid: u64) -> Option<T> {
    (iid != 0).then(|| found(what, table, iid).clone())
}

fn text(entry: &InternedString) -> (u64, String) {
    (entry.iid(), String::from_utf8_lossy(entry.str()).into_owned())
}

pub(super) fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::synthetic::stacks;

    #[test]
    fn a_callstack_is_put_together_from_what_was_interned_before_it() {
        let mut interned = Interned::default();
        interned.learn(&stacks());
        let stack = interned.callstack(1);
        let [inner, outer] = stack.frames() else { panic!("{stack:?}") };
        assert_eq!((inner.rel_pc, inner.path(), inner.kind), (0x1234, Some("/usr/bin/thing"), FrameKind::Native));
        assert_eq!(inner.mapping.as_ref().unwrap().build_id, "c0ffee");
        assert_eq!((outer.name.as_deref(), outer.path()), (Some("[stack incomplete: no rule]"), None));
        assert!(stack.is_incomplete());
        assert_eq!(stack.user_frames().collect::<Vec<_>>(), [inner]);
    }

    #[test]
    fn paths_come_whole_or_in_components() {
        for (components, path) in
            [(&["usr", "bin"][..], "/usr/bin"), (&["/usr/bin"], "/usr/bin"), (&["[vdso]"], "[vdso]"), (&[], "")]
        {
            assert_eq!(joined(components.iter().copied()), path);
        }
    }

    #[test]
    #[should_panic(expected = "a callstack was never interned as 9")]
    fn an_unknown_callstack_is_a_fault() {
        Interned::default().callstack(9);
    }

    #[test]
    #[should_panic(expected = "1 is interned twice")]
    fn what_is_interned_twice_is_a_fault() {
        let mut interned = Interned::default();
        interned.learn(&stacks());
        interned.learn(&stacks());
    }
}
