//! What recording costs a program that does nothing but switch.

use std::{
    io::{BufRead, BufReader, Read},
    path::PathBuf,
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, ensure};

use super::{
    Bench, number,
    table::{self, median},
};
use crate::process::{Running, line};

/// Turns of each way to record.
const ROUNDS: usize = 9;

/// How long the ping-pong runs in each turn, in seconds.
const SECONDS: &str = "1";

/// Who records the ping-pong.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Recorder {
    Nobody,
    PollettoProcess,
    PollettoSystem,
    PollettoStacks,
    PerfSystem,
}

impl Recorder {
    const ALL: [Recorder; 5] = [
        Recorder::Nobody,
        Recorder::PollettoProcess,
        Recorder::PollettoSystem,
        Recorder::PollettoStacks,
        Recorder::PerfSystem,
    ];

    fn name(self) -> &'static str {
        match self {
            Recorder::Nobody => "nobody",
            Recorder::PollettoProcess => "polletto record --no-stacks -- ping-pong",
            Recorder::PollettoSystem => "polletto record --no-stacks --system",
            Recorder::PollettoStacks => "polletto record -- ping-pong",
            Recorder::PerfSystem => "perf record -e sched:sched_switch -a",
        }
    }
}

pub fn run(bench: &Bench) -> Result<()> {
    let mut times = [const { Vec::new() }; Recorder::ALL.len()];
    for round in 1..=ROUNDS {
        eprintln!("bench: round {round} of {ROUNDS} of what recording costs");
        for (recorder, times) in Recorder::ALL.into_iter().zip(&mut times) {
            times.push(ns_per_switch(bench, recorder)?);
        }
    }
    let medians = times.map(|times| median(&times));
    let added = |at: usize| medians[at] - medians[0];
    let rows = Recorder::ALL.iter().enumerate().map(|(at, recorder)| {
        vec![
            recorder.name().to_owned(),
            format!("{:.0}", medians[at]),
            format!("{:.0}", added(at)),
            format!("{:.2}", added(at) / added(Recorder::ALL.len() - 1)),
        ]
    });
    table::print(
        "Two threads pinned to one CPU, waking each other through pipes (medians)",
        &["recorded by", "ns per switch", "added ns", "added, of what perf adds"],
        &rows.collect::<Vec<_>>(),
    );
    Ok(())
}

fn ns_per_switch(bench: &Bench, recorder: Recorder) -> Result<f64> {
    let ping_pong = || [bench.program("ping-pong"), "--seconds".into(), SECONDS.into()];
    let trace = bench.recording("cost.perfetto-trace");
    match recorder {
        Recorder::Nobody => {
            let [program, arguments @ ..] = ping_pong();
            report(Command::new(program).args(arguments))
        }
        Recorder::PollettoProcess | Recorder::PollettoStacks => {
            let mut polletto = bench.privilege.command(bench.program("polletto"));
            polletto.args(["record", "--quiet", "--force", "-o"]).arg(trace);
            if recorder == Recorder::PollettoProcess {
                polletto.arg("--no-stacks");
            }
            report(polletto.arg("--").args(ping_pong()))
        }
        Recorder::PollettoSystem => {
            let mut polletto = bench.privilege.command(bench.program("polletto"));
            polletto.args(["record", "--no-stacks", "--system", "--force", "-d", "60", "-o"]).arg(trace);
            let polletto = start_recording(&mut polletto)?;
            let [program, arguments @ ..] = ping_pong();
            let time = report(Command::new(program).args(arguments))?;
            end(bench, polletto)?;
            Ok(time)
        }
        Recorder::PerfSystem => {
            let mut perf = bench.privilege.command(PathBuf::from("perf"));
            perf.args(["record", "-q", "-e", "sched:sched_switch", "-a", "-o"]).arg(bench.recording("cost.perf-data"));
            report(perf.arg("--").args(ping_pong()))
        }
    }
}

/// What the ping-pong says of itself at its end.
fn report(command: &mut Command) -> Result<f64> {
    let output =
        command.stderr(Stdio::null()).output().with_context(|| format!("`{}` did not start", line(command)))?;
    let text = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "`{}` ended with {}", line(command), output.status);
    number(&text, "ns_per_switch")
}

/// Starts a recorder and waits for the line in which it says that it records.
fn start_recording(command: &mut Command) -> Result<Running> {
    let mut running = Running::start(command.stderr(Stdio::piped()))?;
    let mut errors = BufReader::new(running.child().stderr.take().context("the recorder has no error output")?);
    let mut text = String::new();
    while !text.ends_with('\n') || !text.lines().last().is_some_and(|line| line.starts_with("recording")) {
        ensure!(errors.read_line(&mut text)? > 0, "the recorder ended before it recorded: {text}");
    }
    // What it says at its end must not fill the pipe.
    std::thread::spawn(move || errors.read_to_string(&mut String::new()));
    Ok(running)
}

fn end(bench: &Bench, mut recorder: Running) -> Result<()> {
    let mut kill = bench.privilege.command(PathBuf::from("kill"));
    crate::process::run(kill.args(["-INT", &recorder.id().to_string()]))?;
    let status = recorder.wait(Duration::from_secs(30))?.context("the recorder did not end")?;
    ensure!(status.success(), "the recorder ended with {status}");
    Ok(())
}
