//! Debug information from the servers that distributions keep, by elfutils' own client: it knows their protocol, and shares
//! what it fetched with debuggers.

use std::{
    ffi::OsStr,
    io::{self, Read},
    os::unix::ffi::OsStrExt,
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::OnceLock,
    thread::sleep,
    time::Duration,
};

use crate::target::image::BuildId;

/// Elfutils' client.
const CLIENT: &str = "debuginfod-find";

/// How often whoever waits is told that it goes on.
const PERIOD: Duration = Duration::from_millis(100);

/// What is read of each thing that it says: a path, or a complaint, bytes.
const MAX_ANSWER: u64 = 4096;

/// How its complaint ends when the servers answered, and have nothing: as C's own locale says it.
const NOT_FOUND: &str = "No such file or directory";

/// Why servers are not asked any more. Each further build could take as long to fail, minutes by default.
static GIVEN_UP: OnceLock<String> = OnceLock::new();

/// Fetches the debug information of a build, and calls `waiting` again and again until it is there. None if no server has
/// it. An error says why they could not be asked; then they are not asked again by this process.
pub fn find(build_id: &BuildId, waiting: &dyn Fn()) -> Result<Option<PathBuf>, String> {
    match GIVEN_UP.get() {
        Some(reason) => Err(reason.clone()),
        None => ask(build_id, waiting).inspect_err(|reason| {
            GIVEN_UP.get_or_init(|| reason.clone());
        }),
    }
}

fn ask(build_id: &BuildId, waiting: &dyn Fn()) -> Result<Option<PathBuf>, String> {
    let mut client = Command::new(CLIENT);
    client.args(["debuginfo", &build_id.to_string()]).env("LC_ALL", "C");
    // It would tell how it goes where we read what went wrong.
    client.env_remove("DEBUGINFOD_PROGRESS").env_remove("DEBUGINFOD_VERBOSE");
    let client = client.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut client = client.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => format!("{CLIENT} is not installed: it is in the package `debuginfod`"),
        _ => format!("{CLIENT}: {error}"),
    })?;
    let explain = |error: io::Error| format!("{CLIENT}: {error}");
    let succeeded = wait(&mut client, waiting).map_err(explain)?;
    if succeeded {
        let path = client.stdout.map(read).transpose().map_err(explain)?.unwrap_or_default();
        return Ok(Some(PathBuf::from(OsStr::from_bytes(path.trim_ascii()))));
    }
    let complaint = client.stderr.map(read).transpose().map_err(explain)?.unwrap_or_default();
    let complaint = String::from_utf8_lossy(complaint.trim_ascii());
    if complaint.ends_with(NOT_FOUND) { Ok(None) } else { Err(format!("{CLIENT}: {complaint}")) }
}

fn read(output: impl Read) -> io::Result<Vec<u8>> {
    let mut answer = Vec::new();
    output.take(MAX_ANSWER).read_to_end(&mut answer)?;
    Ok(answer)
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
