//! Starting other programs, and never leaving one behind.

use std::{
    io::Write,
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

/// Runs `command` to its end; what it prints is seen as it is.
pub fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("`{}` did not start", line(command)))?;
    expect_success(command, status)
}

/// Runs `command` to its end and returns what it prints; its errors are seen as they are.
pub fn printed(command: &mut Command) -> Result<String> {
    let output = command.stderr(Stdio::inherit()).output();
    let output = output.with_context(|| format!("`{}` did not start", line(command)))?;
    expect_success(command, output.status)?;
    String::from_utf8(output.stdout).with_context(|| format!("`{}` printed no text", line(command)))
}

/// Runs `command` to its end, with this as what it reads.
pub fn run_with_input(command: &mut Command, input: &[u8]) -> Result<()> {
    let mut running = Running::start(command.stdin(Stdio::piped()))?;
    let mut pipe = running.child.stdin.take().with_context(|| format!("`{}` reads nothing", line(command)))?;
    pipe.write_all(input).with_context(|| format!("`{}` did not read to the end", line(command)))?;
    drop(pipe);
    let status = running.child.wait().with_context(|| format!("`{}` cannot be waited for", line(command)))?;
    expect_success(command, status)
}

/// Runs `command` to its end, but no longer than `limit`.
pub fn run_within(limit: Duration, command: &mut Command) -> Result<()> {
    let mut running = Running::start(command)?;
    match running.wait(limit)? {
        Some(status) => expect_success(command, status),
        None => bail!("`{}` was ended after {} s", line(command), limit.as_secs()),
    }
}

/// What `command` prints to its standard output; `None` if it is not there or fails.
pub fn output(command: &mut Command) -> Option<String> {
    let output = command.stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Whether `command` is there and succeeds; nothing of it is seen.
pub fn succeeds(command: &mut Command) -> bool {
    output(command).is_some()
}

fn expect_success(command: &Command, status: ExitStatus) -> Result<()> {
    if status.success() { Ok(()) } else { bail!("`{}` ended with {status}", line(command)) }
}

/// The command as one would type it, without the folder of its program.
pub fn line(command: &Command) -> String {
    let program = std::path::Path::new(command.get_program());
    let name = program.file_name().unwrap_or(program.as_os_str());
    let words = std::iter::once(name).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

/// A program that ends, at the latest, when this value does.
pub struct Running {
    child: Child,
    line: String,
}

impl Running {
    pub fn start(command: &mut Command) -> Result<Self> {
        let line = line(command);
        let child = command.spawn().with_context(|| format!("`{line}` did not start"))?;
        Ok(Self { child, line })
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The process, to take its pipes from.
    pub fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// Waits for the program's own end, which is `None` if it has not come after `limit`.
    pub fn wait(&mut self, limit: Duration) -> Result<Option<ExitStatus>> {
        const BETWEEN_LOOKS: Duration = Duration::from_millis(20);
        let begin = Instant::now();
        loop {
            let status = self.child.try_wait().with_context(|| format!("`{}` cannot be waited for", self.line))?;
            if status.is_some() || begin.elapsed() >= limit {
                return Ok(status);
            }
            thread::sleep(BETWEEN_LOOKS);
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // A program that has ended and was waited for is not signalled: its pid may be another's by now.
        if let Ok(None) = self.child.try_wait()
            && let Err(problem) = self.child.kill().and_then(|()| self.child.wait())
        {
            eprintln!("xtask: `{}` (process {}) could not be ended: {problem}", self.line, self.child.id());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_takes_too_long_is_ended() {
        let begin = Instant::now();
        let problem = run_within(Duration::from_millis(50), Command::new("sleep").arg("60")).unwrap_err();
        assert_eq!(problem.to_string(), "`sleep 60` was ended after 0 s");
        assert!(begin.elapsed() < Duration::from_secs(30));
    }

    #[test]
    fn a_failure_names_the_command_without_its_folder() {
        let problem = run(&mut Command::new("/bin/false")).unwrap_err();
        assert_eq!(problem.to_string(), "`false` ended with exit status: 1");
    }

    #[test]
    fn what_a_program_reads_and_prints_is_ours() {
        assert_eq!(printed(Command::new("echo").arg("word")).unwrap(), "word\n");
        assert!(printed(&mut Command::new("false")).is_err());
        for (expected, is_read) in [("word", true), ("another", false)] {
            let script = format!("test \"$(cat)\" = {expected}");
            assert_eq!(run_with_input(Command::new("sh").args(["-c", &script]), b"word").is_ok(), is_read);
        }
    }

    #[test]
    fn a_running_program_ends_with_its_guard() {
        let running = Running::start(Command::new("sleep").arg("60")).unwrap();
        let process = format!("/proc/{}", running.id());
        assert!(std::path::Path::new(&process).exists());
        drop(running);
        assert!(!std::path::Path::new(&process).exists());
    }
}
