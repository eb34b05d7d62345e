//! Names for addresses: functions, files, lines, and what was inlined.
//!
//! [`resolve`] answers [`Request`]s, module by module, from symbol tables and debug information.

mod category;
mod debuginfod;
mod dependency;
pub(crate) mod dwarf;
pub(crate) mod file;
mod functions;
mod kernel;
mod kind;
pub(crate) mod memory;
mod module;
mod names;
pub mod perf_map;
mod request;
mod resolve;
mod sources;
#[cfg(test)]
mod tests;
mod wire;
mod worker;

pub(crate) use self::names::brackets;
pub use self::{
    category::{Categories, Category, Unclear},
    dependency::{Dependency, dependency_of},
    kernel::KernelFunctions,
    kind::{
        Evidence, FrameKind, Told, built_package, crate_of, kind_of, origin_of, package_of, short_file, told_file,
        told_place,
    },
    module::{Means, Sink, name},
    names::{demangle, short},
    request::{Answer, Function, Missing, ModuleReport, NamesIn, Request, Symbols},
    resolve::{Observer, Options, WORKER, resolve},
    worker::work,
};
