//! Stacks as the kernel programs number them, and the callstacks that the trace has for them.

use std::sync::Arc;

use polletto_common::{
    id::Tgid,
    record::{self, StackEnding, flags},
};
use polletto_protos::{Callstack, InternedData};
use rustc_hash::{FxHashMap, FxHashSet};

use super::{
    frames::{Frames, KernelSymbols},
    mappings::{AddressSpaces, Code, Mapped, Module},
    seen::Seen,
    task_code::{PollBody, TaskCode},
    waits::Wait,
};
use crate::trace::PacketBuffer;

/// Different stacks of a recording that are kept. Measured: of 30 frames each, they take 320 MB of memory.
pub const MAX_STACKS: usize = 1_000_000;

/// For each stack that may be kept, so many frames of it, and so many different ones, may be kept of all stacks together.
/// Honest stacks have fewer: what forged frame pointers lead to would take as much memory as the program likes.
const FRAMES_EACH: usize = 128;
const DIFFERENT_FRAMES_EACH: usize = 4;

/// A stack of no frames, which a reader would take for an error.
const EMPTY: &str = "[no frames]";

/// What the trace has for a stack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Number of the callstack.
    pub callstack: u64,
    /// What is wrong with it.
    pub unwind_error: Option<&'static str>,
    /// What is known of it.
    pub origin: Origin,
    /// What polls a task, innermost.
    pub body: Option<Arc<PollBody>>,
    /// What is waited for, if it is where a thread sleeps.
    pub wait: Wait,
}

/// Where a callstack comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The kernel programs' stack.
    Unwound { ending: StackEnding, by_frame_pointers: bool },
    /// The stack never came.
    Lost,
    /// There were too many.
    NotKept,
}

#[derive(Clone, Debug)]
struct Known {
    callstack: u32,
    tgid: Tgid,
    /// [`super::mappings::AddressSpace::changes`] when its addresses were looked up.
    changes: u64,
    ending: StackEnding,
    by_frame_pointers: bool,
    body: Option<Arc<PollBody>>,
    wait: Wait,
}

/// The stacks of a recording.
#[derive(Debug)]
pub struct Stacks {
    spaces: AddressSpaces,
    /// Of files that poll tasks. There are few.
    task_code: Vec<(Arc<Module>, Arc<TaskCode>)>,
    /// By process and vtable, as long as the process's mappings don't change.
    vtables: FxHashMap<(Tgid, u64), (u64, Arc<PollBody>)>,
    frames: Frames,
    known: FxHashMap<u64, Known>,
    /// Callstacks written, by their frames. Numbered from 1 on.
    callstacks: FxHashMap<Box<[u32]>, u32>,
    /// How many frames these have together.
    length: usize,
    /// Those that a sample or stretch has. Samples are lost, and stacks come too early or too late.
    used: FxHashSet<u32>,
    limit: usize,
}

impl Stacks {
    /// Keeps up to `limit`.
    pub fn new(limit: usize) -> Stacks {
        Stacks {
            spaces: AddressSpaces::default(),
            task_code: Vec::new(),
            vtables: FxHashMap::default(),
            frames: Frames::default(),
            known: FxHashMap::default(),
            callstacks: FxHashMap::default(),
            length: 0,
            used: FxHashSet::default(),
            limit,
        }
    }

    pub fn name_kernel_frames(&mut self, symbols: Arc<dyn KernelSymbols>) {
        self.frames.name_kernel_frames(symbols);
    }

    /// From now on, it is known where a file's code polls tasks.
    pub fn knows_task_code(&mut self, module: Arc<Module>, code: Arc<TaskCode>) {
        self.task_code.push((module, code));
    }

    pub fn map(&mut self, mapped: Mapped) {
        self.spaces.map(mapped);
    }

    pub fn remap(&mut self, tgid: Tgid, mappings: Vec<Mapped>) {
        self.spaces.set(tgid, mappings);
    }

    pub fn process_forked(&mut self, parent: Tgid, child: Tgid) {
        self.spaces.fork(parent, child);
    }

    /// It begins anew with another program.
    pub fn process_cleared(&mut self, tgid: Tgid) {
        self.spaces.clear(tgid);
    }

    /// It has ended.
    pub fn process_gone(&mut self, tgid: Tgid) {
        self.vtables.retain(|(of, _), _| *of != tgid);
        self.spaces.remove(tgid);
    }

    /// Takes a stack. It comes once from every CPU, and means the same unless the process's mappings have changed.
    pub fn define(&mut self, stack: &record::Stack, addresses: &[u64], seen: &mut Seen, out: &mut PacketBuffer) {
        let changes = self.spaces.of(stack.tgid).map_or(0, |space| space.changes());
        let before = self.known.get(&stack.id);
        if before.is_some_and(|known| known.changes == changes) || self.is_full() {
            return;
        }
        let (stack, addresses) = &self.without_strays(stack, addresses);
        let body = self.body(stack, addresses);
        let wait = self.frames.wait(&addresses[..addresses.len().min(usize::from(stack.kernel_frames))]);
        let mut new = InternedData::default();
        let frame_ids = self.frame_ids(stack, addresses, &mut new);
        let callstack = self.write(frame_ids, new, out);
        seen.stacks = self.callstacks.len() as u64;
        let known = Known {
            callstack,
            tgid: stack.tgid,
            changes,
            ending: stack.ending,
            by_frame_pointers: stack.header.flags & flags::BY_FRAME_POINTERS != 0,
            body,
            wait,
        };
        self.known.insert(stack.id, known);
    }

    /// The callstack of the stack to which the kernel programs gave this number, in a process of this id.
    pub fn find(&mut self, id: u64, tgid: Tgid, out: &mut PacketBuffer) -> Found {
        let known = self.known.get(&id).filter(|known| known.tgid == tgid);
        if let Some(&Known { callstack, ending, by_frame_pointers, changes, ref body, wait, .. }) = known {
            let unwind_error = match missing(ending) {
                None if self.spaces.of(tgid).is_some_and(|space| space.replaced() > changes) => {
                    Some("other code may have been mapped since it was seen first")
                }
                None if by_frame_pointers => Some("by frame pointers, which code need not keep"),
                missing => missing,
            };
            let (origin, body) = (Origin::Unwound { ending, by_frame_pointers }, body.clone());
            self.used.insert(callstack);
            return Found { callstack: u64::from(callstack), unwind_error, origin, body, wait };
        }
        let (name, unwind_error, origin) = if self.is_full() {
            ("[stack not kept: too many]", "not kept: too many", Origin::NotKept)
        } else {
            ("[stack lost]", "lost", Origin::Lost)
        };
        let callstack = self.write_named(name, out);
        Found { callstack, unwind_error: Some(unwind_error), origin, body: None, wait: Wait::Other }
    }

    /// The addresses of all code that stacks lead through. A reader takes names for others as an error.
    pub fn addresses(&self) -> FxHashMap<Code, Vec<u64>> {
        let used = self.callstacks.iter().filter(|(_, callstack)| self.used.contains(callstack));
        self.frames.addresses(used.flat_map(|(frames, _)| frames.iter().copied()).collect())
    }

    /// The program's code that each of these callstacks leads through, the innermost first, with the addresses as the files'
    /// own symbols have them.
    pub fn code_of(&self, callstacks: &FxHashSet<u64>) -> FxHashMap<u64, Vec<(Code, u64)>> {
        let wanted = self.callstacks.iter().filter(|(_, callstack)| callstacks.contains(&u64::from(**callstack)));
        let wanted: Vec<(&[u32], u64)> = wanted.map(|(frames, &callstack)| (&**frames, u64::from(callstack))).collect();
        let code = self.frames.code_at(wanted.iter().flat_map(|(frames, _)| frames.iter().copied()).collect());
        let of = |frames: &[u32]| frames.iter().rev().filter_map(|frame| code.get(frame).cloned()).collect();
        wanted.into_iter().map(|(frames, callstack)| (callstack, of(frames))).collect()
    }

    /// From then on, a stack that is not known may have come or not. One of the same frames comes under other numbers after
    /// its process's mappings have changed.
    fn is_full(&self) -> bool {
        self.callstacks.len() >= self.limit
            || self.known.len() >= 4 * self.limit
            || self.length >= FRAMES_EACH * self.limit
            || self.frames.count() >= DIFFERENT_FRAMES_EACH * self.limit
    }

    /// Frame pointers are followed on trust. What they led to and is no code, as the mappings tell, was no caller.
    fn without_strays<'a>(&self, stack: &record::Stack, addresses: &'a [u64]) -> (record::Stack, &'a [u64]) {
        let mut stack = *stack;
        // The innermost of the program's own is where it was, whatever the mappings tell.
        let trusted = usize::from(stack.kernel_frames) + 1;
        if stack.header.flags & flags::BY_FRAME_POINTERS == 0 || addresses.len() <= trusted {
            return (stack, addresses);
        }
        let space = self.spaces.of(stack.tgid);
        let is_code = |&address: &u64| space.is_some_and(|space| space.find(address).is_some());
        match addresses[trusted..].iter().position(|address| !is_code(address)) {
            None => (stack, addresses),
            Some(callers) => {
                stack.user_frames = callers as u16 + 1;
                stack.ending = StackEnding::NO_RULE;
                (stack, &addresses[..trusted + callers])
            }
        }
    }

    /// What is polled by a vtable that stands in a process's memory.
    pub fn polled_by(&mut self, tgid: Tgid, vtable: u64) -> Option<Arc<PollBody>> {
        let space = self.spaces.of(tgid)?;
        if let Some((changes, body)) = self.vtables.get(&(tgid, vtable))
            && *changes == space.changes()
        {
            return Some(Arc::clone(body));
        }
        let body = space.regions().find_map(|region| {
            let Code::File(module) = &region.code else { return None };
            let (_, code) = self.task_code.iter().find(|(known, _)| Arc::ptr_eq(known, module))?;
            code.of_vtable(vtable.wrapping_sub(region.bias)).cloned()
        })?;
        self.vtables.insert((tgid, vtable), (space.changes(), Arc::clone(&body)));
        Some(body)
    }

    /// What polls a task, innermost.
    fn body(&self, stack: &record::Stack, addresses: &[u64]) -> Option<Arc<PollBody>> {
        if self.task_code.is_empty() {
            return None;
        }
        let space = self.spaces.of(stack.tgid)?;
        addresses.iter().skip(usize::from(stack.kernel_frames)).find_map(|&address| {
            let region = space.find(address)?;
            let Code::File(module) = &region.code else { return None };
            let (_, code) = self.task_code.iter().find(|(known, _)| Arc::ptr_eq(known, module))?;
            code.find(address.wrapping_sub(region.bias)).cloned()
        })
    }

    /// The outermost first.
    fn frame_ids(&mut self, stack: &record::Stack, addresses: &[u64], new: &mut InternedData) -> Vec<u64> {
        let (kernel, program) = addresses.split_at(addresses.len().min(usize::from(stack.kernel_frames)));
        let mut frame_ids = Vec::with_capacity(addresses.len() + 1);
        // All but the first are return addresses: the call is before them.
        let kernel = kernel.iter().enumerate().map(|(depth, address)| address.wrapping_sub(u64::from(depth > 0)));
        // At a switch the stack begins with what looks at it.
        let kernel: Vec<u64> = kernel.skip_while(|&address| self.frames.is_tracing(address)).collect();
        for address in kernel {
            frame_ids.push(self.frames.of_kernel(address, new));
        }
        frame_ids.extend(self.frames.of_program(self.spaces.of(stack.tgid), program, new));
        if let Some(reason) = missing(stack.ending) {
            frame_ids.push(self.frames.named(&format!("[stack incomplete: {reason}]"), new));
        }
        if frame_ids.is_empty() {
            frame_ids.push(self.frames.named(EMPTY, new));
        }
        frame_ids.reverse();
        frame_ids
    }

    /// Writes a callstack, unless there is one of these frames.
    fn write(&mut self, frame_ids: Vec<u64>, mut new: InternedData, out: &mut PacketBuffer) -> u32 {
        // There are fewer frames than a `u32` counts: each has at least a byte in the trace.
        let key: Box<[u32]> = frame_ids.iter().map(|&frame| frame as u32).collect();
        if let Some(&callstack) = self.callstacks.get(&key) {
            return callstack;
        }
        let callstack = self.callstacks.len() as u32 + 1;
        self.length += key.len();
        self.callstacks.insert(key, callstack);
        new.callstacks.push(Callstack { iid: Some(u64::from(callstack)), frame_ids });
        out.push_interned(new);
        callstack
    }

    fn write_named(&mut self, name: &str, out: &mut PacketBuffer) -> u64 {
        let mut new = InternedData::default();
        let frame = self.frames.named(name, &mut new);
        u64::from(self.write(vec![frame], new, out))
    }
}

/// Why a stack that ends like this lacks frames, if it does.
fn missing(ending: StackEnding) -> Option<&'static str> {
    Some(match ending {
        StackEnding::NONE | StackEnding::ROOT => return None,
        StackEnding::NO_RULE => "no unwind information",
        StackEnding::UNREADABLE => "unreadable memory",
        StackEnding::UNSUPPORTED => "unsupported unwind information",
        StackEnding::TOO_DEEP => "too many frames",
        StackEnding::CONTRADICTION => "contradictory unwind information",
        StackEnding::MAPPINGS_CHANGED => "mappings changed",
        StackEnding::FOREIGN_CODE => "code of another architecture",
        StackEnding::NOT_KNOWN_YET => "code mapped just before",
        StackEnding::FRAME_POINTERS_END => "frame pointers end",
        _ => "unknown reason",
    })
}
