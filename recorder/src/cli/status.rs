//! The line that shows how a recording goes, or whatever else takes long.

use std::{
    fmt,
    io::IsTerminal,
    time::{Duration, Instant},
};

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
        self.show_text(&line);
    }

    /// Shows anything.
    pub fn show_text(&mut self, line: impl fmt::Display) {
        if self.is_shown {
            tell(format_args!("\r{line}\x1b[K"));
        }
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

/// What takes shorter is not worth a line.
const PATIENCE: Duration = Duration::from_secs(1);

/// How often the line changes.
const PERIOD: Duration = Duration::from_millis(250);

/// How far something is that is over soon, mostly.
#[derive(Debug)]
pub struct ProgressLine {
    line: StatusLine,
    next: Instant,
}

impl ProgressLine {
    /// A line that is wanted or not.
    pub fn new(wanted: bool) -> ProgressLine {
        ProgressLine { line: StatusLine::new(wanted), next: Instant::now() + PATIENCE }
    }

    /// Shows what is done, and how much of it.
    pub fn show(&mut self, what: &str, done: u64, of: u64) {
        if Instant::now() >= self.next {
            self.next = Instant::now() + PERIOD;
            let percent = 100.0 * done as f64 / of.max(1) as f64;
            self.line.show_text(format_args!("{what} {percent:.0} %"));
        }
    }

    /// Leaves the line empty for what comes next.
    pub fn clear(&mut self) {
        self.line.clear();
    }
}
