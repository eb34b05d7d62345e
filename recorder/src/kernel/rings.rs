//! Each CPU's ways from the kernel, read by a timer.

use std::os::fd::BorrowedFd;

use anyhow::{Context, Result};
use aya::{
    Ebpf,
    maps::{Map, MapData, RingBuf},
};
use polletto_common::{
    limits::TASK_RING_BYTES,
    record::{DecodeError, Record, Stack},
    stream::Slot,
};

use super::{
    mappings::{MemoryEvent, MemoryEvents},
    merge::{Merge, Timed},
    outer::OuterMap,
    settings::Settings,
    stream::Stream,
};

/// `BPF_MAP_TYPE_RINGBUF`
const RING_BUFFER: u32 = 27;

/// What comes from the kernel.
#[derive(Clone, Debug)]
pub enum Taken {
    /// A record of the kernel programs.
    Record(Record),
    /// A stack that the next samples may refer to, and its frames.
    Stack(Box<(Stack, Vec<u64>)>),
    /// A change of a process's memory.
    Memory(Box<MemoryEvent>),
}

impl Timed for Taken {
    fn time_ns(&self) -> u64 {
        match self {
            Taken::Record(record) => record.header().time_ns,
            Taken::Stack(stack) => stack.0.header.time_ns,
            Taken::Memory(event) => event.time_ns,
        }
    }
}

/// The streams and rings of a recording, and what was read ahead from them.
pub struct Rings {
    /// In the order of the merge's queues: streams, rings for samples, rings for threads, events of memory.
    streams: Vec<Stream>,
    sample_rings: Vec<RingBuf<MapData>>,
    task_rings: Vec<RingBuf<MapData>>,
    memory: MemoryEvents,
    merge: Merge<Taken>,
    /// Keep the maps alive, as long as programs may use them.
    _outer: [OuterMap; 3],
}

impl Rings {
    /// Makes streams for the CPUs whose switches are wanted, and rings for all, since threads begin, wake and are renamed
    /// anywhere; and gives them to the programs.
    /// Without stacks and polls the rings for samples are as small as they can be, and nobody asks for events of memory.
    pub fn create(
        ebpf: &mut Ebpf,
        wanted_cpus: &[u32],
        all_cpus: &[u32],
        stream_slots: u32,
        settings: &Settings,
    ) -> Result<Rings> {
        let mut outer = |name| OuterMap::new(ebpf.take_map(name).with_context(|| format!("no map `{name}`"))?);
        let mut outer = [outer("STREAMS")?, outer("SAMPLE_RINGS")?, outer("TASK_RINGS")?];
        let [outer_streams, outer_samples, outer_tasks] = &mut outer;
        let stream_bytes = stream_slots * size_of::<Slot>() as u32;
        let stream = |_| {
            Stream::create(stream_slots)
                .with_context(|| format!("could not make a stream of {} KiB", stream_bytes / 1024))
        };
        let streams = (0..wanted_cpus.len()).map(stream).collect::<Result<Vec<_>>>()?;
        let (streams, stream_maps): (Vec<_>, Vec<_>) = streams.into_iter().unzip();
        give(outer_streams, wanted_cpus, &stream_maps)?;
        // A ring has at least a page.
        let sample_bytes = if settings.needs_sample_rings() { (stream_bytes / 2).max(4096) } else { 4096 };
        let sample_rings = rings(outer_samples, all_cpus, sample_bytes, "polletto_samples")?;
        let task_rings = rings(outer_tasks, all_cpus, TASK_RING_BYTES as u32, "polletto_tasks")?;
        let memory = MemoryEvents::open(if settings.needs_mappings() { all_cpus } else { &[] })?;
        let merge = Merge::new(streams.len() + sample_rings.len() + task_rings.len() + memory.rings());
        Ok(Rings { streams, sample_rings, task_rings, memory, merge, _outer: outer })
    }

    /// Readable when a process's memory has changed.
    pub fn memory_descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.memory.descriptors()
    }

    /// Reads everything up to `now_ns` and passes on, in the order of time, what no unread record can precede.
    pub fn drain(&mut self, now_ns: u64, take: impl FnMut(Taken)) -> Result<()> {
        self.read_until(now_ns)?;
        self.merge.advance(now_ns, take);
        Ok(())
    }

    /// Reads and passes on everything.
    pub fn drain_all(&mut self, take: impl FnMut(Taken)) -> Result<()> {
        self.read_until(u64::MAX)?;
        self.merge.finish(take);
        Ok(())
    }

    fn read_until(&mut self, until_ns: u64) -> Result<()> {
        let Rings { streams, sample_rings, task_rings, memory, merge, .. } = self;
        let mut queue = 0;
        for stream in streams {
            read(
                until_ns,
                || stream.next().map(|record| Ok(Taken::Record(record?))),
                |taken| merge.push(queue, taken),
            )?;
            queue += 1;
        }
        for ring in sample_rings.iter_mut().chain(task_rings) {
            read(until_ns, || ring.next().map(|bytes| decode(&bytes)), |taken| merge.push(queue, taken))?;
            queue += 1;
        }
        for ring in 0..memory.rings() {
            memory.read(ring, |event| merge.push(queue + ring, Taken::Memory(Box::new(event))));
        }
        Ok(())
    }
}

/// A ring for each of these CPUs.
fn rings(outer: &mut OuterMap, cpus: &[u32], bytes: u32, name: &str) -> Result<Vec<RingBuf<MapData>>> {
    let create = |_| {
        MapData::create(aya_obj::Map::new_from_params(RING_BUFFER, 0, 0, bytes, 0), name, None)
            .with_context(|| format!("could not make a ring of {} KiB", bytes / 1024))
    };
    let rings = (0..cpus.len()).map(create).collect::<Result<Vec<_>>>()?;
    give(outer, cpus, &rings)?;
    rings.into_iter().map(|ring| Ok(RingBuf::try_from(Map::RingBuf(ring))?)).collect()
}

/// Gives each of these CPUs its map.
fn give(outer: &mut OuterMap, cpus: &[u32], maps: &[MapData]) -> Result<()> {
    let elements: Vec<_> = cpus.iter().copied().zip(maps).collect();
    outer.set(&elements).context("could not give CPUs their rings")
}

/// Stacks are no [`Record`]s: they have a tail.
fn decode(bytes: &[u8]) -> Result<Taken, DecodeError> {
    match Record::decode(bytes) {
        Err(DecodeError::UnknownKind(_)) => {
            let (stack, frames) = Stack::decode(bytes)?;
            let (frames, _) = frames.as_chunks::<8>();
            Ok(Taken::Stack(Box::new((stack, frames.iter().map(|frame| u64::from_ne_bytes(*frame)).collect()))))
        }
        record => record.map(Taken::Record),
    }
}

/// Stops at the first record that is newer, so that a CPU that writes as fast as it is read holds nobody up.
fn read(
    until_ns: u64,
    mut next: impl FnMut() -> Option<Result<Taken, DecodeError>>,
    mut push: impl FnMut(Taken),
) -> Result<()> {
    while let Some(taken) = next() {
        let taken = taken.context("the kernel programs wrote what the recorder can't read")?;
        let is_newer = taken.time_ns() > until_ns;
        push(taken);
        if is_newer {
            break;
        }
    }
    Ok(())
}
