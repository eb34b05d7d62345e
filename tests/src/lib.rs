//! What the end-to-end scenarios share.
//!
//! A scenario records a program whose behaviour it knows ([`program`], `src/bin/`), through the command that people use
//! ([`recorder`]), and reads the trace with a decoder that shares nothing with polletto ([`trace`], [`check`]).

pub mod agreement;
pub mod awaiting;
pub mod browser;
pub mod check;
pub mod code;
pub mod debug_server;
pub mod duties;
pub mod faults;
pub mod generated;
pub mod named;
pub mod oracle;
pub mod paths;
pub mod plugin;
pub mod program;
pub mod published;
pub mod recorder;
pub mod reference;
pub mod report;
pub mod served;
pub mod symbolize;
pub mod symbolizer;
pub mod symbols;
pub mod trace;
pub mod turn;
pub mod workload;
