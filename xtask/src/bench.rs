//! `cargo xtask bench`: what recording costs, beside what others cost, in one run.
//!
//! Timings on one machine differ from minute to minute. So whatever is compared runs in turns, several times, and what
//! counts is the median of each and the ratio between them.

mod attach;
mod cost;
mod polls;
mod said;
mod size;
mod stacks;
mod symbols;
mod table;
mod tasks;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::ValueEnum;

use crate::{
    build,
    setup::{self, Privilege},
    workspace,
};

/// Where the programs are, and where recordings may be put.
struct Bench {
    privilege: Privilege,
    programs: PathBuf,
    recordings: PathBuf,
}

/// What can be measured alone.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Part {
    /// What recording takes from a program that does nothing but switch.
    Cost,
    /// Bytes of a trace.
    Size,
    /// What callstacks take.
    Stacks,
    /// What it takes to find names.
    Names,
    /// What telling polls takes from programs that poll as often as they can.
    Polls,
    /// What a server's answers notice when its tasks are listed.
    Tasks,
    /// Probes that come and go a thousand times.
    Attach,
}

/// Measures these parts, or all of them if there are none.
pub fn run(parts: &[Part]) -> Result<()> {
    let privilege = setup::for_bench()?;
    build::release()?;
    let recordings = workspace::installed().join("bench");
    std::fs::create_dir_all(&recordings).with_context(|| format!("{} can't be made", recordings.display()))?;
    let bench = Bench { privilege, programs: workspace::release_programs(), recordings };
    let mut wanted = Part::value_variants().iter().filter(|part| parts.is_empty() || parts.contains(part));
    wanted.try_for_each(|part| match part {
        Part::Cost => cost::run(&bench),
        Part::Size => size::run(&bench),
        Part::Stacks => stacks::run(&bench),
        Part::Names => symbols::run(&bench),
        Part::Polls => polls::run(&bench),
        Part::Tasks => tasks::run(&bench),
        Part::Attach => attach::run(&bench),
    })
}

impl Bench {
    fn program(&self, name: &str) -> PathBuf {
        self.programs.join(name)
    }

    fn recording(&self, name: &str) -> PathBuf {
        self.recordings.join(name)
    }
}

/// The number that follows the last `"key":` in JSON, such as the recorder prints after what the recorded program did.
fn number(json: &str, key: &str) -> Result<f64> {
    let after = json.rsplit_once(&format!("\"{key}\":")).with_context(|| format!("no {key} in {json}"))?.1;
    let digits: String =
        after.trim_start().chars().take_while(|letter| letter.is_ascii_digit() || *letter == '.').collect();
    digits.parse().with_context(|| format!("{key} is no number in {json}"))
}

fn bytes_of(file: &Path) -> Result<f64> {
    let metadata = std::fs::metadata(file).with_context(|| format!("{} was not recorded", file.display()))?;
    Ok(metadata.len() as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_number_of_a_key_counts() {
        let json = "{\"seconds\":1,\"a\":2}\n{\n  \"seconds\": 3.5,\n  \"cpu_seconds\": 4\n}";
        assert_eq!(number(json, "seconds").unwrap(), 3.5);
        assert!(number(json, "b").is_err());
    }
}
