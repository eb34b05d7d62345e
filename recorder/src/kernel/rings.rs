//! Each CPU's ways from the kernel programs, read by a timer.

use anyhow::{Context, Result};
use aya::{
    Ebpf,
    maps::{ArrayOfMaps, Map, MapData, RingBuf},
};
use polletto_common::{
    limits::TASK_RING_BYTES,
    record::{DecodeError, Record},
    stream::Slot,
};

use super::{merge::Merge, stream::Stream};

/// `BPF_MAP_TYPE_RINGBUF`
const RING_BUFFER: u32 = 27;

/// The streams and rings of a recording, and what was read ahead from them.
pub struct Rings {
    /// In the order of the merge's queues: first all streams, then all rings.
    streams: Vec<Stream>,
    task_rings: Vec<RingBuf<MapData>>,
    merge: Merge,
    /// Keep the maps alive, as long as programs may use them.
    _outer: [ArrayOfMaps<MapData>; 2],
}

impl Rings {
    /// Makes streams for the CPUs whose switches are wanted, and rings for all, since threads begin and are renamed
    /// anywhere; and gives them to the programs.
    pub fn create(ebpf: &mut Ebpf, wanted_cpus: &[u32], all_cpus: &[u32], stream_slots: u32) -> Result<Rings> {
        let mut outer_streams: ArrayOfMaps<MapData> =
            ebpf.take_map("STREAMS").context("no map `STREAMS`")?.try_into()?;
        let mut outer_rings: ArrayOfMaps<MapData> =
            ebpf.take_map("TASK_RINGS").context("no map `TASK_RINGS`")?.try_into()?;
        let (mut streams, mut task_rings) = (Vec::new(), Vec::new());
        for &cpu in wanted_cpus {
            let (stream, map) = Stream::create(stream_slots).with_context(|| {
                let kib = u64::from(stream_slots) * size_of::<Slot>() as u64 / 1024;
                format!("could not make a stream of {kib} KiB for CPU {cpu}")
            })?;
            outer_streams.set(cpu, &map, 0).with_context(|| format!("could not give CPU {cpu} its stream"))?;
            streams.push(stream);
        }
        for &cpu in all_cpus {
            let definition = aya_obj::Map::new_from_params(RING_BUFFER, 0, 0, TASK_RING_BYTES as u32, 0);
            let ring = MapData::create(definition, "polletto_tasks", None)
                .with_context(|| format!("could not make a ring for CPU {cpu}"))?;
            outer_rings.set(cpu, &ring, 0).with_context(|| format!("could not give CPU {cpu} its ring"))?;
            task_rings.push(RingBuf::try_from(Map::RingBuf(ring))?);
        }
        let merge = Merge::new(streams.len() + task_rings.len());
        Ok(Rings { streams, task_rings, merge, _outer: [outer_streams, outer_rings] })
    }

    /// Reads everything up to `now_ns` and passes on, in the order of time, what no unread record can precede.
    pub fn drain(&mut self, now_ns: u64, take: impl FnMut(&Record)) -> Result<()> {
        self.read_until(now_ns)?;
        self.merge.advance(now_ns, take);
        Ok(())
    }

    /// Reads and passes on everything.
    pub fn drain_all(&mut self, take: impl FnMut(&Record)) -> Result<()> {
        self.read_until(u64::MAX)?;
        self.merge.finish(take);
        Ok(())
    }

    fn read_until(&mut self, until_ns: u64) -> Result<()> {
        let Rings { streams, task_rings, merge, .. } = self;
        let first_ring = streams.len();
        for (queue, stream) in streams.iter_mut().enumerate() {
            read(until_ns, || stream.next(), |record| merge.push(queue, record))?;
        }
        for (at, ring) in task_rings.iter_mut().enumerate() {
            let next = || ring.next().map(|bytes| Record::decode(&bytes));
            read(until_ns, next, |record| merge.push(first_ring + at, record))?;
        }
        Ok(())
    }
}

/// Stops at the first record that is newer, so that a CPU that writes as fast as it is read holds nobody up.
fn read(
    until_ns: u64,
    mut next: impl FnMut() -> Option<Result<Record, DecodeError>>,
    mut push: impl FnMut(Record),
) -> Result<()> {
    while let Some(record) = next() {
        let record = record.context("the kernel programs wrote what the recorder can't read")?;
        let is_newer = record.header().time_ns > until_ns;
        push(record);
        if is_newer {
            break;
        }
    }
    Ok(())
}
