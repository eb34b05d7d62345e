//! Names the functions of a recording, once it is over.

use std::cell::Cell;

use anyhow::{Result, anyhow};

use super::{Observer, Signals, findings::Locator, symbolizing::NameWriter};
use crate::{
    symbols::{self, Answer, ModuleReport, Request},
    timeline::path_in_trace,
    trace::Output,
};

/// Writes names for all that was asked for, and keeps in `peak_memory_bytes` the most memory that a process had for that. A
/// signal means that the user wants no lines any more.
pub fn name(
    requests: Vec<Request>,
    options: &symbols::Options,
    output: &Output,
    signals: &Signals,
    observer: &mut dyn Observer,
    locator: Option<Locator<'_>>,
    peak_memory_bytes: &mut u64,
) -> Result<Vec<ModuleReport>> {
    let is_cancelled = Cell::new(false);
    let names = NameWriter::default();
    let mut namer = Namer { names, output, signals, observer, locator, is_cancelled, peak_memory_bytes };
    let reports = symbols::resolve(requests, options, &mut namer)?;
    if let Some(locator) = namer.locator {
        locator.locate();
    }
    namer
        .names
        .take_all()
        .try_for_each(|batch| output.send(batch))
        .map_err(|_| anyhow!("the trace can't be written any more"))?;
    Ok(reports)
}

struct Namer<'a> {
    names: NameWriter,
    output: &'a Output,
    signals: &'a Signals,
    observer: &'a mut dyn Observer,
    /// Wants to hear of them too.
    locator: Option<Locator<'a>>,
    is_cancelled: Cell<bool>,
    peak_memory_bytes: &'a mut u64,
}

impl symbols::Observer for Namer<'_> {
    fn answer(&mut self, answer: Answer) -> Result<()> {
        if let Some(locator) = &mut self.locator {
            locator.learn(&answer);
        }
        self.names.push(Answer { path: path_in_trace(&answer.path), ..answer });
        let mut full = self.names.take_full();
        full.try_for_each(|batch| self.output.send(batch)).map_err(|_| anyhow!("the trace can't be written any more"))
    }

    fn progress(&mut self, done: u64, of: u64) {
        self.observer.naming(done, of);
    }

    fn memory(&mut self, peak_bytes: u64) {
        *self.peak_memory_bytes = peak_bytes.max(*self.peak_memory_bytes);
    }

    fn is_cancelled(&self) -> bool {
        if self.signals.take().is_some() {
            self.is_cancelled.set(true);
        }
        self.is_cancelled.get()
    }
}
