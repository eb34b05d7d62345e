//! `polletto record`

use std::{io::IsTerminal, path::Path, process::ExitCode};

use anyhow::{Context, Result, bail, ensure};
use polletto_common::id::{Tgid, Tid};
use rustix::process::Signal;

use super::{
    arguments::RecordArguments,
    print_json,
    status::{ProgressLine, StatusLine},
    summary::Summary,
    tell,
};
use crate::{
    kernel,
    preflight::{self, Needs},
    session::{self, AwaitStacks, Config, Ending, Observer, Progress, Signals, Subject, default_ring_bytes},
    target::{self, LaunchError, Running, SelectError},
};

/// The command line can't be followed.
const USAGE: u8 = 2;

/// Records, and returns the recorder's exit status.
pub fn run(arguments: &RecordArguments) -> ExitCode {
    match record(arguments) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            tell(format_args!("polletto: {error:#}\n"));
            ExitCode::from(exit_code_of(&error))
        }
    }
}

fn exit_code_of(error: &anyhow::Error) -> u8 {
    if let Some(error) = error.downcast_ref::<LaunchError>() {
        error.exit_code()
    } else if error.is::<SelectError>() {
        USAGE
    } else {
        1
    }
}

fn record(arguments: &RecordArguments) -> Result<u8> {
    let config = config(arguments)?;
    if arguments.verbose {
        tell(format_args!("{config:#?}\n"));
    }
    check_machine(&config, arguments)?;
    let mut signals = Signals::catch().context("could not catch signals")?;
    let mut teller = Teller::new(arguments);
    let outcome = session::record(&config, &mut signals, &mut teller);
    teller.status.clear();
    teller.naming.clear();
    let mut outcome = outcome?;
    let command = outcome.command.take();
    let summary = Summary::new(&outcome);
    if arguments.json {
        print_json(&summary, &mut std::io::stdout().lock())?;
    } else if !arguments.quiet {
        tell(&summary);
    }
    match command {
        Some(command) => wait_for(command, outcome.ending, arguments),
        None => Ok(0),
    }
}

/// Stops a recording that this machine does not allow, and tells what one will lack.
fn check_machine(config: &Config, arguments: &RecordArguments) -> Result<()> {
    let ring_bytes = u64::from(config.ring_bytes) * config.cpus.len() as u64;
    let report = preflight::run(&Needs { ring_bytes });
    if let Some(check) = report.first_fatal() {
        bail!("this machine can't be recorded (`polletto doctor` checks everything)\n{check}");
    }
    if arguments.verbose {
        tell(&report);
    } else if !arguments.quiet {
        report.warnings().for_each(|check| tell(format_args!("{check}\n")));
    }
    Ok(())
}

/// Passes the launched command's exit status on. It outlives the recording when that was ended before it.
fn wait_for(mut command: Running, ending: Ending, arguments: &RecordArguments) -> Result<u8> {
    if let Some(status) = command.try_wait()? {
        return Ok(target::exit_code(status));
    }
    let from_terminal = std::io::stdin().is_terminal() || std::io::stderr().is_terminal();
    let signal = match ending {
        // A terminal sends Ctrl-C to the command as well.
        Ending::Interrupted if !from_terminal => Some(Signal::INT),
        Ending::Terminated => Some(Signal::TERM),
        Ending::HungUp => Some(Signal::HUP),
        _ => None,
    };
    if let Some(signal) = signal {
        command.signal(signal).context("could not pass the signal on to the command")?;
    }
    if !arguments.quiet {
        tell("the command goes on; waiting for its end\n");
    }
    Ok(target::exit_code(command.wait().context("could not wait for the command")?))
}

fn config(arguments: &RecordArguments) -> Result<Config> {
    let is_awaited_often = matches!(arguments.await_stacks, AwaitStacks::Every(_));
    ensure!(
        arguments.task_walk > 0 || !is_awaited_often,
        "--await-stacks needs --task-walk: it is how it is known which tasks there are"
    );
    let cpus = cpus(&arguments.cpus)?;
    let ring_bytes = arguments.ring_kib.map_or_else(|| default_ring_bytes(cpus.len()), |kib| kib * 1024);
    Ok(Config {
        subject: subject(arguments)?,
        follow_children: arguments.follow,
        cpus,
        duration: arguments.duration,
        file: arguments.output.clone(),
        overwrite: arguments.force,
        compression: arguments.compression,
        ring_bytes,
        stacks: arguments.stacks(),
        polls: arguments.polls(),
        budget_percent: arguments.budget,
        workers: arguments.workers.clone(),
        task_walk: arguments.task_walk(),
        await_stacks: arguments.await_stacks,
        threshold: arguments.threshold(),
        categories: arguments.categories.clone().unwrap_or_default(),
        symbols: if arguments.no_symbols { None } else { Some(arguments.names.options()?) },
    })
}

fn subject(arguments: &RecordArguments) -> Result<Subject> {
    if let Some(name) = &arguments.name {
        Ok(Subject::Processes(vec![target::select(name)?.tgid]))
    } else if arguments.system {
        Ok(Subject::System)
    } else if !arguments.launch.is_empty() {
        Ok(Subject::Command(arguments.launch.clone()))
    } else if !arguments.tids.is_empty() {
        Ok(Subject::Threads(arguments.tids.iter().copied().map(Tid).collect()))
    } else {
        Ok(Subject::Processes(arguments.pids.iter().copied().map(Tgid).collect()))
    }
}

/// The CPUs that were asked for, if they are there.
fn cpus(asked: &[u32]) -> Result<Vec<u32>> {
    let online = kernel::online_cpus()?;
    if asked.is_empty() {
        return Ok(online);
    }
    for cpu in asked {
        ensure!(online.contains(cpu), "there is no CPU {cpu}: online are {online:?}");
    }
    Ok(asked.to_vec())
}

/// Tells the user how it goes.
struct Teller {
    status: StatusLine,
    naming: ProgressLine,
    is_quiet: bool,
}

impl Teller {
    fn new(arguments: &RecordArguments) -> Teller {
        let has_terminal = !arguments.quiet && arguments.launch.is_empty();
        let (status, naming) = (StatusLine::new(has_terminal), ProgressLine::new(!arguments.quiet));
        Teller { status, naming, is_quiet: arguments.quiet }
    }
}

impl Observer for Teller {
    fn recording(&mut self, file: &Path) {
        if !self.is_quiet {
            tell(format_args!("recording to {}\n", file.display()));
        }
    }

    fn naming(&mut self, done: u64, of: u64) {
        self.naming.show("naming functions", done, of);
    }

    fn progress(&mut self, progress: &Progress) {
        self.status.show(progress);
    }
}
