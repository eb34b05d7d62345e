//! Several streams, each nearly in the order of time, become one.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, VecDeque},
};

/// Something that happened at a time.
pub trait Timed {
    /// CLOCK_BOOTTIME nanoseconds.
    fn time_ns(&self) -> u64;
}

/// Queues of records, one per ring.
///
/// A program takes its record's time before the record can be read, and an interrupt can come in between, with records of
/// its own. So records are put where their time is, and what one pass has read is passed on with the next: by then,
/// everything older has long been written.
#[derive(Debug)]
pub struct Merge<T> {
    queues: Vec<VecDeque<T>>,
    last_pass_ns: u64,
}

impl<T: Timed> Merge<T> {
    /// As many queues, empty.
    pub fn new(queues: usize) -> Merge<T> {
        Merge { queues: (0..queues).map(|_| VecDeque::new()).collect(), last_pass_ns: 0 }
    }

    /// Adds what was read next from a stream.
    pub fn push(&mut self, queue: usize, record: T) {
        let records = &mut self.queues[queue];
        let newer = records.iter().rev().take_while(|earlier| earlier.time_ns() > record.time_ns()).count();
        if newer == 0 {
            records.push_back(record);
        } else {
            records.insert(records.len() - newer, record);
        }
    }

    /// Passes on what is not newer than the last pass; this pass began at `now_ns`.
    pub fn advance(&mut self, now_ns: u64, take: impl FnMut(T)) {
        let until_ns = std::mem::replace(&mut self.last_pass_ns, now_ns);
        self.pass(until_ns, take);
    }

    /// Passes on the rest.
    pub fn finish(&mut self, take: impl FnMut(T)) {
        self.pass(u64::MAX, take);
    }

    fn pass(&mut self, until_ns: u64, mut take: impl FnMut(T)) {
        let first = |(queue, records): (usize, &VecDeque<T>)| Some(Reverse((time(records)?, queue)));
        let mut heads: BinaryHeap<_> = self.queues.iter().enumerate().filter_map(first).collect();
        while let Some(Reverse((time_ns, queue))) = heads.pop() {
            if time_ns > until_ns {
                return;
            }
            let limit_ns = heads.peek().map_or(until_ns, |Reverse((next_ns, _))| until_ns.min(*next_ns));
            let records = &mut self.queues[queue];
            // As long as this queue is the oldest, the heap needs no asking.
            while let Some(record) = records.pop_front_if(|record| record.time_ns() <= limit_ns) {
                take(record);
            }
            heads.extend(time(records).map(|time_ns| Reverse((time_ns, queue))));
        }
    }
}

fn time(records: &VecDeque<impl Timed>) -> Option<u64> {
    records.front().map(Timed::time_ns)
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Timed for u64 {
        fn time_ns(&self) -> u64 {
            *self
        }
    }

    fn merge(streams: &[&[u64]]) -> Merge<u64> {
        let mut merge = Merge::new(streams.len());
        for (queue, stream) in streams.iter().enumerate() {
            stream.iter().for_each(|&time_ns| merge.push(queue, time_ns));
        }
        merge
    }

    fn times(pass: impl FnOnce(&mut dyn FnMut(u64))) -> Vec<u64> {
        let mut times = Vec::new();
        pass(&mut |time_ns| times.push(time_ns));
        times
    }

    #[test]
    fn streams_become_one_in_the_order_of_time() {
        let mut merge = merge(&[&[1, 4, 5, 9], &[2, 3, 8], &[]]);
        assert_eq!(times(|take| merge.finish(take)), [1, 2, 3, 4, 5, 8, 9]);
    }

    #[test]
    fn what_one_pass_reads_is_passed_on_by_the_next() {
        let mut merge = merge(&[&[10, 20], &[15]]);
        assert!(times(|take| merge.advance(16, take)).is_empty());
        merge.push(1, 12);
        assert_eq!(times(|take| merge.advance(30, take)), [10, 12, 15]);
        assert_eq!(times(|take| merge.advance(40, take)), [20]);
    }

    #[test]
    fn what_was_written_after_what_interrupted_it_has_its_place_by_its_time() {
        let mut merge = merge(&[&[2, 5, 6, 3, 7], &[4]]);
        assert_eq!(times(|take| merge.finish(take)), [2, 3, 4, 5, 6, 7]);
    }

    #[test]
    fn what_has_one_time_stays_in_the_order_in_which_it_was_written() {
        #[derive(Debug, PartialEq)]
        struct Numbered(u64, u32);
        impl Timed for Numbered {
            fn time_ns(&self) -> u64 {
                self.0
            }
        }
        let mut merge = Merge::new(1);
        for record in [Numbered(5, 0), Numbered(8, 1), Numbered(5, 2), Numbered(8, 3)] {
            merge.push(0, record);
        }
        let mut all = Vec::new();
        merge.finish(|record| all.push(record.1));
        assert_eq!(all, [0, 2, 1, 3]);
    }
}
