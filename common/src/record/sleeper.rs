//! What kernel programs remember of a thread that sleeps.

use crate::{
    id::{Tgid, Tid},
    polled::Polled,
};

/// A thread that sleeps, or slept, as the kernel programs remember it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sleeper {
    /// [`super::Stack::id`] of its stack.
    pub stack: u64,
    /// When it left its CPU, CLOCK_BOOTTIME nanoseconds; 0 when it is back.
    pub left_ns: u64,
    /// See [`super::Blocked::woken_ns`].
    pub woken_ns: u64,
    /// See [`super::Blocked::waker_tid`].
    pub waker_tid: Tid,
    /// See [`super::Blocked::prev_state`].
    pub prev_state: u32,
    /// Its process.
    pub tgid: Tgid,
    /// See [`super::Blocked::system_call`].
    pub system_call: i32,
    /// See [`super::Blocked::argument`].
    pub argument: u64,
    /// See [`super::Blocked::polled`].
    pub polled: Polled,
    /// How long it slept in polls since a sleep was told, nanoseconds.
    pub untold_ns: u64,
}

const _: () = assert!(size_of::<Sleeper>() == 88);

impl Sleeper {
    /// Whether a sleep of `slept_ns` is told. One is if it lasted `least_ns`; and of the shorter ones in polls, which can keep
    /// a worker as well, one for every `least_ns` of them.
    #[inline(always)]
    pub fn tells(&mut self, slept_ns: u64, least_ns: u64) -> bool {
        let is_polled = self.polled.began_ns().is_some();
        self.untold_ns = self.untold_ns.wrapping_add(if is_polled { slept_ns } else { 0 });
        let is_told = slept_ns >= least_ns || is_polled && self.untold_ns >= least_ns;
        if is_told {
            self.untold_ns = 0;
        }
        is_told
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(polled: Polled, slept_ns: &[u64]) -> Vec<bool> {
        let mut sleeper = Sleeper { polled, ..Sleeper::default() };
        slept_ns.iter().map(|&slept_ns| sleeper.tells(slept_ns, 1000)).collect()
    }

    #[test]
    fn of_sleeps_that_are_too_short_those_in_polls_are_told_together() {
        let polled = Polled { task: 7, tick: Polled::EXACT | 1, ..Polled::default() };
        let slept_ns = [999, 1000, 400, 400, 200, 999, 2000, 0];
        assert_eq!(told(Polled::default(), &slept_ns), [false, true, false, false, false, false, true, false]);
        assert_eq!(told(polled, &slept_ns), [false, true, false, false, true, false, true, false]);
    }

    #[test]
    fn all_are_told_where_none_is_too_short() {
        let mut sleeper = Sleeper::default();
        assert!(sleeper.tells(0, 0) && sleeper.tells(1, 0));
    }
}
