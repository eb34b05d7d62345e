//! One CPU's switches and wake-ups: an array of slots that the kernel programs fill and the recorder empties.
//!
//! A slot belongs to the kernel programs while its second word is 0, and to the recorder while it is not. There is one
//! writer, since its programs never interrupt one another on a CPU, and one reader; each goes round the slots in order and
//! needs to know nothing of the other but that word. So a record costs its stores, where a ring of the kernel's own, which
//! takes any number of writers, costs a lock and two exchanges.

use crate::record::{Layout, Lost, Switch, Waking};

/// Words of a slot.
pub const SLOT_WORDS: usize = 4;

/// The word of a slot that says whose it is: kind, CPU and flags of the record's header. The kind is never 0.
pub const OWNER_WORD: usize = 1;

/// Room for one record.
#[repr(C, align(32))]
#[derive(Clone, Copy, Debug)]
pub struct Slot(pub [u64; SLOT_WORDS]);

/// A record that stands in a stream.
///
/// # Safety
/// It is no larger than a slot, and its size is a multiple of a word's.
pub unsafe trait Streamed: Layout {}

macro_rules! streamed {
    ($($type:ident)*) => {
        $(
            const _: () = assert!(size_of::<$type>() <= size_of::<Slot>() && size_of::<$type>().is_multiple_of(8));
            // SAFETY: asserted above.
            unsafe impl Streamed for $type {}
        )*
    };
}

streamed! { Switch Waking Lost }

const _: () = assert!(core::mem::offset_of!(crate::record::Header, kind) == OWNER_WORD * 8);

/// The record as the words of a slot.
#[inline(always)]
pub fn words_of<R: Streamed>(record: &R) -> [u64; SLOT_WORDS] {
    let mut words = [0; SLOT_WORDS];
    // SAFETY: a `Streamed` record has whole words, no more than a slot, and no padding among them.
    unsafe {
        core::ptr::copy_nonoverlapping((&raw const *record).cast::<u64>(), words.as_mut_ptr(), size_of::<R>() / 8)
    };
    words
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        id::Tid,
        record::{Header, Record},
    };

    #[test]
    fn a_record_in_a_slot_reads_as_itself_and_is_never_taken_for_an_empty_slot() {
        let header = Header { time_ns: 7, kind: Waking::KIND, cpu: 0, flags: 0 };
        let waking = Waking { header, tid: Tid(3), prio: 120, target_cpu: 1 };
        let words = words_of(&waking);
        assert_ne!(words[OWNER_WORD], 0);
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        assert_eq!(Record::decode(&bytes), Ok(Record::Waking(waking)));
    }
}
