//! Stacks by another unwinder, framehop, of a thread that is stopped for it: what a recorded stack is compared with.
//!
//! polletto never stops what it records. A scenario may: a thread that sleeps, or spins in one function, has the same
//! callers before and after.

use std::{
    cell::RefCell,
    collections::HashMap,
    fs::{self, File},
    io,
    ops::Range,
    os::unix::fs::FileExt,
    ptr::{null_mut, without_provenance_mut},
};

use framehop::{
    CacheNative, ExplicitModuleSectionInfo, FrameAddress, Module, UnwindRegsNative, Unwinder, UnwinderNative,
};
use object::{Object, ObjectSection, ObjectSegment, SegmentFlags, elf::PF_X};

use crate::{
    trace::{Nanoseconds, Tid},
    workload::boottime,
};

const PAGE_BYTES: usize = 4096;

/// `mov rax, 15; syscall`: x86-64's return from a signal handler, wherever it stands.
const TRAMPOLINE: [u8; 9] = [0x48, 0xc7, 0xc0, 0x0f, 0, 0, 0, 0x0f, 0x05];

/// A frame by the file's own address, as a trace has it: inside of the calling instruction for a caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The file; empty for code that is in none.
    pub path: String,
    /// The file's own address.
    pub address: u64,
}

/// A stack at a moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    /// A moment before the thread was stopped.
    pub at: Nanoseconds,
    /// The innermost first.
    pub places: Vec<Place>,
    /// Which of them is the code that a signal handler returns to: its address can be seen as that of a call or not.
    pub trampoline: Option<usize>,
}

/// An unwinder for one process. It knows the files that were mapped when it was made.
pub struct ReferenceUnwinder {
    unwinder: UnwinderNative<Vec<u8>, framehop::MayAllocateDuringUnwind>,
    cache: CacheNative<framehop::MayAllocateDuringUnwind>,
    mappings: Vec<Mapping>,
}

/// A file's code in the process.
struct Mapping {
    addresses: Range<u64>,
    /// What to subtract from an address to get the file's own.
    bias: u64,
    path: String,
}

impl ReferenceUnwinder {
    /// Reads the process's mappings and their files.
    pub fn of_process(pid: Tid) -> io::Result<ReferenceUnwinder> {
        let mut reference =
            ReferenceUnwinder { unwinder: UnwinderNative::new(), cache: CacheNative::new(), mappings: Vec::new() };
        for line in fs::read_to_string(format!("/proc/{pid}/maps"))?.lines() {
            let Some((addresses, offset, path)) = executable_file(line) else { continue };
            let bytes = fs::read(path)?;
            let file = object::File::parse(&*bytes).map_err(io::Error::other)?;
            let Some(bias) = bias(&file, addresses.start, offset) else { continue };
            let module = Module::new(path.to_owned(), addresses.clone(), bias, sections(&file));
            reference.unwinder.add_module(module);
            reference.mappings.push(Mapping { addresses, bias, path: path.to_owned() });
        }
        Ok(reference)
    }

    /// Stops a thread of the process, unwinds its stack and lets it go on. A system call that it sleeps in begins anew.
    pub fn look(&mut self, tid: Tid) -> io::Result<Reference> {
        let at = boottime();
        let stopped = Stopped::stop(tid)?;
        let registers = stopped.registers()?;
        let memory = Memory::of_thread(tid)?;
        let mut registers = UnwindRegsNative::new(registers.rip, registers.rsp, registers.rbp);
        let mut next = Some(FrameAddress::from_instruction_pointer(registers.ip()));
        let (mut addresses, mut trampoline) = (Vec::new(), None);
        while let Some(address) = next {
            addresses.push(address);
            next = if memory.bytes(address.address()) == Some(TRAMPOLINE) {
                trampoline = Some(addresses.len() - 1);
                interrupted(&memory, &mut registers)
            } else {
                let mut read = |address| memory.word(address).ok_or(());
                let caller = self.unwinder.unwind_frame(address, &mut registers, &mut self.cache, &mut read);
                let caller = caller.map_err(|error| io::Error::other(format!("{error}, after {addresses:x?}")))?;
                caller.and_then(FrameAddress::from_return_address)
            };
        }
        drop(stopped);
        let places = addresses.into_iter().map(|address| self.place(address.address_for_lookup())).collect();
        Ok(Reference { at, places, trampoline })
    }

    fn place(&self, address: u64) -> Place {
        match self.mappings.iter().find(|mapping| mapping.addresses.contains(&address)) {
            Some(mapping) => Place { path: mapping.path.clone(), address: address.wrapping_sub(mapping.bias) },
            None => Place { path: String::new(), address },
        }
    }
}

/// What a signal interrupted, by the registers that the kernel has put on the stack. framehop doesn't follow those.
fn interrupted(memory: &Memory, registers: &mut UnwindRegsNative) -> Option<FrameAddress> {
    // The stack pointer is at a `ucontext_t`; these are offsets into it.
    const RBP: u64 = 120;
    const RSP: u64 = 160;
    const RIP: u64 = 168;
    let context = registers.sp();
    let saved = |offset| memory.word(context + offset);
    let (bp, sp, ip) = (saved(RBP)?, saved(RSP)?, saved(RIP)?);
    *registers = UnwindRegsNative::new(ip, sp, bp);
    Some(FrameAddress::from_instruction_pointer(ip))
}

/// Addresses, offset and path of a line of `/proc/PID/maps` about code of a file.
fn executable_file(line: &str) -> Option<(Range<u64>, u64, &str)> {
    let path = &line[line.find('/')?..];
    let mut fields = line.split_ascii_whitespace();
    let (start, end) = fields.next()?.split_once('-')?;
    let is_executable = fields.next()?.contains('x');
    let number = |digits: &str| u64::from_str_radix(digits, 16).ok();
    let offset = number(fields.next()?)?;
    is_executable.then_some((number(start)?..number(end)?, offset, path))
}

/// How far code of the file that is mapped from `offset` on is from the file's own addresses.
fn bias(file: &object::File<'_>, start: u64, offset: u64) -> Option<u64> {
    let mut segments = file.segments().filter(|segment| {
        let (begin, length) = segment.file_range();
        let is_code = matches!(segment.flags(), SegmentFlags::Elf { p_flags } if p_flags & PF_X != 0);
        // A mapping begins at a page, so possibly before its segment.
        is_code && begin < offset + PAGE_BYTES as u64 && offset < begin + length
    });
    let segment = segments.next()?;
    let own = segment.address().wrapping_add(offset.wrapping_sub(segment.file_range().0));
    Some(start.wrapping_sub(own))
}

fn sections(file: &object::File<'_>) -> ExplicitModuleSectionInfo<Vec<u8>> {
    let section = |name| file.section_by_name(name);
    let range = |name| section(name).map(|section| section.address()..section.address() + section.size());
    let bytes = |name| section(name).and_then(|section| section.data().ok()).map(<[u8]>::to_vec);
    ExplicitModuleSectionInfo {
        base_svma: 0,
        text_svma: range(".text"),
        text: bytes(".text"),
        got_svma: range(".got"),
        eh_frame_svma: range(".eh_frame"),
        eh_frame: bytes(".eh_frame"),
        eh_frame_hdr_svma: range(".eh_frame_hdr"),
        eh_frame_hdr: bytes(".eh_frame_hdr"),
        ..ExplicitModuleSectionInfo::default()
    }
}

/// A thread that stands still until this is dropped.
struct Stopped(Tid);

impl Stopped {
    fn stop(tid: Tid) -> io::Result<Stopped> {
        trace(libc::PTRACE_SEIZE, tid, 0)?;
        let stopped = Stopped(tid);
        trace(libc::PTRACE_INTERRUPT, tid, 0)?;
        let mut status = 0;
        // SAFETY: the status is a live value.
        match unsafe { libc::waitpid(tid, &raw mut status, libc::__WALL) } {
            waited if waited == tid && libc::WIFSTOPPED(status) => Ok(stopped),
            -1 => Err(io::Error::last_os_error()),
            _ => Err(io::Error::other(format!("thread {tid} did not stop, it has status {status:#x}"))),
        }
    }

    fn registers(&self) -> io::Result<libc::user_regs_struct> {
        // SAFETY: registers of zeros are valid ones.
        let mut registers: libc::user_regs_struct = unsafe { std::mem::zeroed() };
        trace(libc::PTRACE_GETREGS, self.0, (&raw mut registers).addr())?;
        Ok(registers)
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        // It may have been killed meanwhile.
        trace(libc::PTRACE_DETACH, self.0, 0).ok();
    }
}

/// `data` is 0, or the address of a live value of the type that the request writes.
fn trace(request: libc::c_uint, tid: Tid, data: usize) -> io::Result<()> {
    // SAFETY: none of the requests that are made here reads or writes this process's memory but for `data`.
    match unsafe { libc::ptrace(request, tid, null_mut::<u8>(), without_provenance_mut::<u8>(data)) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// A stopped thread's memory, page by page.
struct Memory {
    file: File,
    pages: RefCell<HashMap<u64, Option<Box<[u8; PAGE_BYTES]>>>>,
}

impl Memory {
    fn of_thread(tid: Tid) -> io::Result<Memory> {
        Ok(Memory { file: File::open(format!("/proc/{tid}/mem"))?, pages: RefCell::default() })
    }

    fn word(&self, address: u64) -> Option<u64> {
        self.bytes(address).map(u64::from_ne_bytes)
    }

    /// None where there is no memory, and across pages, where no word of a stack is.
    fn bytes<const COUNT: usize>(&self, address: u64) -> Option<[u8; COUNT]> {
        let within = usize::try_from(address % PAGE_BYTES as u64).ok()?;
        let first = address - within as u64;
        let mut pages = self.pages.borrow_mut();
        let page = pages.entry(first).or_insert_with(|| {
            let mut page = Box::new([0; PAGE_BYTES]);
            self.file.read_exact_at(&mut *page, first).is_ok().then_some(page)
        });
        page.as_ref()?.get(within..within + COUNT)?.try_into().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_code_of_files_is_of_interest() {
        let line = "7f0-7f8 r-xp 00002000 fe:00 123    /usr/lib/a library.so";
        assert_eq!(executable_file(line), Some((0x7f0..0x7f8, 0x2000, "/usr/lib/a library.so")));
        for other in ["7f0-7f8 r--p 00002000 fe:00 123  /usr/lib/libc.so.6", "7f0-7f8 r-xp 00000000 00:00 0  [vdso]"] {
            assert_eq!(executable_file(other), None);
        }
    }
}
