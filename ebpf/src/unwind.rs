//! From registers to a stack, by the tables that the recorder compiled.
//!
//! One iteration of `bpf_loop` per frame, and all state in a map's value: a plain loop, or state on the program's stack,
//! is more than the verifier looks through.

use core::{ffi::c_void, mem::transmute};

use aya_ebpf::{
    bindings::BPF_F_MMAPABLE,
    btf_maps::{Array, ArrayOfMaps, HashMap},
    helpers::{
        bpf_probe_read_user,
        generated::{bpf_loop, bpf_probe_read_user as read_user},
    },
    macros::btf_map,
};
use polletto_common::{
    record::StackEnding,
    unwind::{
        AddressSpace, Cfa, MAX_ADDRESS_SPACES, MAX_FRAMES, MAX_MAPPINGS, MAX_RULES, MAX_SHARDS, Mapping, Page, Row,
        Rule, SHARD_ENTRIES, Saved, SpaceKey,
    },
};

use crate::{
    registers::{Cpu, Entry, Native, Registers},
    stack::Frames,
    task::Task,
};

type Shard = Array<[u32; SHARD_ENTRIES], 1, { BPF_F_MMAPABLE as usize }>;

/// [`Page`]s of all tables.
#[btf_map]
static PAGES: ArrayOfMaps<Shard, MAX_SHARDS> = ArrayOfMaps::new();

/// [`Row`]s of all tables. Those of a page never lie in two shards.
#[btf_map]
static ROWS: ArrayOfMaps<Shard, MAX_SHARDS> = ArrayOfMaps::new();

/// What rows refer to.
#[btf_map]
static RULES: Array<[Rule; MAX_RULES], 1, { BPF_F_MMAPABLE as usize }> = Array::new();

/// [`AddressSpace`]s. Of words: before Linux 6.2 no other map could take the template's place if that had a structure's
/// type.
#[btf_map]
static SPACES: ArrayOfMaps<Space, MAX_ADDRESS_SPACES> = ArrayOfMaps::new();

type Space = Array<[u64; SPACE_WORDS], 1, { BPF_F_MMAPABLE as usize }>;

const SPACE_WORDS: usize = size_of::<AddressSpace>() / 8;

/// Which of them is a process's: a [`SpaceKey`]. The timer's program may only use a hash map whose elements exist before
/// they are used.
#[btf_map]
static SPACE_OF: HashMap<u32, SpaceKey, MAX_ADDRESS_SPACES> = HashMap::new();

/// Stands for those that are not in `SPACE_OF`: all zeros.
#[btf_map]
static UNKNOWN_SPACE: Array<AddressSpace, 1> = Array::new();

/// Bytes of a program's stack that are read at once.
const WINDOW_BYTES: u64 = 2048;
const WINDOW_WORDS: usize = WINDOW_BYTES as usize / 8;

/// Of a page of memory. Larger pages are divided into these: reading never goes beyond one.
const MEMORY_PAGE_BYTES: u64 = 4096;

/// A caller's frame that frame pointers lead to is never farther away: such a leap is no frame pointer.
const LONGEST_FRAME_BYTES: u64 = 16 << 20;

/// Where functions begin that have breakpoints in front of them, to fill the gap.
const FUNCTION_ALIGNMENT: u64 = 16;

/// Below is no code.
const LOWEST_CODE: u64 = 4096;

/// Where a stack is being unwound.
#[repr(C)]
pub struct Walk {
    registers: Registers,
    /// 1 when `pc` is a return address, and the instruction to look up stands in front of it.
    is_call: u64,
    /// Where the last frame's code was found.
    mapping: Mapping,
    /// Address and length of the part of the stack in `window`, bytes.
    window_at: u64,
    window_length: u64,
    window: [u64; WINDOW_WORDS],
    signal_words: [u64; 8],
    /// The last word that was read.
    word: u64,
    /// Frames so far.
    count: u64,
    ending: StackEnding,
    /// Frames that frame pointers led to.
    by_frame_pointers: u32,
    /// 0 while nothing is known of the process's memory.
    version: u32,
    reserved: u32,
}

struct Context {
    space: *const AddressSpace,
    walk: *mut Walk,
    frames: *mut Frames,
}

const GO_ON: i64 = 0;
const STOP: i64 = 1;

/// Adds the program's frames of the current thread, and says why they end.
#[inline(always)]
pub fn frames(task: Task, entry: Entry, walk: *mut Walk, frames: *mut Frames) -> StackEnding {
    // Threads that the kernel started with a program's memory, for io_uring, have no registers of a program.
    if entry.registers.pc == 0 {
        return StackEnding::NONE;
    }
    let Some(unknown) = UNKNOWN_SPACE.get_ptr(0) else { return StackEnding::NONE };
    let space = space_of(task).unwrap_or(unknown);
    // SAFETY: `walk` is this program's own while it runs; see `stack::Scratch`. `space` is a map's value; the recorder
    // replaces it as a whole, and `version` tells when that memory was given to another meanwhile.
    unsafe {
        let version = (&raw const (*space).version).read_volatile();
        (*frames).mix(u64::from(version));
        (*walk).begin(entry, version);
        if entry.is_exception {
            (*walk).back_to_probe(&*space);
        }
        let mut context = Context { space, walk, frames };
        bpf_loop(MAX_FRAMES as u32, step as *mut c_void, (&raw mut context).cast(), 0);
        if (*walk).by_frame_pointers != 0 {
            (*frames).mark_by_frame_pointers();
        }
        // The memory was given to another space meanwhile, of the same process or not.
        if (&raw const (*space).version).read_volatile() != version {
            StackEnding::MAPPINGS_CHANGED
        } else if (*walk).ending == StackEnding::NONE {
            StackEnding::TOO_DEEP
        } else {
            (*walk).ending
        }
    }
}

/// What the recorder said last of the process's memory.
#[inline(always)]
fn space_of(task: Task) -> Option<*const AddressSpace> {
    let key = SPACE_OF.get_ptr(task.tgid().0)?;
    // SAFETY: a pointer to a map's value, which the verifier checks.
    let SpaceKey { slot, version } = unsafe { key.read_volatile() };
    let space: *const AddressSpace = SPACES.get(slot)?.get_ptr(0)?.cast();
    // SAFETY: as above.
    let (now, exec_id) =
        unsafe { ((&raw const (*space).version).read_volatile(), (&raw const (*space).exec_id).read_volatile()) };
    // Another program has other mappings, and the slot may have been given to another process meanwhile.
    (now == version && exec_id == task.exec_id()).then_some(space)
}

/// A new process begins with its parent's memory.
#[inline(always)]
pub fn fork(parent: Task, child: Task) {
    if let Some(key) = SPACE_OF.get_ptr(parent.tgid().0) {
        // SAFETY: a pointer to a map's value, which the verifier checks.
        let key = unsafe { key.read_volatile() };
        // Without room the recorder will have none either, and tell so.
        SPACE_OF.insert(child.tgid().0, key, 0).ok();
    }
}

/// One frame.
unsafe extern "C" fn step(_index: u32, context: *mut c_void) -> i64 {
    // SAFETY: `frames` passes its own context, and nobody else has what that points to.
    let (space, walk, frames) = unsafe {
        let context = &*context.cast::<Context>();
        (&*context.space, &mut *context.walk, &mut *context.frames)
    };
    let pc = walk.registers.pc.wrapping_sub(walk.is_call);
    frames.push(pc);
    walk.count += 1;
    let ending = match walk.go_to_caller(space, pc) {
        Ok(()) => return GO_ON,
        Err(ending) => ending,
    };
    walk.ending = ending;
    STOP
}

impl Walk {
    #[inline(always)]
    fn begin(&mut self, entry: Entry, version: u32) {
        self.registers = entry.registers;
        self.is_call = u64::from(entry.is_system_call);
        self.mapping.start = u64::MAX;
        self.mapping.end = 0;
        self.window_length = 0;
        self.count = 0;
        self.ending = StackEnding::NONE;
        self.by_frame_pointers = 0;
        self.version = version;
    }

    /// Goes back to the probe that the thread has just come to: a breakpoint leaves it behind itself, and the kernel has not
    /// put it back yet. What stands there, mostly a push, has not been done: the stack begins with where the function returns
    /// to, and not with what was pushed.
    #[inline(always)]
    fn back_to_probe(&mut self, space: &AddressSpace) {
        let Some(breakpoint) = Native::BREAKPOINT else { return };
        let Registers { pc, sp, .. } = self.registers;
        let before = pc.wrapping_sub(1);
        if pc % FUNCTION_ALIGNMENT == 0 {
            return;
        }
        // SAFETY: the helper checks the address.
        if !unsafe { bpf_probe_read_user(before as *const u8) }.is_ok_and(|code| code == breakpoint) {
            return;
        }
        if self.load(sp).is_ok_and(|top| self.find_mapping(space, top.wrapping_sub(1))) {
            self.registers.pc = before;
        }
    }

    /// Goes from the frame at `pc` to its caller's.
    #[inline(always)]
    fn go_to_caller(&mut self, space: &AddressSpace, pc: u64) -> Result<(), StackEnding> {
        if !self.find_mapping(space, pc) {
            return self.by_frame_pointer();
        }
        let rule = match self.rule(pc) {
            Some(rule) if rule.cfa != Cfa::UNKNOWN => rule,
            _ => return self.by_frame_pointer(),
        };
        let Registers { sp, fp, .. } = self.registers;
        let cfa = match rule.cfa {
            Cfa::STACK_POINTER => sp.wrapping_add(rule.cfa_offset as u64),
            Cfa::FRAME_POINTER => fp.wrapping_add(rule.cfa_offset as u64),
            Cfa::AT_STACK_POINTER | Cfa::AT_FRAME_POINTER => {
                let base = if rule.cfa == Cfa::AT_STACK_POINTER { sp } else { fp };
                self.load(base.wrapping_add(rule.cfa_offset as u64))?.wrapping_add(rule.cfa_addend as u64)
            }
            Cfa::LINKAGE_TABLE => sp.wrapping_add(if pc & 15 >= rule.cfa_offset as u64 { 16 } else { 8 }),
            Cfa::SIGNAL_FRAME => return self.over_signal_frame(),
            Cfa::END_OF_STACK => return Err(StackEnding::ROOT),
            _ => return Err(StackEnding::UNSUPPORTED),
        };
        // Only a function that has not touched the stack yet leaves it as its caller had it.
        if cfa < sp || cfa == sp && rule.return_address != Saved::UNCHANGED {
            return Err(StackEnding::CONTRADICTION);
        }
        // It stands below the return address, if on the stack, and memory is read upwards.
        let caller_fp = match rule.frame_pointer {
            Saved::UNCHANGED => fp,
            Saved::AT_CFA => self.load(cfa.wrapping_add(rule.frame_pointer_offset as u64))?,
            Saved::AT_FRAME_POINTER => self.load(fp.wrapping_add(rule.frame_pointer_offset as u64))?,
            _ => 0,
        };
        let return_address = match rule.return_address {
            Saved::AT_CFA => self.load(cfa.wrapping_add(rule.return_address_offset as u64))?,
            // A link register is only known where the thread was interrupted.
            Saved::UNCHANGED if self.registers.ra == 0 => return Err(StackEnding::CONTRADICTION),
            Saved::UNCHANGED => self.registers.ra,
            _ => return Err(StackEnding::UNSUPPORTED),
        };
        self.return_to(Registers { pc: return_address, sp: cfa, fp: caller_fp, ra: 0 })
    }

    /// For code without a rule: as if it kept a frame pointer, if what stands there can be one.
    #[inline(always)]
    fn by_frame_pointer(&mut self) -> Result<(), StackEnding> {
        let Registers { sp, fp, .. } = self.registers;
        // Code that keeps frame pointers begins with none. Other code may have a 0 in that register as well, but of a
        // process that is known, only code that was never compiled for a table comes here.
        if fp == 0 && self.by_frame_pointers > 0 && self.version != 0 {
            return Err(StackEnding::ROOT);
        }
        if fp < sp || fp - sp > LONGEST_FRAME_BYTES {
            return Err(if self.version == 0 { StackEnding::NOT_KNOWN_YET } else { StackEnding::NO_RULE });
        }
        let caller_fp = self.load(fp)?;
        let return_address = Native::code_address(self.load(fp + 8)?);
        // Where nothing vouches for the frame pointer, zeros are no end but mere memory.
        if return_address < LOWEST_CODE {
            return Err(StackEnding::NO_RULE);
        }
        self.by_frame_pointers += 1;
        self.return_to(Registers { pc: return_address, sp: fp + 16, fp: caller_fp, ra: 0 })
    }

    #[inline(always)]
    fn return_to(&mut self, caller: Registers) -> Result<(), StackEnding> {
        self.registers = Registers { pc: Native::code_address(caller.pc), ..caller };
        self.is_call = 1;
        // What started the thread left no address to return to.
        if self.registers.pc == 0 { Err(StackEnding::ROOT) } else { Ok(()) }
    }

    /// The interrupted code may run on another stack.
    #[inline(always)]
    fn over_signal_frame(&mut self) -> Result<(), StackEnding> {
        let from = self.registers.sp.wrapping_add(Native::SIGNAL_FRAME_OFFSET) as *const c_void;
        let bytes = Native::SIGNAL_FRAME_WORDS as u32 * 8;
        // SAFETY: `signal_words` has at least as many bytes; the helper checks the other address.
        if unsafe { read_user((&raw mut self.signal_words).cast(), bytes, from) } != 0 {
            return Err(StackEnding::UNREADABLE);
        }
        self.registers = Native::signal_registers(&self.signal_words);
        self.is_call = 0;
        Ok(())
    }

    /// A word of the stack.
    #[inline(always)]
    fn load(&mut self, address: u64) -> Result<u64, StackEnding> {
        match load_word(self, address) {
            0 => Ok(self.word),
            ending => Err(StackEnding(ending)),
        }
    }

    /// Whether `pc` is in a known mapping, which is kept.
    #[inline(always)]
    fn find_mapping(&mut self, space: &AddressSpace, pc: u64) -> bool {
        if pc >= self.mapping.start && pc < self.mapping.end {
            return true;
        }
        // SAFETY: in bounds by the mask. Volatile, since the recorder may give the memory to another process.
        let start =
            |at: u64| unsafe { (&raw const space.mappings[at as usize & (MAX_MAPPINGS - 1)].start).read_volatile() };
        let first = last_not_above(pc, 0, u64::from(space.count), 5, start);
        let found = &raw const space.mappings[first as usize & (MAX_MAPPINGS - 1)];
        // SAFETY: as above.
        let (start, end) =
            unsafe { ((&raw const (*found).start).read_volatile(), (&raw const (*found).end).read_volatile()) };
        if pc < start || pc >= end {
            return false;
        }
        // SAFETY: as above.
        unsafe {
            self.mapping.start = start;
            self.mapping.end = end;
            self.mapping.bias = (&raw const (*found).bias).read_volatile();
            self.mapping.first_page = (&raw const (*found).first_page).read_volatile();
            self.mapping.first_row = (&raw const (*found).first_row).read_volatile();
        }
        true
    }

    /// What the table says of `pc`, which is in the mapping that was found last.
    #[inline(always)]
    fn rule(&self, pc: u64) -> Option<Rule> {
        const IN_SHARD: u32 = SHARD_ENTRIES as u32 - 1;
        let address = pc.wrapping_sub(self.mapping.bias);
        let page = self.mapping.first_page.wrapping_add((address >> 8) as u32);
        let pages = PAGES.get(page / SHARD_ENTRIES as u32)?.get_ptr(0)?;
        // SAFETY: in bounds by the mask; tables are complete before a mapping refers to them.
        let page = Page(unsafe { (*pages)[(page & IN_SHARD) as usize] });
        if page.rows() == 0 {
            return None;
        }
        let row = self.mapping.first_row.wrapping_add(page.first_row());
        let rows = ROWS.get(row / SHARD_ENTRIES as u32)?.get_ptr(0)?;
        // SAFETY: in bounds by the mask.
        let row_at = |at: u64| Row(unsafe { (&raw const (*rows)[(at as u32 & IN_SHARD) as usize]).read_volatile() });
        let first = u64::from(row & IN_SHARD);
        let found =
            last_not_above(address & 0xff, first, u64::from(page.rows()), 4, |at| u64::from(row_at(at).address()));
        let row = row_at(found);
        let rules = RULES.get_ptr(0)?;
        // SAFETY: in bounds by the mask; two loads, of a type that any bytes make.
        Some(unsafe {
            let rule = (&raw const (*rules)[row.rule() as usize & (MAX_RULES - 1)]).cast::<u64>();
            transmute::<[u64; 2], Rule>([rule.read_volatile(), rule.add(1).read_volatile()])
        })
    }
}

/// Reads a word of the stack into `walk.word`, by windows that end with their page of memory: a window can only be read if
/// the word can. Returns 0, or why not.
///
/// A function of its own, so that the verifier goes through it once for every load and not for every way to one.
#[inline(never)]
fn load_word(walk: &mut Walk, address: u64) -> u32 {
    let mut offset = address.wrapping_sub(walk.window_at);
    if offset.wrapping_add(8) > walk.window_length || offset > WINDOW_BYTES {
        let rest = MEMORY_PAGE_BYTES - (address & (MEMORY_PAGE_BYTES - 1));
        let length = if rest > WINDOW_BYTES { WINDOW_BYTES } else { rest };
        // SAFETY: `window` has at least `length` bytes; the helper checks the other address.
        let read = unsafe { read_user((&raw mut walk.window).cast(), length as u32, address as *const c_void) };
        if read != 0 {
            walk.window_length = 0;
            return StackEnding::UNREADABLE.0;
        }
        walk.window_at = address;
        walk.window_length = length;
        offset = 0;
    }
    // No word of a stack lies across others: in a window that began at one, none begins between two.
    if offset & 7 != 0 || length_left(walk, offset) < 8 {
        return StackEnding::CONTRADICTION.0;
    }
    // SAFETY: in bounds by the mask.
    walk.word = unsafe { (&raw const walk.window[(offset >> 3) as usize & (WINDOW_WORDS - 1)]).read_volatile() };
    0
}

#[inline(always)]
fn length_left(walk: &Walk, offset: u64) -> u64 {
    walk.window_length.wrapping_sub(offset)
}

/// The last of `length` sorted elements from `first` on that is not above `value`, or the first. `few` halvings find it
/// among 2^`few` elements, and four more among any.
///
/// Without branches but one, and so without a loop: each would double what the verifier looks at.
#[inline(always)]
fn last_not_above(value: u64, mut first: u64, mut length: u64, few: u32, element: impl Fn(u64) -> u64) -> u64 {
    macro_rules! halve {
        () => {
            let half = length >> 1;
            first += half & all_ones_unless_below(value, element(first + half));
            length -= half;
        };
    }
    if length > 1 << few {
        halve!();
        halve!();
        halve!();
        halve!();
    }
    if few > 4 {
        halve!();
    }
    halve!();
    halve!();
    halve!();
    halve!();
    // It is 1 by now.
    let _ = length;
    first
}

/// `value < limit { 0 } else { !0 }` without a branch, each of which would double what the verifier looks at. The top bits
/// of both are 0.
#[inline(always)]
fn all_ones_unless_below(value: u64, limit: u64) -> u64 {
    !((value.wrapping_sub(limit) as i64 >> 63) as u64)
}
