//! How functions were named.

use std::fmt;

use serde::Serialize;

use crate::{
    cli::counts::{Count, several},
    {symbols::ModuleReport, target::printable},
};

/// Files that are told about in the summary for people.
const TOLD_FILES: usize = 5;

/// The part of the summary about names.
#[derive(Debug, Serialize)]
pub struct NameSummary {
    /// Each file whose code is in stacks.
    names: Vec<ModuleNames>,
}

/// How it went for the different addresses of a file.
#[derive(Debug, Serialize)]
pub struct ModuleNames {
    pub path: String,
    pub addresses: u64,
    /// Those with the name of a function.
    pub named: u64,
    /// Those with a source line too.
    pub with_lines: u64,
    /// What stands in the way of the others, and what to do about it.
    pub missing: Option<String>,
}

impl From<ModuleReport> for ModuleNames {
    fn from(report: ModuleReport) -> ModuleNames {
        let ModuleReport { path, addresses, named, with_lines, missing } = report;
        ModuleNames { path, addresses, named, with_lines, missing: missing.map(|missing| missing.to_string()) }
    }
}

impl NameSummary {
    /// Takes the figures from what the symbols told.
    pub fn new(reports: &[ModuleReport]) -> NameSummary {
        let names = reports.iter().cloned().map(ModuleNames::from);
        NameSummary { names: names.collect() }
    }
}

impl ModuleNames {
    fn without_lines(&self) -> u64 {
        self.addresses - self.with_lines.min(self.addresses)
    }

    /// Every program has some code that was written in assembly; that a few addresses have no line is no news.
    fn is_worth_telling(&self) -> bool {
        let without_lines = self.without_lines();
        let is_rare = without_lines > 0 && without_lines * 5 < self.addresses;
        self.missing.is_some() && (self.named < self.addresses || !is_rare)
    }
}

impl fmt::Display for NameSummary {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sum = |of: fn(&ModuleNames) -> u64| self.names.iter().map(of).sum::<u64>();
        let addresses = sum(|module| module.addresses);
        if addresses == 0 {
            return Ok(());
        }
        let (named, with_lines) = (sum(|module| module.named), sum(|module| module.with_lines));
        let files = several(self.names.len() as u64, "file", "files");
        writeln!(
            out,
            "  names     {} in {files}: {} named, {} with lines",
            several(addresses, "address", "addresses"),
            Share(named, addresses),
            Share(with_lines, addresses)
        )?;
        let mut lacking: Vec<_> = self.names.iter().filter(|module| module.is_worth_telling()).collect();
        lacking.sort_by_key(|module| std::cmp::Reverse(module.without_lines()));
        for module in lacking.iter().take(TOLD_FILES) {
            let ModuleNames { path, addresses, named, missing, .. } = module;
            write!(out, "            {}", printable(path))?;
            match (addresses - named.min(addresses), module.without_lines()) {
                (0, 0) => {}
                // What lacks more is what the reason is about.
                (names, lines) if names * 2 >= lines => {
                    write!(out, ": {} of {} without names", Count(names), Count(*addresses))?;
                }
                (_, lines) => write!(out, ": {} of {} without lines", Count(lines), Count(*addresses))?,
            }
            writeln!(out, ": {}", printable(missing.as_deref().unwrap_or_default()))?;
        }
        if let Some(more @ 1..) = lacking.len().checked_sub(TOLD_FILES) {
            writeln!(out, "            and {}; --json tells of all", several(more as u64, "more file", "more files"))?;
        }
        Ok(())
    }
}

/// How many of how many.
struct Share(u64, u64);

impl fmt::Display for Share {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Share(0, _) => write!(out, "none"),
            Share(part, all) if part >= all => write!(out, "all"),
            // Never 100 % when it is not all.
            Share(part, all) => write!(out, "{:.1} %", (1000.0 * part as f64 / all as f64).floor() / 10.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::symbols::Missing;

    #[test]
    fn what_lacks_most_is_told_first() {
        let report = |path: &str, named, with_lines, missing| ModuleReport {
            path: path.to_owned(),
            addresses: 1000,
            named,
            with_lines,
            missing,
        };
        let text = NameSummary::new(&[
            report("/whole", 1000, 1000, None),
            report("/lines", 1000, 400, Some(Missing::Described)),
            report("/none", 0, 0, Some(Missing::Symbols)),
        ])
        .to_string();
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        assert_eq!(lines[0], "names     3,000 addresses in 3 files: 66.6 % named, 46.6 % with lines");
        assert!(lines[1].starts_with("/none: 1,000 of 1,000 without names: it is stripped"), "{text}");
        assert_eq!(
            lines[2],
            "/lines: 600 of 1,000 without lines: its debug information leaves this code out, as it does with assembly"
        );
        assert_eq!(lines.len(), 3);
    }
}
