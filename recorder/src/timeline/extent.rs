//! How well it is known how long something lasted.

/// How long a poll lasted: as long as it is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// Both ends were seen.
    Exact,
    /// Longer than that, maybe.
    AtLeast,
    /// Both ends were seen, of the part in which the thread had its worker.
    UntilBlocked,
}

impl Extent {
    /// The name that a trace has for it. Queries rely on these: they don't change.
    pub const fn name(self) -> &'static str {
        match self {
            Extent::Exact => "exact",
            Extent::AtLeast => "at least",
            Extent::UntilBlocked => "until block in place",
        }
    }
}
