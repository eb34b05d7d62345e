//! The ways from here to the recorder, each CPU's own: a stream for switches and wake-ups, a ring for samples and stacks, and
//! one for everything else.

use core::ffi::c_void;

use aya_ebpf::{
    Global,
    bindings::{BPF_F_INNER_MAP, BPF_F_MMAPABLE, BPF_RB_NO_WAKEUP},
    btf_maps::{Array, ArrayOfMaps, PerCpuArray, RingBuf},
    helpers::{bpf_get_smp_processor_id, bpf_ktime_get_boot_ns, generated::bpf_ringbuf_output},
    macros::btf_map,
};
use polletto_common::{
    limits::{MAX_CPUS, TASK_RING_BYTES, TEMPLATE_SAMPLE_RING_BYTES, TEMPLATE_STREAM_SLOTS},
    record::{Header, Layout, Lost, flags},
    stats::{ChannelStats, CpuStats},
    stream::{OWNER_WORD, SLOT_WORDS, Streamed, words_of},
};

/// The recorder maps it into its memory, and it may have another size than the template.
const STREAM_FLAGS: usize = (BPF_F_MMAPABLE | BPF_F_INNER_MAP) as usize;

/// Of words and not of `Slot`s: before Linux 6.2 no stream could take the template's place if that had a structure's type.
type Stream = Array<[u64; SLOT_WORDS], TEMPLATE_STREAM_SLOTS, STREAM_FLAGS>;
type TaskRing = RingBuf<u8, TASK_RING_BYTES>;
type SampleRing = RingBuf<u8, TEMPLATE_SAMPLE_RING_BYTES>;

/// Indexed by CPU. A CPU without a stream is not recorded.
#[btf_map]
static STREAMS: ArrayOfMaps<Stream, MAX_CPUS> = ArrayOfMaps::new();

/// Indexed by CPU.
#[btf_map]
static TASK_RINGS: ArrayOfMaps<TaskRing, MAX_CPUS> = ArrayOfMaps::new();

/// Indexed by CPU.
#[btf_map]
static SAMPLE_RINGS: ArrayOfMaps<SampleRing, MAX_CPUS> = ArrayOfMaps::new();

#[btf_map]
static STATS: PerCpuArray<CpuStats, 1> = PerCpuArray::new();

/// One less than the slots of each stream, which are a power of two.
#[unsafe(no_mangle)]
static STREAM_MASK: Global<u32> = Global::new(TEMPLATE_STREAM_SLOTS as u32 - 1);

/// This CPU's counters.
#[inline(always)]
pub fn stats() -> Option<&'static mut CpuStats> {
    // SAFETY: a per-CPU value is only touched by this CPU. What a program adds that interrupts another, or that runs while
    // another is preempted, may be missing from a count, which is why the recorder reads loss from `lost` and never
    // computes it from several counters.
    STATS.get_ptr_mut(0).map(|stats| unsafe { &mut *stats })
}

/// The header of a record of type `R` written now by this CPU.
#[inline(always)]
pub fn header<R: Layout>(flags: u32) -> Header {
    header_at::<R>(now(), flags)
}

/// Puts a switch or a wake-up into this CPU's stream, or counts that there was no room.
///
/// Only for programs that mostly don't interrupt one another on a CPU: `sched_switch` runs with interrupts off, and
/// `sched_waking` with preemption off. Where a thread wakes itself, that has interrupts on, and one may wake another. Since
/// 6.1 the kernel runs no program inside itself; before, what comes in the middle of a record is lost: two that took the same
/// slot would count as two, and leave a slot for ever empty that the recorder waits for.
#[inline(always)]
pub fn stream<R: Streamed>(record: R) {
    let Some(stream) = STREAMS.get(cpu()) else { return };
    let Some(stats) = stats() else { return };
    let is_busy = &raw mut stats.stream_is_busy;
    // SAFETY: a reference was made a pointer. Volatile, since only who interrupts this program sees the difference.
    if unsafe { is_busy.read_volatile() } != 0 {
        return lose(&mut stats.stream);
    }
    // SAFETY: as above. The stores between are volatile too, and stay there.
    unsafe { is_busy.write_volatile(1) };
    emit(&mut stats.stream, 0, record, StreamPut(stream));
    // SAFETY: as above.
    unsafe { is_busy.write_volatile(0) };
}

/// Puts a record about threads and processes into this CPU's ring, or counts that there was no room.
#[inline(always)]
pub fn emit_task<R: Layout>(record: R) {
    let Some(ring) = TASK_RINGS.get(cpu()) else { return };
    let Some(stats) = stats() else { return };
    emit(&mut stats.tasks, flags::TASKS_LOST, record, RingPut(ring));
}

/// Whether this CPU is recorded.
#[inline(always)]
pub fn is_wanted() -> bool {
    STREAMS.get(cpu()).is_some()
}

/// Puts a sample or a blocked stretch into this CPU's ring, or counts that there was no room.
#[inline(always)]
pub fn emit_sample<R: Layout>(record: R) {
    let Some(ring) = SAMPLE_RINGS.get(cpu()) else { return };
    let Some(stats) = stats() else { return };
    emit(&mut stats.samples, flags::SAMPLES_LOST, record, RingPut(ring));
}

/// Puts a record of any length into this CPU's ring for samples. False, and counted, when there was no room.
#[inline(always)]
pub fn emit_stack(stack: Bytes) -> bool {
    let Some(ring) = SAMPLE_RINGS.get(cpu()) else { return false };
    let Some(stats) = stats() else { return false };
    emit(&mut stats.samples, flags::SAMPLES_LOST, stack, RingPut(ring))
}

/// Puts a poll into this CPU's ring for samples, or counts that there was no room.
///
/// The program that tells polls can be interrupted by those that take samples, so its counters are others.
#[inline(always)]
pub fn emit_poll<R: Layout>(record: R) {
    let Some(ring) = SAMPLE_RINGS.get(cpu()) else { return };
    let Some(stats) = stats() else { return };
    emit(&mut stats.polls, flags::SAMPLES_LOST, record, RingPut(ring));
}

/// A record that stands in a map's value, with its tail.
#[derive(Clone, Copy)]
pub struct Bytes {
    pub start: *mut c_void,
    pub length: u64,
}

/// A channel that was full announces its loss with a [`Lost`] record before it takes anything else, so that the recorder
/// learns where in the stream the hole is.
#[inline(always)]
fn emit<R>(stats: &mut ChannelStats, loss_flags: u32, record: R, channel: impl Put<R> + Put<Lost>) -> bool {
    if stats.unannounced != 0 {
        let announcement = Lost {
            header: header_at::<Lost>(stats.first_unannounced_ns, loss_flags),
            until_ns: now(),
            count: stats.unannounced,
        };
        if !channel.put(stats.written, announcement) {
            lose(stats);
            return false;
        }
        stats.unannounced = 0;
        stats.written += 1;
    }
    if channel.put(stats.written, record) {
        stats.written += 1;
        true
    } else {
        lose(stats);
        false
    }
}

/// Counts a record that was not taken, which is announced later.
#[inline(always)]
fn lose(stats: &mut ChannelStats) {
    if stats.unannounced == 0 {
        stats.first_unannounced_ns = now();
    }
    stats.unannounced += 1;
    stats.lost += 1;
}

/// A way to the recorder.
trait Put<R> {
    /// False when there is no room. `written` records came before this one.
    fn put(&self, written: u64, record: R) -> bool;
}

struct StreamPut<'a>(&'a Stream);

impl<R: Streamed> Put<R> for StreamPut<'_> {
    #[inline(always)]
    fn put(&self, written: u64, record: R) -> bool {
        let Some(slot) = self.0.get_ptr_mut(written as u32 & STREAM_MASK.load()) else { return false };
        let words = words_of(&record);
        // SAFETY: the slot is this program's while its owner word is 0: the recorder only looks at that word, which is
        // written last. Volatile stores stay in order here, and on x86 for the recorder too, which refuses to be built
        // for anything else.
        unsafe {
            let word = |at: usize| (&raw mut (*slot)[at]);
            if word(OWNER_WORD).read_volatile() != 0 {
                return false;
            }
            word(0).write_volatile(words[0]);
            word(2).write_volatile(words[2]);
            word(3).write_volatile(words[3]);
            word(OWNER_WORD).write_volatile(words[OWNER_WORD]);
        }
        true
    }
}

struct RingPut<'a, const BYTES: usize>(&'a RingBuf<u8, BYTES>);

impl<R: Layout, const BYTES: usize> Put<R> for RingPut<'_, BYTES> {
    /// The reader is never woken: from inside a context switch that would be a switch of its own. It comes by a timer.
    #[inline(always)]
    fn put(&self, _written: u64, record: R) -> bool {
        match self.0.reserve_untyped::<R>(0) {
            Some(mut slot) => {
                slot.write(record);
                slot.submit(u64::from(BPF_RB_NO_WAKEUP));
                true
            }
            None => false,
        }
    }
}

impl<const BYTES: usize> Put<Bytes> for RingPut<'_, BYTES> {
    #[inline(always)]
    fn put(&self, _written: u64, record: Bytes) -> bool {
        let ring = core::ptr::from_ref(self.0).cast_mut().cast();
        // SAFETY: the verifier checks that a map's value has as many bytes from there on.
        unsafe { bpf_ringbuf_output(ring, record.start, record.length, u64::from(BPF_RB_NO_WAKEUP)) == 0 }
    }
}

/// The header of a record of type `R` about what happened on this CPU at `time_ns`.
#[inline(always)]
pub fn header_at<R: Layout>(time_ns: u64, flags: u32) -> Header {
    Header { time_ns, kind: R::KIND, cpu: cpu() as u16, flags }
}

/// CLOCK_BOOTTIME, nanoseconds.
#[inline(always)]
pub fn now() -> u64 {
    // SAFETY: a helper without arguments.
    unsafe { bpf_ktime_get_boot_ns() }
}

#[inline(always)]
fn cpu() -> u32 {
    // SAFETY: a helper without arguments.
    unsafe { bpf_get_smp_processor_id() }
}
