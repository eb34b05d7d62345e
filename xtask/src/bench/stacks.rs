//! What stacks cost: samples of a thread that works under thirty frames, and blocked stretches of threads that switch.

use std::{
    io::{BufRead, BufReader, Read, Write},
    path::PathBuf,
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, ensure};

use super::{
    Bench, bytes_of, number,
    table::{self, median},
};
use crate::{
    process::{Running, line, output},
    setup::Privilege,
};

/// Turns of each way to record.
const ROUNDS: usize = 3;

/// Samples a second. At the lower rate it is the start that costs most, at the higher one the samples.
const RATES: [u32; 2] = [999, 4999];

/// How long each recording takes, in seconds.
const SECONDS: u64 = 15;

/// Who takes samples.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sampler {
    Nobody,
    Polletto,
    PerfFramePointers,
    PerfDwarf,
}

impl Sampler {
    const ALL: [Sampler; 4] = [Sampler::Nobody, Sampler::Polletto, Sampler::PerfFramePointers, Sampler::PerfDwarf];

    fn name(self) -> &'static str {
        match self {
            Sampler::Nobody => "nobody",
            Sampler::Polletto => "polletto record --mode cpu",
            Sampler::PerfFramePointers => "perf record --call-graph fp",
            Sampler::PerfDwarf => "perf record --call-graph dwarf",
        }
    }

    /// What the recording is called.
    fn file(self) -> &'static str {
        match self {
            Sampler::Nobody | Sampler::Polletto => "stacks.perfetto-trace",
            Sampler::PerfFramePointers => "stacks-fp.perf-data",
            Sampler::PerfDwarf => "stacks-dwarf.perf-data",
        }
    }

    /// Records process `pid` into `file`, until it ends.
    fn command(self, bench: &Bench, hz: u32, pid: &str, file: &PathBuf) -> Option<Command> {
        let hz = &hz.to_string();
        let perf = |method| {
            let mut perf = bench.privilege.command(PathBuf::from("perf"));
            perf.args(["record", "-q", "-e", "cpu-clock", "-F", hz, "--call-graph", method, "-p", pid, "-o"]).arg(file);
            perf
        };
        match self {
            Sampler::Nobody => None,
            Sampler::PerfFramePointers => Some(perf("fp")),
            Sampler::PerfDwarf => Some(perf("dwarf")),
            Sampler::Polletto => {
                let mut polletto = bench.privilege.command(bench.program("polletto"));
                polletto
                    .args(["record", "--quiet", "--force", "--no-symbols", "--mode", "cpu", "-F", hz, "-p", pid, "-o"])
                    .arg(file);
                Some(polletto)
            }
        }
    }
}

/// What a recording of the working thread came to.
#[derive(Clone, Copy)]
struct Cost {
    /// Work that the thread did, in millions a second.
    work: f64,
    /// CPU time of the recorder, seconds.
    cpu: f64,
    /// Size of the recording.
    bytes: f64,
}

pub fn run(bench: &Bench) -> Result<()> {
    RATES.into_iter().try_for_each(|hz| samples(bench, hz))?;
    in_kernel(bench)?;
    blocked(bench)
}

fn samples(bench: &Bench, hz: u32) -> Result<()> {
    let mut costs = [const { Vec::new() }; Sampler::ALL.len()];
    for round in 1..=ROUNDS {
        eprintln!("bench: round {round} of {ROUNDS} of what {hz} samples a second cost");
        for (sampler, costs) in Sampler::ALL.into_iter().zip(&mut costs) {
            costs.push(cost(bench, hz, sampler)?);
        }
    }
    let medians = costs.map(|costs| {
        let of = |figure: fn(&Cost) -> f64| median(&costs.iter().map(figure).collect::<Vec<_>>());
        Cost { work: of(|cost| cost.work), cpu: of(|cost| cost.cpu), bytes: of(|cost| cost.bytes) }
    });
    let samples = f64::from(hz) * SECONDS as f64;
    let (nobody, polletto) = (medians[0], medians[1]);
    let rows = Sampler::ALL.iter().zip(&medians).skip(1).map(|(sampler, cost)| {
        vec![
            sampler.name().to_owned(),
            format!("{:.2} %", 100.0 * (1.0 - cost.work / nobody.work)),
            format!("{:.2} s", cost.cpu),
            format!("{:.1}", cost.cpu / polletto.cpu),
            format!("{:.0}", cost.bytes / samples),
            format!("{:.1}", cost.bytes / polletto.bytes),
        ]
    });
    table::print(
        &format!("One thread working under 30 frames, sampled {hz} times a second for {SECONDS} s (medians)"),
        &["recorded by", "work lost", "recorder's CPU", "of polletto's", "bytes per sample", "of polletto's"],
        &rows.collect::<Vec<_>>(),
    );
    let unwinding = unwinding(bench)?;
    println!("\nUntil then perf has copied stacks; `perf script` unwinds them in {unwinding:.2} s of CPU time:");
    println!("with it, {:.1} times what polletto takes", (medians[3].cpu + unwinding) / polletto.cpu);
    Ok(())
}

/// CPU time in which perf finds the callers in its last recording, without their names.
fn unwinding(bench: &Bench) -> Result<f64> {
    let before = children_cpu_seconds()?;
    let mut script = bench.privilege.command(PathBuf::from("perf"));
    script.args(["script", "--no-inline", "-F", "ip", "-i"]).arg(bench.recording(Sampler::PerfDwarf.file()));
    let status = script.stdout(Stdio::null()).stderr(Stdio::null()).status()?;
    ensure!(status.success(), "perf script ended with {status}");
    Ok(children_cpu_seconds()? - before)
}

/// Records the thread for nearly all of its time.
fn cost(bench: &Bench, hz: u32, sampler: Sampler) -> Result<Cost> {
    let file = bench.recording(sampler.file());
    let mut target = Target::start(bench, SECONDS as f64)?;
    let pid = target.process.id().to_string();
    let before = children_cpu_seconds()?;
    let recorder = sampler.command(bench, hz, &pid, &file).map(|mut command| {
        command.stdout(Stdio::null()).stderr(Stdio::null());
        Running::start(&mut command)
    });
    let recorder = recorder.transpose()?;
    target.begin()?;
    let report = target.report()?;
    if let Some(mut recorder) = recorder {
        let status = recorder.wait(Duration::from_secs(60))?.context("the recorder did not end")?;
        ensure!(status.success(), "{} ended with {status}", sampler.name());
    }
    // What the target used is among its parent's children's as well.
    let cpu = children_cpu_seconds()? - before - number(&report, "cpu_seconds")?;
    let bytes = if sampler == Sampler::Nobody { 0.0 } else { bytes_of(&file)? };
    Ok(Cost { work: number(&report, "work")? / number(&report, "seconds")? / 1e6, cpu, bytes })
}

/// A thread that works under thirty frames, once it is told to.
struct Target {
    process: Running,
    output: BufReader<std::process::ChildStdout>,
}

impl Target {
    fn start(bench: &Bench, seconds: f64) -> Result<Target> {
        let mut command = Command::new(bench.program("stack-burner"));
        command.args(["--wait", "--depth", "25", "--seconds", &seconds.to_string()]);
        let mut process = Running::start(command.stdin(Stdio::piped()).stdout(Stdio::piped()))?;
        let mut output = BufReader::new(process.child().stdout.take().context("the target has no output")?);
        let mut ready = String::new();
        output.read_line(&mut ready)?;
        ensure!(ready.starts_with("ready"), "the target said {ready:?}");
        Ok(Target { process, output })
    }

    fn begin(&mut self) -> Result<()> {
        let input = self.process.child().stdin.as_mut().context("the target has no input")?;
        Ok(input.write_all(b"go\n")?)
    }

    /// What it says at its end.
    fn report(&mut self) -> Result<String> {
        let mut report = String::new();
        self.output.read_to_string(&mut report)?;
        self.process.wait(Duration::from_secs(10))?.context("the target did not end")?;
        Ok(report)
    }
}

/// How long the kernel runs the program that takes a sample, by the kernel's own count.
fn in_kernel(bench: &Bench) -> Result<()> {
    const COUNTING: &str = "/proc/sys/kernel/bpf_stats_enabled";
    if bench.privilege == Privilege::Sudo {
        println!("\nNot measured, since only root may: how long the kernel takes for a sample");
        return Ok(());
    }
    std::fs::write(COUNTING, "1").context("the kernel does not count its programs' time")?;
    let counted = count_in_kernel(bench);
    std::fs::write(COUNTING, "0").context("the kernel goes on counting its programs' time")?;
    let (nanoseconds, runs) = counted?;
    println!("\nIn the kernel: {:.2} µs for a sample of 30 frames ({runs} samples)", nanoseconds / runs / 1e3);
    Ok(())
}

fn count_in_kernel(bench: &Bench) -> Result<(f64, f64)> {
    let mut target = Target::start(bench, 4.0)?;
    let mut polletto = Command::new(bench.program("polletto"));
    polletto.args(["record", "--quiet", "--force", "--mode", "cpu", "-F", "9999", "--cpu", "0", "-d", "2", "-o"]);
    polletto.arg(bench.recording("stacks.perfetto-trace")).args(["-p", &target.process.id().to_string()]);
    target.begin()?;
    let mut recorder = Running::start(&mut polletto)?;
    thread::sleep(Duration::from_millis(1500));
    let counts = timer_counts(recorder.id())?;
    recorder.wait(Duration::from_secs(30))?.context("the recorder did not end")?;
    target.report()?;
    Ok(counts)
}

/// Nanoseconds and runs of the recorder's program for perf events.
fn timer_counts(recorder: u32) -> Result<(f64, f64)> {
    const PERF_EVENT: &str = "prog_type:\t7";
    for entry in std::fs::read_dir(format!("/proc/{recorder}/fdinfo"))? {
        let facts = std::fs::read_to_string(entry?.path()).unwrap_or_default();
        if facts.contains(PERF_EVENT) {
            let fact = |name: &str| {
                let line =
                    facts.lines().find_map(|line| line.strip_prefix(name)).context("the kernel counts nothing")?;
                Ok::<f64, anyhow::Error>(line.trim().parse()?)
            };
            return Ok((fact("run_time_ns:")?, fact("run_cnt:")?));
        }
    }
    anyhow::bail!("the recorder has no program for its timer")
}

/// What a blocked stretch's stack adds to a switch.
fn blocked(bench: &Bench) -> Result<()> {
    const WAYS: [(&str, &[&str]); 3] = [
        ("--no-stacks", &["--no-stacks"]),
        ("--mode offcpu", &["--mode", "offcpu"]),
        ("--mode offcpu --min-block 0", &["--mode", "offcpu", "--min-block", "0"]),
    ];
    let mut times = [const { Vec::new() }; WAYS.len()];
    for round in 1..=ROUNDS {
        eprintln!("bench: round {round} of {ROUNDS} of what blocked stretches cost");
        for ((_, options), times) in WAYS.iter().zip(&mut times) {
            let mut polletto = bench.privilege.command(bench.program("polletto"));
            polletto.args(["record", "--quiet", "--force", "-o"]).arg(bench.recording("stacks.perfetto-trace"));
            polletto.args(*options).arg("--").arg(bench.program("ping-pong")).args(["--seconds", "1"]);
            let text = output(&mut polletto).with_context(|| format!("`{}` failed", line(&polletto)))?;
            times.push(number(&text, "ns_per_switch")?);
        }
    }
    let medians = times.map(|times| median(&times));
    let rows = WAYS
        .iter()
        .zip(&medians)
        .map(|((name, _), time)| vec![(*name).to_owned(), format!("{time:.0}"), format!("{:.0}", time - medians[0])]);
    table::print(
        "Two threads pinned to one CPU, waking each other through pipes; half of the switches are to sleep (medians)",
        &["recorded with", "ns per switch", "added ns"],
        &rows.collect::<Vec<_>>(),
    );
    Ok(())
}

/// CPU time of all children that have ended and were waited for, and of theirs. To a hundredth of a second.
fn children_cpu_seconds() -> Result<f64> {
    const TICKS_PER_SECOND: f64 = 100.0;
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let behind_name = stat.rsplit_once(')').context("/proc/self/stat has another form")?.1;
    let mut fields = behind_name.split_ascii_whitespace().skip(13);
    let mut ticks = || -> Result<f64> { Ok(fields.next().context("/proc/self/stat is short")?.parse::<f64>()?) };
    Ok((ticks()? + ticks()?) / TICKS_PER_SECOND)
}
