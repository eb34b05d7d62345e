//! What code is about: a database, compression, a lock and so on, by patterns that stand in a file for people.
//!
//! `tools/categories.txt` says what a line means and how categories rank. There are two that go by it: this one, for names
//! as they are found, and the package of SQL, for traces, whose patterns [`Categories::sql`] writes.

mod pattern;

#[cfg(test)]
mod tests;

use std::{fmt, sync::Arc};

use self::pattern::{Pattern, Subject};
use super::{Evidence, FrameKind, Function, crate_of, package_of};

const BUILT_IN: &str = include_str!("../../../tools/categories.txt");

/// More than anybody writes. What is beyond would only take time.
const MAX_PATTERNS: usize = 10_000;

/// What code can be about.
#[derive(Clone, PartialEq, Eq)]
pub struct Categories {
    /// The first decides.
    names: Vec<Arc<str>>,
    patterns: Vec<Pattern>,
}

/// One of them; the lesser one decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Category(usize);

/// A line that can't be followed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unclear {
    /// Counted from 1.
    line: usize,
    why: String,
}

impl fmt::Display for Unclear {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "line {}: {}", self.line, self.why)
    }
}

impl std::error::Error for Unclear {}

/// Without the patterns, which are hundreds.
impl fmt::Debug for Categories {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Categories").field("names", &self.names).field("patterns", &self.patterns.len()).finish()
    }
}

impl Default for Categories {
    fn default() -> Categories {
        // A test reads it: it has no such line.
        Categories::read(BUILT_IN).unwrap_or(Categories { names: Vec::new(), patterns: Vec::new() })
    }
}

impl Categories {
    /// Those of a file, and all that are built in. Categories that only the file has decide before these.
    pub fn with(text: &str) -> Result<Categories, Unclear> {
        let mut categories = Categories::read(text)?;
        let built_in = Categories::default();
        categories.names.retain(|name| !built_in.names.contains(name));
        categories.names.extend(built_in.names);
        categories.patterns.extend(built_in.patterns);
        Ok(categories)
    }

    /// Those of a file alone.
    fn read(text: &str) -> Result<Categories, Unclear> {
        let mut categories = Categories { names: Vec::new(), patterns: Vec::new() };
        for (at, line) in text.lines().enumerate() {
            let unclear = |why: String| Unclear { line: at + 1, why };
            let mut words = line.split_whitespace().take_while(|word| !word.starts_with('#'));
            let Some(name) = words.next() else { continue };
            let is_name = |letter: char| letter.is_ascii_alphanumeric() || "-_".contains(letter);
            if !name.chars().all(is_name) {
                return Err(unclear(format!("`{name}` is no name of a category: letters, digits, `-` and `_`")));
            }
            let name = categories.named(name);
            let before = categories.patterns.len();
            for word in words {
                categories.patterns.push(Pattern::read(word, Arc::clone(&name)).map_err(unclear)?);
            }
            if categories.patterns.len() == before {
                return Err(unclear(format!("`{name}` has no pattern")));
            }
            if categories.patterns.len() > MAX_PATTERNS {
                return Err(unclear(format!("there are more than {MAX_PATTERNS} patterns")));
            }
        }
        Ok(categories)
    }

    fn named(&mut self, name: &str) -> Arc<str> {
        if let Some(known) = self.names.iter().find(|known| &***known == name) {
            return Arc::clone(known);
        }
        let name: Arc<str> = name.into();
        self.names.push(Arc::clone(&name));
        name
    }

    /// What it is called.
    pub fn name(&self, category: Category) -> &str {
        self.names.get(category.0).map_or("", |name| name)
    }

    fn rank(&self, name: &str) -> Option<Category> {
        self.names.iter().position(|known| &**known == name).map(Category)
    }

    /// What a function is about.
    pub fn of_function(&self, function: &Function) -> Option<Category> {
        let file = function.file.as_deref();
        // A file tells better whose code it is. Those of the user and of the standard library are of no crate.
        let package = match file {
            Some(file) => package_of(file).filter(|_| !function.is_of_built_package),
            None => crate_of(&function.name),
        };
        let package = package.map(pattern::crate_name);
        let is_about = |pattern: &&Pattern| match pattern.subject {
            Subject::Crate => package.as_deref().is_some_and(|name| pattern.matches(name)),
            Subject::Function => pattern.matches(&function.name),
            Subject::Path => file.is_some_and(|file| pattern.matches(file)),
        };
        self.patterns.iter().filter(is_about).filter_map(|pattern| self.rank(&pattern.category)).min()
    }

    /// What a callstack is about: the functions of it, the innermost first, up to the first that is the program's own.
    pub fn of_callstack<'f>(&self, functions: impl IntoIterator<Item = &'f Function>) -> Option<Category> {
        let mut about = None;
        for function in functions {
            about = about.into_iter().chain(self.of_function(function)).min();
            let told = function.told();
            // Nothing is known of code that is only perhaps the program's own.
            if told.kind == FrameKind::User && told.evidence == Evidence::Path {
                break;
            }
        }
        about
    }

    /// The module of the package of SQL that has the patterns.
    pub fn sql(&self) -> String {
        let row = |pattern: &Pattern| {
            let rank = self.rank(&pattern.category)?;
            let quoted = |text: &str| format!("'{}'", text.replace('\'', "''"));
            let (category, glob) = (quoted(&pattern.category), quoted(&pattern.glob()));
            Some(format!("    ({}, {category}, '{}', {glob})", rank.0, pattern.subject.name()))
        };
        let rows: Vec<String> = self.patterns.iter().filter_map(row).collect();
        format!(
            "-- What code is about, as `tools/categories.txt` says, from which this is made.\n\
             CREATE PERFETTO TABLE _polletto_patterns AS\n\
             WITH\n  patterns(rank, category, subject, pattern) AS (\n    VALUES\n{}\n  )\n\
             SELECT rank, category, subject, pattern FROM patterns;\n",
            rows.join(",\n")
        )
    }
}
