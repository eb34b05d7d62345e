//! The distribution's own packages.

use std::{process::Command, sync::Once};

use anyhow::{Context, Result, bail};

use super::{Privilege, announce, distribution::Distribution};
use crate::process;

/// Programs that a package brings.
pub struct Tool {
    /// What it does here, as in "`cc` compiles zstd".
    pub purpose: &'static str,
    /// What must be on PATH.
    pub commands: &'static [&'static str],
    /// The packages of Debian that bring it.
    pub packages: &'static [&'static str],
}

impl Tool {
    /// Installs the tool unless it is there.
    pub fn ensure(&self, distribution: &Distribution) -> Result<()> {
        let missing: Vec<_> = self.commands.iter().filter(|command| which::which(command).is_err()).copied().collect();
        if missing.is_empty() {
            return Ok(());
        }
        let missing = missing.join(" and ");
        if !distribution.debian {
            bail!("`{missing}`, which {}, is missing on {}: install it by hand", self.purpose, distribution.name);
        }
        install(self.packages).with_context(|| format!("`{missing}`, which {}, is missing", self.purpose))
    }
}

/// Installs Debian packages. The lists of packages are brought up to date first.
pub fn install(packages: &[impl AsRef<str>]) -> Result<()> {
    let names = packages.iter().map(AsRef::as_ref).collect::<Vec<_>>();
    let listed = names.join(" ");
    let privilege = Privilege::acquire(
        &format!("installing {listed}"),
        &format!("run `apt-get install {listed}` as root, then this again"),
    )?;
    update_lists();
    announce(&format!("installing {listed} with apt-get"));
    process::run(apt_get(privilege).args(["-qq", "install", "--yes", "--no-install-recommends"]).args(&names))
        .with_context(|| {
            format!("apt-get did not install {listed}; if the network is at fault, mend it and run this again")
        })
}

/// Whether apt-get knows a version of `package` to install, if need be after an update of its lists: a machine may have
/// none, or old ones that lack what came since.
pub fn available(package: &str) -> bool {
    let is_listed = || {
        let policy = process::output(Command::new("apt-cache").env("LC_ALL", "C").args(["policy", package]));
        policy.as_deref().is_some_and(has_candidate)
    };
    is_listed() || {
        update_lists();
        is_listed()
    }
}

fn has_candidate(policy: &str) -> bool {
    let candidate = policy.lines().find_map(|line| line.trim().strip_prefix("Candidate:"));
    candidate.is_some_and(|version| version.trim() != "(none)")
}

/// Brings the lists of packages up to date, once. An outdated list is often good enough; whether it is, shows later.
fn update_lists() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        announce("updating apt-get's lists of packages");
        let privilege = Privilege::acquire("updating apt-get's lists of packages", "run `apt-get update` as root");
        let updated = privilege.and_then(|privilege| process::run(apt_get(privilege).args(["-qq", "update"])));
        if let Err(problem) = updated {
            announce(&format!("going on with the lists of packages that are there: {problem:#}"));
        }
    });
}

fn apt_get(privilege: Privilege) -> Command {
    let mut apt_get = privilege.command("env");
    // Another apt-get may be at work, as on a machine that has just booted.
    apt_get.args(["DEBIAN_FRONTEND=noninteractive", "apt-get", "-o", "DPkg::Lock::Timeout=120"]);
    apt_get
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_without_a_candidate_is_not_available() {
        assert!(has_candidate("llvm-22-dev:\n  Installed: (none)\n  Candidate: 1:22.1.8-1~deb12u1\n"));
        assert!(!has_candidate("rustup:\n  Installed: (none)\n  Candidate: (none)\n"));
        assert!(!has_candidate(""));
    }
}
