//! Tests of the whole way from `.eh_frame` to tables.

mod agreement;
mod cached;
mod heights;
mod hostile;
mod reference;
mod rules;
mod variants;
mod written;
