//! `cargo xtask layouts`: writes the table of where each version of Tokio keeps what polletto reads.
//!
//! A small program is built with each version, and polletto reads its debug information.

use std::{
    fmt::Write,
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::Mutex,
    thread,
};

use anyhow::{Context, Result, anyhow, ensure};

use crate::{process, setup, workspace};

/// The first minor version whose layout is read.
const OLDEST: u32 = 38;
/// How many programs are built at once. Most of a build is one crate's, which keeps one CPU busy at best.
const WORKERS: usize = 6;
const TABLE: &str = "recorder/src/tokio/layout/tokio-layouts.txt";

/// Features that make a difference, as the table calls them, the most usual ones first. polletto knows these names.
const FEATURES: [&str; 4] = ["full", "net", "signal", "bare"];

/// A program that has both kinds of runtimes. Layouts are decided before anything is optimised: what builds fastest does.
/// But what is only there for debug assertions takes room, in mio's structures, and released programs don't have it.
/// Whatever else is in Tokio's `full` makes no difference.
const MANIFEST: &str = r#"[package]
name = "tokio-layout-probe"
version = "0.0.0"
edition = "2021"

[workspace]

[features]
bare = []
net = ["tokio/net", "tokio/time"]
signal = ["net", "tokio/signal"]
full = ["signal", "tokio/parking_lot"]

[dependencies]
tokio = { version = "REQUIREMENT", default-features = false, features = ["rt-multi-thread"] }

[profile.dev]
debug = "full"
opt-level = 0
codegen-units = 1
incremental = false
panic = "abort"
debug-assertions = false
overflow-checks = false
"#;

const PROGRAM: &str = "use tokio::runtime::Builder;

fn main() {
    for mut builder in [Builder::new_multi_thread(), Builder::new_current_thread()] {
        builder.build().unwrap().block_on(async {
            tokio::spawn(async {}).await.unwrap();
            tokio::task::spawn_blocking(|| ()).await.unwrap();
        });
    }
}
";

/// How polletto says of a field that it is not there.
const UNKNOWN: &str = "-";

/// Each field with a number for each of the sets of features, in polletto's order.
type Rows = Vec<(String, Vec<String>)>;

pub fn run() -> Result<()> {
    setup::for_build()?;
    let mut reader = workspace::cargo("build");
    process::run(reader.args(["--quiet", "--locked", "--package", "polletto", "--example", "tokio-layout"]))?;
    let compiler = process::output(Command::new("rustc").arg("--version")).context("`rustc --version` failed")?;
    let folder = Folder { path: workspace::installed().join("tokio-layouts"), compiler };
    let newest = minor(&Probe::write(&folder, "newest", "1", 0)?.version)?;
    let all = read_all(&folder, newest)?;
    let path = workspace::root().join(TABLE);
    fs::write(&path, table(&folder.compiler, &all)).with_context(|| format!("{TABLE} cannot be written"))?;
    println!("layouts: {TABLE} tells of tokio 1.{OLDEST} to 1.{newest}");
    Ok(())
}

/// Where programs are built.
struct Folder {
    path: PathBuf,
    /// With what.
    compiler: String,
}

/// Reads all versions, several at once.
fn read_all(folder: &Folder, newest: u32) -> Result<Vec<Version>> {
    let left = Mutex::new(OLDEST..=newest);
    let next = || left.lock().map_or(None, |mut left| left.next());
    let work = |worker| std::iter::from_fn(next).map(|minor| Version::read(folder, minor, worker)).collect();
    let done: Vec<Result<Vec<Version>>> = thread::scope(|scope| {
        let workers: Vec<_> = (0..WORKERS).map(|worker| scope.spawn(move || work(worker))).collect();
        workers.into_iter().map(|worker| worker.join().map_err(|_| anyhow!("a worker panicked"))?).collect()
    });
    let mut all = done.into_iter().collect::<Result<Vec<_>>>()?.concat();
    all.sort_by_key(|version| version.minor);
    Ok(all)
}

/// What is known of a minor version.
#[derive(Clone)]
struct Version {
    minor: u32,
    /// Its newest patch.
    name: String,
    /// Without and with `tokio_unstable`.
    rows: [Rows; 2],
}

impl Version {
    fn read(folder: &Folder, minor: u32, worker: usize) -> Result<Version> {
        let probe = Probe::write(folder, &format!("1.{minor}"), &format!("~1.{minor}"), worker)?;
        println!("layouts: tokio {}", probe.version);
        let rows = [probe.rows(false)?, probe.rows(true)?];
        Ok(Version { minor, name: probe.version, rows })
    }
}

/// The program to build with one version.
struct Probe {
    folder: PathBuf,
    /// Of all programs that one worker builds: they share what they depend on.
    target: PathBuf,
    /// Where programs are kept that were built with this compiler.
    kept: PathBuf,
    /// The version that it was written for.
    version: String,
}

impl Probe {
    /// Writes it, and chooses the newest version that meets the requirement.
    fn write(all: &Folder, name: &str, requirement: &str, worker: usize) -> Result<Probe> {
        let folder = all.path.join(name);
        let kept = all.path.join(&all.compiler);
        let write = |path: &str, content: &str| {
            let path = folder.join(path);
            fs::write(&path, content).with_context(|| format!("{} cannot be written", path.display()))
        };
        fs::create_dir_all(folder.join("src"))?;
        fs::create_dir_all(&kept)?;
        write("Cargo.toml", &MANIFEST.replace("REQUIREMENT", requirement))?;
        write("src/main.rs", PROGRAM)?;
        let mut update = workspace::cargo("update");
        process::run(update.current_dir(&folder).arg("--quiet"))?;
        Ok(Probe { version: chosen(&folder)?, target: all.path.join(format!("target-{worker}")), folder, kept })
    }

    fn cargo(&self, subcommand: &str) -> Command {
        let mut cargo = workspace::cargo(subcommand);
        cargo.current_dir(&self.folder);
        cargo
    }

    /// Builds it with each set of features, and reads its layouts.
    fn rows(&self, is_unstable: bool) -> Result<Rows> {
        let mut rows = Rows::new();
        for features in FEATURES {
            let layout = self.layout(features, is_unstable)?;
            let fields = layout.lines().filter_map(|line| line.split_once(' '));
            if rows.is_empty() {
                rows = fields.clone().map(|(field, _)| (field.to_owned(), Vec::new())).collect();
            }
            for ((field, numbers), (same, number)) in rows.iter_mut().zip(fields) {
                ensure!(field == same, "fields come in two orders");
                numbers.push(number.to_owned());
            }
        }
        Ok(rows)
    }

    fn layout(&self, features: &str, is_unstable: bool) -> Result<String> {
        let program = self.build(features, is_unstable)?;
        let reader = workspace::debug_programs().join("examples/tokio-layout");
        process::output(Command::new(reader).arg(&program))
            .with_context(|| format!("polletto cannot read {}", program.display()))
    }

    /// Builds it, unless that was done before.
    fn build(&self, features: &str, is_unstable: bool) -> Result<PathBuf> {
        let name = format!("{}-{features}{}", self.version, if is_unstable { "-unstable" } else { "" });
        let kept = self.kept.join(name);
        if kept.is_file() {
            return Ok(kept);
        }
        let mut build = self.cargo("build");
        build.args(["--quiet", "--features", features, "--target-dir"]).arg(&self.target);
        build.env_remove("CARGO_ENCODED_RUSTFLAGS");
        build.env("RUSTFLAGS", if is_unstable { "--cfg tokio_unstable" } else { "" });
        process::run(&mut build)?;
        let built = self.target.join("debug/tokio-layout-probe");
        // Under its name there is never a part of it.
        let part = self.target.join("part");
        fs::copy(&built, &part).and_then(|_| fs::rename(&part, &kept)).with_context(|| kept.display().to_string())?;
        Ok(kept)
    }
}

/// The version that was chosen for a program.
fn chosen(folder: &Path) -> Result<String> {
    let lock = fs::read_to_string(folder.join("Cargo.lock"))?;
    let after = lock.split_once("name = \"tokio\"\nversion = \"").context("the lock file has no tokio")?.1;
    Ok(after.split('"').next().unwrap_or(after).to_owned())
}

fn minor(version: &str) -> Result<u32> {
    let minor = version.strip_prefix("1.").and_then(|rest| rest.split('.').next());
    minor.and_then(|minor| minor.parse().ok()).with_context(|| format!("{version} is no version of tokio 1"))
}

/// The table's text. Versions between which nothing changed stand together.
fn table(compiler: &str, all: &[Version]) -> String {
    let names: Vec<&str> = all.iter().map(|version| version.name.as_str()).collect();
    let mut text = format!(
        "# Where Tokio keeps what polletto reads: `fields.rs` says what each number is. Where features make a difference,\n\
         # a number stands behind each set of them: bare is rt-multi-thread alone, net is that with net and time, signal is\n\
         # net with signal, and full is everything, with parking_lot.\n\
         #\n\
         # Written by `cargo xtask layouts` with {compiler}, from\n# tokio {}.\n",
        names.join(" ")
    );
    let mut sections: Vec<(bool, Vec<u32>, String)> = Vec::new();
    for is_unstable in [false, true] {
        for version in all {
            let rows = &version.rows[usize::from(is_unstable)];
            let rows: String = rows.iter().filter_map(|(field, numbers)| row(field, numbers)).collect();
            match sections.last_mut() {
                Some((unstable, minors, last)) if *unstable == is_unstable && *last == rows => {
                    minors.push(version.minor);
                }
                _ => sections.push((is_unstable, vec![version.minor], rows)),
            }
        }
    }
    for (is_unstable, minors, rows) in sections {
        let versions: Vec<String> = minors.iter().map(|minor| format!("1.{minor}")).collect();
        let unstable = if is_unstable { " tokio_unstable" } else { "" };
        // Nothing fails to be written into a string.
        write!(text, "\n[{}{unstable}]\n{rows}", versions.join(" ")).ok();
    }
    text
}

/// A field's line: none if nothing is known of it.
fn row(field: &str, numbers: &[String]) -> Option<String> {
    const WIDTH: usize = 32;
    let known: Vec<(&str, &String)> = FEATURES.into_iter().zip(numbers).filter(|(_, is)| *is != UNKNOWN).collect();
    let (_, first) = known.first()?;
    let is_same = known.len() == FEATURES.len() && known.iter().all(|(_, number)| number == first);
    let told = |(features, number): &(&str, &String)| format!("{features}={number}");
    let value = if is_same { (*first).clone() } else { known.iter().map(told).collect::<Vec<_>>().join(" ") };
    Some(format!("{field:WIDTH$}{value}\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(numbers: [&str; 4]) -> Rows {
        vec![("context.size".to_owned(), numbers.map(str::to_owned).to_vec())]
    }

    #[test]
    fn versions_between_which_nothing_changed_stand_together() {
        let version = |minor, stable, unstable| Version {
            minor,
            name: format!("1.{minor}.0"),
            rows: [rows([stable; 4]), rows([unstable; 4])],
        };
        let text = table("rustc", &[version(38, "80", "80"), version(39, "80", "88"), version(40, "72", "88")]);
        let titles: Vec<&str> = text.lines().filter(|line| line.starts_with('[')).collect();
        assert_eq!(titles, ["[1.38 1.39]", "[1.40]", "[1.38 tokio_unstable]", "[1.39 1.40 tokio_unstable]"]);
    }

    #[test]
    fn features_stand_beside_numbers_where_they_make_a_difference() {
        let row = |numbers: [&str; 4]| row("context.size", &numbers.map(str::to_owned)).map(|row| row[32..].to_owned());
        assert_eq!(row(["8"; 4]).as_deref(), Some("8\n"));
        assert_eq!(row(["8", "9", "8", "-"]).as_deref(), Some("full=8 net=9 signal=8\n"));
        assert_eq!(row(["-"; 4]), None);
    }

    #[test]
    fn a_version_has_its_minor() {
        assert_eq!(minor("1.43.4").unwrap(), 43);
        assert!(minor("2.0.0").is_err());
    }
}
