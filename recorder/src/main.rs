//! The `polletto` command.

fn main() {}
