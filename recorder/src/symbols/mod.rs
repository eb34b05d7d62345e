//! Names for addresses: functions, files, lines, and what was inlined.
//!
//! [`resolve`] answers [`Request`]s, module by module, from symbol tables and debug information.

mod kernel;
mod kind;
mod names;
mod request;

pub use self::{
    kernel::KernelFunctions,
    kind::{Evidence, FrameKind, Told, crate_of, kind_of, origin_of},
    names::{demangle, short},
    request::{Answer, Function, Missing, ModuleReport, Request, Symbols},
};
