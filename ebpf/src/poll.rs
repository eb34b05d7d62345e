//! When polls begin and end, told by probes in the programs' own code.
//!
//! A poll is known by where its caller's stack is: there the stack pointer is back after it, and nowhere else.

use aya_ebpf::{
    EbpfContext, Global,
    bindings::BPF_NOEXIST,
    btf_maps::{Array, HashMap, PerCpuHashMap},
    helpers::{bpf_get_current_task_btf, bpf_probe_read_user, generated::bpf_get_attach_cookie},
    macros::btf_map,
    programs::ProbeContext,
};
use polletto_common::{
    id::{Tgid, Tid},
    poll::{
        Allowance, Cookie, HEADER_VTABLE, MAX_NESTED, MAX_POLLING, MAX_PROBED, MAX_RETURNS, OpenPoll, OpenPolls,
        PollKind, ReturnKey, Site, VTABLE_OFFSETS, Way,
    },
    polled::Polled,
    record::{Poll, flags},
};

use crate::{
    polled,
    registers::{Cpu, Native},
    ring, scope,
    task::Task,
    wake,
};

/// 1 when polls are told.
#[unsafe(no_mangle)]
static POLLS: Global<u32> = Global::new(0);

/// Keyed by thread. All elements exist from the beginning.
#[btf_map]
static OPEN_POLLS: HashMap<u32, OpenPolls, MAX_POLLING> = HashMap::new();

/// What is known of the addresses to which polls return. Those that are new are added here.
#[btf_map]
static RETURNS: HashMap<ReturnKey, u64, MAX_RETURNS> = HashMap::new();

/// How often something was added to [`RETURNS`] here, or should have been.
#[btf_map]
static NEW_RETURNS: Array<u64, 1> = Array::new();

/// Keyed by process. One that has none is not to be told of.
#[btf_map]
static ALLOWANCES: PerCpuHashMap<u32, Allowance, MAX_PROBED> = PerCpuHashMap::new();

/// What a thread is in that polls nothing.
static NO_POLLS: OpenPolls = OpenPolls::NONE;

/// Returns that lead to no more than another return.
const MAX_OUTWARDS: usize = 3;

/// The last index of a thread's polls. The compiler does not know it, and so leaves in the code by which the verifier sees
/// that an index is within.
#[unsafe(no_mangle)]
static LAST_NESTED: Global<u64> = Global::new(MAX_NESTED as u64 - 1);

const _: () = assert!(MAX_NESTED.is_power_of_two());

/// A probe's program takes 1 to 2 µs. What it took beyond this went to an interrupt, to another thread, or to another virtual
/// machine, which is none of its cost.
const LONGEST_NS: u64 = 20_000;

/// Larger ones than this are none.
const LARGEST_TASK: u64 = 1 << 28;

/// Of a task that awaits, whose scheduler is one word before its id.
const ASYNC_SCHEDULER_BYTES: u64 = 8;

/// A thread has come to a probe.
#[inline(always)]
pub fn probe(context: &ProbeContext) {
    // SAFETY: this program's context.
    let cookie = Cookie(unsafe { bpf_get_attach_cookie(context.as_ptr()) });
    if cookie == Cookie::NOTHING {
        return;
    }
    let since_ns = ring::now();
    // SAFETY: a helper without arguments; it never returns null.
    let task = Task::new(unsafe { bpf_get_current_task_btf() }.cast_const());
    let Some(allowance) = ALLOWANCES.get_ptr_mut(task.tgid().0) else { return };
    // SAFETY: a value of this CPU. A thread of the same process that takes the CPU right here can make it miss something.
    let allowance = unsafe { &mut *allowance };
    if is_over(allowance, since_ns) {
        return spend(allowance, cookie, 0);
    }
    if scope::contains(task) {
        // SAFETY: this program's context.
        let call = unsafe { Native::call(context.as_ptr()) };
        let begun = match cookie.site() {
            Site::Begin { pushed } => Some((Subject::Tells { header: call.argument }, pushed)),
            Site::BeginOwn { pushed, function, may_block } => {
                Some((Subject::Known { address: call.argument, function, may_block }, pushed))
            }
            Site::End { return_address, popped } => {
                ends(task, return_address, call.sp.wrapping_sub(popped as u64));
                None
            }
            Site::Wake { header } => {
                wake::wakes(task, wake::value(context, header));
                None
            }
            Site::Spawn { header } => {
                wake::spawns(task, wake::value(context, header));
                None
            }
        };
        // In one place, so that its code is there once.
        if let Some((subject, pushed)) = begun {
            begins(task, subject, call.sp.wrapping_add(pushed), since_ns);
        }
    }
    spend(allowance, cookie, ring::now().wrapping_sub(since_ns));
}

/// Whether everything is spent, or the recorder wants no more. Remembers since when.
#[inline(always)]
fn is_over(allowance: &mut Allowance, now_ns: u64) -> bool {
    if allowance.over_ns == 0 && allowance.spent_ns >= allowance.granted_ns {
        allowance.over_ns = now_ns;
    }
    allowance.over_ns != 0
}

/// A probe was reached, and its program took so long.
#[inline(always)]
fn spend(allowance: &mut Allowance, cookie: Cookie, program_ns: u64) {
    allowance.hits += 1;
    let around_ns = if cookie.is_stepped() { allowance.step_ns } else { allowance.trap_ns };
    allowance.spent_ns += around_ns.wrapping_add(program_ns.min(LONGEST_NS));
}

/// Whether the ends of the process's polls are told now.
#[inline(always)]
fn are_told(process: Tgid) -> bool {
    // SAFETY: a value of this CPU.
    ALLOWANCES.get_ptr(process.0).is_some_and(|allowance| unsafe { (*allowance).over_ns } == 0)
}

/// What a function polls.
#[derive(Clone, Copy)]
enum Subject {
    /// A task that tells what it is.
    Tells { header: u64 },
    /// One that does not: the function that polls it is all that is known.
    Known { address: u64, function: u64, may_block: bool },
}

impl Subject {
    /// What tells its future, its id and its kind.
    #[inline(always)]
    fn described(self) -> Option<(u64, u64, PollKind)> {
        match self {
            Subject::Tells { header } => described(header),
            Subject::Known { address, function, may_block } => {
                Some((function, address, if may_block { PollKind::BLOCKING } else { PollKind::ASYNC }))
            }
        }
    }
}

/// A task is polled. The return address stands at `slot`.
#[inline(always)]
fn begins(task: Task, subject: Subject, slot: u64, began_ns: u64) {
    let Some((return_address, end_sp)) = end_of(task.tgid(), slot) else {
        forget_ended(task.tid(), slot.wrapping_add(8));
        passes_unseen(task, subject, began_ns);
        return unended(1);
    };
    let Some((vtable, id, kind)) = subject.described() else { return unended(1) };
    let Some(open) = open_of(task.tid()) else { return unended(1) };
    // SAFETY: a map's value that only the thread itself changes, which is here. What interrupts it reads it.
    let open = unsafe { &mut *open };
    let is_same = |poll: &OpenPoll| {
        poll.end_sp == end_sp
            && poll.return_address == return_address
            && poll.vtable == vtable
            && poll.polled.task == id
    };
    if open.depth > 0 && nth(open, open.depth as usize).is_some_and(|innermost| is_same(innermost)) {
        // A function that does nothing but jump to another where polls begin too.
        return;
    }
    let depth = forget(open, |poll| poll.end_sp <= end_sp);
    if depth >= MAX_NESTED {
        return unended(1);
    }
    if depth > 0
        && kind == PollKind::ASYNC
        && let Some(outer) = nth(open, depth)
        && outer.kind == PollKind::BLOCKING
    {
        outer.kind = PollKind::WORKER;
    }
    let awaits = if kind == PollKind::ASYNC { Polled::AWAITS } else { 0 };
    // SAFETY: the current thread.
    let (before, core) = unsafe { polled::shown_with_core(task) };
    let with_worker = if core != 0 { Polled::WITH_WORKER } else { 0 };
    if kind == PollKind::ASYNC && (depth == 0 || nth(open, depth).is_some_and(|outer| outer.kind == PollKind::WORKER)) {
        open.own = before.task;
    }
    let polled = Polled { task: id, tick: Polled::EXACT | awaits | with_worker | began_ns, ..before };
    if let Some(new) = nth(open, depth + 1) {
        *new = OpenPoll { end_sp, return_address, vtable, kind, polled, core };
    }
    open.tgid = task.tgid();
    open.depth = depth as u32 + 1;
}

/// The poll that begins won't be told. Whoever looks for what a wake led to learns that it was not the next that will.
#[inline(always)]
fn passes_unseen(task: Task, subject: Subject, began_ns: u64) {
    if let Some((vtable, id, PollKind::ASYNC)) = subject.described() {
        ring::emit_poll(Poll {
            header: ring::header_at::<Poll>(began_ns, flags::END_UNSEEN),
            tid: task.tid(),
            tgid: task.tgid(),
            vtable,
            polled: Polled { task: id, runtime: 0, worker: 0, tick: 0 },
        });
    }
}

/// The code is reached that stands behind `return_address`, where the stack pointer was `sp`.
#[inline(always)]
fn ends(task: Task, return_address: u64, sp: u64) {
    let Some(open) = OPEN_POLLS.get_ptr_mut(task.tid().0) else { return };
    // SAFETY: as in `begins`.
    let open = unsafe { &mut *open };
    let depth = forget(open, |poll| poll.end_sp < sp);
    if depth == 0 {
        return;
    }
    let Some(&mut OpenPoll { end_sp, return_address: of, vtable, kind, polled, core }) = nth(open, depth) else {
        return;
    };
    if end_sp != sp || of != return_address {
        return;
    }
    // Who interrupts this and finds the poll ended comes later than its end.
    let ended_ns = ring::now();
    open.depth = depth as u32 - 1;
    if kind == PollKind::WORKER {
        return;
    }
    let is_nested = depth > 1 && nth(open, depth - 1).is_some_and(|outer| outer.kind != PollKind::WORKER);
    let nested = if is_nested { flags::NESTED } else { 0 };
    let gone = if is_given_away(core) { flags::WORKER_GONE } else { 0 };
    ring::emit_poll(Poll {
        header: ring::header_at::<Poll>(ended_ns, nested | gone),
        tid: task.tid(),
        tgid: task.tgid(),
        vtable,
        polled,
    });
}

/// What the thread polls, if the end of that will be told.
///
/// # Safety
/// `task` is the current thread.
#[inline(always)]
pub unsafe fn open(task: Task) -> Option<Polled> {
    if POLLS.load() == 0 || !are_told(task.tgid()) {
        return None;
    }
    let open = OPEN_POLLS.get_ptr_mut(task.tid().0)?;
    // SAFETY: a map's value that only this thread changes.
    let open = unsafe { &mut *open };
    let depth = open.depth as usize;
    if depth == 0 || depth > MAX_NESTED {
        return None;
    }
    let &mut OpenPoll { kind, polled, .. } = nth(open, depth)?;
    match kind {
        PollKind::WORKER => None,
        // Whether it has become a worker in the meantime tells the scheduler that it has then.
        // SAFETY: the current thread.
        PollKind::BLOCKING => Some(Polled { task: polled.task, tick: polled.tick, ..unsafe { polled::worker(task) } }),
        _ => Some(polled),
    }
}

/// Whether the poll that the thread is in began with a worker, and has given it away.
#[inline(always)]
pub fn has_given_worker_away(task: Task) -> bool {
    if POLLS.load() == 0 {
        return false;
    }
    let Some(open) = OPEN_POLLS.get_ptr_mut(task.tid().0) else { return false };
    // SAFETY: a map's value that only this thread changes.
    let open = unsafe { &mut *open };
    let depth = open.depth as usize;
    let innermost = if depth == 0 || depth > MAX_NESTED { None } else { nth(open, depth) };
    innermost.is_some_and(|poll| is_given_away(poll.core))
}

/// Whether the thread has no worker any more where it had one.
#[inline(always)]
fn is_given_away(core: u64) -> bool {
    core != 0 && read::<u64>(core) == Some(0)
}

/// The id of the task that the thread is itself; 0 if it is none, as far as known.
#[inline(always)]
pub fn own(task: Task) -> u64 {
    if POLLS.load() == 0 {
        return 0;
    }
    // SAFETY: a map's value that only this thread changes.
    OPEN_POLLS.get_ptr(task.tid().0).map_or(0, |open| unsafe { (*open).own })
}

/// A thread's id may soon be another's, or its program another.
#[inline(always)]
pub fn thread_ended(tid: Tid) {
    if POLLS.load() != 0 {
        OPEN_POLLS.remove(tid.0).ok();
    }
}

/// The polls that a thread is in.
#[inline(always)]
fn open_of(tid: Tid) -> Option<*mut OpenPolls> {
    if let Some(open) = OPEN_POLLS.get_ptr_mut(tid.0) {
        return Some(open);
    }
    // By value, it would not fit onto the stack.
    let none: &OpenPolls = &NO_POLLS;
    OPEN_POLLS.insert(tid.0, none, 0).ok()?;
    OPEN_POLLS.get_ptr_mut(tid.0)
}

/// One of the polls, counted from 1.
#[inline(always)]
fn nth(open: &mut OpenPolls, nth: usize) -> Option<&mut OpenPoll> {
    open.polls.get_mut(nth.wrapping_sub(1) & LAST_NESTED.load() as usize)
}

#[inline(always)]
fn forget_ended(tid: Tid, sp: u64) {
    if let Some(open) = OPEN_POLLS.get_ptr_mut(tid.0) {
        // SAFETY: as in `begins`.
        forget(unsafe { &mut *open }, |poll| poll.end_sp <= sp);
    }
}

/// Forgets the innermost polls of which this is true: they have ended unseen. How many are left.
#[inline(always)]
fn forget(open: &mut OpenPolls, has_ended: impl Fn(&OpenPoll) -> bool) -> usize {
    let before = (open.depth as usize).min(MAX_NESTED);
    let mut depth = before;
    for _ in 0..MAX_NESTED {
        if depth > 0 && nth(open, depth).is_some_and(|poll| has_ended(poll)) {
            depth -= 1;
        }
    }
    if depth != before {
        open.depth = depth as u32;
        unended((before - depth) as u64);
    }
    depth
}

#[inline(always)]
fn unended(count: u64) {
    if let Some(stats) = ring::stats() {
        stats.polls_without_end += count;
    }
}

/// The address behind which the poll's end is seen whose return address stands at `slot`, and where the stack pointer is
/// then. None if it is not.
#[inline(always)]
fn end_of(tgid: Tgid, slot: u64) -> Option<(u64, u64)> {
    let mut slot = slot;
    for _ in 0..=MAX_OUTWARDS {
        let address = read::<u64>(slot)?;
        let key = ReturnKey { address, tgid, reserved: 0 };
        let Some(way) = RETURNS.get_ptr(key) else {
            // The recorder may have set it just now. Without room it is told that something is missing, at least.
            RETURNS.insert(key, Way::UNKNOWN.0, u64::from(BPF_NOEXIST)).ok();
            if let Some(count) = NEW_RETURNS.get_ptr_mut(0) {
                // SAFETY: a map's value. That two add at once matters not: it has changed.
                unsafe { count.write_volatile(count.read_volatile().wrapping_add(1)) };
            }
            return None;
        };
        // SAFETY: a map's value, which the recorder sets as a whole.
        match Way(unsafe { way.read_volatile() }) {
            Way::UNKNOWN => return None,
            Way::PROBE => return Some((address, slot.wrapping_add(8))),
            Way(bytes) => slot = slot.wrapping_add(bytes),
        }
    }
    None
}

/// The vtable, the id and the kind of the task at `header`.
#[inline(always)]
pub fn described(header: u64) -> Option<(u64, u64, PollKind)> {
    let vtable = read::<u64>(header.wrapping_add(HEADER_VTABLE))?;
    let [_trailer, scheduler, id] = read::<[u64; 3]>(vtable.wrapping_add(VTABLE_OFFSETS))?;
    if id > LARGEST_TASK {
        return None;
    }
    let is_async = id.wrapping_sub(scheduler) == ASYNC_SCHEDULER_BYTES;
    let kind = if is_async { PollKind::ASYNC } else { PollKind::BLOCKING };
    Some((vtable, read(header.wrapping_add(id))?, kind))
}

/// Reads the current program's memory; nothing where there is none, or it is not in memory.
#[inline(always)]
pub fn read<T: Copy>(address: u64) -> Option<T> {
    // SAFETY: the helper checks the address.
    unsafe { bpf_probe_read_user(address as *const T) }.ok()
}
