//! A stand-in that knows nothing but symbol tables, until the real thing takes this file's place.

use std::{fs, path::PathBuf};

use anyhow::Result;
use object::read::elf::ElfFile64;
use object::{Object, ObjectSymbol, SymbolKind};

use super::{Answer, Function, Missing, ModuleReport, Request, Symbols};
use crate::target::image::Image;

/// Where to look, and what that may take.
#[derive(Clone, Debug)]
pub struct Options {
    /// Directories with files that hold debug information, besides those where systems put them.
    pub debug_directories: Vec<PathBuf>,
    /// Memory that it may take at once, in bytes.
    pub memory_bytes: u64,
}

/// Someone who takes the answers.
pub trait Observer {
    /// Names for some addresses of a module.
    fn answer(&mut self, answer: Answer) -> Result<()>;
    /// How far it is: `done` of `of`.
    fn progress(&mut self, done: u64, of: u64);
    /// Whether nobody wants to wait any more.
    fn is_cancelled(&self) -> bool;
}

/// Finds names.
pub fn resolve(requests: Vec<Request>, _options: &Options, observer: &mut dyn Observer) -> Result<Vec<ModuleReport>> {
    let of = requests.iter().map(|request| request.addresses.len() as u64).sum();
    let (mut reports, mut done) = (Vec::new(), 0);
    for request in requests {
        let mut report = ModuleReport {
            path: request.path.clone(),
            addresses: request.addresses.len() as u64,
            missing: Some(Missing::Interrupted),
            ..ModuleReport::default()
        };
        if !observer.is_cancelled() {
            done += report.addresses;
            match symbols(&request) {
                Ok(symbols) => {
                    report.named = symbols.len() as u64;
                    report.missing = Some(Missing::DebugInformation);
                    observer.answer(Answer { path: request.path, build_id: request.build_id, symbols })?;
                }
                Err(missing) => report.missing = Some(missing),
            }
            observer.progress(done, of);
        }
        reports.push(report);
    }
    Ok(reports)
}

fn symbols(request: &Request) -> Result<Vec<Symbols>, Missing> {
    let refused = |reason: String| Missing::File(reason);
    let bytes = fs::read(&request.path).map_err(|error| refused(format!("it can't be read: {error}")))?;
    let image = Image::read(&bytes).map_err(|error| refused(format!("it can't be read: {error}")))?;
    if request.build_id.is_none() || image.build_id != request.build_id {
        return Err(refused("it is not the file that ran".to_owned()));
    }
    let file =
        ElfFile64::<object::Endianness>::parse(&bytes[..]).map_err(|error| Missing::Damaged(error.to_string()))?;
    let mut functions: Vec<_> = file
        .symbols()
        .chain(file.dynamic_symbols())
        .filter(|symbol| symbol.kind() == SymbolKind::Text && symbol.size() > 0)
        .filter_map(|symbol| Some((symbol.address(), symbol.size(), symbol.name().ok()?.to_owned())))
        .collect();
    functions.sort();
    let find = |&address: &u64| {
        let behind = functions.partition_point(|function| function.0 <= address);
        let (start, size, name) = functions.get(behind.checked_sub(1)?)?;
        let function = Function { name: name.clone(), ..Function::default() };
        (address - start < *size).then(|| Symbols { address, functions: vec![function] })
    };
    Ok(request.addresses.iter().filter_map(find).collect())
}
