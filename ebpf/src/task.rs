//! Threads: what `task_struct` says of them, and their beginnings, names and ends.

use core::ffi::c_void;

use aya_ebpf::{Global, bindings::task_struct, helpers::generated::bpf_seq_write, programs::BtfTracePointContext};
use polletto_common::{
    id::{Tgid, Tid},
    limits::COMM_BYTES,
    offsets::TaskOffsets,
    record::{Exec, Exit, Fork, Rename, Task as TaskRecord, flags},
};

use crate::{parked, poll, polled, ring, scope, unwind};

/// Filled in by the recorder before the programs load.
#[unsafe(no_mangle)]
static TASK_OFFSETS: Global<TaskOffsets> = Global::new(TaskOffsets {
    tgid: 0,
    pid: 0,
    prio: 0,
    flags: 0,
    state: 0,
    exit_state: 0,
    cpu: 0,
    comm: 0,
    start_boottime: 0,
    real_parent: 0,
    self_exec_id: 0,
    thread_pointer: 0,
});

/// One of the offsets. Only its own eight bytes are read: a volatile load of all of them would be one of all of them.
macro_rules! offset {
    ($field:ident) => {{
        let offsets = (&raw const TASK_OFFSETS).cast::<TaskOffsets>();
        // SAFETY: `Global` is transparent, and its value is always initialized. Volatile, since the recorder sets it.
        unsafe { (&raw const (*offsets).$field).read_volatile() }
    }};
}

/// `PF_KTHREAD`: the thread belongs to the kernel.
const KERNEL_THREAD: u32 = 0x0020_0000;

/// `PF_EXITING`: the thread ends, and gives up its memory.
const EXITING: u32 = 0x4;

/// `TASK_DEAD`: the thread leaves its CPU for ever, or has left it.
pub const DEAD: u32 = 0x80;

/// A `task_struct` that the verifier trusts, so that it can be read without a helper.
#[derive(Clone, Copy)]
pub struct Task(*const task_struct);

impl Task {
    /// `pointer` comes from a tracepoint's argument or from a helper that returns the current task.
    #[inline(always)]
    pub fn new(pointer: *const task_struct) -> Task {
        Task(pointer)
    }

    #[inline(always)]
    pub fn tid(self) -> Tid {
        Tid(self.read(offset!(pid)))
    }

    #[inline(always)]
    pub fn tgid(self) -> Tgid {
        Tgid(self.read(offset!(tgid)))
    }

    #[inline(always)]
    pub fn prio(self) -> u32 {
        self.read(offset!(prio))
    }

    #[inline(always)]
    pub fn as_ptr(self) -> *const task_struct {
        self.0
    }

    /// Whether it is what a CPU runs when it has nothing to run.
    #[inline(always)]
    pub fn is_idle(self) -> bool {
        self.tid() == Tid::IDLE
    }

    /// Whether the thread has a program's memory. Without one, reading a program's memory reads another's.
    #[inline(always)]
    pub fn has_memory(self) -> bool {
        let flags: u32 = self.read(offset!(flags));
        flags & (KERNEL_THREAD | EXITING) == 0
    }

    /// The state that the thread is in.
    #[inline(always)]
    pub fn state(self) -> u32 {
        self.read(offset!(state))
    }

    #[inline(always)]
    pub fn exit_state(self) -> u32 {
        self.read(offset!(exit_state))
    }

    #[inline(always)]
    pub fn cpu(self) -> u32 {
        self.read(offset!(cpu))
    }

    #[inline(always)]
    fn comm(self) -> [u8; COMM_BYTES] {
        self.read(offset!(comm))
    }

    #[inline(always)]
    fn started_ns(self) -> u64 {
        self.read(offset!(start_boottime))
    }

    /// Another one for every program that the process runs.
    #[inline(always)]
    pub fn exec_id(self) -> u64 {
        self.read(offset!(self_exec_id))
    }

    /// Where the thread's own variables are, as of its last system call that set it or its last switch.
    #[inline(always)]
    pub fn thread_pointer(self) -> u64 {
        self.read(offset!(thread_pointer))
    }

    #[inline(always)]
    fn parent(self) -> Task {
        Task(self.read(offset!(real_parent)))
    }

    #[inline(always)]
    fn is_kernel_thread(self) -> bool {
        let flags: u32 = self.read(offset!(flags));
        flags & KERNEL_THREAD != 0
    }

    /// Volatile, so that the load keeps the offset that was frozen into the program.
    #[inline(always)]
    fn read<T: Copy>(self, offset: u64) -> T {
        // SAFETY: the verifier checks the access against the kernel's own type information when the program loads.
        unsafe { self.0.cast::<u8>().add(offset as usize).cast::<T>().read_volatile() }
    }
}

/// `sched_process_fork(parent, child)`
#[inline(always)]
pub fn fork(context: &BtfTracePointContext) {
    let parent = Task::new(context.arg(0));
    let child = Task::new(context.arg(1));
    if !scope::contains(parent) {
        return;
    }
    scope::follow(parent, child);
    if !scope::contains(child) {
        return;
    }
    if child.tgid() != parent.tgid() {
        unwind::fork(parent, child);
        polled::fork(parent, child);
        parked::fork(parent, child);
    }
    ring::emit_task(Fork {
        header: ring::header::<Fork>(kernel_thread_flag(child)),
        parent_tid: parent.tid(),
        parent_tgid: parent.tgid(),
        tid: child.tid(),
        tgid: child.tgid(),
        comm: child.comm(),
        thread_pointer: child.thread_pointer(),
    });
}

/// `sched_process_exec(task, old_pid, binary)`
#[inline(always)]
pub fn exec(context: &BtfTracePointContext) {
    let task = Task::new(context.arg(0));
    scope::exec(task, Tid(context.arg(1)));
    if scope::contains(task) {
        poll::thread_ended(task.tid());
        poll::thread_ended(Tid(context.arg(1)));
        ring::emit_task(Exec {
            header: ring::header::<Exec>(0),
            tid: task.tid(),
            old_tid: Tid(context.arg(1)),
            exec_id: task.exec_id(),
        });
    }
}

/// `sched_process_exit(task, …)`
#[inline(always)]
pub fn exit(context: &BtfTracePointContext) {
    let task = Task::new(context.arg(0));
    if scope::contains(task) {
        polled::thread_ended(task);
        poll::thread_ended(task.tid());
        ring::emit_task(Exit { header: ring::header::<Exit>(0), tid: task.tid(), tgid: task.tgid() });
    }
}

/// `task_rename(task, new name)`
#[inline(always)]
pub fn rename(context: &BtfTracePointContext) {
    let task = Task::new(context.arg(0));
    if !scope::contains(task) {
        return;
    }
    let mut comm = [0; COMM_BYTES];
    let name: *const u8 = context.arg(1);
    // SAFETY: the helper checks the address, and writes no more than the array's length.
    let copied = unsafe { aya_ebpf::helpers::bpf_probe_read_kernel_str_bytes(name, &mut comm) };
    if copied.is_ok() {
        ring::emit_task(Rename { header: ring::header::<Rename>(0), tid: task.tid(), tgid: task.tgid(), comm });
    }
}

/// What the kernel passes to an `iter/task` program: `struct bpf_iter__task`.
#[repr(C)]
pub struct IteratorContext {
    meta: *mut IteratorMeta,
    task: *mut task_struct,
}

/// The beginning of `struct bpf_iter_meta`.
#[repr(C)]
struct IteratorMeta {
    seq: *mut c_void,
}

/// Writes one thread into the iterator's file. The kernel calls it a last time without a thread.
#[inline(always)]
pub fn list(context: *mut IteratorContext) {
    // SAFETY: the verifier knows the context's type and checks each read; volatile keeps them as they are written here.
    let (task, seq) = unsafe {
        let task = (&raw const (*context).task).read_volatile();
        let meta = (&raw const (*context).meta).read_volatile();
        (task, (&raw const (*meta).seq).read_volatile())
    };
    if task.is_null() {
        return;
    }
    let task = Task::new(task);
    let recorded = if scope::contains(task) { flags::RECORDED } else { 0 };
    let ended = if task.state() & DEAD != 0 { flags::ENDED } else { 0 };
    let record = TaskRecord {
        header: ring::header::<TaskRecord>(recorded | ended | kernel_thread_flag(task)),
        started_ns: task.started_ns(),
        exec_id: task.exec_id(),
        thread_pointer: task.thread_pointer(),
        tid: task.tid(),
        tgid: task.tgid(),
        parent_tgid: task.parent().tgid(),
        reserved: 0,
        comm: task.comm(),
    };
    // SAFETY: `record` is initialized, and `seq` comes from the context. A full buffer makes the kernel call again.
    unsafe { bpf_seq_write(seq.cast(), (&raw const record).cast_mut().cast(), size_of::<TaskRecord>() as u32) };
}

#[inline(always)]
fn kernel_thread_flag(task: Task) -> u32 {
    if task.is_kernel_thread() { flags::KERNEL_THREAD } else { 0 }
}
