//! Runs the `polletto` command as people do, and reads what it leaves behind.

use std::{
    env,
    ffi::OsStr,
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Stdio},
    sync::OnceLock,
    time::Duration,
};

use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

use crate::{
    check::{self, Loss},
    program::{DEADLINE, Guard, Lines},
    trace::Trace,
};

/// A `polletto record` to be started.
pub struct Record {
    command: Command,
    directory: TempDir,
    output: PathBuf,
}

impl Default for Record {
    fn default() -> Record {
        Record::new()
    }
}

impl Record {
    /// Writes to a new file in a directory of its own, and prints a summary as JSON.
    pub fn new() -> Record {
        let directory = tempfile::tempdir().expect("a directory for the trace");
        let output = directory.path().join("recorded.perfetto-trace");
        Record::to(output, directory)
    }

    /// Writes to a path of the scenario's choice; the directory lives as long as the recording's outcome.
    pub fn to(output: PathBuf, directory: TempDir) -> Record {
        let mut command = Command::new(polletto());
        command.args(["record", "--json", "-o"]).arg(&output).current_dir(directory.path());
        Record { command, directory, output }
    }

    /// Records this process.
    pub fn process(self, pid: i32) -> Record {
        self.arguments(["-p", &pid.to_string()])
    }

    /// Further arguments.
    pub fn arguments<A: AsRef<OsStr>>(mut self, arguments: impl IntoIterator<Item = A>) -> Record {
        self.command.args(arguments);
        self
    }

    /// Sets a variable in its environment.
    pub fn environment(mut self, name: &str, value: &str) -> Record {
        self.command.env(name, value);
        self
    }

    /// Starts it, and waits until it records.
    pub fn start(self) -> Recording {
        let mut recording = self.start_without_waiting();
        if recording.errors.find("recording", DEADLINE).is_none() {
            let outcome = recording.wait();
            panic!("polletto ended with {} before it recorded: {}", outcome.status, outcome.stderr);
        }
        recording
    }

    /// Starts it.
    pub fn start_without_waiting(mut self) -> Recording {
        let streams = self.command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut process = Guard::start(streams);
        let printed = Lines::of(process.child().stdout.take().expect("standard output is a pipe"));
        let errors = Lines::of(process.child().stderr.take().expect("standard error is a pipe"));
        Recording { process, printed, errors, directory: self.directory, output: self.output }
    }

    /// Runs it until it ends by itself.
    pub fn run(self) -> Outcome {
        self.start_without_waiting().wait()
    }
}

/// A `polletto record` that runs.
pub struct Recording {
    process: Guard,
    printed: Lines,
    errors: Lines,
    directory: TempDir,
    output: PathBuf,
}

impl Recording {
    /// Its process id.
    pub fn pid(&self) -> i32 {
        self.process.pid()
    }

    /// Where it writes.
    pub fn output(&self) -> &Path {
        &self.output
    }

    /// Sends a signal to it.
    pub fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    /// Ends it as Ctrl-C does.
    pub fn stop(self) -> Outcome {
        self.signal(Signal::INT);
        self.wait()
    }

    /// Waits until it ends.
    pub fn wait(self) -> Outcome {
        self.wait_at_most(DEADLINE)
    }

    /// Waits until it ends. Panics after `deadline`.
    pub fn wait_at_most(mut self, deadline: Duration) -> Outcome {
        let status = self.process.wait(deadline);
        Outcome {
            status,
            stdout: self.printed.all(DEADLINE).join("\n"),
            stderr: self.errors.all(DEADLINE).join("\n"),
            output: self.output,
            _directory: self.directory,
        }
    }
}

/// What a `polletto record` left behind.
pub struct Outcome {
    /// How it ended.
    pub status: ExitStatus,
    /// What it printed.
    pub stdout: String,
    /// What it printed as errors.
    pub stderr: String,
    /// Where its trace should be.
    pub output: PathBuf,
    _directory: TempDir,
}

impl Outcome {
    /// Panics unless it ended well.
    pub fn expect_success(self) -> Outcome {
        assert!(self.status.success(), "polletto ended with {}: {}", self.status, self.stderr);
        self
    }

    /// Its trace, which every checker has found without fault, and without anything missing.
    pub fn trace(&self) -> Trace {
        self.checked_trace(Loss::None)
    }

    /// Its trace, without fault, but with records missing as the summary says.
    pub fn trace_with_loss(&self) -> Trace {
        self.checked_trace(Loss::Announced)
    }

    fn checked_trace(&self, loss: Loss) -> Trace {
        check::check(&self.output, loss);
        let trace = Trace::open(&self.output);
        trace.assert_well_formed();
        trace
    }

    /// Asks trace_processor about its trace, where that is on the PATH.
    pub fn sql(&self, query: &str) -> Option<Vec<Vec<String>>> {
        check::sql(&self.output, query)
    }

    /// The summary that it printed, behind whatever a command under record printed.
    pub fn summary(&self) -> Value {
        let begins = self.stdout.match_indices('{').filter(|(at, _)| *at == 0 || self.stdout[..*at].ends_with('\n'));
        let summary = begins.into_iter().find_map(|(at, _)| serde_json::from_str(&self.stdout[at..]).ok());
        summary.unwrap_or_else(|| panic!("there is no summary:\n{}\n{}", self.stdout, self.stderr))
    }

    /// What the summary tells of the names in a file.
    pub fn told(&self, path: &Path) -> Value {
        let summary = self.summary();
        let mut modules = summary["names"].as_array().into_iter().flatten();
        let own = modules.find(|module| module["path"].as_str() == path.to_str());
        own.unwrap_or_else(|| panic!("{}: {summary}", path.display())).clone()
    }

    /// Names or lines of a file are missing, with this among the reasons.
    pub fn assert_missing(&self, path: &Path, reason: &str) {
        let told = self.told(path);
        assert!(told["missing"].as_str().is_some_and(|missing| missing.contains(reason)), "{told}");
    }
}

/// The command under test: `POLLETTO_BIN`, or what cargo builds from the workspace, in the profile of the tests.
pub fn polletto() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| env::var_os("POLLETTO_BIN").map_or_else(build, PathBuf::from))
}

fn build() -> PathBuf {
    // `target/PROFILE/deps/SCENARIO-HASH`
    let own = env::current_exe().expect("a process knows its executable");
    let profile = own.ancestors().nth(2).expect("cargo puts tests two directories deep");
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["build", "--quiet", "--package", "polletto"]).current_dir(check::workspace());
    if profile.ends_with("release") {
        cargo.arg("--release");
    }
    let status = cargo.status().expect("cargo starts");
    assert!(status.success(), "polletto does not build");
    profile.join("polletto")
}
