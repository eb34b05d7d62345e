//! Names of code.

mod kernel;

pub use kernel::{KernelFunction, KernelFunctions};
