//! What is asked of the symbols, and what they answer.

use std::{fmt, fs::File};

use crate::target::image::{BuildId, Bytes};

/// Addresses of a module for which names are wanted.
#[derive(Debug)]
pub struct Request {
    /// The module's path, as a trace's mappings have it.
    pub path: String,
    /// The name of the very build that ran; none if it has none, or nobody knows.
    pub build_id: Option<BuildId>,
    /// Where its names are.
    pub names_in: NamesIn,
    /// As the file's own symbols have them. Each lies inside the instruction that it is about: for a caller that is the
    /// call, which ends before the address to return to.
    pub addresses: Vec<u64>,
}

/// Where the names of a module's addresses are.
#[derive(Debug)]
pub enum NamesIn {
    /// In the very file that ran, which may have been removed since, and in debug information that was taken out of it.
    Binary(Bytes),
    /// In the file at the module's path, if it is the one that ran, and likewise.
    Path,
    /// In a list that a program writes of the functions that it compiles while it runs: see [`perf_map`](super::perf_map).
    List(File),
}

/// What was found for some addresses of a module, in their order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// As in [`Request::path`].
    pub path: String,
    /// As in [`Request::build_id`].
    pub build_id: Option<BuildId>,
    /// Those with a name. The others are not there.
    pub symbols: Vec<Symbols>,
}

/// What an address is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Symbols {
    /// As it was asked for.
    pub address: u64,
    /// The function that the instruction was written in, then the one that this was inlined into, and so on. Never empty.
    pub functions: Vec<Function>,
}

/// A function, and a place in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Function {
    /// Its full name, as people write it.
    pub name: String,
    /// The file that it was written in.
    pub file: Option<String>,
    /// The line in that file: of the instruction, or of the call that was inlined.
    pub line: Option<u32>,
    /// It is of the package that the program was made of, though that stands among dependencies.
    pub is_of_built_package: bool,
}

/// How it went for a module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ModuleReport {
    /// As in [`Request::path`].
    pub path: String,
    /// Addresses that were asked for.
    pub addresses: u64,
    /// Those of them that have a name.
    pub named: u64,
    /// Those of them that have a line.
    pub with_lines: u64,
    /// Why names or lines are missing, if any are.
    pub missing: Option<Missing>,
}

/// Why names or lines of a module are missing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Missing {
    /// There is no file, or it can't be read, or it is not the one that ran.
    File(String),
    /// It has no symbols at all.
    Symbols,
    /// It has symbols, but no debug information, and none was found elsewhere.
    DebugInformation,
    /// It has symbols, but no debug information, and servers could not be asked for any.
    NotFetched(String),
    /// The program compiled it, and told nobody what it is.
    List,
    /// There is debug information that is another build's, or can't be read.
    Refused(String),
    /// It has debug information that can't be used.
    Damaged(String),
    /// A part of its debug information was left in this file, which is not there.
    Split(String),
    /// It has all; some addresses are of code that it does not describe.
    Described,
    /// The user did not want to wait.
    Interrupted,
}

impl fmt::Display for Missing {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Missing::File(reason) => write!(out, "{reason}"),
            Missing::Symbols => write!(
                out,
                "it is stripped: `polletto symbolize --debug-dir` takes names from the file as it was before, or from its debug package"
            ),
            Missing::DebugInformation => {
                write!(
                    out,
                    "it has no debug information: build with `debug = \"line-tables-only\"` (C: -g), or install its debug package"
                )
            }
            Missing::NotFetched(reason) => write!(out, "its debug information could not be fetched: {reason}"),
            Missing::List => write!(
                out,
                "compiled while the program ran, which wrote no /tmp/perf-PID.map: most runtimes do so when asked"
            ),
            Missing::Refused(reason) => write!(out, "debug information was refused: {reason}"),
            Missing::Split(path) => {
                write!(out, "a part of its debug information is not there, so inlined functions are missing: {path}")
            }
            Missing::Damaged(reason) => write!(out, "its debug information can't be used: {reason}"),
            Missing::Described => write!(out, "its debug information leaves this code out, as it does with assembly"),
            Missing::Interrupted => write!(out, "interrupted: `polletto symbolize` finds the rest"),
        }
    }
}
