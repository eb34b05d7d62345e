//! Debug information from the servers that distributions keep, by elfutils' own client: it knows their protocol, and shares
//! what it fetched with debuggers.

use std::{
    ffi::OsStr,
    io::{self, Read},
    os::unix::ffi::OsStrExt,
    path::PathBuf,
    process::{Child, Command, Stdio},
    thread::sleep,
    time::Duration,
};

use crate::target::image::BuildId;

/// Elfutils' client.
const CLIENT: &str = "debuginfod-find";

/// How often whoever waits is told that it goes on.
const PERIOD: Duration = Duration::from_millis(100);

/// What is read of its answer: a path, bytes.
const MAX_ANSWER: u64 = 4096;

/// Fetches the debug information of a build, and calls `waiting` again and again until it is there. None if no server has
/// it.
pub fn find(build_id: &BuildId, waiting: &dyn Fn()) -> Result<Option<PathBuf>, String> {
    let mut client = Command::new(CLIENT);
    client.args(["debuginfo", &build_id.to_string()]);
    let client = client.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
    let mut client = client.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => format!("{CLIENT} is not installed: it is in the package `debuginfod`"),
        _ => format!("{CLIENT}: {error}"),
    })?;
    let ended = wait(&mut client, waiting).map_err(|error| format!("{CLIENT}: {error}"))?;
    if !ended {
        return Ok(None);
    }
    let mut answer = Vec::new();
    if let Some(output) = client.stdout {
        output.take(MAX_ANSWER).read_to_end(&mut answer).map_err(|error| format!("{CLIENT}: {error}"))?;
    }
    Ok(Some(PathBuf::from(OsStr::from_bytes(answer.trim_ascii()))))
}

/// Whether it succeeded.
fn wait(client: &mut Child, waiting: &dyn Fn()) -> io::Result<bool> {
    loop {
        if let Some(status) = client.try_wait()? {
            return Ok(status.success());
        }
        waiting();
        sleep(PERIOD);
    }
}
