//! polletto records what a running, unmodified program does as one Perfetto trace.
//!
//! One record goes one way, once: [`kernel`] drains the rings that the kernel programs fill, [`timeline`] turns records
//! into what happened, [`trace`] writes that as compressed packets. [`unwind`] prepares what the kernel programs unwind
//! stacks by, and [`tokio`] knows what a program's tasks look like from outside. [`session`] holds a recording's life together, and [`cli`] is what people see of it.

pub mod async_task;
pub mod cli;
pub mod code;
pub mod families;
pub mod kernel;
mod parking_lot;
mod pieces;
pub mod preflight;
pub mod session;
pub mod symbols;
pub mod target;
pub mod timeline;
pub mod tokio;
pub mod trace;
pub mod unwind;
