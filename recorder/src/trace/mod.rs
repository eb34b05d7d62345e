//! Packets, their compression, and where they go.
//!
//! [`PacketBuffer`] encodes packets and cuts them into [`Batch`]es, each complete in itself. An [`Output`] compresses
//! batches and appends them to a [`TraceFile`] on a thread of its own, so that a file can be opened up to the last batch
//! however the recorder ended. [`read`] goes the other way.

mod bundle;
mod columns;
mod compression;
mod file;
mod interning;
mod output;
mod packets;
mod preamble;
pub mod read;
mod samples;
mod wire;

pub use bundle::SchedBundle;
pub use compression::Compression;
pub use file::{TraceFile, TraceInput};
pub use interning::{InternTable, RecentTable};
pub use output::{Output, OutputClosed, Written};
pub use packets::{Batch, PacketBuffer};
pub use preamble::{
    Attribute, AttributeValue, Clocks, Preamble, add_attributes, mark_synchronization, snapshot_clocks,
};
pub use samples::{Argument, SliceBegin, SliceCallstack, StackSample, Weights};
