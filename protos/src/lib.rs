//! The messages of Perfetto's trace format that polletto writes, generated from this crate's own `.proto` files.
//!
//! Names, field numbers and meanings are Perfetto's. The `.proto` files say for each field its unit and its rules.

#![allow(missing_docs, reason = "the documentation of generated types stands in the .proto files")]

include!(concat!(env!("OUT_DIR"), "/perfetto.protos.rs"));
