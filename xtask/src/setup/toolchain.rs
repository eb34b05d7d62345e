//! The compiler and linker of the kernel programs, described in `target/ebpf-toolchain/` for `recorder/build.rs`.
//!
//! There are two routes. rustup's nightly compiles `core` for `bpfel-unknown-none` itself, where rustup can add its
//! source. Elsewhere Debian has a compiler with a `core` already compiled. Which route it is gets decided once, and is
//! written down: a machine where rustup's servers cannot be reached is not made to wait for them again.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, anyhow, bail};

use super::{
    announce,
    distribution::Distribution,
    linker::{self, Llvm},
    packages,
};
use crate::{process, workspace};

/// The toolchain of rustup's that may use `-Z build-std`.
const NIGHTLY: &str = "nightly";
/// The source of `core` is 3 MB, and all of nightly 100 MB; a server that cannot be reached is known long before.
const RUSTUP_LIMIT: Duration = Duration::from_secs(180);
/// Debian's compiler, and its `core` for the kernel.
const DEBIAN_COMPILER: &str = "/usr/bin/rustc";
const DEBIAN_CORE: &str = "/usr/lib/rustlib/bpfel-unknown-none/lib";
const DEBIAN_PACKAGES: [&str; 2] = ["rustc-web", "libstd-rust-web-dev-bpf"];

/// Where the compiler comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Route {
    Rustup,
    Debian,
}

/// What is known of rustup's nightly before anything is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Nightly {
    /// With the source of `core`.
    Complete,
    /// Without it, or not there at all, and nobody has tried to change that.
    Incomplete,
    /// It was tried before, in vain.
    Refused,
    /// There is no rustup.
    NoRustup,
}

#[derive(Debug, PartialEq, Eq)]
enum Next {
    Take(Route),
    AskRustup,
    GiveUp,
}

/// The next step towards a compiler.
fn next(nightly: Nightly, debian: bool) -> Next {
    match (nightly, debian) {
        (Nightly::Complete, _) => Next::Take(Route::Rustup),
        (Nightly::Incomplete, _) => Next::AskRustup,
        (Nightly::Refused | Nightly::NoRustup, true) => Next::Take(Route::Debian),
        (Nightly::Refused | Nightly::NoRustup, false) => Next::GiveUp,
    }
}

/// Installs the toolchain unless it is there.
pub fn ensure(distribution: &Distribution) -> Result<()> {
    let folder = Folder(workspace::installed().join("ebpf-toolchain"));
    if folder.is_ready() {
        return Ok(());
    }
    fs::create_dir_all(&folder.0).with_context(|| folder.0.display().to_string())?;
    loop {
        let nightly = if folder.refusal().is_some() { Nightly::Refused } else { nightly() };
        match next(nightly, distribution.debian) {
            Next::AskRustup => {
                if let Err(problem) = add_source() {
                    folder.refuse(&problem)?;
                }
            }
            Next::Take(Route::Rustup) => match llvm_for(Route::Rustup, distribution) {
                Ok((major, llvm)) => return folder.fill(Route::Rustup, major, llvm),
                Err(problem) => folder.refuse(&problem)?,
            },
            Next::Take(Route::Debian) => {
                ensure_debian_compiler(distribution)?;
                let (major, llvm) = llvm_for(Route::Debian, distribution)?;
                return folder.fill(Route::Debian, major, llvm);
            }
            Next::GiveUp => bail!(
                "compiling for the kernel needs `rustup toolchain install nightly --component rust-src`, and the \
                 development files of its LLVM ({}); {} is not Debian, whose packages would do: install them by hand, \
                 remove {} and run this again",
                folder.refusal().unwrap_or_else(|| "there is no rustup".to_owned()),
                distribution.name,
                folder.0.display(),
            ),
        }
    }
}

fn nightly() -> Nightly {
    if which::which("rustup").is_err() {
        return Nightly::NoRustup;
    }
    let source = Route::Rustup.compiler().and_then(|rustc| {
        let toolchain = rustc.parent()?.parent()?;
        Some(toolchain.join("lib/rustlib/src/rust/library/core/Cargo.toml"))
    });
    if source.is_some_and(|source| source.exists()) { Nightly::Complete } else { Nightly::Incomplete }
}

fn add_source() -> Result<()> {
    announce("adding rust-src for nightly with rustup");
    let mut rustup = Command::new("rustup");
    // A refusal is an answer like another, and not worth thirty lines.
    rustup.env_remove("RUST_BACKTRACE");
    if Route::Rustup.compiler().is_some() {
        rustup.args(["component", "add", "rust-src", "--toolchain", NIGHTLY]);
    } else {
        rustup.args(["toolchain", "install", NIGHTLY, "--profile", "minimal", "--component", "rust-src"]);
        rustup.arg("--no-self-update");
    }
    process::run_within(RUSTUP_LIMIT, &mut rustup)?;
    if nightly() == Nightly::Complete { Ok(()) } else { Err(anyhow!("rustup added no source of core")) }
}

fn ensure_debian_compiler(distribution: &Distribution) -> Result<()> {
    let installed = || Path::new(DEBIAN_COMPILER).exists() && Path::new(DEBIAN_CORE).exists();
    if installed() {
        return Ok(());
    }
    for package in DEBIAN_PACKAGES {
        if !packages::available(package) {
            bail!(
                "{} has no package {package}, as far as apt-get's lists of packages tell: bring them up to date, or make \
                 `rustup component add rust-src --toolchain {NIGHTLY}` work, remove target/ebpf-toolchain and run this \
                 again",
                distribution.name
            );
        }
    }
    packages::install(&DEBIAN_PACKAGES)?;
    if installed() {
        Ok(())
    } else {
        bail!("{} are installed, but brought no {DEBIAN_CORE}", DEBIAN_PACKAGES.join(" "))
    }
}

/// The LLVM to build the linker with: the compiler's own.
fn llvm_for(route: Route, distribution: &Distribution) -> Result<(u32, Llvm)> {
    let major = route.llvm().context("the compiler does not tell the version of its LLVM")?;
    Ok((major, Llvm::find(major, distribution)?))
}

impl Route {
    /// Its compiler, if that is installed.
    fn compiler(self) -> Option<PathBuf> {
        match self {
            Self::Rustup => {
                let mut rustup = Command::new("rustup");
                // Asking must not install.
                rustup.args(["which", "rustc", "--toolchain", NIGHTLY]).env("RUSTUP_AUTO_INSTALL", "0");
                process::output(&mut rustup).map(PathBuf::from).filter(|rustc| rustc.exists())
            }
            Self::Debian => Some(PathBuf::from(DEBIAN_COMPILER)).filter(|rustc| rustc.exists()),
        }
    }

    /// The major version of its compiler's LLVM.
    fn llvm(self) -> Option<u32> {
        let version = process::output(Command::new(self.compiler()?).arg("-vV"))?;
        version.lines().find_map(|line| linker::major_of(line.strip_prefix("LLVM version: ")?))
    }

    /// A cargo configuration that compiles the kernel programs with it.
    fn cargo_config(self, linker: &Path) -> String {
        let compiler = match self {
            Self::Rustup => "[unstable]\nbuild-std = [\"core\"]\n".to_owned(),
            // Compiling for a target of the lowest tier takes unstable flags.
            Self::Debian => {
                format!("[build]\nrustc = {DEBIAN_COMPILER:?}\n\n[env]\nRUSTC_BOOTSTRAP = \"1\"\n")
            }
        };
        format!(
            "{compiler}\n[target.bpfel-unknown-none]\nlinker = {linker:?}\n\
             rustflags = [\"-Clink-arg=--btf\", \"-Cdebuginfo=2\"]\n"
        )
    }
}

impl fmt::Display for Route {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Rustup => "rustup",
            Self::Debian => "debian",
        })
    }
}

/// `target/ebpf-toolchain/`.
///
/// | file | holds |
/// | --- | --- |
/// | `config.toml` | the cargo configuration that the kernel programs are compiled with |
/// | `toolchain` | the rustup toolchain to use it with; absent if it does not matter |
/// | `bin/bpf-linker` | the linker |
/// | `installed` | the route and the versions of all this; written last |
/// | `rustup-refused` | why rustup's nightly is not used, if it was tried |
struct Folder(PathBuf);

impl Folder {
    fn linker(&self) -> PathBuf {
        self.0.join("bin/bpf-linker")
    }

    /// Whether all of it is there, works, and still fits the compiler, which rustup may have updated.
    fn is_ready(&self) -> bool {
        let Ok(installed) = fs::read_to_string(self.0.join("installed")) else { return false };
        let fits = |route: Route| {
            let usable = match route {
                Route::Rustup => nightly() == Nightly::Complete,
                Route::Debian => Path::new(DEBIAN_CORE).exists(),
            };
            usable
                && route.llvm().is_some_and(|llvm| installed == record(route, llvm))
                && fs::read_to_string(self.0.join("config.toml"))
                    .is_ok_and(|config| config == route.cargo_config(&self.linker()))
        };
        let route = [Route::Rustup, Route::Debian].into_iter().find(|route| installed.starts_with(&route.to_string()));
        route.is_some_and(fits) && process::succeeds(Command::new(self.linker()).arg("--version"))
    }

    fn refusal(&self) -> Option<String> {
        fs::read_to_string(self.0.join("rustup-refused")).ok()
    }

    fn refuse(&self, problem: &anyhow::Error) -> Result<()> {
        announce(&format!("rustup's nightly is not used: {problem:#}"));
        self.write("rustup-refused", &format!("{problem:#}"))
    }

    fn fill(&self, route: Route, major: u32, llvm: Llvm) -> Result<()> {
        linker::install(&self.0, major, llvm)?;
        match route {
            Route::Rustup => self.write("toolchain", NIGHTLY)?,
            Route::Debian => self.remove("toolchain")?,
        }
        self.write("config.toml", &route.cargo_config(&self.linker()))?;
        self.write("installed", &record(route, major))
    }

    fn write(&self, name: &str, text: &str) -> Result<()> {
        let path = self.0.join(name);
        fs::write(&path, text).with_context(|| path.display().to_string())
    }

    fn remove(&self, name: &str) -> Result<()> {
        let path = self.0.join(name);
        if !path.exists() {
            return Ok(());
        }
        fs::remove_file(&path).with_context(|| path.display().to_string())
    }
}

fn record(route: Route, llvm: u32) -> String {
    format!("{route}, bpf-linker {}, LLVM {llvm}\n", linker::VERSION)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rustup_is_preferred_and_asked_once() {
        let cases = [
            (Nightly::Complete, true, Next::Take(Route::Rustup)),
            (Nightly::Complete, false, Next::Take(Route::Rustup)),
            (Nightly::Incomplete, true, Next::AskRustup),
            (Nightly::Incomplete, false, Next::AskRustup),
            (Nightly::Refused, true, Next::Take(Route::Debian)),
            (Nightly::NoRustup, true, Next::Take(Route::Debian)),
            (Nightly::Refused, false, Next::GiveUp),
            (Nightly::NoRustup, false, Next::GiveUp),
        ];
        for (nightly, debian, expected) in cases {
            assert_eq!(next(nightly, debian), expected, "{nightly:?}, debian: {debian}");
        }
    }

    #[test]
    fn a_folder_without_a_record_is_not_ready() {
        assert!(!Folder(PathBuf::from("/nonexistent")).is_ready());
    }

    #[test]
    fn only_the_nightly_compiles_core_itself() {
        let linker = Path::new("/a \"path\"/bpf-linker");
        assert_eq!(
            Route::Rustup.cargo_config(linker),
            "[unstable]\nbuild-std = [\"core\"]\n\n[target.bpfel-unknown-none]\nlinker = \"/a \\\"path\\\"/bpf-linker\"\n\
             rustflags = [\"-Clink-arg=--btf\", \"-Cdebuginfo=2\"]\n"
        );
        assert_eq!(
            Route::Debian.cargo_config(linker),
            "[build]\nrustc = \"/usr/bin/rustc\"\n\n[env]\nRUSTC_BOOTSTRAP = \"1\"\n\n[target.bpfel-unknown-none]\n\
             linker = \"/a \\\"path\\\"/bpf-linker\"\nrustflags = [\"-Clink-arg=--btf\", \"-Cdebuginfo=2\"]\n"
        );
    }
}
