//! The line that shows how a recording goes.

use std::io::IsTerminal;

use super::{
    summary::{Bytes, Count},
    tell,
};
use crate::session::Progress;

/// One line on a terminal, written over again and again; nothing anywhere else.
#[derive(Debug)]
pub struct StatusLine {
    is_shown: bool,
    last_records: u64,
    last_seconds: f64,
}

impl StatusLine {
    /// A line that is wanted or not, since a launched command writes to the same terminal, and only shown where there is a terminal to show it.
    pub fn new(wanted: bool) -> StatusLine {
        StatusLine { is_shown: wanted && std::io::stderr().is_terminal(), last_records: 0, last_seconds: 0.0 }
    }

    /// Shows the latest figures.
    pub fn show(&mut self, progress: &Progress) {
        if !self.is_shown {
            return;
        }
        let seconds = progress.elapsed().as_secs_f64();
        let records = progress.records();
        let rate = (records - self.last_records) as f64 / (seconds - self.last_seconds).max(f64::EPSILON);
        (self.last_records, self.last_seconds) = (records, seconds);
        let lost = match progress.lost() {
            0 => "nothing lost".to_owned(),
            lost => format!("{} lost", Count(lost)),
        };
        let line = format!("{seconds:.1} s  {} events/s  {}  {lost}", Count(rate as u64), Bytes(progress.bytes()));
        tell(format_args!("\r{line}\x1b[K"));
    }

    /// Shows how many addresses have been looked up.
    pub fn show_naming(&mut self, done: u64, of: u64) {
        if self.is_shown {
            tell(format_args!("\rnaming functions: {} of {} addresses\x1b[K", Count(done), Count(of)));
        }
    }

    /// Leaves the line empty for what comes next.
    pub fn clear(&mut self) {
        if self.is_shown {
            tell("\r\x1b[K");
        }
    }
}
