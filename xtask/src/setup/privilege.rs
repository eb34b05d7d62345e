//! Who runs this, and how they become root.

use std::{
    io::{IsTerminal, stdin},
    process::Command,
};

use anyhow::{Result, bail};

use crate::process;

/// How something is done that only root may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Privilege {
    /// As it is.
    Root,
    /// Through sudo, which works without asking, or has just asked.
    Sudo,
}

impl Privilege {
    /// Finds a way to do `what`, for which `remedy` is what a person can do where there is none.
    pub fn acquire(what: &str, remedy: &str) -> Result<Self> {
        if rustix::process::geteuid().is_root() {
            return Ok(Self::Root);
        }
        if which::which("sudo").is_err() {
            bail!("{what} takes root, and there is no sudo here: {remedy}");
        }
        if process::succeeds(Command::new("sudo").args(["-n", "true"])) {
            return Ok(Self::Sudo);
        }
        if !stdin().is_terminal() {
            bail!("{what} takes root, sudo asks for a password, and there is no terminal to ask on: {remedy}");
        }
        eprintln!("set-up: {what} takes root, so sudo may ask for your password");
        match process::run(Command::new("sudo").arg("-v")) {
            Ok(()) => Ok(Self::Sudo),
            Err(_) => bail!("{what} takes root, and sudo refused: {remedy}"),
        }
    }

    /// A command that runs `program` as root.
    pub fn command(self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        match self {
            Self::Root => Command::new(program),
            Self::Sudo => {
                let mut sudo = Command::new("sudo");
                sudo.arg(program);
                sudo
            }
        }
    }
}
