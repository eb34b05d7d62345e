//! What people type and see.

pub mod doctor;
