//! Stacks of the current thread: captured, recognized, and told to the recorder once.

use core::ffi::c_void;

use aya_ebpf::{
    Global,
    bindings::BPF_F_USER_STACK,
    btf_maps::PerCpuArray,
    helpers::generated::{bpf_get_stack, bpf_task_pt_regs},
    macros::btf_map,
};
use polletto_common::{
    record::{Stack, StackEnding, flags},
    unwind::MAX_KERNEL_FRAMES,
};

use crate::{
    registers::{Cpu, Entry, Native, SystemCall},
    ring,
    task::Task,
    unwind::{self, Walk},
};

/// 1 when the program's own frames are wanted.
#[unsafe(no_mangle)]
static USER_FRAMES: Global<u32> = Global::new(1);

/// 1 when the kernel's frames are wanted.
#[unsafe(no_mangle)]
static KERNEL_FRAMES: Global<u32> = Global::new(0);

/// A random number of this recording, without which no program can make stacks whose ids are equal.
#[unsafe(no_mangle)]
static STACK_SEED: Global<u64> = Global::new(0);

/// Room for frames: a power of two, so that an index is kept inside by a mask.
const FRAME_SLOTS: usize = 1024;

/// The frames that `bpf_get_stack` finds at most.
const FRAMES_BY_HELPER: usize = 127;

/// A stack as it goes into a ring.
#[repr(C)]
pub struct Frames {
    stack: Stack,
    frames: [u64; FRAME_SLOTS],
    count: u64,
}

/// What capturing a stack works in.
#[repr(C)]
struct Scratch {
    frames: Frames,
    walk: Walk,
}

/// One for each kind of program that captures stacks: a timer's interrupt can come into another program, but no program
/// into itself.
#[btf_map]
static SCRATCH: PerCpuArray<Scratch, 2> = PerCpuArray::new();

/// Which scratch a program may use.
#[derive(Clone, Copy)]
pub enum User {
    Switch = 0,
    Timer = 1,
}

const RECENT_IN_BLOCK: usize = 4096;
const RECENT_BLOCKS: usize = 4;

/// Stacks that this CPU has written lately, each at the place that its id says. One that was pushed out by another is
/// written again; the recorder knows it by its id.
#[btf_map]
static RECENT: PerCpuArray<[u64; RECENT_IN_BLOCK], RECENT_BLOCKS> = PerCpuArray::new();

/// How the program's frames are found.
pub trait Unwinder {
    /// Adds them.
    ///
    /// # Safety
    /// `context` is the running program's, and `task` the current thread.
    unsafe fn add(context: *mut c_void, task: Task, interrupted: Option<Entry>, scratch: Work) -> StackEnding;

    /// The system call that a thread is in.
    ///
    /// # Safety
    /// `task` is the current thread.
    unsafe fn system_call(task: Task) -> SystemCall;
}

/// Where an [`Unwinder`] works.
pub struct Work {
    frames: *mut Frames,
    walk: *mut Walk,
}

/// By the recorder's tables, and by frame pointers where there is none.
pub struct ByTables;

impl Unwinder for ByTables {
    #[inline(always)]
    unsafe fn add(_: *mut c_void, task: Task, interrupted: Option<Entry>, work: Work) -> StackEnding {
        let entry = match interrupted {
            Some(entry) => entry,
            None => {
                // SAFETY: the helper takes any task that the verifier trusts, and returns what it trusts as well.
                unsafe { Native::entry(bpf_task_pt_regs(task.as_ptr().cast_mut()) as *const c_void) }
            }
        };
        if entry.is_foreign {
            return StackEnding::FOREIGN_CODE;
        }
        unwind::frames(task, entry, work.walk, work.frames)
    }

    #[inline(always)]
    unsafe fn system_call(task: Task) -> SystemCall {
        // SAFETY: the helper takes any task that the verifier trusts, and returns what it trusts as well.
        unsafe { Native::system_call(bpf_task_pt_regs(task.as_ptr().cast_mut()) as *const c_void) }
    }
}

/// By frame pointers alone, for kernels without `bpf_loop`.
pub struct ByFramePointers;

impl Unwinder for ByFramePointers {
    #[inline(always)]
    unsafe fn add(context: *mut c_void, _: Task, _: Option<Entry>, work: Work) -> StackEnding {
        // SAFETY: `frames` is a map's value of this program's own, with room for as many frames behind the kernel's.
        unsafe {
            let frames = &mut *work.frames;
            let first = frames.count & MAX_KERNEL_FRAMES as u64;
            let room = (&raw mut frames.frames).cast::<u64>().add(first as usize);
            let bytes = bpf_get_stack(context, room.cast(), FRAMES_BY_HELPER as u32 * 8, u64::from(BPF_F_USER_STACK));
            if bytes <= 0 {
                return StackEnding::UNREADABLE;
            }
            let found = bytes as u64 / 8;
            for index in 0..FRAMES_BY_HELPER as u64 {
                if index >= found {
                    break;
                }
                let slot = (first + index) as usize & (FRAME_SLOTS - 1);
                let address = frames.frames[slot];
                // Where a caller returns to stands behind its call.
                frames.push(if index == 0 { address } else { address.wrapping_sub(1) });
            }
            frames.mark_by_frame_pointers();
            // Whether the last frame is the thread's first function, frame pointers don't tell.
            if found < FRAMES_BY_HELPER as u64 { StackEnding::FRAME_POINTERS_END } else { StackEnding::TOO_DEEP }
        }
    }

    #[inline(always)]
    unsafe fn system_call(_: Task) -> SystemCall {
        SystemCall::NONE
    }
}

/// Captures the current thread's stack, tells the recorder of it unless this CPU did so lately, and returns its id.
///
/// # Safety
/// `context` is the running program's, `task` the current thread, and the program is of the kind that `user` says.
#[inline(always)]
pub unsafe fn capture<U: Unwinder>(
    context: *mut c_void,
    user: User,
    task: Task,
    interrupted: Option<Entry>,
    time_ns: u64,
) -> u64 {
    let Some(scratch) = SCRATCH.get_ptr_mut(user as u32) else { return 0 };
    // SAFETY: this CPU's, and this kind of program's.
    let (frames, walk) = unsafe { (&raw mut (*scratch).frames, &raw mut (*scratch).walk) };
    // SAFETY: as above.
    unsafe { (*frames).begin(task) };
    if KERNEL_FRAMES.load() != 0 {
        // SAFETY: as above.
        unsafe { (*frames).add_kernel_frames(context) };
    }
    let ending = if USER_FRAMES.load() != 0 && task.has_memory() {
        // SAFETY: as the caller says.
        unsafe { U::add(context, task, interrupted, Work { frames, walk }) }
    } else {
        StackEnding::NONE
    };
    // SAFETY: as above.
    unsafe { (*frames).finish(ending, time_ns) }
}

impl Frames {
    #[inline(always)]
    fn begin(&mut self, task: Task) {
        self.stack.tgid = task.tgid();
        self.stack.id = STACK_SEED.load();
        self.stack.kernel_frames = 0;
        self.stack.header.flags = 0;
        self.stack.reserved = 0;
        self.count = 0;
        self.mix(u64::from(task.tgid().0) << 32 ^ task.exec_id());
    }

    /// # Safety
    /// `context` is the running program's.
    #[inline(always)]
    unsafe fn add_kernel_frames(&mut self, context: *mut c_void) {
        let room = (&raw mut self.frames).cast();
        // SAFETY: there is room for as many.
        let bytes = unsafe { bpf_get_stack(context, room, MAX_KERNEL_FRAMES as u32 * 8, 0) };
        if bytes <= 0 {
            return;
        }
        let found = bytes as u64 / 8;
        for index in 0..MAX_KERNEL_FRAMES as u64 {
            if index >= found {
                break;
            }
            self.push(self.frames[index as usize & (FRAME_SLOTS - 1)]);
        }
        self.stack.kernel_frames = self.count as u16;
    }

    /// Adds a frame.
    #[inline(always)]
    pub fn push(&mut self, address: u64) {
        self.frames[self.count as usize & (FRAME_SLOTS - 1)] = address;
        self.count += 1;
        self.mix(address);
    }

    /// Makes the stack's id depend on `word`.
    #[inline(always)]
    pub fn mix(&mut self, word: u64) {
        let product = (self.stack.id ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.stack.id = product ^ product >> 29;
    }

    /// Some frames were found by frame pointers alone.
    #[inline(always)]
    pub fn mark_by_frame_pointers(&mut self) {
        self.stack.header.flags = flags::BY_FRAME_POINTERS;
    }

    #[inline(always)]
    fn finish(&mut self, ending: StackEnding, time_ns: u64) -> u64 {
        self.mix(u64::from(ending.0) << 16 | u64::from(self.stack.kernel_frames));
        let id = self.stack.id;
        let Some(recent) = RECENT.get_ptr_mut((id >> 62) as u32) else { return id };
        // SAFETY: this CPU's, and in bounds by the mask. An interrupt that writes the same place only makes a stack be
        // written once more.
        let recent = unsafe { &raw mut (*recent)[(id >> 32) as usize & (RECENT_IN_BLOCK - 1)] };
        // SAFETY: as above.
        if unsafe { recent.read_volatile() } == id {
            return id;
        }
        self.stack.ending = ending;
        self.stack.user_frames = (self.count as u16).wrapping_sub(self.stack.kernel_frames);
        let flags = self.stack.header.flags;
        self.stack.header = ring::header_at::<Stack>(time_ns, flags);
        let bytes = size_of::<Stack>() as u64 + (self.count & (FRAME_SLOTS as u64 - 1)) * 8;
        if ring::emit_stack(ring::Bytes { start: (&raw mut *self).cast(), length: bytes }) {
            // SAFETY: as above.
            unsafe { recent.write_volatile(id) };
        }
        id
    }
}
