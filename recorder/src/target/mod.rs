//! What the machine's processes are, as `/proc` and their files tell it: no kernel program, and no privilege where none
//! is needed.
//!
//! [`select`] turns a name into the process that the user means, [`Watch`] notices when processes end, and
//! [`Held::launch`] starts a command that waits before its first instruction until everything is attached to it.
//! [`image`] reads what a program's files say of themselves.
//!
//! Names and command lines are written by the processes themselves. They are bounded and made valid UTF-8 on reading,
//! but may hold any character: print them through [`printable`].

#[cfg(test)]
mod example;
pub mod image;
mod launch;
mod memory;
mod naming;
mod printable;
mod process;
mod process_memory;
mod select;
mod spare;
mod watch;

pub use launch::{Held, LaunchError, Running, exit_code, find_program};
pub use memory::{CodeOrigin, CodeRange, code_of, open_regular, perf_map, vdso};
pub use naming::NAME_RULE;
pub use printable::printable;
pub use process::{Error, Kind, Process, Thread, thread_process, threads_of, with_descendants};
pub use process_memory::{Excerpt, Memory, ProcessMemory};
pub use select::{SelectError, find_by_name, select};
pub use spare::spare_memory;
pub use watch::Watch;
