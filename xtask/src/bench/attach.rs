//! Probes that come and go a thousand times in a server under load, and what its requests notice of it.

use anyhow::Result;

use super::Bench;
use crate::test;

/// Runs the long form of a scenario that the tests run with twenty recordings. It fails if a request is not answered,
/// or if the server's code is not that of its file after any recording.
pub fn run(bench: &Bench) -> Result<()> {
    eprintln!("bench: a thousand recordings, one after another: this takes some eight minutes");
    test::run_long(bench.privilege, "attach", "a_thousand_times")
}
