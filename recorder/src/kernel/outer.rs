//! Maps of maps, filled all at once.
//!
//! After each call that changes one, the kernel waits until no program can still see what was there before: ten
//! milliseconds and more. So there should be few calls.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, RawFd},
};

use anyhow::{Context, Result};
use aya::maps::{ArrayOfMaps, Map, MapData};
use memmap2::{MmapOptions, MmapRaw};

/// `BPF_MAP_TYPE_ARRAY`
const ARRAY: u32 = 2;
/// `BPF_F_MMAPABLE`
const MAPPABLE: u32 = 1 << 10;

/// `BPF_MAP_UPDATE_BATCH`
const UPDATE_BATCH: libc::c_long = 26;

/// What `bpf(2)` takes for it.
#[repr(C)]
struct Batch {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map: u32,
    element_flags: u64,
    flags: u64,
}

const _: () = assert!(size_of::<Batch>() == 56);

/// An array whose elements are maps.
pub struct OuterMap {
    array: ArrayOfMaps<MapData>,
    fd: RawFd,
}

impl OuterMap {
    /// Takes what the programs' object file declares.
    pub fn new(map: Map) -> Result<OuterMap> {
        let Map::ArrayOfMaps(data) = &map else { anyhow::bail!("not an array of maps") };
        let fd = data.fd().as_fd().as_raw_fd();
        Ok(OuterMap { array: map.try_into()?, fd })
    }

    /// Sets elements.
    pub fn set(&mut self, elements: &[(u32, &MapData)]) -> Result<()> {
        if self.set_at_once(elements).is_ok() {
            return Ok(());
        }
        // Kernels before 5.14 only take one after another.
        for &(index, map) in elements {
            self.array.set(index, map, 0)?;
        }
        Ok(())
    }

    fn set_at_once(&self, elements: &[(u32, &MapData)]) -> io::Result<()> {
        let keys: Vec<u32> = elements.iter().map(|&(index, _)| index).collect();
        let values: Vec<RawFd> = elements.iter().map(|(_, map)| map.fd().as_fd().as_raw_fd()).collect();
        let mut batch = Batch {
            in_batch: 0,
            out_batch: 0,
            keys: keys.as_ptr() as u64,
            values: values.as_ptr() as u64,
            count: keys.len() as u32,
            map: self.fd as u32,
            element_flags: 0,
            flags: 0,
        };
        // SAFETY: the kernel reads `count` keys and values, which live until the call returns, and writes `count`.
        let result = unsafe { libc::syscall(libc::SYS_bpf, UPDATE_BATCH, &raw mut batch, size_of::<Batch>()) };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
}

/// A map of one value of so many bytes, and its memory.
pub fn array(bytes: usize, name: &str) -> Result<(MapData, MmapRaw)> {
    let definition = aya_obj::Map::new_from_params(ARRAY, 4, bytes as u32, 1, MAPPABLE);
    let map =
        MapData::create(definition, name, None).with_context(|| format!("could not make a map of {bytes} bytes"))?;
    let memory = mapped(&map, bytes)?;
    Ok((map, memory))
}

/// The first value of a map, in our memory.
pub fn mapped(map: &MapData, bytes: usize) -> Result<MmapRaw> {
    MmapOptions::new().len(bytes).map_raw(map.fd().as_fd().as_raw_fd()).context("could not map a map into memory")
}
