//! What is asked about a trace, and its way into the trace.

use std::{collections::HashMap, io};

use anyhow::Result;

use super::User;
use crate::{
    session::NameWriter,
    symbols::{Answer, Missing, ModuleReport, NamesIn, Observer, Request, Symbols},
    target::{
        self,
        image::{BuildId, Bytes, Image},
    },
    trace::{
        Batch, Compression, Output, TraceFile,
        read::{Known, TracedCode, TracedModule},
    },
};

/// What traces call the code that the kernel gives every program.
const VDSO: &[u8] = b"/[vdso]";

/// A trace whose addresses are being named.
pub struct Naming<'a> {
    modules: Vec<TracedModule>,
    /// Indexes of `modules`, by what symbols tell them apart.
    index: HashMap<(String, Option<BuildId>), usize>,
    names: NameWriter,
    /// The trace, until there is something to append to it; it is not touched before.
    file: Option<TraceFile>,
    whole_bytes: u64,
    output: Option<Output>,
    compression: Compression,
    user: &'a mut User,
}

/// What a trace came to.
#[derive(Clone, Copy, Debug, Default)]
pub struct Appended {
    /// The file's size.
    pub bytes: u64,
    /// Whether anything was appended.
    pub is_changed: bool,
}

impl<'a> Naming<'a> {
    /// Names go to the end of `file`, behind what is whole of it.
    pub fn new(code: TracedCode, file: TraceFile, compression: Compression, user: &'a mut User) -> Naming<'a> {
        Naming {
            modules: code.modules,
            index: HashMap::new(),
            names: NameWriter::default(),
            file: Some(file),
            whole_bytes: code.whole_bytes,
            output: None,
            compression,
            user,
        }
    }

    /// What there is to ask, and the modules that can't be asked for.
    pub fn requests(&mut self) -> (Vec<Request>, Vec<ModuleReport>) {
        let (mut requests, mut refused) = (Vec::new(), Vec::new());
        for (at, module) in self.modules.iter().enumerate() {
            // The kernel's has no lines, wherever it is looked for.
            let most = if module.path == VDSO { Known::Function } else { Known::Line };
            let addresses: Vec<u64> =
                module.addresses.iter().filter(|(_, known)| **known < most).map(|(&address, _)| address).collect();
            if addresses.is_empty() {
                continue;
            }
            let known = identity(module).and_then(|(path, build_id)| {
                let names_in = names_in(&path, build_id.as_ref())?;
                Ok((path, build_id, names_in))
            });
            match known {
                Ok((path, build_id, names_in)) => {
                    self.index.insert((path.clone(), build_id.clone()), at);
                    requests.push(Request { path, build_id, names_in, addresses });
                }
                Err(reason) => refused.push(ModuleReport {
                    path: String::from_utf8_lossy(&module.path).into_owned(),
                    addresses: addresses.len() as u64,
                    missing: Some(Missing::File(reason)),
                    ..ModuleReport::default()
                }),
            }
        }
        (requests, refused)
    }

    /// Writes what is left, and closes the file.
    pub fn finish(mut self) -> io::Result<Appended> {
        let rest: Vec<Batch> = self.names.take_all().collect();
        let sent = self.send(rest);
        match (self.file, self.output) {
            (Some(file), _) => Ok(Appended { bytes: file.length(), is_changed: false }),
            // It tells best why something could not be sent.
            (None, Some(output)) => Ok(Appended { bytes: output.close()?.bytes, is_changed: true }),
            (None, None) => Err(sent.err().unwrap_or_else(|| io::Error::other("it can't be appended to"))),
        }
    }

    fn send(&mut self, batches: Vec<Batch>) -> io::Result<()> {
        if batches.is_empty() {
            return Ok(());
        }
        if let Some(mut file) = self.file.take() {
            file.keep(self.whole_bytes)?;
            self.output = Some(Output::start(file, self.compression)?);
        }
        let closed = || io::Error::other("the trace can't be appended to");
        let output = self.output.as_ref().ok_or_else(closed)?;
        batches.into_iter().try_for_each(|batch| output.send(batch).map_err(|_| closed()))
    }

    /// Whether this is asked for, and new.
    fn is_wanted(&self, module: &TracedModule, symbols: &Symbols) -> bool {
        match module.addresses.get(&symbols.address) {
            Some(Known::Nothing) => true,
            // The last symbols for an address are those that count: they must not say less than those before.
            Some(Known::Function) => symbols.functions.iter().any(|function| function.file.is_some()),
            Some(Known::Line) | None => false,
        }
    }
}

impl Observer for Naming<'_> {
    fn answer(&mut self, mut answer: Answer) -> Result<()> {
        let key = (answer.path.clone(), answer.build_id.clone());
        // Names for what the trace does not have would be an error to its readers.
        let Some(&at) = self.index.get(&key) else { return Ok(()) };
        let module = &self.modules[at];
        answer.symbols.retain(|symbols| self.is_wanted(module, symbols));
        self.names.push(answer);
        let full: Vec<Batch> = self.names.take_full().collect();
        Ok(self.send(full)?)
    }

    fn progress(&mut self, done: u64, of: u64) {
        self.user.line.show("naming", done, of);
    }

    fn is_cancelled(&self) -> bool {
        self.user.is_impatient()
    }
}

/// What tells a module apart from others, if it can be said.
fn identity(module: &TracedModule) -> Result<(String, Option<BuildId>), String> {
    let path = String::from_utf8(module.path.clone()).map_err(|_| "its path is not UTF-8".to_owned())?;
    let build_id = match &module.build_id[..] {
        [] => None,
        bytes => Some(BuildId::new(bytes).ok_or_else(|| format!("its build id has {} bytes", bytes.len()))?),
    };
    Ok((path, build_id))
}

/// Where a module's names are, if they can be anywhere.
fn names_in(path: &str, build_id: Option<&BuildId>) -> Result<NamesIn, String> {
    if path.as_bytes() != VDSO {
        return Ok(NamesIn::Path);
    }
    let own = target::vdso().map_err(|error| error.to_string())?;
    let is_same = build_id.is_some() && Image::read(&own).is_ok_and(|image| image.build_id.as_ref() == build_id);
    if is_same { Ok(NamesIn::Binary(Bytes::Memory(own))) } else { Err("it is another kernel's".to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_s_code_is_named_by_the_kernel_that_ran() {
        let own = Image::read(&target::vdso().unwrap()).unwrap().build_id;
        assert!(matches!(names_in("/[vdso]", own.as_ref()), Ok(NamesIn::Binary(Bytes::Memory(_)))));
        assert!(names_in("/[vdso]", BuildId::new(&[7; 20]).as_ref()).is_err());
        assert!(names_in("/[vdso]", None).is_err());
        assert!(matches!(names_in("/usr/bin/x", None), Ok(NamesIn::Path)));
    }
}
