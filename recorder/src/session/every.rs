//! What is done again and again.

use std::time::{Duration, Instant};

/// Something that is due again and again.
pub struct Every {
    period: Duration,
    next: Instant,
}

impl Every {
    /// For the first time when one period is over.
    pub fn new(period: Duration) -> Every {
        Every { period, next: Instant::now() + period }
    }

    /// Whether it is time. If so, it is again when another period is over.
    pub fn is_due(&mut self) -> bool {
        let now = Instant::now();
        let is_due = now >= self.next;
        if is_due {
            self.next = now + self.period;
        }
        is_due
    }
}
