//! Names of code.

mod kernel;

pub use kernel::KernelFunctions;
