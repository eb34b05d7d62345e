//! Starts programs and never leaves them behind.

use std::{
    io::{BufRead, BufReader, Read, Write},
    path::Path,
    process::{Child, ChildStdin, Command, ExitStatus, Stdio},
    str::FromStr,
    sync::mpsc::{self, Receiver, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};

/// How long anything that a scenario waits for may take.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// The path of one of this crate's programs; for integration tests.
#[macro_export]
macro_rules! program {
    ($name:literal) => {
        std::path::Path::new(env!(concat!("CARGO_BIN_EXE_", $name)))
    };
}

/// A copy of a program without its symbols, at `to`.
pub fn strip(program: &Path, to: &Path) {
    let status = Command::new("strip").arg("-s").arg("-o").arg(to).arg(program).status().expect("strip starts");
    assert!(status.success(), "{} can't be stripped", program.display());
}

/// A process that is killed when this is dropped.
#[derive(Debug)]
pub struct Guard(Child);

impl Guard {
    /// Starts it.
    pub fn start(command: &mut Command) -> Guard {
        Guard(command.spawn().unwrap_or_else(|error| panic!("{command:?} does not start: {error}")))
    }

    /// Its process id.
    pub fn pid(&self) -> i32 {
        i32::try_from(self.0.id()).expect("the kernel's process ids are small")
    }

    /// Sends a signal to it, unless it has ended.
    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.pid()).expect("a child is not process 0");
        // Its id cannot belong to another process: it is not waited for while it can be signalled.
        kill_process(pid, signal).unwrap_or_else(|error| panic!("process {}: {error}", self.pid()));
    }

    /// Waits until it ends. Panics after `deadline`.
    pub fn wait(&mut self, deadline: Duration) -> ExitStatus {
        let what = format!("process {} to end", self.0.id());
        until(deadline, &what, || self.0.try_wait().expect("a child can be waited for"))
    }

    pub(crate) fn child(&mut self) -> &mut Child {
        &mut self.0
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        // It may have ended already; either way there is nothing to do about a failure here.
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// Asks every millisecond until there is an answer. Panics after `deadline`.
pub fn until<T>(deadline: Duration, what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + deadline;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < end, "waited {deadline:?} for {what}");
        thread::sleep(Duration::from_millis(1));
    }
}

/// Lines of a stream, read as they come.
#[derive(Debug)]
pub(crate) struct Lines {
    coming: Receiver<String>,
    seen: Vec<String>,
}

impl Lines {
    pub fn of(stream: impl Read + Send + 'static) -> Lines {
        let (sender, coming) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(stream).split(b'\n').map_while(Result::ok) {
                if sender.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
                    return;
                }
            }
        });
        Lines { coming, seen: Vec::new() }
    }

    /// The next line that begins so. None if the stream ends before. Panics after `deadline`.
    pub fn find(&mut self, beginning: &str, deadline: Duration) -> Option<String> {
        let end = Instant::now() + deadline;
        loop {
            match self.coming.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    self.seen.push(line.clone());
                    if line.starts_with(beginning) {
                        return Some(line);
                    }
                }
                Err(RecvTimeoutError::Disconnected) => return None,
                Err(RecvTimeoutError::Timeout) => {
                    panic!("waited {deadline:?} for a line {beginning:?}, after {:?}", self.seen)
                }
            }
        }
    }

    /// Everything up to the stream's end. Panics after `deadline`.
    pub fn all(mut self, deadline: Duration) -> Vec<String> {
        let none = self.find("\0", deadline);
        assert_eq!(none, None, "no line begins with a zero");
        self.seen
    }
}

/// A program that knows its own truth: one of those in `src/bin/`.
pub struct Program {
    process: Guard,
    input: Option<ChildStdin>,
    output: Lines,
    ready: Vec<i32>,
}

impl Program {
    /// Starts it and waits until it says `ready`.
    pub fn start(path: &Path, arguments: &[&str]) -> Program {
        Program::start_by(Command::new(path).args(arguments))
    }

    /// As [`Program::start`], with an environment and a standard error of the scenario's choice.
    pub fn start_by(command: &mut Command) -> Program {
        let mut process = Guard::start(command.stdin(Stdio::piped()).stdout(Stdio::piped()));
        let input = process.child().stdin.take();
        let mut output = Lines::of(process.child().stdout.take().expect("standard output is a pipe"));
        let line = output.find("ready ", DEADLINE).unwrap_or_else(|| panic!("{command:?} ended before it was ready"));
        let ready = line.split_ascii_whitespace().skip(1).map(|id| i32::from_str(id).expect("an id")).collect();
        Program { process, input, output, ready }
    }

    /// Its process id.
    pub fn pid(&self) -> i32 {
        self.process.pid()
    }

    /// The id of the thread that it announced behind its own.
    pub fn announced_tid(&self) -> i32 {
        self.ready[1]
    }

    /// Lets it begin what it waits with.
    pub fn begin(&mut self) {
        let input = self.input.as_mut().expect("its standard input is open until it finishes");
        writeln!(input, "go").expect("it reads its standard input");
    }

    /// Waits for a line that begins so.
    pub fn wait_for(&mut self, beginning: &str) -> String {
        self.wait_for_at_most(beginning, DEADLINE)
    }

    /// Waits for a line that begins so. Panics after `deadline`.
    pub fn wait_for_at_most(&mut self, beginning: &str, deadline: Duration) -> String {
        self.output.find(beginning, deadline).unwrap_or_else(|| panic!("it ended before it said {beginning:?}"))
    }

    /// Waits for a line that begins so, or until nothing more can come.
    pub fn wait_for_or_end(&mut self, beginning: &str) -> Option<String> {
        self.output.find(beginning, DEADLINE)
    }

    /// Sends a signal to it.
    pub fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    /// Closes its standard input, waits until it ends, and gives every line that it printed.
    pub fn finish(mut self) -> (ExitStatus, Vec<String>) {
        drop(self.input.take());
        let status = self.process.wait(DEADLINE);
        (status, self.output.all(DEADLINE))
    }

    /// As [`Program::finish`], and reads what it printed as JSON.
    pub fn truth(self) -> Vec<serde_json::Value> {
        let (_, lines) = self.finish();
        lines.iter().filter_map(|line| serde_json::from_str(line).ok()).filter(serde_json::Value::is_object).collect()
    }
}
