//! Names for addresses: functions, files, lines, and what was inlined.
//!
//! [`resolve`] answers [`Request`]s, module by module, from symbol tables and debug information.

mod kernel;
mod request;
mod resolve;

pub use self::{
    kernel::KernelFunctions,
    request::{Answer, Function, Missing, ModuleReport, Request, Symbols},
    resolve::{Observer, Options, resolve},
};
