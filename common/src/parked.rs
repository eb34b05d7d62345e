//! Threads that `parking_lot` has put to sleep, and at what.
//!
//! Each sleeps on a `futex` of its own, in its `parking_lot_core::parking_lot::ThreadData`, which says at what it is
//! parked. Of that structure rustc orders the fields by their alignment: the word stands behind all that is as large as
//! an address. That is so in versions 0.7 to 0.10 of the crate, optimized or not. With `deadlock_detection` it is in
//! 0.9, and in 0.10, where it is not, what stands there does not look like it.

use core::mem::offset_of;

/// Addresses that a program may have begin here (`vm.mmap_min_addr`), and end before the other.
const LOWEST_ADDRESS: u64 = 0x1_0000;
const ADDRESSES_END: u64 = 1 << 56;

/// What a thread is given when it is woken: the lock is free, or is handed over to it.
const LAST_UNPARK_TOKEN: u64 = 1;

/// As what a thread is parked: by a mutex or a condition variable, by a lock for readers as a reader, one that may
/// become a writer, or a writer.
const NONE: u64 = 0;
const READER: u64 = 0x10;
const UPGRADABLE: u64 = 0x14;
const WRITER: u64 = 0x8;

/// Where the variables of a program's own are that each thread has for itself, as far as they may be `parking_lot`'s.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ThreadLocals {
    /// The program's [`crate::unwind::AddressSpace::exec_id`].
    pub exec_id: u64,
    /// Where they begin, from the thread pointer, bytes: below it on x86-64.
    pub start: i64,
    /// Where they end.
    pub end: i64,
}

const _: () = assert!(size_of::<ThreadLocals>() == 24);

impl ThreadLocals {
    /// How such a thread asks to sleep: `FUTEX_WAIT | FUTEX_PRIVATE_FLAG`. Threads of Rust's standard library do not.
    pub const OPERATION: u64 = 128;

    /// No program's own variables are farther from the thread pointer than that, bytes: one that has more is not looked
    /// into.
    pub const MAX_DISTANCE: u64 = 1 << 20;

    /// Whether a word at `address` may be what a thread of `parking_lot`'s sleeps on, whose thread pointer is `own`.
    /// Cheap, and almost never true of others.
    #[inline(always)]
    pub fn may_hold(address: u64, own: u64) -> bool {
        address.wrapping_sub(own).wrapping_add(Self::MAX_DISTANCE) < 2 * Self::MAX_DISTANCE
    }

    /// Where the parked thread is that sleeps on the word at `address`, if all of it is among them.
    #[inline(always)]
    pub fn parked_at(&self, address: u64, own: u64) -> Option<u64> {
        let begin = address.wrapping_sub(ParkedThread::WORD);
        let start = begin.wrapping_sub(own) as i64;
        let end = begin.wrapping_add(size_of::<ParkedThread>() as u64).wrapping_sub(own) as i64;
        let is_among = self.start <= start && end <= self.end;
        (is_among && begin.is_multiple_of(align_of::<ParkedThread>() as u64)).then_some(begin)
    }
}

/// A thread that is parked, as it stands in its memory.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParkedThread {
    /// At what: the address of a lock, of a condition variable, or the one behind that of a lock for readers.
    pub key: u64,
    /// Who was parked after it, at something that is kept in the same place; mostly nobody yet.
    pub next: u64,
    /// What it was given when it was woken last.
    pub unpark_token: u64,
    /// As what it is parked.
    pub park_token: u64,
    /// 1 as long as it is parked: the word that it sleeps on.
    pub futex: u32,
    /// Anything: whether there is a flag here, and for what, depends on the version.
    pub rest: u32,
}

const _: () = assert!(size_of::<ParkedThread>() == 40);

impl ParkedThread {
    /// Where the word is that it sleeps on.
    pub const WORD: u64 = offset_of!(ParkedThread, futex) as u64;

    /// The address of the lock, or of the condition variable, that it waits for. None if this is no parked thread, or
    /// may be none: a lock that isn't one is worse than none.
    #[inline(always)]
    pub fn waits_for(&self) -> Option<u64> {
        let ParkedThread { key, next, unpark_token, park_token, futex, .. } = *self;
        let is_address = |word: u64| word.wrapping_sub(LOWEST_ADDRESS) < ADDRESSES_END - LOWEST_ADDRESS;
        let is_parked = futex == 1 && is_address(key);
        let is_last = next == 0 || is_address(next) && next.is_multiple_of(align_of::<ParkedThread>() as u64);
        let is_waiting = unpark_token <= LAST_UNPARK_TOKEN && matches!(park_token, NONE | READER | UPGRADABLE | WRITER);
        if !(is_parked && is_last && is_waiting) {
            return None;
        }
        // A writer that keeps others out and waits for the last readers is parked apart from those. A lock for readers
        // is as aligned as an address; what else may stand at an odd one, a mutex, has no writers.
        Some(if park_token == WRITER && key % 8 == 1 { key - 1 } else { key })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOCK: u64 = 0x55a9_686a_2af0;
    const OWN: u64 = 0x7f35_2e6e_a6c0;

    fn parked(key: u64, park_token: u64) -> ParkedThread {
        ParkedThread { key, next: 0, unpark_token: 0, park_token, futex: 1, rest: 0x7fa0 }
    }

    #[test]
    fn a_parked_thread_tells_what_it_waits_for() {
        for (what, thread, expected) in [
            ("a mutex, of any alignment", parked(LOCK + 1, NONE), LOCK + 1),
            ("a reader", parked(LOCK, READER), LOCK),
            ("one that may write", parked(LOCK, UPGRADABLE), LOCK),
            ("a writer", parked(LOCK, WRITER), LOCK),
            ("a writer that waits for readers", parked(LOCK + 1, WRITER), LOCK),
            ("given a lock before", ParkedThread { unpark_token: 1, ..parked(LOCK, NONE) }, LOCK),
            ("with one behind it", ParkedThread { next: OWN - 0x80, ..parked(LOCK, NONE) }, LOCK),
        ] {
            assert_eq!(thread.waits_for(), Some(expected), "{what}");
        }
    }

    #[test]
    fn what_is_no_parked_thread_or_may_be_none_waits_for_nothing_that_is_known() {
        let of = parked(LOCK, NONE);
        for (what, thread) in [
            ("awake, or about to be", ParkedThread { futex: 0, ..of }),
            ("a lock of the C library's, that others wait for", ParkedThread { futex: 2, ..of }),
            ("nowhere", ParkedThread { key: 0, ..of }),
            ("at a number", ParkedThread { key: 0xffff, ..of }),
            ("in the kernel", ParkedThread { key: 0xffff_8000_0000_0000, ..of }),
            ("before a number", ParkedThread { next: 8, ..of }),
            ("before what is no thread", ParkedThread { next: OWN + 4, ..of }),
            ("given something unknown", ParkedThread { unpark_token: 2, ..of }),
            ("as something unknown", ParkedThread { park_token: 1, ..of }),
            // The key is then the last word, and the thread behind it the first.
            ("with `deadlock_detection` in version 0.10", ParkedThread { key: OWN - 0x80, park_token: LOCK, ..of }),
        ] {
            assert_eq!(thread.waits_for(), None, "{what}");
        }
    }

    #[test]
    fn only_what_is_all_among_a_program_s_own_variables_is_looked_at() {
        let locals = ThreadLocals { exec_id: 1, start: -0xa8, end: 0 };
        for (word, expected) in [
            (OWN - 0x60, Some(OWN - 0x80)),
            (OWN - 0x88, Some(OWN - 0xa8)),
            (OWN - 0x8, Some(OWN - 0x28)),
            // It would begin before them, or end behind them.
            (OWN - 0x90, None),
            (OWN, None),
            (OWN - 0x5c, None),
            (0, None),
            (u64::MAX, None),
        ] {
            assert_eq!(locals.parked_at(word, OWN), expected, "{word:x}");
        }
        let above = ThreadLocals { start: 16, end: 0x100, ..locals };
        assert_eq!(above.parked_at(OWN + 48, OWN), Some(OWN + 16));
        for (word, expected) in [(OWN - 8, true), (OWN + 48, true), (LOCK, false), (0, false), (u64::MAX, false)] {
            assert_eq!(ThreadLocals::may_hold(word, OWN), expected, "{word:x}");
        }
        // Whatever a file claims.
        let all = ThreadLocals { start: i64::MIN, end: i64::MIN, ..locals };
        assert_eq!(all.parked_at(OWN - 0x60, OWN), None);
    }
}
