//! What naming a trace came to, for people and for scripts.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use serde::Serialize;

use super::naming::Appended;
use crate::{
    cli::{
        counts::{Bytes, Count, several},
        summary::ModuleNames,
    },
    symbols::ModuleReport,
    target::printable,
    trace::read::{Known, TracedCode},
};

/// Modules that are listed for people. They stand in the order of their addresses, so the rest matters less.
const LISTED: usize = 30;

/// Columns of a path for people; longer ones keep their end.
const PATH_COLUMNS: usize = 60;

/// The summary. Its fields are what `--json` prints: names stay, new ones may come.
#[derive(Debug, Serialize)]
pub struct Summary {
    /// The trace with the names.
    file: PathBuf,
    /// Its size, and by how much it has grown.
    bytes: u64,
    bytes_added: u64,
    /// The trace ended in the middle of a packet, of which nothing is kept.
    was_cut: bool,
    /// Addresses that were looked for, those of them with a name now, and those with a line.
    addresses: u64,
    named: u64,
    with_lines: u64,
    /// Addresses that had names and lines before, and were not looked for.
    named_before: u64,
    /// Ctrl-C: there may be more to find.
    interrupted: bool,
    /// Files, those with most addresses first.
    modules: Vec<ModuleNames>,
    /// The file's size without names.
    #[serde(skip)]
    bytes_before: u64,
}

impl Summary {
    /// What is known before names are looked for.
    pub fn new(path: &Path, code: &TracedCode) -> Summary {
        let known = code.modules.iter().flat_map(|module| module.addresses.values());
        Summary {
            file: path.to_owned(),
            bytes: 0,
            bytes_added: 0,
            was_cut: code.is_cut,
            addresses: 0,
            named: 0,
            with_lines: 0,
            named_before: known.filter(|&&known| known == Known::Line).count() as u64,
            interrupted: false,
            modules: Vec::new(),
            bytes_before: code.whole_bytes,
        }
    }

    /// What came of it.
    pub fn finish(&mut self, reports: impl Iterator<Item = ModuleReport>, written: &Appended, interrupted: bool) {
        self.modules = reports.map(ModuleNames::from).collect();
        self.modules.sort_by(|one, other| (other.addresses, &one.path).cmp(&(one.addresses, &other.path)));
        let sum = |count: fn(&ModuleNames) -> u64| self.modules.iter().map(count).sum();
        self.addresses = sum(|module| module.addresses);
        self.named = sum(|module| module.named);
        self.with_lines = sum(|module| module.with_lines);
        self.bytes = written.bytes;
        self.bytes_added = if written.is_changed { written.bytes.saturating_sub(self.bytes_before) } else { 0 };
        self.interrupted = interrupted;
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let were = |count| several(count, "address was", "addresses were");
        match (self.addresses, self.named_before) {
            (0, 0) => writeln!(out, "nothing to name: the trace has no addresses of programs")?,
            (0, before) => writeln!(out, "nothing to name: {} complete already", were(before))?,
            (asked, before) => {
                write!(out, "named {} of {}", Count(self.named), several(asked, "address", "addresses"))?;
                write!(out, ", {} with a line", Count(self.with_lines))?;
                if before > 0 {
                    write!(out, "; {} complete before", were(before))?;
                }
                writeln!(out, "{}", if self.interrupted { ", interrupted" } else { "" })?;
            }
        }
        self.list(out)?;
        write!(out, "  trace     {}, {}", self.file.display(), Bytes(self.bytes))?;
        match self.bytes_added {
            0 => writeln!(out, ", nothing added")?,
            added => writeln!(out, ", {} of them names", Bytes(added))?,
        }
        if self.was_cut {
            writeln!(
                out,
                "            it ended in the middle of a packet, as when a recorder is killed: that packet is not kept"
            )?;
        }
        Ok(())
    }
}

impl Summary {
    /// One line for each file, and another one if something is missing.
    fn list(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let listed = &self.modules[..self.modules.len().min(LISTED)];
        let paths: Vec<String> = listed.iter().map(|module| shortened(&module.path)).collect();
        let width = paths.iter().map(|path| path.chars().count()).max().unwrap_or(0);
        if !listed.is_empty() {
            writeln!(out, "  {:width$}  {:>9}  {:>9}  {:>9}", "", "addresses", "named", "lines")?;
        }
        for (module, path) in listed.iter().zip(paths) {
            let [addresses, named, lines] =
                [module.addresses, module.named, module.with_lines].map(|count| Count(count).to_string());
            writeln!(out, "  {path:width$}  {addresses:>9}  {named:>9}  {lines:>9}")?;
            if let Some(missing) = &module.missing {
                writeln!(out, "    {}", printable(missing))?;
            }
        }
        if let Some(more @ 1..) = self.modules.len().checked_sub(LISTED) {
            writeln!(out, "  and {}; --json names them", several(more as u64, "more file", "more files"))?;
        }
        Ok(())
    }
}

/// A path that fits into its column.
fn shortened(path: &str) -> String {
    let path = printable(path).to_string();
    match path.char_indices().rev().nth(PATH_COLUMNS - 1) {
        Some((at, _)) if at > 0 => format!("…{}", &path[at..]),
        _ => path,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::symbols::Missing;

    fn summary(reports: Vec<ModuleReport>, named_before: u64) -> Summary {
        let mut summary = Summary::new(Path::new("x.perfetto-trace"), &TracedCode::default());
        summary.named_before = named_before;
        summary.finish(reports.into_iter(), &Appended { bytes: 2_000, is_changed: true }, false);
        summary
    }

    fn report(path: &str, addresses: u64, named: u64, missing: Option<Missing>) -> ModuleReport {
        ModuleReport { path: path.into(), addresses, named, with_lines: 0, missing }
    }

    #[test]
    fn files_with_most_addresses_come_first_and_say_what_is_missing() {
        let reports = vec![
            report("/usr/lib/small", 10, 10, None),
            report("/usr/bin/large\x1b[2J", 2_000, 0, Some(Missing::File("there is none".into()))),
        ];
        let text = summary(reports, 0).to_string();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "named 10 of 2,010 addresses, 0 with a line");
        assert!(lines[2].trim_start().starts_with("/usr/bin/large\\u{1b}[2J") && lines[2].contains("2,000"), "{text}");
        assert_eq!(lines[3], "    there is none");
        assert!(lines[4].trim_start().starts_with("/usr/lib/small"), "{text}");
    }

    #[test]
    fn a_trace_that_is_named_already_says_so() {
        assert!(summary(Vec::new(), 3).to_string().starts_with("nothing to name: 3 addresses were complete already\n"));
        assert!(
            summary(Vec::new(), 0).to_string().starts_with("nothing to name: the trace has no addresses of programs")
        );
    }

    #[test]
    fn a_long_path_keeps_its_end() {
        let path = format!("/{}/thing", "x".repeat(100));
        let short = shortened(&path);
        assert!(short.starts_with('…') && short.ends_with("/thing") && short.chars().count() == PATH_COLUMNS + 1);
        assert_eq!(shortened("/usr/bin/thing"), "/usr/bin/thing");
    }
}
