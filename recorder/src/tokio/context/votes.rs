//! What the code of all polls has in common.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet, hash_map::Entry},
    ops::Range,
};

use super::{Contender, LARGEST, Unknown};
use crate::{
    code::{AccessKind, Code, Reference, ThreadLocalAccess, ThreadLocals},
    target::image::{ImageError, Source},
    tokio::Vtable,
};

/// Functions that poll which are asked. More know no better, and take time.
const MAX_ASKED: usize = 32;

/// Calls between a vtable's function and the one that writes the task's id. At most four were seen.
const MAX_CALLS: usize = 5;

/// Functions that are looked at for one poll, those first that are called first.
const MAX_FUNCTIONS: usize = 64;

/// Bytes of functions that are looked at for all polls together: tens of milliseconds.
const MAX_BYTES: u64 = 2 << 20;

/// Small functions that are looked at, whether they find a thread-local.
const MAX_GETTERS: usize = 1 << 14;

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
    /// The word that tells whether there is one.
    pub(super) tag: Option<i64>,
    /// Where its object begins, if the code says so.
    pub(super) object: Option<i64>,
    pub(super) votes: u32,
    pub(super) asked: u32,
}

/// What one function says.
struct Statement {
    /// Where fields are that may be an id, and where their objects begin.
    candidates: BTreeMap<i64, Option<i64>>,
    counters: HashSet<i64>,
    /// The functions that it calls.
    calls: Vec<Range<u64>>,
}

/// Asks the polls of these vtables.
pub(super) fn count<S: Source + ?Sized>(code: &Code<'_, '_, S>, vtables: &[Vtable]) -> Result<Votes, ImageError> {
    let polls: BTreeSet<u64> = vtables.iter().map(|vtable| vtable.poll).collect();
    let step = polls.len().div_ceil(MAX_ASKED).max(1);
    let getters = Getters { code, known: HashMap::new() };
    let mut reader = Reader { code, statements: HashMap::new(), getters, left: MAX_BYTES };
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
        let (&(votes, offset), rest) = ranks.split_first().ok_or(Unknown::Unseen)?;
        // An id that may be 0 (Tokio until 1.39) has a word before it that tells whether there is one.
        let (offset, tag, others) = match rest.split_first() {
            Some((&(second, other), others)) if offset.abs_diff(other) == 8 && is_far(votes, votes - second) => {
                (offset.max(other), Some(offset.min(other)), others)
            }
            _ => (offset, None, rest),
        };
        let next = others.first().map_or(0, |rank| rank.0);
        if !is_far(self.asked, self.asked - votes) || 3 * next > 2 * votes {
            return Err(Unknown::Unclear);
        }
        Ok(Winner { offset, tag, object: self.candidates[&offset].object(), votes, asked: self.asked })
    }

    /// Fields that most polls use, in the order of their places.
    pub(super) fn contenders(&self) -> Vec<Contender> {
        let is_used = |candidate: &Candidate| 2 * candidate.votes >= self.asked;
        let mut contenders: Vec<Contender> = self
            .candidates
            .iter()
            .filter(|&(offset, candidate)| is_used(candidate) && !self.counters.contains(offset))
            .map(|(&offset, candidate)| Contender { offset, start: candidate.object() })
            .collect();
        contenders.sort_unstable_by_key(|contender| contender.offset);
        contenders
    }
}

/// Whether there is three times as much for something as against it.
fn is_far(all: u32, against: u32) -> bool {
    4 * against <= all
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
    getters: Getters<'r, 'c, 'a, S>,
    /// Bytes that may still be read.
    left: u64,
}

/// Functions that do nothing but find a thread-local, and its state: where code is small, it calls them.
struct Getters<'r, 'c, 'a, S: ?Sized> {
    code: &'r Code<'c, 'a, S>,
    /// By where the function begins.
    known: HashMap<u64, ThreadLocals>,
}

impl<S: Source + ?Sized> Getters<'_, '_, '_, S> {
    /// What a function does that may be one.
    fn get(&mut self, address: u64) -> Result<Option<&ThreadLocals>, ImageError> {
        const LARGEST: u64 = 256;
        let Some(function) = self.code.function(address) else { return Ok(None) };
        let is_small = function.start == address && function.end - function.start <= LARGEST;
        if !is_small || self.known.len() >= MAX_GETTERS {
            return Ok(None);
        }
        Ok(Some(match self.known.entry(address) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => new.insert(self.code.thread_locals(&function, &mut |_| None)?),
        }))
    }
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
                // What was not looked at to its end says neither yes nor no.
                let Some(statement) = self.statement(&function)? else { return Ok(()) };
                votes.counters.extend(&statement.counters);
                for (&offset, &object) in &statement.candidates {
                    let known = voted.entry(offset).or_default();
                    *known = known.or(object);
                }
                next.extend(statement.calls.iter().cloned());
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
            let statement = Statement::of(self.code, &mut self.getters, function)?;
            self.statements.insert(function.start, statement);
        }
        Ok(self.statements.get(&function.start))
    }
}

impl Statement {
    fn of<S: Source + ?Sized>(
        code: &Code<'_, '_, S>,
        getters: &mut Getters<'_, '_, '_, S>,
        function: &Range<u64>,
    ) -> Result<Statement, ImageError> {
        let (mut called, mut calls) = (HashSet::new(), Vec::new());
        let (mut returned, mut states) = (HashMap::new(), BTreeSet::new());
        for reference in code.references(function)? {
            let (Reference::Call(to) | Reference::Jump(to)) = reference else { continue };
            if !called.insert(to) {
                continue;
            }
            if calls.len() < MAX_FUNCTIONS {
                calls.extend(code.function(to));
            }
            if let Some(ThreadLocals { accesses, returned: Some(object), .. }) = getters.get(to)? {
                returned.insert(to, *object);
                states.extend(self::states(accesses));
            }
        }
        let found = code.thread_locals(function, &mut |to| returned.get(&to).copied())?;
        states.extend(self::states(&found.accesses));
        let counters = found.accesses.iter().filter(|access| access.kind == AccessKind::Update);
        Ok(Statement {
            candidates: candidates(&found.accesses, &states, &found.given.into_iter().collect()),
            counters: counters.map(|access| access.offset).collect(),
            calls,
        })
    }
}

/// The bytes that are read: one behind an object tells whether the thread has it, not yet, or no more.
fn states(accesses: &[ThreadLocalAccess]) -> impl Iterator<Item = i64> {
    accesses.iter().filter(|access| access.size == 1 && access.kind == AccessKind::Load).map(|access| access.offset)
}

/// The words that are both read and written, near to a state that is read, and where their objects begin: either code has
/// the object in a register, or gives it away.
fn candidates(
    accesses: &[ThreadLocalAccess],
    states: &BTreeSet<i64>,
    given: &BTreeSet<i64>,
) -> BTreeMap<i64, Option<i64>> {
    let words = |kind: AccessKind| accesses.iter().filter(move |access| access.size == 8 && access.kind == kind);
    let loads: HashSet<i64> = words(AccessKind::Load).map(|load| load.offset).collect();
    let mut found = BTreeMap::new();
    for &ThreadLocalAccess { offset, object, .. } in words(AccessKind::Store) {
        let (first, last) = (offset.saturating_sub(LARGEST), offset.saturating_add(LARGEST));
        if loads.contains(&offset) && states.range(first..=last).next().is_some() {
            let given = given.range(first..=offset).next_back().copied();
            let own = object.filter(|object| (first..=offset).contains(object));
            let known = found.entry(offset).or_default();
            *known = given.max(own).max(*known);
        }
    }
    found
}
