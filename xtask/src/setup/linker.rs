//! bpf-linker, which makes one object for the kernel out of what rustc compiled.
//!
//! It links LLVM bitcode, so it must be built with the LLVM that the compiler has: the same major version.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use super::{announce, distribution::Distribution, packages};
use crate::process;

/// Its output is tested with this version.
pub const VERSION: &str = "0.13.0";

/// The major versions of LLVM that this version of bpf-linker can be built with.
const LLVM_SUPPORTED: std::ops::RangeInclusive<u32> = 21..=23;

/// Where the development files of an LLVM are, or could be had.
#[derive(Debug, PartialEq, Eq)]
pub enum Llvm {
    /// Installed, under this prefix.
    At(PathBuf),
    /// In this package of Debian's.
    In(String),
}

impl Llvm {
    /// Looks for LLVM `major`. The error says why there is none to be had.
    pub fn find(major: u32, distribution: &Distribution) -> Result<Self> {
        if !LLVM_SUPPORTED.contains(&major) {
            bail!("bpf-linker {VERSION} cannot be built with LLVM {major}");
        }
        if let Some(prefix) = installed(major) {
            return Ok(Self::At(prefix));
        }
        let package = format!("llvm-{major}-dev");
        if distribution.debian && packages::available(&package) {
            return Ok(Self::In(package));
        }
        bail!(
            "{} has no development files of LLVM {major} (Debian: {package}, Fedora: llvm-devel, Arch: llvm)",
            distribution.name
        )
    }

    /// Installs it unless it is there, and returns its prefix.
    fn ensure(self, major: u32) -> Result<PathBuf> {
        match self {
            Self::At(prefix) => Ok(prefix),
            Self::In(package) => {
                packages::install(&[&package])?;
                installed(major).with_context(|| format!("{package} is installed, but brought no llvm-config"))
            }
        }
    }
}

/// Builds bpf-linker into `folder`, with the LLVM of this version.
pub fn install(folder: &Path, major: u32, llvm: Llvm) -> Result<()> {
    let prefix = llvm.ensure(major)?;
    announce(&format!("installing bpf-linker {VERSION} with cargo, which takes a minute"));
    let mut cargo = Command::new("cargo");
    cargo
        .args(["install", "bpf-linker", "--version", &format!("={VERSION}"), "--locked", "--force", "--quiet"])
        .args(["--no-default-features", "--features", &format!("llvm-{major}")])
        .arg("--root")
        .arg(folder)
        .env("LLVM_PREFIX", prefix)
        // It is no part of this workspace, and would otherwise be compiled for those who share this folder.
        .env_remove("CARGO_TARGET_DIR");
    process::run(&mut cargo).context("bpf-linker was not built; if the network is at fault, mend it and run this again")
}

/// The prefix of an installed LLVM `major`. Its `llvm-config` may be there without the library to link with.
fn installed(major: u32) -> Option<PathBuf> {
    let names = [format!("llvm-config-{major}"), format!("llvm-config{major}"), "llvm-config".to_owned()];
    names.into_iter().find_map(|name| {
        let told = |option| process::output(Command::new(&name).arg(option));
        let right = major_of(&told("--version")?) == Some(major);
        let linkable = Path::new(&told("--libdir")?).join("libLLVM.so").exists();
        (right && linkable).then_some(PathBuf::from(told("--prefix")?))
    })
}

/// The first number of a version such as `22.1.4`.
pub fn major_of(version: &str) -> Option<u32> {
    version.trim().split('.').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_begins_with_its_major_number() {
        assert_eq!(major_of("22.1.4"), Some(22));
        assert_eq!(major_of("23.0.0-rc2\n"), Some(23));
        assert_eq!(major_of("unknown"), None);
    }

    #[test]
    fn an_llvm_that_the_linker_does_not_know_is_refused() {
        let anywhere = Distribution { name: "Test".to_owned(), debian: false };
        let problem = Llvm::find(20, &anywhere).unwrap_err();
        assert_eq!(problem.to_string(), "bpf-linker 0.13.0 cannot be built with LLVM 20");
    }
}
