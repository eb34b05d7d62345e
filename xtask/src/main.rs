//! Sets up, builds, demonstrates, tests and measures polletto.
fn main() {}
