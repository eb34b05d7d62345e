//! Each CPU's ways from the kernel, read by a timer.

use anyhow::{Context, Result};
use aya::{
    Ebpf,
    maps::{ArrayOfMaps, Map, MapData, RingBuf},
};
use polletto_common::{
    limits::TASK_RING_BYTES,
    record::{DecodeError, Record, Stack},
    stream::Slot,
};

use super::{
    mappings::{MemoryEvent, MemoryEvents},
    merge::{Merge, Timed},
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
    _outer: [ArrayOfMaps<MapData>; 3],
}

impl Rings {
    /// Makes streams for the CPUs whose switches are wanted, and rings for all, since threads begin, wake and are renamed
    /// anywhere; and gives them to the programs.
    pub fn create(ebpf: &mut Ebpf, wanted_cpus: &[u32], all_cpus: &[u32], stream_slots: u32) -> Result<Rings> {
        let mut outer = |name| -> Result<ArrayOfMaps<MapData>> {
            Ok(ebpf.take_map(name).with_context(|| format!("no map `{name}`"))?.try_into()?)
        };
        let (mut outer_streams, mut outer_samples, mut outer_tasks) =
            (outer("STREAMS")?, outer("SAMPLE_RINGS")?, outer("TASK_RINGS")?);
        let stream_bytes = stream_slots * size_of::<Slot>() as u32;
        let (mut streams, mut sample_rings, mut task_rings) = (Vec::new(), Vec::new(), Vec::new());
        for &cpu in wanted_cpus {
            let (stream, map) = Stream::create(stream_slots)
                .with_context(|| format!("could not make a stream of {} KiB for CPU {cpu}", stream_bytes / 1024))?;
            outer_streams.set(cpu, &map, 0).with_context(|| format!("could not give CPU {cpu} its stream"))?;
            streams.push(stream);
            // A ring has at least a page.
            let bytes = (stream_bytes / 2).max(4096);
            sample_rings.push(ring(&mut outer_samples, cpu, bytes, "polletto_samples")?);
        }
        for &cpu in all_cpus {
            task_rings.push(ring(&mut outer_tasks, cpu, TASK_RING_BYTES as u32, "polletto_tasks")?);
        }
        let memory = MemoryEvents::open(all_cpus)?;
        let merge = Merge::new(streams.len() + sample_rings.len() + task_rings.len() + memory.rings());
        let outer = [outer_streams, outer_samples, outer_tasks];
        Ok(Rings { streams, sample_rings, task_rings, memory, merge, _outer: outer })
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

fn ring(outer: &mut ArrayOfMaps<MapData>, cpu: u32, bytes: u32, name: &str) -> Result<RingBuf<MapData>> {
    let definition = aya_obj::Map::new_from_params(RING_BUFFER, 0, 0, bytes, 0);
    let ring = MapData::create(definition, name, None)
        .with_context(|| format!("could not make a ring of {} KiB for CPU {cpu}", bytes / 1024))?;
    outer.set(cpu, &ring, 0).with_context(|| format!("could not give CPU {cpu} its ring"))?;
    Ok(RingBuf::try_from(Map::RingBuf(ring))?)
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
