//! Names the functions of a recording, once it is over.

use std::cell::Cell;

use anyhow::{Result, anyhow};

use super::{Observer, Signals, symbolizing::NameWriter};
use crate::{
    symbols::{self, Answer, ModuleReport, Request},
    timeline::path_in_trace,
    trace::Output,
};

/// Writes names for all that was asked for. A signal means that the user wants no lines any more.
pub fn name(
    requests: Vec<Request>,
    options: &symbols::Options,
    output: &Output,
    signals: &Signals,
    observer: &mut dyn Observer,
) -> Result<Vec<ModuleReport>> {
    let mut namer = Namer { names: NameWriter::default(), output, signals, observer, is_cancelled: Cell::new(false) };
    let reports = symbols::resolve(requests, options, &mut namer)?;
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
    is_cancelled: Cell<bool>,
}

impl symbols::Observer for Namer<'_> {
    fn answer(&mut self, answer: Answer) -> Result<()> {
        self.names.push(Answer { path: path_in_trace(&answer.path), ..answer });
        let mut full = self.names.take_full();
        full.try_for_each(|batch| self.output.send(batch)).map_err(|_| anyhow!("the trace can't be written any more"))
    }

    fn progress(&mut self, done: u64, of: u64) {
        self.observer.naming(done, of);
    }

    fn is_cancelled(&self) -> bool {
        if self.signals.take().is_some() {
            self.is_cancelled.set(true);
        }
        self.is_cancelled.get()
    }
}
