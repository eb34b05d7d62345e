//! Names the functions of a recording, once it is over.

use anyhow::{Result, anyhow};
use polletto_protos::{AddressSymbols, Line, ModuleSymbols};

use super::{Observer, Signals};
use crate::{
    symbols::{self, Answer, ModuleReport, Request},
    timeline::path_in_trace,
    trace::{Output, PacketBuffer},
};

/// Writes names for all that was asked for. A signal means that the user wants no lines any more.
pub fn name(
    requests: Vec<Request>,
    options: &symbols::Options,
    output: &Output,
    signals: &mut Signals,
    observer: &mut dyn Observer,
) -> Result<Vec<ModuleReport>> {
    let mut namer = Namer { packets: PacketBuffer::default(), output, signals, observer, is_cancelled: false };
    let reports = symbols::resolve(requests, options, &mut namer)?;
    namer
        .packets
        .take_all()
        .try_for_each(|batch| output.send(batch))
        .map_err(|_| anyhow!("the trace can't be written any more"))?;
    Ok(reports)
}

struct Namer<'a> {
    packets: PacketBuffer,
    output: &'a Output,
    signals: &'a mut Signals,
    observer: &'a mut dyn Observer,
    is_cancelled: bool,
}

impl symbols::Observer for Namer<'_> {
    fn answer(&mut self, answer: Answer) -> Result<()> {
        self.packets.push_module_symbols(message(answer));
        let mut full = self.packets.take_full();
        full.try_for_each(|batch| self.output.send(batch)).map_err(|_| anyhow!("the trace can't be written any more"))
    }

    fn progress(&mut self, done: u64, of: u64) {
        self.observer.naming(done, of);
    }

    fn is_cancelled(&mut self) -> bool {
        self.is_cancelled |= self.signals.take().is_some();
        self.is_cancelled
    }
}

fn message(answer: Answer) -> ModuleSymbols {
    let line = |function: symbols::Function| Line {
        function_name: Some(function.name),
        source_file_name: function.file,
        line_number: function.line,
    };
    let address_symbols = answer.symbols.into_iter().map(|symbols| AddressSymbols {
        address: Some(symbols.address),
        lines: symbols.functions.into_iter().map(line).collect(),
    });
    ModuleSymbols {
        path: Some(path_in_trace(&answer.path)),
        build_id: answer.build_id.map(|build_id| build_id.bytes().to_vec()),
        address_symbols: address_symbols.collect(),
    }
}
