//! Which threads a recording is about.

/// What the keys of the kernel's `RECORDED` map are, as the number that the kernel programs are loaded with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Scope {
    /// Every thread of the machine is recorded; the map is not read.
    System = 0,
    /// Keys are thread group ids.
    Processes = 1,
    /// Keys are thread ids.
    Threads = 2,
}
