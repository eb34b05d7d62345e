//! `polletto sql`

use std::{
    borrow::Cow,
    fmt,
    fs::{self, File},
    io::{self, Read, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, Result, ensure};

use super::{
    arguments::SqlArguments,
    counts::several,
    package::{self, Module, Table},
    tell, unless_nobody_reads,
};
use crate::symbols::Categories;

/// Writes the package of SQL, and tells what it has.
pub fn run(arguments: &SqlArguments) -> ExitCode {
    let told = |written| unless_nobody_reads(write!(io::stdout(), "{written}")).context("could not tell what it has");
    match write_package(arguments).and_then(told) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tell(format_args!("polletto: {error:#}\n"));
            ExitCode::FAILURE
        }
    }
}

fn write_package(arguments: &SqlArguments) -> Result<Written> {
    let folder = arguments.directory.join(package::NAME);
    let is_file = fs::metadata(&folder).is_ok_and(|there| !there.is_dir());
    ensure!(!is_file, "{} is a file: say in which directory to write, `polletto sql DIR`", folder.display());
    let modules: Vec<Module> = package::modules(&Categories::default()).collect();
    if !arguments.force {
        let others: Vec<String> = modules
            .iter()
            .map(|module| (module, module.path(&folder)))
            .filter(|(module, path)| has_other(path, &module.text))
            .map(|(_, path)| path.display().to_string())
            .collect();
        ensure!(
            others.is_empty(),
            "not overwritten without --force, since it says something else: {}",
            others.join(", ")
        );
    }
    fs::create_dir_all(&folder).with_context(|| format!("{} can't be made", folder.display()))?;
    for module in &modules {
        module.write(&folder).with_context(|| format!("{} can't be written", module.path(&folder).display()))?;
    }
    Ok(Written { folder, modules })
}

/// Whether anything else than this text is at a path.
fn has_other(path: &Path, text: &str) -> bool {
    match File::open(path) {
        Ok(file) => {
            let mut there = Vec::new();
            // What is longer is another, however long it is.
            let read = file.take(text.len() as u64 + 1).read_to_end(&mut there);
            read.is_err() || there != text.as_bytes()
        }
        Err(error) => error.kind() != io::ErrorKind::NotFound,
    }
}

/// What was written. Prints as the tables that it has, and how to ask them.
#[derive(Debug)]
struct Written {
    folder: PathBuf,
    modules: Vec<Module>,
}

impl fmt::Display for Written {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Written { folder, modules } = self;
        let tables: Vec<(&Module, Vec<Table>)> = modules.iter().map(|module| (module, module.tables())).collect();
        let count = several(modules.len() as u64, "module", "modules");
        writeln!(out, "{count} in {}, with these tables:", folder.display())?;
        for (module, tables) in tables.iter().filter(|(_, tables)| !tables.is_empty()) {
            writeln!(out, "\n{}.{}", package::NAME, module.name)?;
            for Table { name, about } in tables {
                writeln!(out, "  {name:<32} {about}")?;
            }
        }
        writeln!(
            out,
            "\nask a trace with\n  trace_processor_shell query --add-sql-package {} TRACE \\\n    \
             \"INCLUDE PERFETTO MODULE polletto.findings; SELECT * FROM polletto_default_findings\"",
            in_a_shell(&folder.to_string_lossy())
        )
    }
}

/// A word as one types it in a shell.
fn in_a_shell(word: &str) -> Cow<'_, str> {
    let is_plain = |letter: char| letter.is_alphanumeric() || "/._-+,:@%".contains(letter);
    if word.chars().all(is_plain) { word.into() } else { format!("'{}'", word.replace('\'', r"'\''")).into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(directory: &Path, force: bool) -> Result<Written> {
        write_package(&SqlArguments { directory: directory.to_owned(), force })
    }

    #[test]
    fn what_somebody_has_written_there_is_only_replaced_by_force() {
        let directory = tempfile::tempdir().unwrap();
        let inner = directory.path().join("not/there/yet");
        let told = write(&inner, false).unwrap().to_string();
        assert!(told.contains("  polletto_polls ") && told.contains("\nask a trace with\n"), "{told}");
        let [polls, own] = ["polletto/polls.sql", "polletto/own.sql"].map(|name| inner.join(name));
        let ours = fs::read_to_string(&polls).unwrap();
        fs::write(&own, "-- mine").unwrap();
        write(&inner, false).expect("what is the same may be written again");
        fs::write(&polls, format!("{ours}-- mine")).unwrap();
        let error = write(&inner, false).unwrap_err().to_string();
        assert!(error.contains("polls.sql") && !error.contains("findings.sql"), "{error}");
        write(&inner, true).unwrap();
        assert_eq!(fs::read_to_string(&polls).unwrap(), ours);
        assert_eq!(fs::read_to_string(&own).unwrap(), "-- mine");
    }

    #[test]
    fn a_folder_is_told_as_one_types_it() {
        for (word, typed) in [("./polletto", "./polletto"), ("a b/polletto", "'a b/polletto'"), ("it's", r"'it'\''s'")]
        {
            assert_eq!(in_a_shell(word), typed);
        }
    }
}
