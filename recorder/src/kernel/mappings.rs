//! Mappings of executable memory as they are made, told by perf's own events: no kernel program can see them.
//!
//! One event per CPU that counts nothing, for all processes. Where memory is unmapped the kernel tells nothing; what is
//! mapped there next replaces it.

use std::{
    io, mem,
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
    path::PathBuf,
    sync::atomic::{AtomicU64, Ordering},
};

use anyhow::{Context, Result};
use memmap2::{MmapOptions, MmapRaw};
use perf_event_open_sys::{self as perf, bindings};
use polletto_common::id::Tgid;

use crate::target::CodeRange;

/// Pages of a ring that hold events: a power of two. A process that starts maps a dozen libraries, each 150 bytes.
const RING_PAGES: usize = 64;

/// Something about a process's memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryEvent {
    /// CLOCK_BOOTTIME nanoseconds.
    pub time_ns: u64,
    /// The process.
    pub tgid: Tgid,
    /// What happened.
    pub change: MemoryChange,
}

/// What happened to a process's memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MemoryChange {
    /// Executable memory was mapped, or memory made executable.
    Mapped(CodeRange),
    /// The process starts another program: nothing of what was mapped is any more.
    Replaced,
    /// So many events found no room: anyone's mappings may have changed.
    Lost(u64),
}

/// All CPUs' events.
pub struct MemoryEvents {
    rings: Vec<Ring>,
}

impl MemoryEvents {
    /// From now on nothing is missed.
    pub fn open(cpus: &[u32]) -> Result<MemoryEvents> {
        let open = |&cpu| Ring::open(cpu).with_context(|| format!("could not watch mappings on CPU {cpu}"));
        Ok(MemoryEvents { rings: cpus.iter().map(open).collect::<Result<_>>()? })
    }

    /// Readable when there is something to read.
    pub fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.rings.iter().map(|ring| ring.event.as_fd())
    }

    /// How many rings there are.
    pub fn rings(&self) -> usize {
        self.rings.len()
    }

    /// Takes what is in a ring.
    pub fn read(&mut self, ring: usize, mut take: impl FnMut(MemoryEvent)) {
        self.rings[ring].read(&mut take);
    }
}

/// One CPU's events.
struct Ring {
    event: OwnedFd,
    memory: MmapRaw,
    /// A record that goes round the ring's end, in one piece.
    record: Vec<u8>,
}

impl Ring {
    fn open(cpu: u32) -> io::Result<Ring> {
        let mut attributes = bindings::perf_event_attr {
            size: size_of::<bindings::perf_event_attr>() as u32,
            type_: bindings::PERF_TYPE_SOFTWARE,
            config: u64::from(bindings::PERF_COUNT_SW_DUMMY),
            sample_type: bindings::PERF_SAMPLE_TIME.into(),
            clockid: libc::CLOCK_BOOTTIME,
            ..Default::default()
        };
        attributes.set_mmap(1);
        attributes.set_mmap2(1);
        attributes.set_comm(1);
        attributes.set_comm_exec(1);
        attributes.set_sample_id_all(1);
        attributes.set_use_clockid(1);
        // Whoever waits is woken by the first byte. Counted are only events that are samples.
        attributes.set_watermark(1);
        attributes.__bindgen_anon_2.wakeup_watermark = 1;
        let flags = bindings::PERF_FLAG_FD_CLOEXEC.into();
        // SAFETY: the attributes are initialized, and the kernel only reads them.
        let fd = unsafe { perf::perf_event_open(&raw mut attributes, -1, cpu as i32, -1, flags) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel just made it, and nobody else knows it.
        let event = unsafe { OwnedFd::from_raw_fd(fd) };
        let page = rustix::param::page_size();
        let memory = MmapOptions::new().len((1 + RING_PAGES) * page).map_raw(event.as_fd().as_raw_fd())?;
        Ok(Ring { event, memory, record: Vec::new() })
    }

    fn read(&mut self, take: &mut impl FnMut(MemoryEvent)) {
        let page = rustix::param::page_size();
        let control = self.memory.as_mut_ptr().cast::<bindings::perf_event_mmap_page>();
        // SAFETY: the first page is the kernel's control page, and these two words are shared with it.
        let (head, tail) = unsafe {
            (AtomicU64::from_ptr(&raw mut (*control).data_head), AtomicU64::from_ptr(&raw mut (*control).data_tail))
        };
        let end = head.load(Ordering::Acquire);
        let mut at = tail.load(Ordering::Relaxed);
        // SAFETY: behind the first page are `RING_PAGES`, which the kernel leaves alone between tail and head.
        let data = unsafe { std::slice::from_raw_parts(self.memory.as_ptr().add(page), RING_PAGES * page) };
        while at < end {
            let size = copy_record(data, at, &mut self.record);
            if size == 0 {
                break;
            }
            at += size as u64;
            if let Some(event) = parse(&self.record) {
                take(event);
            }
        }
        tail.store(end, Ordering::Release);
    }
}

/// Copies the record at `at`, which may go round the end. Returns its length; 0 for one that is damaged.
fn copy_record(data: &[u8], at: u64, record: &mut Vec<u8>) -> usize {
    const SIZE: usize = mem::offset_of!(bindings::perf_event_header, size);
    let start = at as usize % data.len();
    let byte = |index: usize| data[(start + index) % data.len()];
    let size = usize::from(u16::from_ne_bytes([byte(SIZE), byte(SIZE + 1)]));
    if size < size_of::<bindings::perf_event_header>() {
        return 0;
    }
    record.clear();
    let first = size.min(data.len() - start);
    record.extend_from_slice(&data[start..start + first]);
    record.extend_from_slice(&data[..size - first]);
    size
}

/// Reads a record, if it is of interest. All end with their time.
fn parse(record: &[u8]) -> Option<MemoryEvent> {
    const COMM_EXEC: u16 = bindings::PERF_RECORD_MISC_COMM_EXEC as u16;
    let mut fields = Fields(record);
    let kind = fields.u32()?;
    let (misc, _size) = (fields.u16()?, fields.u16()?);
    let time_ns = u64::from_ne_bytes(record.last_chunk().copied()?);
    let (tgid, change) = match kind {
        bindings::PERF_RECORD_MMAP2 => {
            let (tgid, _tid) = (fields.u32()?, fields.u32()?);
            let (start, length, file_offset) = (fields.u64()?, fields.u64()?, fields.u64()?);
            let device = (fields.u32()?, fields.u32()?);
            let (inode, _generation) = (fields.u64()?, fields.u64()?);
            let (_protection, _flags) = (fields.u32()?, fields.u32()?);
            let end = start.checked_add(length)?;
            (tgid, MemoryChange::Mapped(CodeRange { start, end, file_offset, device, inode, path: fields.path()? }))
        }
        bindings::PERF_RECORD_COMM if misc & COMM_EXEC != 0 => (fields.u32()?, MemoryChange::Replaced),
        bindings::PERF_RECORD_LOST => {
            let _id = fields.u64()?;
            (0, MemoryChange::Lost(fields.u64()?))
        }
        _ => return None,
    };
    Some(MemoryEvent { time_ns, tgid: Tgid(tgid), change })
}

/// What is left of a record.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (field, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*field)
    }

    fn u16(&mut self) -> Option<u16> {
        self.take().map(u16::from_ne_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_ne_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_ne_bytes)
    }

    /// Bytes up to a NUL.
    fn path(&mut self) -> Option<PathBuf> {
        use std::{ffi::OsStr, os::unix::ffi::OsStrExt};
        let end = self.0.iter().position(|&byte| byte == 0)?;
        Some(PathBuf::from(OsStr::from_bytes(&self.0[..end])))
    }
}

#[cfg(test)]
mod tests {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};

    use super::*;

    fn record(kind: u32, misc: u16, fields: &[&[u8]]) -> Vec<u8> {
        let body = fields.concat();
        let size = 8 + body.len() + 8;
        let mut record = kind.to_ne_bytes().to_vec();
        record.extend(misc.to_ne_bytes());
        record.extend((size as u16).to_ne_bytes());
        record.extend(body);
        record.extend(99_u64.to_ne_bytes());
        record
    }

    fn mapping() -> Vec<u8> {
        let numbers: Vec<u8> = [0x1000_u64, 0x200, 0x3000].iter().flat_map(|word| word.to_ne_bytes()).collect();
        let file: Vec<u8> = [8_u32, 1, 77, 0, 5, 0, 5, 2].iter().flat_map(|word| word.to_ne_bytes()).collect();
        record(
            bindings::PERF_RECORD_MMAP2,
            0,
            &[&7_u32.to_ne_bytes(), &8_u32.to_ne_bytes(), &numbers, &file, b"/a b\n\0\0\0"],
        )
    }

    #[test]
    fn a_mapping_is_read_with_its_file_and_time() {
        let range = CodeRange {
            start: 0x1000,
            end: 0x1200,
            file_offset: 0x3000,
            device: (8, 1),
            inode: 77,
            path: "/a b\n".into(),
        };
        let event = MemoryEvent { time_ns: 99, tgid: Tgid(7), change: MemoryChange::Mapped(range) };
        assert_eq!(parse(&mapping()), Some(event));
    }

    #[test]
    fn only_a_name_that_came_with_a_program_replaces_mappings() {
        let fields: [&[u8]; 3] = [&7_u32.to_ne_bytes(), &7_u32.to_ne_bytes(), b"name\0\0\0\0"];
        let exec = record(bindings::PERF_RECORD_COMM, bindings::PERF_RECORD_MISC_COMM_EXEC as u16, &fields);
        let replaced = MemoryEvent { time_ns: 99, tgid: Tgid(7), change: MemoryChange::Replaced };
        assert_eq!(parse(&exec), Some(replaced));
        assert_eq!(parse(&record(bindings::PERF_RECORD_COMM, 0, &fields)), None);
    }

    #[test]
    fn a_cut_record_is_none() {
        let whole = mapping();
        for length in 0..whole.len() - 8 {
            parse(&whole[..length]);
        }
        assert_eq!(parse(&whole[..40]), None);
    }

    #[test]
    fn a_record_may_go_round_the_end() {
        let whole = mapping();
        let mut data = vec![0; 256];
        for (index, byte) in whole.iter().enumerate() {
            data[(250 + index) % 256] = *byte;
        }
        let mut record = Vec::new();
        assert_eq!(copy_record(&data, 256 + 250, &mut record), whole.len());
        assert_eq!(record, whole);
        assert_eq!(copy_record(&[0; 16], 0, &mut record), 0);
    }

    #[test]
    fn the_kernel_tells_of_our_own_mappings_and_wakes_who_waits_for_them() {
        let mut events = MemoryEvents::open(&crate::kernel::online_cpus().unwrap()).unwrap();
        let executable = MmapOptions::new().len(4096).map_anon().unwrap().make_exec().unwrap();
        let mut polled: Vec<_> = events.descriptors().map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)).collect();
        let at_most = Timespec { tv_sec: 10, tv_nsec: 0 };
        assert!(poll(&mut polled, Some(&at_most)).unwrap() > 0);
        let mut seen = Vec::new();
        for ring in 0..events.rings() {
            events.read(ring, |event| seen.push(event));
        }
        let start = executable.as_ptr() as u64;
        let is_ours = |event: &MemoryEvent| {
            event.tgid.0 == std::process::id()
                && matches!(&event.change, MemoryChange::Mapped(range) if (range.start..range.end).contains(&start))
        };
        assert!(seen.iter().any(is_ours), "{seen:?}");
    }
}
