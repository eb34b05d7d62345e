//! What is mapped in which process, where the kernel programs find it.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use aya::{
    Ebpf, Pod,
    maps::{HashMap, MapData},
};
use memmap2::MmapRaw;
use polletto_common::{
    id::Tgid,
    unwind::{AddressSpace, MAX_ADDRESS_SPACES, SpaceKey},
};
use rustc_hash::FxHashMap;

use super::outer::{OuterMap, array};

/// Spaces that are made at once, since giving them to the programs takes the kernel ten milliseconds.
const MADE_AT_ONCE: usize = 32;

/// How long a program may still look at a space that was replaced: it takes microseconds, but an interrupt or a hypervisor
/// can come in between.
const REST: Duration = Duration::from_millis(200);

/// A value that aya passes to the kernel as bytes.
#[derive(Clone, Copy)]
#[repr(transparent)]
struct Key(SpaceKey);

// SAFETY: two `#[repr(C)]` integers, of which any bytes are valid.
unsafe impl Pod for Key {}

/// Address spaces, each in a map of its own. One that changes is written anew into a free map, so that a program sees
/// either the old one or the new one.
pub struct Spaces {
    outer: OuterMap,
    memory: Vec<MmapRaw>,
    free: Vec<u32>,
    /// Those that were replaced, and when.
    resting: Vec<(Instant, u32)>,
    /// For the programs: where each process's space is.
    keys: HashMap<MapData, u32, Key>,
    /// The same, for us.
    of: FxHashMap<Tgid, u32>,
}

impl Spaces {
    pub fn take(ebpf: &mut Ebpf) -> Result<Spaces> {
        let mut take = |name| ebpf.take_map(name).with_context(|| format!("no map `{name}`"));
        let mut spaces = Spaces {
            outer: OuterMap::new(take("SPACES")?)?,
            memory: Vec::new(),
            free: Vec::new(),
            resting: Vec::new(),
            keys: HashMap::try_from(take("SPACE_OF")?)?,
            of: FxHashMap::default(),
        };
        spaces.grow()?;
        Ok(spaces)
    }

    /// Says what is mapped in a process.
    pub fn set(&mut self, process: Tgid, space: &AddressSpace) -> Result<()> {
        let slot = self.free_slot()?;
        let memory = self.memory[slot as usize].as_mut_ptr().cast::<AddressSpace>();
        // SAFETY: the map is as large as a space, and no program looks at it before the next call.
        unsafe { memory.write(*space) };
        let key = Key(SpaceKey { slot, version: space.version });
        if let Err(error) = self.keys.insert(process.0, key, 0) {
            self.free.push(slot);
            // What was true before is not any more.
            self.remove(process);
            return Err(error).with_context(|| format!("no room for the mappings of {process}"));
        }
        let before = self.of.insert(process, slot);
        self.resting.extend(before.map(|slot| (Instant::now(), slot)));
        Ok(())
    }

    /// Forgets a process.
    pub fn remove(&mut self, process: Tgid) {
        // Kernel programs add those of new processes, so that there may be one that was never set.
        self.keys.remove(&process.0).ok();
        self.resting.extend(self.of.remove(&process).map(|slot| (Instant::now(), slot)));
    }

    fn free_slot(&mut self) -> Result<u32> {
        let Spaces { free, resting, .. } = self;
        resting.retain(|&(since, slot)| {
            let rests = since.elapsed() < REST;
            free.extend((!rests).then_some(slot));
            rests
        });
        if self.free.is_empty() {
            self.grow()?;
        }
        self.free.pop().context("too many processes at the same time")
    }

    fn grow(&mut self) -> Result<()> {
        let first = self.memory.len();
        let wanted = (first + MADE_AT_ONCE).min(MAX_ADDRESS_SPACES);
        ensure!(wanted > first, "too many processes at the same time");
        let make = |_| array(size_of::<AddressSpace>(), "polletto_space");
        let made = (first..wanted).map(make).collect::<Result<Vec<_>>>()?;
        let elements: Vec<_> = made.iter().enumerate().map(|(index, (map, _))| ((first + index) as u32, map)).collect();
        self.outer.set(&elements).context("could not give the programs room for mappings")?;
        self.memory.extend(made.into_iter().map(|(_, memory)| memory));
        self.free.extend((first as u32..wanted as u32).rev());
        Ok(())
    }
}
