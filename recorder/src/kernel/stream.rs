//! The recorder's end of a [`stream`](polletto_common::stream).

use std::{
    os::fd::{AsFd, AsRawFd},
    sync::atomic::{AtomicU64, Ordering},
};

use anyhow::{Context, Result};
use aya::maps::MapData;
use memmap2::{MmapOptions, MmapRaw};
use polletto_common::{
    record::{DecodeError, Record},
    stream::{OWNER_WORD, SLOT_WORDS, Slot},
};

#[cfg(not(target_arch = "x86_64"))]
compile_error!("the kernel programs hand slots over by the order of plain stores, which only x86 keeps for other CPUs");

/// `BPF_MAP_TYPE_ARRAY`
const ARRAY: u32 = 2;
/// `BPF_F_MMAPABLE`
const MAPPABLE: u32 = 1 << 10;
/// `BPF_F_INNER_MAP`: as many elements as wanted, whatever the outer map's template has.
const ANY_SIZE: u32 = 1 << 12;

/// One CPU's stream, mapped.
#[derive(Debug)]
pub struct Stream {
    memory: MmapRaw,
    slots: usize,
    next: usize,
}

impl Stream {
    /// Makes a stream of as many slots, a power of two, and maps it. The map is for the kernel programs.
    pub fn create(slots: u32) -> Result<(Stream, MapData)> {
        let definition = aya_obj::Map::new_from_params(ARRAY, 4, size_of::<Slot>() as u32, slots, MAPPABLE | ANY_SIZE);
        let map = MapData::create(definition, "polletto_stream", None)?;
        let memory = MmapOptions::new()
            .len(slots as usize * size_of::<Slot>())
            .map_raw(map.fd().as_fd().as_raw_fd())
            .context("could not map a stream into memory")?;
        Ok((Stream::over(memory), map))
    }

    fn over(memory: MmapRaw) -> Stream {
        Stream { slots: memory.len() / size_of::<Slot>(), memory, next: 0 }
    }

    /// Takes the next record, if it has been written.
    pub fn next(&mut self) -> Option<Result<Record, DecodeError>> {
        // SAFETY: `next` is below `slots`, which is what was mapped, and mappings begin at a page.
        let slot = unsafe { self.memory.as_mut_ptr().cast::<Slot>().add(self.next) };
        // SAFETY: inside the mapping and aligned; nobody but the kernel programs has it, and they write whole words.
        let owner = unsafe { AtomicU64::from_ptr((&raw mut (*slot).0[OWNER_WORD]).cast()) };
        let owner_word = owner.load(Ordering::Acquire);
        if owner_word == 0 {
            return None;
        }
        // SAFETY: the slot is ours, as its owner word says, and stays so until that is set to 0 below.
        let mut words: [u64; SLOT_WORDS] = unsafe { (&raw const (*slot).0).read_volatile() };
        words[OWNER_WORD] = owner_word;
        owner.store(0, Ordering::Release);
        self.next = (self.next + 1) & (self.slots - 1);
        let mut bytes = [0; size_of::<Slot>()];
        for (bytes, word) in bytes.chunks_exact_mut(8).zip(words) {
            bytes.copy_from_slice(&word.to_ne_bytes());
        }
        Some(Record::decode(&bytes))
    }
}

#[cfg(test)]
mod tests {
    use memmap2::MmapMut;
    use polletto_common::{
        id::Tid,
        record::{Header, Layout, Waking},
        stream::words_of,
    };

    use super::*;

    const SLOTS: usize = 4;

    fn waking(time_ns: u64) -> Waking {
        let header = Header { time_ns, kind: Waking::KIND, cpu: 0, flags: 0 };
        Waking { header, tid: Tid(7), prio: 120, target_cpu: 0 }
    }

    /// What the kernel programs do with the slot at `written`. False when there is no room.
    fn put(stream: &Stream, written: usize, record: &Waking) -> bool {
        // SAFETY: inside the mapping, which nobody else has in this test.
        let slot = unsafe { &mut (*stream.memory.as_mut_ptr().cast::<Slot>().add(written % SLOTS)).0 };
        let is_free = slot[OWNER_WORD] == 0;
        if is_free {
            *slot = words_of(record);
        }
        is_free
    }

    #[test]
    fn records_come_out_in_order_round_and_round_and_a_full_stream_takes_no_more() {
        let memory = MmapMut::map_anon(SLOTS * size_of::<Slot>()).unwrap();
        let mut stream = Stream::over(memory.into());
        assert!(stream.next().is_none());
        let mut written = 0;
        let mut read = 0;
        for _ in 0..3 {
            while put(&stream, written, &waking(written as u64)) {
                written += 1;
            }
            assert_eq!(written - read, SLOTS);
            while let Some(record) = stream.next() {
                assert_eq!(record, Ok(Record::Waking(waking(read as u64))));
                read += 1;
            }
            assert_eq!(read, written);
        }
    }
}
