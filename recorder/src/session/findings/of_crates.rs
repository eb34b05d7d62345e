//! What happens in no code of the program's own.
//!
//! It is told by what it is about, or by its crate: functions of libraries are many, and inlined into each other.

use std::collections::{BTreeMap, btree_map::Entry};

use crate::symbols::{Dependency, Function};

/// Functions of crates, and how long findings lasted that were in them. Empty where code is the program's own, or nothing has a
/// name.
#[derive(Clone, Debug, Default)]
pub struct OfCrates(BTreeMap<(String, Option<String>), InFunction>);

#[derive(Clone, Debug)]
struct InFunction {
    krate: String,
    ns: u64,
    lines: BTreeMap<u32, u64>,
}

/// Where most of the time went by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heaviest {
    pub krate: String,
    /// The function of that crate.
    pub function: Function,
    /// How long they lasted that were in each of its lines, nanoseconds.
    pub lines: BTreeMap<u32, u64>,
}

impl OfCrates {
    /// One that lasted so long.
    pub fn one(Dependency { krate, function }: Dependency<'_>, ns: u64) -> OfCrates {
        let Function { name, file, line, .. } = function.clone();
        let lines = line.map(|line| (line, ns)).into_iter().collect();
        OfCrates(BTreeMap::from([((name, file), InFunction { krate, ns, lines })]))
    }

    /// Both.
    pub fn add(&mut self, other: OfCrates) {
        for (function, of) in other.0 {
            match self.0.entry(function) {
                Entry::Vacant(new) => drop(new.insert(of)),
                Entry::Occupied(mut known) => {
                    let known = known.get_mut();
                    known.ns += of.ns;
                    of.lines.into_iter().for_each(|(line, ns)| *known.lines.entry(line).or_default() += ns);
                }
            }
        }
    }

    /// The crate, and of this the function.
    pub fn heaviest(&self) -> Option<Heaviest> {
        let mut crates = BTreeMap::<&str, u64>::new();
        self.0.values().for_each(|of| *crates.entry(&of.krate).or_default() += of.ns);
        let (krate, _) = crates.into_iter().max_by_key(|(_, ns)| *ns)?;
        let of_it = self.0.iter().filter(|(_, of)| of.krate == krate);
        let ((name, file), InFunction { lines, .. }) = of_it.max_by_key(|(_, of)| of.ns)?;
        let line = lines.iter().max_by_key(|(_, ns)| **ns).map(|(line, _)| *line);
        let function = Function { name: name.clone(), file: file.clone(), line, ..Function::default() };
        Some(Heaviest { krate: krate.to_owned(), function, lines: lines.clone() })
    }
}

/// What places are told by.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum At {
    /// A function of the program's own, by name and file.
    Function(String, Option<String>),
    /// None of the program's own: what it is about.
    Category(String),
    /// The same, of which that is not known.
    Crate(String),
    /// Nothing that is known of either: the future alone.
    Future,
}
