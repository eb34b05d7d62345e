//! How large a recording is, by what was recorded, and what the recorder itself used for it.

use std::{
    path::PathBuf,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};

use super::{Bench, bytes_of, number, table};
use crate::process::line;

/// Programs that switch, and their arguments.
const WORKLOADS: [(&str, &[&str]); 3] = [
    ("ping-pong", &["--seconds", "3"]),
    ("switch-storm", &["--seconds", "3"]),
    ("switch-storm", &["--seconds", "3", "--groups", "2", "--fan", "5"]),
];

pub fn run(bench: &Bench) -> Result<()> {
    let mut rows = Vec::new();
    for (program, arguments) in WORKLOADS {
        let name = [&[program], arguments].concat().join(" ");
        eprintln!("bench: how large a recording of `{name}` is");
        let command: Vec<PathBuf> =
            [bench.program(program)].into_iter().chain(arguments.iter().map(PathBuf::from)).collect();
        let summary = polletto(bench, &command)?;
        let (switches, wakeups) = (number(&summary, "switches")?, number(&summary, "wakeups")?);
        let seconds = number(&summary, "seconds")?;
        // Loading the programs takes the same time whatever is recorded.
        let cpu = number(&summary, "recorder_cpu_seconds")?;
        rows.push(vec![
            name,
            format!("{:.0}", switches / seconds),
            format!("{:.2}", wakeups / switches),
            format!("{:.1}", number(&summary, "bytes")? / switches),
            format!("{:.0}", perf_bytes_per_switch(bench, &command)?),
            format!("{:.1} %", 100.0 * number(&summary, "records_lost")? / (switches + wakeups)),
            format!("{:.1} %", 100.0 * cpu / seconds),
            format!("{:.0} MB", number(&summary, "recorder_peak_memory_bytes")? / 1e6),
        ]);
    }
    table::print(
        "Recordings of programs that switch; a switch counts with its wake-up, if it has one",
        &[
            "recorded",
            "switches/s",
            "wake-ups per switch",
            "bytes per switch",
            "perf.data",
            "lost",
            "recorder's CPU",
            "its memory",
        ],
        &rows,
    );
    Ok(())
}

/// Records `command` and returns the summary.
fn polletto(bench: &Bench, command: &[PathBuf]) -> Result<String> {
    let mut polletto = bench.privilege.command(bench.program("polletto"));
    polletto.args(["record", "--no-stacks", "--json", "--force", "-o"]).arg(bench.recording("size.perfetto-trace"));
    output(polletto.arg("--").args(command))
}

/// Bytes of `perf.data` for each switch away from one of the command's threads, which the command counts itself.
fn perf_bytes_per_switch(bench: &Bench, command: &[PathBuf]) -> Result<f64> {
    let file = bench.recording("size.perf-data");
    let mut perf = bench.privilege.command(PathBuf::from("perf"));
    perf.args(["record", "-q", "-e", "sched:sched_switch,sched:sched_waking", "-o"]).arg(&file);
    let report = output(perf.arg("--").args(command))?;
    let switches = match number(&report, "voluntary") {
        Ok(voluntary) => voluntary + number(&report, "involuntary")?,
        Err(_) => number(&report, "switches")?,
    };
    Ok(bytes_of(&file)? / switches)
}

fn output(command: &mut Command) -> Result<String> {
    let output =
        command.stderr(Stdio::null()).output().with_context(|| format!("`{}` did not start", line(command)))?;
    ensure!(output.status.success(), "`{}` ended with {}", line(command), output.status);
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
