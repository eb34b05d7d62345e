//! `polletto open`

mod request;
mod serving;

use std::{
    env,
    process::{Command, ExitCode, Stdio},
};

use anyhow::Result;

pub use self::request::{Answer, ORIGIN, Request};
use self::serving::{Server, encoded};
use super::{arguments::OpenArguments, tell};

/// Opens a trace in the UI, and returns the exit status.
pub fn run(arguments: &OpenArguments) -> ExitCode {
    match open(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tell(format_args!("polletto: {error:#}\n"));
            ExitCode::FAILURE
        }
    }
}

fn open(arguments: &OpenArguments) -> Result<()> {
    let server = Server::start(&arguments.trace)?;
    let link = link(&server.address());
    if arguments.no_browser || !has_browser() || !start_browser(&link) {
        tell(format_args!("open this in a browser:\n  {link}\n"));
        if env::var_os("SSH_CONNECTION").is_some() {
            tell("which must reach this machine, so begin there with\n  ssh -L 9001:127.0.0.1:9001 THIS-MACHINE\n");
        }
    }
    tell("waiting until the trace is fetched: if the browser asks, let the page reach this device; Ctrl-C ends this\n");
    server.serve()
}

/// What the UI does with a trace: what was found on a track of its own on top, and the workers below.
const STARTUP_COMMANDS: &str = include_str!("../../../tools/ui/startup.json");

/// The UI, with the trace.
fn link(address: &str) -> String {
    // Its lines are for people; what is indented is no part of a text.
    let commands: String = STARTUP_COMMANDS.lines().map(str::trim).collect();
    format!("{ORIGIN}/#!/?url={address}&referrer=polletto&startupCommands={}", encoded(&commands))
}

/// Not over ssh, and not as root: a browser is the user's own.
fn has_browser() -> bool {
    let has_screen = env::var_os("DISPLAY").is_some() || env::var_os("WAYLAND_DISPLAY").is_some();
    has_screen && env::var_os("SSH_CONNECTION").is_none() && !rustix::process::geteuid().is_root()
}

fn start_browser(link: &str) -> bool {
    let mut command = Command::new("xdg-open");
    command.arg(link).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn the_link_has_the_trace_and_what_to_do_with_it() {
        let link = link("http://127.0.0.1:9001/x.perfetto-trace");
        assert!(link.starts_with("https://ui.perfetto.dev/#!/?url=http://127.0.0.1:9001/x.perfetto-trace&"), "{link}");
        assert!(link.contains("&startupCommands=%5B%7B"), "{link}");
        assert!(!link.contains([' ', '"', '\'', '<']), "{link}");
    }

    #[test]
    fn commands_and_macros_are_what_the_ui_takes() {
        let macros: Value = serde_json::from_str(include_str!("../../../tools/ui/macros.json")).expect("JSON");
        let macros = macros.as_array().expect("a list").iter().map(|entry| {
            assert!(entry["id"].as_str().is_some_and(|id| id.starts_with("user.polletto.")), "{entry}");
            assert!(entry["name"].as_str().is_some_and(|name| name.starts_with("polletto: ")), "{entry}");
            entry["run"].clone()
        });
        let startup: Value = serde_json::from_str(STARTUP_COMMANDS).expect("JSON");
        for command in macros.chain([startup]).flat_map(|list| list.as_array().expect("a list").clone()) {
            assert!(command["id"].as_str().is_some_and(|id| id.starts_with("dev.perfetto.")), "{command}");
            let arguments = command["args"].as_array().expect("a list");
            assert!(arguments.iter().all(Value::is_string), "{command}");
        }
    }
}
