//! What the code of all polls has in common.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    ops::Range,
};

use super::{LARGEST, Unknown};
use crate::{
    target::image::{ImageError, Source},
    tokio::{
        Code, Reference, Vtable,
        code::{AccessKind, ThreadLocalAccess},
    },
};

/// Functions that poll which are asked. More know no better, and take time.
const MAX_ASKED: usize = 64;

/// Calls between a vtable's function and the one that writes the task's id. At most four were seen.
const MAX_CALLS: usize = 5;

/// Functions that are looked at for one poll, those first that are called first.
const MAX_FUNCTIONS: usize = 192;

/// Bytes of functions that are looked at for all polls together: tens of milliseconds.
const MAX_BYTES: u64 = 4 << 20;

/// What polls say of where `current_task_id` is.
#[derive(Debug, Default)]
pub(super) struct Votes {
    /// How many were asked, and had something to say.
    pub(super) asked: u32,
    /// By offset from the thread pointer.
    pub(super) candidates: HashMap<i64, Candidate>,
    /// Fields that are counted up or down somewhere: the flag of a `RefCell`, mostly. An id isn't.
    pub(super) counters: HashSet<i64>,
}

/// A field that is read and written as an id would be.
#[derive(Debug, Default)]
pub(super) struct Candidate {
    pub(super) votes: u32,
    /// How often it was seen in an object that begins here.
    pub(super) objects: HashMap<i64, u32>,
}

/// The field that is the id.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Winner {
    pub(super) offset: i64,
    /// Where its object begins, if the code says so.
    pub(super) object: Option<i64>,
    pub(super) votes: u32,
    pub(super) asked: u32,
}

/// What one function says.
struct Statement {
    candidates: Vec<(i64, Option<i64>)>,
    counters: Vec<i64>,
    calls: Vec<u64>,
}

/// Asks the polls of these vtables.
pub(super) fn count<S: Source + ?Sized>(code: &Code<'_, '_, S>, vtables: &[Vtable]) -> Result<Votes, ImageError> {
    let polls: BTreeSet<u64> = vtables.iter().map(|vtable| vtable.poll).collect();
    let step = polls.len().div_ceil(MAX_ASKED).max(1);
    let mut reader = Reader { code, statements: HashMap::new(), left: MAX_BYTES };
    let mut votes = Votes::default();
    for &poll in polls.iter().step_by(step) {
        reader.ask(poll, &mut votes)?;
    }
    Ok(votes)
}

impl Votes {
    /// The one field that almost all polls use, if there is one, of those that are `possible`.
    pub(super) fn winner(&self, possible: impl Fn(i64) -> bool) -> Result<Winner, Unknown> {
        let mut ranks: Vec<(u32, i64)> = self
            .candidates
            .iter()
            .filter(|&(offset, _)| possible(*offset) && !self.counters.contains(offset))
            .map(|(&offset, candidate)| (candidate.votes, offset))
            .collect();
        ranks.sort_unstable_by(|one, other| other.cmp(one));
        let &(votes, offset) = ranks.first().ok_or(Unknown::Unseen)?;
        let second = ranks.get(1).map_or(0, |rank| rank.0);
        if 4 * votes < 3 * self.asked || 2 * second > votes {
            return Err(Unknown::Unclear);
        }
        Ok(Winner { offset, object: self.candidates[&offset].object(), votes, asked: self.asked })
    }
}

impl Candidate {
    /// Where the object begins, if the code agrees.
    fn object(&self) -> Option<i64> {
        let (&object, &seen) = self.objects.iter().max_by_key(|&(&object, &seen)| (seen, object))?;
        (4 * seen >= 3 * self.objects.values().sum::<u32>()).then_some(object)
    }
}

struct Reader<'r, 'c, 'a, S: ?Sized> {
    code: &'r Code<'c, 'a, S>,
    /// By where the function begins.
    statements: HashMap<u64, Statement>,
    /// Bytes that may still be read.
    left: u64,
}

impl<S: Source + ?Sized> Reader<'_, '_, '_, S> {
    /// Lets a poll vote: for each candidate once, however often it and the functions that it calls use it.
    fn ask(&mut self, poll: u64, votes: &mut Votes) -> Result<(), ImageError> {
        let mut seen = HashSet::new();
        let mut level: Vec<Range<u64>> = self.code.function(poll).into_iter().collect();
        let mut voted: HashMap<i64, Option<i64>> = HashMap::new();
        for _ in 0..=MAX_CALLS {
            let mut next = Vec::new();
            for function in level {
                if seen.len() >= MAX_FUNCTIONS || !seen.insert(function.start) {
                    continue;
                }
                let Some(statement) = self.statement(&function)? else { continue };
                votes.counters.extend(&statement.counters);
                for &(offset, object) in &statement.candidates {
                    let known = voted.entry(offset).or_default();
                    *known = known.or(object);
                }
                let code = self.code;
                next.extend(self.statements[&function.start].calls.iter().filter_map(|&to| code.function(to)));
            }
            level = next;
        }
        votes.asked += u32::from(!seen.is_empty());
        for (offset, object) in voted {
            let candidate = votes.candidates.entry(offset).or_default();
            candidate.votes += 1;
            if let Some(object) = object {
                *candidate.objects.entry(object).or_default() += 1;
            }
        }
        Ok(())
    }

    /// What a function says. `None` if too much was read already.
    fn statement(&mut self, function: &Range<u64>) -> Result<Option<&Statement>, ImageError> {
        if !self.statements.contains_key(&function.start) {
            let Some(left) = self.left.checked_sub(function.end - function.start) else { return Ok(None) };
            self.left = left;
            let statement = Statement::of(self.code, function)?;
            self.statements.insert(function.start, statement);
        }
        Ok(self.statements.get(&function.start))
    }
}

impl Statement {
    fn of<S: Source + ?Sized>(code: &Code<'_, '_, S>, function: &Range<u64>) -> Result<Statement, ImageError> {
        let accesses = code.thread_locals(function)?;
        let references = code.references(function)?;
        let calls = references.into_iter().filter_map(|reference| match reference {
            Reference::Call(to) | Reference::Jump(to) => Some(to),
            Reference::Data(_) => None,
        });
        let counters = accesses.iter().filter(|access| access.kind == AccessKind::Update);
        Ok(Statement {
            candidates: candidates(&accesses),
            counters: counters.map(|access| access.offset).collect(),
            calls: calls.collect(),
        })
    }
}

/// The words that are both read and written, near to a byte that is read: whether the thread has the object already.
fn candidates(accesses: &[ThreadLocalAccess]) -> Vec<(i64, Option<i64>)> {
    let of = |size: usize, kind: AccessKind| {
        accesses.iter().filter(move |access| access.size == size && access.kind == kind)
    };
    let has_state = |offset: i64| of(1, AccessKind::Load).any(|byte| byte.offset.abs_diff(offset) < LARGEST as u64);
    let mut found: Vec<(i64, Option<i64>)> = of(8, AccessKind::Store)
        .filter(|store| of(8, AccessKind::Load).any(|load| load.offset == store.offset) && has_state(store.offset))
        .map(|store| (store.offset, store.object.filter(|&object| (0..LARGEST).contains(&(store.offset - object)))))
        .collect();
    found.sort_unstable();
    found.dedup_by_key(|candidate| candidate.0);
    found
}
