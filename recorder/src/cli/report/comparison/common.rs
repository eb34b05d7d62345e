//! What two traces have in common to be compared by.

use std::{collections::BTreeSet, fmt};

use serde::{Serialize, Serializer};

use super::{
    Found, Pair, Recording,
    futures::SameFutures,
    means::{Lacking, Mean, Means, first_lacking},
};

/// Which polls are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ComparedPolls {
    /// Those that probes told from begin to end.
    Exact,
    /// Those of which samples and switches tell, since neither trace had probes.
    AtLeast,
    /// None, since the traces do not tell of them in the same way.
    None(Lacking),
}

impl Serialize for ComparedPolls {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(match self {
            ComparedPolls::Exact => "exact",
            ComparedPolls::AtLeast => "at least",
            ComparedPolls::None(_) => "none",
        })
    }
}

impl ComparedPolls {
    pub fn of(means: Pair<&Means>) -> ComparedPolls {
        match first_lacking(&[Mean::Polls, Mean::Probes], means) {
            Some(lacking) => ComparedPolls::None(lacking),
            None if means[0].has(Mean::Probes) => ComparedPolls::Exact,
            None => ComparedPolls::AtLeast,
        }
    }

    /// Why none are compared, in words; none where some are.
    pub fn none_for(self) -> Option<String> {
        match self {
            ComparedPolls::None(lacking) => Some(lacking.to_string()),
            ComparedPolls::Exact | ComparedPolls::AtLeast => None,
        }
    }
}

/// What both traces know of places, besides their kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ToldBy {
    /// Futures, the program's own functions, and their files.
    Function,
    /// One of the traces has no files, as of a build without line tables.
    Name,
    /// One of the traces has no functions of the program's own, as of a stripped program.
    Future,
    /// Nor does one have names for some of the futures, which are told by the line where they are written; those that are not the
    /// same in both, by their kind.
    Line,
    /// Nor does one have the names that the other has for futures.
    Kind,
}

/// Which of two traces do not know something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    Before,
    After,
    Both,
}

impl Which {
    /// Those of which it is not so; none if it is so of both.
    fn unless(is_so: Pair<bool>) -> Option<Which> {
        match is_so {
            [true, true] => None,
            [false, true] => Some(Which::Before),
            [true, false] => Some(Which::After),
            [false, false] => Some(Which::Both),
        }
    }
}

impl fmt::Display for Which {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Which::Before => "before",
            Which::After => "after",
            Which::Both => "before and after",
        })
    }
}

impl ToldBy {
    /// And which traces do not know more.
    pub fn of(recordings: Pair<&Recording>, same: &SameFutures<'_>) -> (ToldBy, Option<Which>) {
        let without_functions = Which::unless(recordings.map(Recording::has_functions));
        if without_functions.is_none() {
            let without_lines = Which::unless(recordings.map(Recording::has_lines));
            return (if without_lines.is_none() { ToldBy::Function } else { ToldBy::Name }, without_lines);
        }
        if same.are_by_line() {
            return (ToldBy::Line, without_functions);
        }
        let [before, after] = [0, 1].map(|at| {
            recordings[at].found.iter().map(|found| same.key(at, found.into())).collect::<BTreeSet<String>>()
        });
        // Where nothing was found, nothing has another name.
        let has_other_names = !before.is_empty() && !after.is_empty() && before.is_disjoint(&after);
        (if has_other_names { ToldBy::Kind } else { ToldBy::Future }, without_functions)
    }

    /// What a finding's future is told by; nothing where its kind is all.
    pub fn future(self, same: &SameFutures<'_>, at: usize, found: &Found) -> String {
        match self {
            ToldBy::Function | ToldBy::Name | ToldBy::Future => same.key(at, found.into()),
            ToldBy::Line => same.key_in_both(at, found.into()).unwrap_or_default(),
            ToldBy::Kind => String::new(),
        }
    }

    /// How places are told if not by all that there may be to know, and why, in words.
    pub fn told(self, which: Option<Which>) -> Option<String> {
        let which = which?;
        let nameless = format!("{which}, no functions of the program's own are known, as of a stripped program");
        match self {
            ToldBy::Function => None,
            ToldBy::Name => Some(format!("{which}, lines are not known: places are told without their files")),
            ToldBy::Future => Some(format!("{nameless}: places are told by kind and future alone")),
            ToldBy::Line => Some(format!(
                "{nameless}: places are told by kind and future, by the line where that is written if one of the two has no name \
                 for it, and by kind alone if it is not known in both"
            )),
            ToldBy::Kind => {
                Some(format!("{nameless}, and no future has the same name in both: places are told by kind alone"))
            }
        }
    }
}
