//! How much memory naming takes.

/// A bound on what this process may use more than it did when it began.
#[derive(Clone, Copy, Debug)]
pub struct Ceiling {
    bytes: u64,
}

impl Ceiling {
    /// So many bytes from now on.
    pub fn new(more: u64) -> Ceiling {
        Ceiling { bytes: anonymous().saturating_add(more) }
    }

    /// Looks now and then, as something is done again and again, and has been done so many times.
    pub fn check(self, times: usize) -> Result<(), gimli::Error> {
        const OFTEN: usize = 8;
        if times.is_multiple_of(OFTEN) && self.is_reached() { Err(gimli::Error::Io) } else { Ok(()) }
    }

    /// Whether it is reached.
    pub fn is_reached(self) -> bool {
        anonymous() >= self.bytes
    }
}

/// Memory of this process that belongs to no file, bytes. 0 if the kernel does not tell.
pub fn anonymous() -> u64 {
    let Ok(text) = std::fs::read_to_string("/proc/self/statm") else { return 0 };
    let mut pages = text.split(' ').skip(1).map(|field| field.parse::<u64>().unwrap_or(0));
    let (resident, shared) = (pages.next().unwrap_or(0), pages.next().unwrap_or(0));
    resident.saturating_sub(shared) * rustix::param::page_size() as u64
}

/// The most memory that this process has had since it was executed, bytes, files that it mapped included. 0 if the kernel
/// does not tell.
pub fn peak() -> u64 {
    let Ok(text) = std::fs::read_to_string("/proc/self/status") else { return 0 };
    peak_in(&text).unwrap_or(0)
}

fn peak_in(status: &str) -> Option<u64> {
    let kib = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    kib.trim().strip_suffix(" kB")?.parse().ok().map(|kib: u64| kib * 1024)
}

/// Returns what was freed to the system, where the C library keeps it.
pub fn give_back() {
    // SAFETY: it may be called at any time.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::malloc_trim(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ceiling_is_looked_at_now_and_then() {
        assert!(Ceiling::new(1 << 40).check(8).is_ok());
        assert!(Ceiling { bytes: 0 }.check(8).is_err() && Ceiling { bytes: 0 }.check(9).is_ok());
    }

    #[test]
    fn the_peak_is_what_the_kernel_calls_the_high_water_mark() {
        assert_eq!(peak_in("VmSize:\t  90 kB\nVmHWM:\t    3072 kB\nVmRSS:\t  8 kB\n"), Some(3 << 20));
        assert_eq!(peak_in("Name:\tVmHWM:\n"), None);
        assert!(peak() >= anonymous());
    }
}
