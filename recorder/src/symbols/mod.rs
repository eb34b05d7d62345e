//! Names for addresses: functions, files, lines, and what was inlined.
//!
//! [`resolve`] answers [`Request`]s, module by module, from symbol tables and debug information.

mod debuginfod;
mod dwarf;
mod file;
mod functions;
mod kernel;
mod memory;
mod module;
mod request;
mod resolve;
mod sources;
mod wire;
mod worker;

pub use self::{
    kernel::KernelFunctions,
    module::{Means, Sink, name},
    request::{Answer, Function, Missing, ModuleReport, Request, Symbols},
    resolve::{Observer, Options, WORKER, resolve},
    worker::work,
};

fn demangle(name: &str) -> std::borrow::Cow<'_, str> {
    match rustc_demangle::try_demangle(name) {
        Ok(name) => format!("{name:#}").into(),
        Err(_) => name.into(),
    }
}
