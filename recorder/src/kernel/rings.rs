//! One ring per CPU, read by a timer.

use anyhow::{Context, Result};
use aya::{
    Ebpf,
    maps::{ArrayOfMaps, Map, MapData, RingBuf},
};
use polletto_common::record::Record;

use super::merge::Merge;

/// `BPF_MAP_TYPE_RINGBUF`
const RING_BUFFER: u32 = 27;

/// The rings of a recording, and what was read ahead from them.
pub struct Rings {
    /// In the order of the merge's queues.
    rings: Vec<RingBuf<MapData>>,
    merge: Merge,
    /// Keeps the map of rings alive, as long as programs may use it.
    _outer: ArrayOfMaps<MapData>,
}

impl Rings {
    /// Makes a ring for each of these CPUs and gives them to the programs.
    pub fn create(ebpf: &mut Ebpf, cpus: &[u32], ring_bytes: u32) -> Result<Rings> {
        let map = ebpf.take_map("RINGS").context("no map `RINGS`")?;
        let mut outer: ArrayOfMaps<MapData> = map.try_into()?;
        let mut rings = Vec::with_capacity(cpus.len());
        for &cpu in cpus {
            let definition = aya_obj::Map::new_from_params(RING_BUFFER, 0, 0, ring_bytes, 0);
            let ring = MapData::create(definition, "polletto_ring", None)
                .with_context(|| format!("could not make a ring of {ring_bytes} bytes for CPU {cpu}"))?;
            outer.set(cpu, &ring, 0).with_context(|| format!("could not give CPU {cpu} its ring"))?;
            rings.push(RingBuf::try_from(Map::RingBuf(ring))?);
        }
        Ok(Rings { merge: Merge::new(rings.len()), rings, _outer: outer })
    }

    /// Reads every ring up to `now_ns` and passes on, in the order of time, what no unread record can precede.
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

    /// Stops at the first record of a ring that is newer, so that a ring that fills as fast as it is read holds nobody up.
    fn read_until(&mut self, until_ns: u64) -> Result<()> {
        for (queue, ring) in self.rings.iter_mut().enumerate() {
            while let Some(bytes) = ring.next() {
                let record =
                    Record::decode(&bytes).context("the kernel programs wrote what the recorder can't read")?;
                let is_newer = record.header().time_ns > until_ns;
                self.merge.push(queue, record);
                if is_newer {
                    break;
                }
            }
        }
        Ok(())
    }
}
