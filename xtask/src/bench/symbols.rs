//! What names cost: addresses of a large program with all its debug information, beside other programs that find names.

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Instant,
};

use anyhow::{Context, Result, ensure};

use super::{
    Bench, bytes_of, number,
    table::{self, median},
};
use crate::{
    process::{self, line, output},
    workspace,
};

/// Turns of each.
const ROUNDS: usize = 7;

/// Addresses at a time.
const COUNTS: [usize; 2] = [1_000, 20_000];

/// Who finds names.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Namer {
    /// With the process that a recording starts for it.
    Polletto,
    /// Without, so that its memory can be seen.
    InProcess,
    Blazesym,
    LlvmSymbolizer,
}

impl Namer {
    const ALL: [Namer; 4] = [Namer::Polletto, Namer::InProcess, Namer::Blazesym, Namer::LlvmSymbolizer];

    fn name(self) -> &'static str {
        match self {
            Namer::Polletto => "polletto",
            Namer::InProcess => "polletto, in one process",
            Namer::Blazesym => "blazesym",
            Namer::LlvmSymbolizer => "llvm-symbolizer",
        }
    }

    fn command(self, names: &Path, program: &Path) -> Command {
        let by = |word: &str| {
            let mut command = Command::new(names);
            command.arg(word).arg(program);
            command
        };
        match self {
            Namer::Polletto => by("polletto"),
            Namer::InProcess => by("in-process"),
            Namer::Blazesym => by("blazesym"),
            Namer::LlvmSymbolizer => {
                let mut command = Command::new("llvm-symbolizer");
                command.arg("--obj").arg(program);
                command
            }
        }
    }
}

/// What names for all addresses came to.
#[derive(Clone, Copy)]
struct Cost {
    seconds: f64,
    /// The most anonymous memory; not a number where nobody looks.
    kib: f64,
}

pub fn run(bench: &Bench) -> Result<()> {
    let (names, program) = build(bench)?;
    println!("\n{}: {:.0} MB", program.display(), bytes_of(&program)? / 1e6);
    COUNTS.into_iter().try_for_each(|count| names_for(bench, count, &names, &program))
}

fn names_for(bench: &Bench, count: usize, names: &Path, program: &Path) -> Result<()> {
    let addresses = bench.recording("addresses");
    let mut list = Command::new(names);
    list.arg("list").arg(program).arg(count.to_string());
    let listed = output(&mut list).with_context(|| format!("`{}` failed", line(&list)))?;
    std::fs::write(&addresses, listed)?;
    let mut costs = [const { Vec::new() }; Namer::ALL.len()];
    for round in 1..=ROUNDS {
        eprintln!("bench: round {round} of {ROUNDS} of names for {count} addresses");
        for (namer, costs) in Namer::ALL.into_iter().zip(&mut costs) {
            costs.push(cost(namer, names, program, &addresses)?);
        }
    }
    let medians = costs.map(|costs| {
        let of = |figure: fn(&Cost) -> f64| median(&costs.iter().map(figure).collect::<Vec<_>>());
        Cost { seconds: of(|cost| cost.seconds), kib: of(|cost| cost.kib) }
    });
    let polletto = medians[0];
    let rows = Namer::ALL.iter().zip(&medians).map(|(namer, cost)| {
        let memory = if cost.kib > 0.0 { format!("{:.0} MB", cost.kib * 1024.0 / 1e6) } else { String::new() };
        let ratio = format!("{:.1}", cost.seconds / polletto.seconds);
        vec![namer.name().to_owned(), format!("{:.0} ms", 1e3 * cost.seconds), ratio, memory]
    });
    table::print(
        &format!("Names, lines and inlined functions of {count} addresses (medians)"),
        &["found by", "in", "of polletto's", "anonymous memory"],
        &rows.collect::<Vec<_>>(),
    );
    Ok(())
}

fn cost(namer: Namer, names: &Path, program: &Path, addresses: &Path) -> Result<Cost> {
    let mut command = namer.command(names, program);
    let began = Instant::now();
    let output = command.stdin(File::open(addresses)?).stderr(Stdio::null()).output();
    let seconds = began.elapsed().as_secs_f64();
    let output = output.with_context(|| format!("`{}` did not start", line(&command)))?;
    ensure!(output.status.success(), "`{}` ended with {}", line(&command), output.status);
    let text = String::from_utf8_lossy(&output.stdout);
    let kib = match namer {
        Namer::InProcess | Namer::Blazesym => number(&text, "anonymous_kib")?,
        Namer::Polletto | Namer::LlvmSymbolizer => 0.0,
    };
    Ok(Cost { seconds, kib })
}

/// The program that finds names, and the one whose addresses get them. It takes ten minutes the first time.
fn build(bench: &Bench) -> Result<(PathBuf, PathBuf)> {
    let target = bench.recording("target");
    for (program, features) in [("name-addresses", ""), ("large-program", "large")] {
        eprintln!("bench: builds {program}");
        let mut cargo = Command::new("cargo");
        cargo.current_dir(workspace::root().join("bench")).args(["build", "--release", "--locked", "--bin", program]);
        cargo.args(["--features", features, "--target-dir"]).arg(&target);
        process::run(&mut cargo)?;
    }
    let built = |program| target.join("release").join(program);
    Ok((built("name-addresses"), built("large-program")))
}
