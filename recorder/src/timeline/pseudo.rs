//! Threads that do not exist: they stand for what may not, or cannot, be shown.
//!
//! There is one of each kind per CPU, since no thread runs on two CPUs at once. Their ids lie above the kernel's largest
//! (2²²), so that they never meet a real one.

use polletto_common::{
    id::{Tgid, Tid},
    limits::MAX_CPUS,
};

const BASE: u32 = 1 << 23;
const PER_KIND: u32 = 2 * MAX_CPUS as u32;

/// The process of all [`other`] threads.
const OTHER_PROGRAMS: Tgid = Tgid(BASE);

/// The process of all [`unobserved`] threads.
const UNOBSERVED: Tgid = Tgid(BASE + PER_KIND);

/// Any thread of a program that is not recorded.
pub fn other(cpu: u16) -> Tid {
    Tid(OTHER_PROGRAMS.0 + 1 + u32::from(cpu))
}

/// Whatever ran while records were lost.
pub fn unobserved(cpu: u16) -> Tid {
    Tid(UNOBSERVED.0 + 1 + u32::from(cpu))
}

/// Whether the thread stands for programs that are not recorded.
pub fn is_other(tid: Tid) -> bool {
    (OTHER_PROGRAMS.0 + 1..UNOBSERVED.0).contains(&tid.0)
}

/// What a pseudo thread is called; nothing for a real one.
pub fn name(tid: Tid) -> Option<&'static str> {
    if tid == Tid::IDLE {
        Some("swapper")
    } else if tid.0 > UNOBSERVED.0 {
        Some("records lost")
    } else if is_other(tid) {
        Some("other")
    } else {
        None
    }
}

/// The process of a pseudo thread, and its command line. Readers cut a command line of one word at its first space, so
/// there are two.
pub fn process(tid: Tid) -> Option<(Tgid, [&'static str; 2])> {
    if tid.0 > UNOBSERVED.0 {
        Some((UNOBSERVED, ["records lost", "(nobody knows what ran)"]))
    } else if is_other(tid) {
        Some((OTHER_PROGRAMS, ["other programs", "(not recorded)"]))
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cpu_has_threads_of_its_own_above_all_real_ones() {
        let last = MAX_CPUS as u16 - 1;
        let mut tids: Vec<Tid> = (0..=last).flat_map(|cpu| [other(cpu), unobserved(cpu)]).collect();
        tids.sort_unstable();
        tids.dedup();
        assert_eq!(tids.len(), 2 * MAX_CPUS);
        assert!(tids[0].0 > 1 << 22);
        assert_eq!((name(other(last)), name(unobserved(0))), (Some("other"), Some("records lost")));
        assert_eq!(name(Tid(1 << 22)), None);
    }
}
