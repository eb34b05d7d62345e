//! What it takes from programs that poll as often as they can to be recorded.

use std::{process::Stdio, thread, time::Duration};

use anyhow::{Context, Result, ensure};

use super::{
    Bench, number,
    said::Said,
    table::{self, median},
};

/// Turns of each way to record.
const ROUNDS: usize = 3;

/// How long each turn takes.
const TURN: Duration = Duration::from_secs(12);

/// Ways to record, beside not recording at all.
const WAYS: [&[&str]; 4] =
    [&["--polls", "off"], &["--polls", "off", "-F", "999"], &["--polls", "budget"], &["--polls", "all"]];

/// A program that does as much as it can, and one that counts what it does.
struct Mill {
    /// None where that is the recorded one. Ends first: it asks the other.
    counting: Option<Said>,
    recorded: Said,
}

impl Mill {
    fn polling(bench: &Bench, arguments: &[&str]) -> Result<Mill> {
        let (recorded, _) = Said::start(&bench.program("poll-mill"), arguments)?;
        Ok(Mill { recorded, counting: None })
    }

    fn serving(bench: &Bench) -> Result<Mill> {
        let (recorded, port) = Said::start(&bench.program("web-mill"), &["serve"])?;
        let (counting, _) = Said::start(&bench.program("web-mill"), &["ask", &port])?;
        Ok(Mill { recorded, counting: Some(counting) })
    }

    /// When, and how much it has done until then.
    fn count(&mut self) -> Result<(f64, f64)> {
        let told = self.counting.as_mut().unwrap_or(&mut self.recorded).ask()?;
        Ok((number(&told, "at")?, number(&told, "count")?))
    }

    /// What it does in a second while something else is done.
    fn pace(&mut self, meanwhile: impl FnOnce(u32) -> Result<()>) -> Result<f64> {
        let (begin, before) = self.count()?;
        meanwhile(self.recorded.pid())?;
        let (end, after) = self.count()?;
        Ok((after - before) / (end - begin) * 1e9)
    }
}

pub fn run(bench: &Bench) -> Result<()> {
    compare(bench, "An axum server with one worker, at full speed", Mill::serving(bench)?)?;
    compare(bench, "A task that does nothing but yield, on one thread", Mill::polling(bench, &[])?)?;
    compare(bench, "Three such tasks on two workers", Mill::polling(bench, &["--workers", "2", "--tasks", "3"])?)
}

/// Each way beside not recording, right before.
fn compare(bench: &Bench, what: &str, mut mill: Mill) -> Result<()> {
    let (mut kept, mut paces, mut told) =
        ([const { Vec::new() }; WAYS.len()], Vec::new(), [const { String::new() }; WAYS.len()]);
    // Until it runs evenly.
    mill.pace(nothing)?;
    for round in 1..=ROUNDS {
        eprintln!("bench: round {round} of {ROUNDS} of what recording polls costs: {what}");
        for ((way, kept), told) in WAYS.into_iter().zip(&mut kept).zip(&mut told) {
            let alone = mill.pace(nothing)?;
            let recorded = mill.pace(|pid| {
                *told = record(bench, pid, way)?;
                Ok(())
            })?;
            paces.push(alone);
            kept.push(100.0 * recorded / alone);
        }
    }
    let rows = WAYS.into_iter().zip(&kept).zip(&told).map(|((way, kept), told)| {
        let polls = number(told, "polls_exact").unwrap_or_default();
        let cpu = number(told, "recorder_cpu_seconds").unwrap_or_default();
        let range = |pick: fn(f64, f64) -> f64| kept.iter().copied().reduce(pick).unwrap_or_default();
        vec![
            format!("polletto record {}", way.join(" ")),
            format!("{:.1} %", median(kept)),
            format!("{:.1} to {:.1}", range(f64::min), range(f64::max)),
            format!("{polls}"),
            format!("{:.2} s", cpu),
        ]
    });
    table::print(
        &format!("{what}: {:.0} a second when nobody records (medians of {ROUNDS} pairs)", median(&paces)),
        &["recorded by", "pace kept", "from", "polls from begin to end", "recorder's CPU"],
        &rows.collect::<Vec<_>>(),
    );
    Ok(())
}

/// Lets a turn pass.
fn nothing(_pid: u32) -> Result<()> {
    thread::sleep(TURN);
    Ok(())
}

/// Records for a turn. What the recorder says of it.
fn record(bench: &Bench, pid: u32, way: &[&str]) -> Result<String> {
    let mut polletto = bench.privilege.command(bench.program("polletto"));
    polletto.args(["record", "--quiet", "--force", "--json", "--no-symbols"]).args(way);
    polletto
        .args(["-d", &TURN.as_secs().to_string(), "-p", &pid.to_string(), "-o"])
        .arg(bench.recording("polls.perfetto-trace"));
    let output = polletto.stderr(Stdio::inherit()).output().context("the recorder did not start")?;
    ensure!(output.status.success(), "the recorder ended with {}", output.status);
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
