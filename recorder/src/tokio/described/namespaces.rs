//! The namespaces of a unit: around an entry while it is read, and around any place afterwards.

use std::hash::Hasher;

use gimli::UnitOffset;
use rustc_hash::FxHasher;

/// Stands for a path of names. What these are generic over does not count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct PathHash(u64);

impl PathHash {
    /// Of these names, from the outermost on.
    pub fn of<'n>(names: impl IntoIterator<Item = &'n [u8]>) -> PathHash {
        names.into_iter().fold(PathHash::default(), PathHash::join)
    }

    /// The path that goes on with this name.
    pub fn join(self, name: &[u8]) -> PathHash {
        let end = name.iter().position(|&byte| byte == b'<').unwrap_or(name.len());
        let mut hasher = FxHasher::default();
        hasher.write_u64(self.0);
        hasher.write(&name[..end]);
        PathHash(hasher.finish())
    }
}

/// A namespace, and where its contents stand.
#[derive(Debug)]
struct Namespace<'a> {
    begin: UnitOffset,
    end: UnitOffset,
    name: &'a [u8],
    /// From the outermost on to this.
    path: PathHash,
    /// The one around it, as an index.
    parent: Option<usize>,
}

/// All that were entered, in the order in which they begin.
#[derive(Debug, Default)]
pub struct Namespaces<'a> {
    all: Vec<Namespace<'a>>,
    /// Those that have not ended, with the depths of their entries, as indices.
    open: Vec<(isize, usize)>,
}

impl<'a> Namespaces<'a> {
    /// One whose entry stands here, and is this deep. What it is not in has been left.
    pub(super) fn enter(&mut self, depth: isize, begin: UnitOffset, name: &'a [u8]) {
        let (parent, path) = (self.innermost(), self.path().join(name));
        self.open.push((depth, self.all.len()));
        self.all.push(Namespace { begin, end: UnitOffset(usize::MAX), name, path, parent });
    }

    /// Ends what does not reach to an entry of this depth.
    pub(super) fn leave(&mut self, depth: isize, offset: UnitOffset) {
        while let Some((_, at)) = self.open.pop_if(|(of, _)| *of >= depth) {
            self.all[at].end = offset;
        }
    }

    /// Whether just these have not ended.
    pub(super) fn are(&self, path: &[&str]) -> bool {
        // The innermost tells most of them apart.
        let names = self.open.iter().rev().map(|(_, at)| self.all[*at].name);
        self.open.len() == path.len() && names.zip(path.iter().rev()).all(|(own, name)| own == name.as_bytes())
    }

    /// Stands for those that have not ended.
    pub(super) fn path(&self) -> PathHash {
        self.innermost().map_or(PathHash::default(), |at| self.all[at].path)
    }

    fn innermost(&self) -> Option<usize> {
        self.open.last().map(|(_, at)| *at)
    }

    /// The names of those that this place is in, from the outermost on.
    pub fn around(&self, place: UnitOffset) -> Vec<&'a [u8]> {
        let before = self.all.partition_point(|namespace| namespace.begin.0 < place.0);
        // Of those that begin before it, the last that has not ended is the innermost.
        let mut next = before.checked_sub(1);
        while let Some(ended) = next.map(|at| &self.all[at]).filter(|namespace| namespace.end.0 <= place.0) {
            next = ended.parent;
        }
        let mut names = Vec::new();
        while let Some(around) = next.map(|at| &self.all[at]) {
            names.push(around.name);
            next = around.parent;
        }
        names.reverse();
        names
    }
}
