//! What is the same place in two traces.

use serde::Serialize;

use super::{
    super::found::{Found, file_of},
    ToldBy,
};
use crate::timeline::Cause;

/// What tells a place from others, in every build.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Place {
    pub kind: String,
    /// What it tells of: of tasks that starve it may be either, and each is a place.
    #[serde(skip)]
    pub cause: Cause,
    /// What a sleep was for.
    pub waited_for: Option<String>,
    #[serde(skip)]
    pub future: String,
    /// The first function of the program's own code, if that is known.
    pub function: Option<String>,
    /// The file that it is in, without folders.
    pub file: Option<String>,
    /// What the callstack is about, where no function of the program's own is known, or else the crate.
    #[serde(skip)]
    pub about: Option<String>,
}

impl Place {
    /// Of a future that is called that in both; by its kind alone if that is nothing.
    pub fn of(found: &Found, by: ToldBy, future: String) -> Place {
        let kind = Place {
            kind: found.kind.clone(),
            cause: found.cause(),
            waited_for: found.waited_for().map(str::to_owned),
            future,
            function: None,
            file: None,
            about: None,
        };
        if matches!(by, ToldBy::Future | ToldBy::Line | ToldBy::Kind) {
            return kind;
        }
        let file = found.own_source.as_deref().map(|source| {
            let path = file_of(source);
            path.rsplit_once('/').map_or(path, |(_, name)| name).to_owned()
        });
        let about = found.about().or(found.category.as_deref());
        Place {
            function: found.own_function.as_deref().map(in_every_build),
            file: file.filter(|_| by == ToldBy::Function && found.own_function.is_some()),
            about: about.filter(|_| found.own_function.is_none()).map(str::to_owned),
            ..kind
        }
    }
}

/// A name without what changes when the program is only edited elsewhere, or built again: the numbers of lines, of
/// closures, and addresses.
pub fn in_every_build(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    let mut rest = name;
    while let Some(at) = rest.find(['#', ':', 'x']) {
        let (before, from) = rest.split_at(at);
        let (mark, behind) = from.split_at(1);
        let is_digit = |letter: char| if mark == "x" { letter.is_ascii_hexdigit() } else { letter.is_ascii_digit() };
        let end = behind.find(|letter| !is_digit(letter)).unwrap_or(behind.len());
        let is_number = end > 0 && (mark != "x" || before.ends_with(" 0"));
        out.push_str(before);
        if !is_number {
            out.push_str(mark);
        }
        rest = if is_number { &behind[end..] } else { behind };
    }
    out + rest
}
