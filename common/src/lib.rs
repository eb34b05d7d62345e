//! What crosses the boundary between polletto's kernel programs and its recorder.
//!
//! Both sides compile this crate, so a record has one definition: the kernel writes the bytes of a `#[repr(C)]`
//! structure into a ring or a [`stream`], and [`record::Record::decode`] reads them back, checking every length and kind.

#![cfg_attr(not(test), no_std)]
#![warn(missing_docs)]

pub mod id;
pub mod limits;
pub mod offsets;
pub mod parked;
pub mod poll;
pub mod polled;
pub mod record;
pub mod scope;
pub mod stats;
pub mod stream;
pub mod unwind;
