//! `cargo xtask demo`: everything that polletto does, in one command.

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, bail};

use crate::{
    build,
    process::{self, Running},
    setup::{self, Privilege},
    workspace,
};

/// How long the recording takes, in seconds.
const RECORDING: u64 = 10;
/// How long the load goes on, in seconds: through the whole recording, and its preparation.
const LOAD: u64 = RECORDING + 5;
const TRACE: &str = "demo.perfetto-trace";

pub fn run() -> Result<()> {
    let privilege = setup::for_recording()?;
    build::release()?;
    let programs = workspace::release_programs();
    let (server, address) = start_server(&programs)?;
    println!("demo: the server listens on {address}; recording it under load for {RECORDING} s");
    let mut load = Command::new(programs.join("demo-load"));
    load.args(["--address", &address, "--seconds", &LOAD.to_string()]);
    let mut load = Running::start(&mut load)?;
    let summary = record(privilege, &programs, server.id())?;
    // It ends by itself, and then says what it did.
    match load.wait(Duration::from_secs(2 * LOAD))? {
        Some(status) if status.success() => {}
        Some(_) => bail!("the demo server left requests unanswered"),
        None => bail!("demo-load did not end by itself"),
    }
    drop(server);
    println!("demo: the server's faults, and what was found of each:");
    process::run_with_input(&mut Command::new(programs.join("demo-findings")), summary.as_bytes())?;
    println!("demo: the trace is {TRACE}. To look at it, either");
    println!("  - open https://ui.perfetto.dev in a browser, and choose \"Open trace file\"; or");
    println!("  - run `trace_processor {TRACE}`, for questions in SQL");
    Ok(())
}

/// Starts the server, and waits for the line in which it says where it listens.
fn start_server(programs: &Path) -> Result<(Running, String)> {
    // The pipe that is its standard input closes when this program ends, however that comes about.
    let mut command = Command::new(programs.join("demo-server"));
    command
        .arg("--until-stdin-closes")
        .arg("--directory")
        .arg(workspace::installed())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    let mut server = Running::start(&mut command)?;
    let output = server.child().stdout.take().context("the demo server has no output")?;
    let mut line = String::new();
    BufReader::new(output).read_line(&mut line).context("the demo server's output cannot be read")?;
    match line.trim().strip_prefix("listening on ") {
        Some(address) => Ok((server, address.to_owned())),
        None => bail!("the demo server did not say where it listens"),
    }
}

/// Records the server, and returns the summary.
fn record(privilege: Privilege, programs: &Path, server: u32) -> Result<String> {
    let mut recorder = privilege.command(programs.join("polletto"));
    recorder.current_dir(workspace::root()).arg("record").args(["-p", &server.to_string()]);
    recorder.args(["-d", &RECORDING.to_string(), "-o", TRACE, "--force", "--json"]);
    process::printed(&mut recorder)
}
