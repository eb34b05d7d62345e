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

/// Returns what was freed to the system.
pub fn give_back() {
    // SAFETY: it may be called at any time.
    unsafe { libc::malloc_trim(0) };
}
