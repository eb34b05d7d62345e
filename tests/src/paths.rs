//! What `deep-stacks` says of itself: which functions were on a thread's stack, and when.

use std::ops::Range;

use serde_json::Value;

use crate::trace::{Nanoseconds, Tid};

/// A path that a thread took: `Section` in `src/bin/deep-stacks`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Path {
    /// Which.
    pub section: String,
    /// Who took it.
    pub tid: Tid,
    /// When.
    pub within: Range<Nanoseconds>,
    /// What was on the stack while the thread burnt, the innermost first. Empty if the path doesn't burn.
    pub burning: Vec<String>,
    /// What was on the stack while the thread was blocked, the innermost first. Empty if the path doesn't block.
    pub blocking: Vec<String>,
}

impl Path {
    /// None if the line is about something else.
    pub fn read(line: &str) -> Option<Path> {
        let line: Value = serde_json::from_str(line).ok().filter(|line: &Value| line["section"].is_string())?;
        let number = |name: &str| line[name].as_u64().unwrap_or_else(|| panic!("{line}: {name}"));
        let names = |name: &str| {
            let names = line[name].as_array().unwrap_or_else(|| panic!("{line}: {name}"));
            names.iter().map(|name| name.as_str().expect("a name").to_owned()).collect()
        };
        Some(Path {
            section: line["section"].as_str()?.to_owned(),
            tid: Tid::try_from(number("tid")).expect("an id"),
            within: number("begin")..number("end"),
            burning: names("burning"),
            blocking: names("blocking"),
        })
    }
}

/// Whether these functions, and no more of the same names, are on a stack in this order. Others may lie in between.
pub fn leads_through(stack: &[String], through: &[String]) -> bool {
    stack.iter().filter(|name| through.contains(name)).eq(through)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn order_and_number_of_functions_count() {
        let stack = names(&["syscall", "burn", "pass", "?", "pass", "main"]);
        for (through, holds) in [
            (&["burn", "pass", "pass"][..], true),
            (&["burn", "pass", "pass", "main"], true),
            (&["burn", "pass"], false),
            (&["pass", "pass", "burn"], false),
            (&["burn", "rest"], false),
        ] {
            assert_eq!(leads_through(&stack, &names(through)), holds, "{through:?}");
        }
    }

    #[test]
    fn a_line_is_read() {
        let line = r#"{"section":"park","tid":7,"begin":1,"end":2,"burning":[],"blocking":["through_park"]}"#;
        let path = Path::read(line).expect("it is a path");
        assert_eq!((path.tid, path.within, path.blocking), (7, 1..2, names(&["through_park"])));
        assert_eq!(Path::read("done"), None);
    }
}
