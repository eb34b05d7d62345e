//! The memory of other processes, read while they run and without their noticing.

use std::io;

use polletto_common::id::Tgid;

/// Memory that others write while it is read. Whatever is in it may be wrong, old, or half of two truths.
pub trait Memory {
    /// Reads each of the excerpts.
    fn read_each(&self, excerpts: &mut [Excerpt]);

    /// Reads one. It tells itself whether it is there.
    fn read(&self, address: u64, length: usize) -> Excerpt {
        let mut excerpts = [Excerpt::of(address, length)];
        self.read_each(&mut excerpts);
        let [excerpt] = excerpts;
        excerpt
    }
}

/// Bytes that are read in one piece. The longest are the heads of a runtime's lists of tasks, 8 MiB at most.
const MAX_EXCERPT: usize = 8 << 20;

/// Bytes that stand at an address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Excerpt {
    /// The first one's.
    pub address: u64,
    /// As many as are wanted, or none where that is more than there may be. What they are counts once they are read.
    pub bytes: Vec<u8>,
    /// All of them are there.
    pub is_read: bool,
}

impl Excerpt {
    /// Nothing is read yet, and nothing will be of what is too long for one: lengths come from the programs themselves.
    pub fn of(address: u64, length: usize) -> Excerpt {
        let length = if length > MAX_EXCERPT { 0 } else { length };
        Excerpt { address, bytes: vec![0; length], is_read: false }
    }

    /// The eight bytes at an offset, as a number.
    pub fn word(&self, offset: u64) -> Option<u64> {
        self.number(offset, 8)
    }

    /// The number of one to eight bytes at an offset. None where it is not in the excerpt, or that was not read.
    pub fn number(&self, offset: u64, size: usize) -> Option<u64> {
        let start = usize::try_from(offset).ok()?;
        let found = self.bytes.get(start..start.checked_add(size)?).filter(|_| self.is_read)?;
        let mut number = [0; 8];
        number.get_mut(..size)?.copy_from_slice(found);
        Some(u64::from_le_bytes(number))
    }
}

/// The memory of a process, by `process_vm_readv(2)`. Reading it needs `CAP_SYS_PTRACE`, or one user for both.
#[derive(Clone, Copy, Debug)]
pub struct ProcessMemory(pub Tgid);

/// Excerpts that are read with one call. The kernel takes 1024.
const AT_ONCE: usize = 128;

impl ProcessMemory {
    /// Whether the memory at an address can be read at all, and why not.
    pub fn check(&self, address: u64) -> io::Result<()> {
        self.read_some(&mut [Excerpt::of(address, 1)]).map(drop)
    }

    /// Reads one after another until one is not there, and says how many are.
    fn read_some(&self, excerpts: &mut [Excerpt]) -> io::Result<usize> {
        let (mut own, mut theirs) = ([EMPTY; AT_ONCE], [EMPTY; AT_ONCE]);
        let count = excerpts.len().min(AT_ONCE);
        for ((excerpt, own), theirs) in excerpts.iter_mut().zip(&mut own).zip(&mut theirs) {
            let iov_len = excerpt.bytes.len();
            *own = libc::iovec { iov_base: excerpt.bytes.as_mut_ptr().cast(), iov_len };
            *theirs = libc::iovec { iov_base: std::ptr::without_provenance_mut(excerpt.address as usize), iov_len };
        }
        let count_each = count as libc::c_ulong;
        // SAFETY: the first `count` of our vectors are of as many bytes as they say, which nobody else uses meanwhile.
        // Where the others lead is the kernel's to check.
        let read = unsafe {
            libc::process_vm_readv(self.0.0 as libc::pid_t, own.as_ptr(), count_each, theirs.as_ptr(), count_each, 0)
        };
        // What is not there ends the call before it, whole excerpts being read until then.
        let mut left = usize::try_from(read).map_err(|_| io::Error::last_os_error())?;
        let mut whole = 0;
        for excerpt in &mut excerpts[..count] {
            let Some(rest) = left.checked_sub(excerpt.bytes.len()) else { break };
            (left, excerpt.is_read) = (rest, !excerpt.bytes.is_empty());
            whole += 1;
        }
        Ok(whole)
    }
}

const EMPTY: libc::iovec = libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 };

impl Memory for ProcessMemory {
    fn read_each(&self, excerpts: &mut [Excerpt]) {
        let mut rest = excerpts;
        while !rest.is_empty() {
            let asked = rest.len().min(AT_ONCE);
            let read = self.read_some(rest).unwrap_or(0);
            // The one after those that were read is not there.
            rest = &mut rest[(read + 1).min(asked)..];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_is_read_and_what_is_not_spoils_nothing() {
        let (one, other) = (7_u64, [1_u8, 2, 3]);
        let memory = ProcessMemory(Tgid(std::process::id()));
        let mut excerpts = vec![
            Excerpt::of((&raw const one).addr() as u64, 8),
            Excerpt::of(8, 8),
            Excerpt::of(u64::MAX - 3, 8),
            Excerpt::of((&raw const other).addr() as u64, 3),
        ];
        excerpts.extend((0..300).map(|_| Excerpt::of((&raw const one).addr() as u64, 8)));
        memory.read_each(&mut excerpts);
        assert_eq!(excerpts[..4].iter().map(|excerpt| excerpt.is_read).collect::<Vec<_>>(), [true, false, false, true]);
        assert_eq!((excerpts[0].word(0), excerpts[0].word(1), excerpts[1].word(0)), (Some(7), None, None));
        assert_eq!(excerpts[3].bytes, other);
        assert!(excerpts[4..].iter().all(|excerpt| excerpt.word(0) == Some(7)));
    }

    #[test]
    fn what_is_too_long_takes_no_memory_and_is_not_read() {
        let word = 7_u64;
        let memory = ProcessMemory(Tgid(std::process::id()));
        for length in [MAX_EXCERPT + 1, 1 << 46, usize::MAX] {
            let excerpt = memory.read((&raw const word).addr() as u64, length);
            assert_eq!((excerpt.bytes.capacity(), excerpt.is_read), (0, false), "{length}");
        }
    }

    #[test]
    fn a_process_that_is_not_there_has_no_memory() {
        let memory = ProcessMemory(Tgid(i32::MAX as u32));
        assert!(memory.check(4096).is_err());
        assert!(!memory.read(4096, 8).is_read);
    }
}
