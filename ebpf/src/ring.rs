//! One ring per CPU, and what it could not take.

use aya_ebpf::{
    bindings::BPF_RB_NO_WAKEUP,
    btf_maps::{ArrayOfMaps, PerCpuArray, RingBuf},
    helpers::{bpf_get_smp_processor_id, bpf_ktime_get_boot_ns},
    macros::btf_map,
};
use polletto_common::{
    limits::{MAX_CPUS, TEMPLATE_RING_BYTES},
    record::{Header, Layout, Lost},
    stats::CpuStats,
};

/// Indexed by CPU. A CPU without a ring is not recorded.
#[btf_map]
static RINGS: ArrayOfMaps<RingBuf<u8, TEMPLATE_RING_BYTES>, MAX_CPUS> = ArrayOfMaps::new();

#[btf_map]
static STATS: PerCpuArray<CpuStats, 1> = PerCpuArray::new();

/// This CPU's counters.
#[inline(always)]
pub fn stats() -> Option<&'static mut CpuStats> {
    // SAFETY: a per-CPU value is only touched by this CPU. An interrupt between two programs can make a count wrong by
    // one, which is why the recorder reads loss from `lost` and never computes it from several counters.
    STATS.get_ptr_mut(0).map(|stats| unsafe { &mut *stats })
}

/// CLOCK_BOOTTIME, nanoseconds.
#[inline(always)]
pub fn now() -> u64 {
    // SAFETY: a helper without arguments.
    unsafe { bpf_ktime_get_boot_ns() }
}

/// The header of a record of type `R` written now by this CPU.
#[inline(always)]
pub fn header<R: Layout>(flags: u32) -> Header {
    header_at::<R>(now(), flags)
}

#[inline(always)]
fn header_at<R: Layout>(time_ns: u64, flags: u32) -> Header {
    Header { time_ns, kind: R::KIND, cpu: cpu() as u16, flags }
}

/// Puts a record into this CPU's ring, or counts that there was no room.
///
/// A ring that was full announces its loss with a [`Lost`] record before it takes anything else, so that the recorder
/// learns where in the stream the hole is.
#[inline(always)]
pub fn emit<R: Layout>(record: R) {
    let Some(ring) = RINGS.get(cpu()) else { return };
    let Some(stats) = stats() else { return };
    if stats.unannounced != 0 {
        let announcement = Lost {
            header: header_at::<Lost>(stats.first_unannounced_ns, 0),
            until_ns: now(),
            count: stats.unannounced,
        };
        if !put(ring, announcement) {
            stats.unannounced += 1;
            stats.lost += 1;
            return;
        }
        stats.unannounced = 0;
        stats.written += 1;
    }
    if put(ring, record) {
        stats.written += 1;
    } else {
        stats.first_unannounced_ns = now();
        stats.unannounced = 1;
        stats.lost += 1;
    }
}

/// False when the ring is full.
///
/// The reader is never woken: from inside a context switch that would be a switch of its own. It comes by a timer.
#[inline(always)]
fn put<R: Layout>(ring: &RingBuf<u8, TEMPLATE_RING_BYTES>, record: R) -> bool {
    match ring.reserve_untyped::<R>(0) {
        Some(mut slot) => {
            slot.write(record);
            slot.submit(u64::from(BPF_RB_NO_WAKEUP));
            true
        }
        None => false,
    }
}

#[inline(always)]
fn cpu() -> u32 {
    // SAFETY: a helper without arguments.
    unsafe { bpf_get_smp_processor_id() }
}
