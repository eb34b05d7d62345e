//! The line that shows how a recording goes, or whatever else takes long.

use std::{
    fmt,
    io::IsTerminal,
    time::{Duration, Instant},
};

use super::{
    counts::{Bytes, Count},
    tell,
};
use crate::session::Progress;

/// One line on a terminal, written over again and again; nothing anywhere else.
#[derive(Debug)]
pub struct StatusLine {
    is_shown: bool,
    /// Whether something stands there.
    is_drawn: bool,
    last_records: u64,
    last_seconds: f64,
}

impl StatusLine {
    /// A line that is wanted or not, since a launched command writes to the same terminal, and only shown where there is a terminal to show it.
    pub fn new(wanted: bool) -> StatusLine {
        StatusLine {
            is_shown: wanted && std::io::stderr().is_terminal(),
            is_drawn: false,
            last_records: 0,
            last_seconds: 0.0,
        }
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
            self.is_drawn = true;
            tell(format_args!("\r{line}\x1b[K"));
        }
    }

    /// Leaves the line empty for what comes next.
    pub fn clear(&mut self) {
        if std::mem::take(&mut self.is_drawn) {
            tell("\r\x1b[K");
        }
    }
}

/// What takes shorter is not worth a line.
const PATIENCE: Duration = Duration::from_secs(1);

/// How often the line changes.
const PERIOD: Duration = Duration::from_millis(250);

/// Columns of the bar.
const BAR_COLUMNS: usize = 30;

/// How far something is that is over soon, mostly: a bar.
#[derive(Debug)]
pub struct ProgressLine {
    line: StatusLine,
    /// When it is next shown; none before anything was done.
    next: Option<Instant>,
}

impl ProgressLine {
    /// A line that is wanted or not.
    pub fn new(wanted: bool) -> ProgressLine {
        ProgressLine { line: StatusLine::new(wanted), next: None }
    }

    /// Shows what is done, and how much of it.
    pub fn show(&mut self, what: &str, done: u64, of: u64) {
        let now = Instant::now();
        if now >= *self.next.get_or_insert(now + PATIENCE) {
            self.next = Some(now + PERIOD);
            self.line.show_text(format_args!("{what} {}", Bar(done as f64 / of.max(1) as f64)));
        }
    }

    /// Leaves the line empty for what comes next.
    pub fn clear(&mut self) {
        self.line.clear();
    }
}

/// A share, drawn.
struct Bar(f64);

impl fmt::Display for Bar {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let share = self.0.clamp(0.0, 1.0);
        let full = (share * BAR_COLUMNS as f64) as usize;
        write!(out, "[{}{}] {:.0} %", "#".repeat(full), " ".repeat(BAR_COLUMNS - full), 100.0 * share)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_is_as_full_as_what_it_shows() {
        assert_eq!(Bar(0.0).to_string(), format!("[{}] 0 %", " ".repeat(30)));
        assert_eq!(Bar(0.5).to_string(), format!("[{}{}] 50 %", "#".repeat(15), " ".repeat(15)));
        assert_eq!(Bar(7.0).to_string(), format!("[{}] 100 %", "#".repeat(30)));
    }
}
