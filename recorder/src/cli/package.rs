//! Our package of SQL: what it has, and how it comes to where `trace_processor` can read it.

use std::{
    borrow::Cow,
    fs, io,
    path::{Path, PathBuf},
};

use crate::symbols::Categories;

/// What modules begin with, and so the package's folder is called.
pub const NAME: &str = "polletto";

/// Modules by the names of their files, so that the command has them wherever it is.
macro_rules! modules {
    ($($name:literal),* $(,)?) => {
        &[$(($name, include_str!(concat!("../../../tools/sql/polletto/", $name, ".sql")))),*]
    };
}

/// All of `tools/sql/polletto` but `patterns`, which is made for what it is asked with.
const WRITTEN: &[(&str, &str)] = modules![
    "arguments",
    "awaits",
    "blocking",
    "categories",
    "closures",
    "code",
    "convoys",
    "faults",
    "findings",
    "functions",
    "hotspots",
    "overhead",
    "polls",
    "runtimes",
    "samples",
    "tasks",
    "waits",
    "wakeups",
    "workers",
];

/// A file of the package.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Module {
    /// As in `polletto.NAME`.
    pub name: &'static str,
    /// What it says.
    pub text: Cow<'static, str>,
}

/// The whole package, by these categories.
pub fn modules(categories: &Categories) -> impl Iterator<Item = Module> + use<> {
    let written = WRITTEN.iter().map(|&(name, text)| Module { name, text: Cow::Borrowed(text) });
    written.chain([Module { name: "patterns", text: Cow::Owned(categories.sql()) }])
}

/// Something public that a module has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// As it stands behind FROM: of a function with the names of its arguments.
    pub name: String,
    /// The first sentence of what is said of it.
    pub about: String,
}

impl Module {
    /// Where it is in a package's folder.
    pub fn path(&self, folder: &Path) -> PathBuf {
        folder.join(self.name).with_extension("sql")
    }

    /// Writes it there.
    pub fn write(&self, folder: &Path) -> io::Result<()> {
        fs::write(self.path(folder), &*self.text)
    }

    /// What is public in it.
    pub fn tables(&self) -> Vec<Table> {
        let (mut tables, mut comment) = (Vec::new(), Vec::new());
        let mut lines = self.text.lines();
        while let Some(line) = lines.next() {
            if let Some(words) = line.strip_prefix("-- ") {
                comment.push(words);
                continue;
            }
            let about = first_sentence(&comment.join(" ")).to_owned();
            comment.clear();
            let Some((kind, name)) = created(line) else { continue };
            let name = match kind {
                "FUNCTION" => format!("{name}({})", arguments(&mut lines).join(", ")),
                _ => name.to_owned(),
            };
            tables.push(Table { name, about });
        }
        tables
    }
}

/// The kind and the name of what a line begins to create, if that is public and can be asked.
fn created(line: &str) -> Option<(&str, &str)> {
    let (kind, rest) = line.strip_prefix("CREATE PERFETTO ")?.split_once(' ')?;
    let name = rest.split('(').next()?;
    (["TABLE", "VIEW", "FUNCTION"].contains(&kind) && !name.starts_with('_')).then_some((kind, name))
}

/// The names of those that follow, each on a line of its own, behind a comment.
fn arguments<'t>(lines: impl Iterator<Item = &'t str>) -> Vec<&'t str> {
    let declared = lines.map(str::trim).take_while(|line| *line != ")").filter(|line| !line.starts_with("--"));
    declared.filter_map(|line| line.split_whitespace().next()).collect()
}

fn first_sentence(text: &str) -> &str {
    text.split_once(". ").map_or(text, |(first, _)| first).trim_end_matches('.')
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// What is added there is in the command too, and what the file of patterns says is up to date.
    #[test]
    fn the_package_is_the_folder_of_the_repository() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tools/sql").join(NAME);
        let read = |path: PathBuf| (path.clone(), fs::read_to_string(path).unwrap());
        let there: BTreeMap<_, _> = fs::read_dir(&folder).unwrap().map(|entry| read(entry.unwrap().path())).collect();
        let here = modules(&Categories::default()).map(|module| (module.path(&folder), module.text.into_owned()));
        assert_eq!(here.collect::<BTreeMap<_, _>>(), there);
    }

    #[test]
    fn what_is_public_is_told_by_name_and_in_a_sentence() {
        let text = "INCLUDE PERFETTO MODULE polletto.polls;\n\n-- Hidden.\nCREATE PERFETTO TABLE _polletto_hidden AS\n\
                    SELECT 1;\n\n-- What is, at\n-- `x.y`. And more.\nCREATE PERFETTO VIEW polletto_seen(\n  -- One.\n  \
                    one LONG\n)\nAS\nSELECT 1 AS one;\n\nCREATE PERFETTO INDEX _by_one ON polletto_seen(one);\n\n\
                    -- What lasts.\nCREATE PERFETTO FUNCTION polletto_lasts(\n  -- How long.\n  least_ns LONG,\n  \
                    -- Whose.\n  whose STRING\n)\nRETURNS TABLE(\n  -- It.\n  it LONG\n)\nAS\nSELECT 1 AS it;\n";
        let table = |name: &str, about: &str| Table { name: name.to_owned(), about: about.to_owned() };
        let expected =
            [table("polletto_seen", "What is, at `x.y`"), table("polletto_lasts(least_ns, whose)", "What lasts")];
        assert_eq!(Module { name: "example", text: Cow::Borrowed(text) }.tables(), expected);
    }

    #[test]
    fn everything_public_in_the_package_is_described() {
        let tables: Vec<Table> = modules(&Categories::default()).flat_map(|module| module.tables()).collect();
        assert!(tables.iter().all(|table| table.about.len() > 10), "{tables:?}");
        assert!(tables.iter().any(|table| table.name == "polletto_findings(threshold_ns)"), "{tables:?}");
    }
}
