//! Where closures that may block are given to the threads that run them.
//!
//! Such a closure is made a task where it is spawned, in code of its own for each: known by the vtable that the task gets.
//! All of that code calls one function, which has the task as its second argument, and shuts it down if its queue is closed.

use std::ops::Range;

use rustc_hash::{FxHashMap, FxHashSet};

use super::{
    ListFunctions, Program, Reader, SchedulerKind, Told, Untold,
    x86_64::{
        blocking::{self, TAKE_BYTES, Taken},
        spawns,
    },
};
use crate::{
    code::{Reference, Unprobed, pieces_of_code, x86_64::probes::Argument},
    target::image::Source,
};

/// Functions that make such tasks in one file: as many as closures.
const MAX_MAKERS: usize = 1 << 13;

/// Bytes of a function that does nothing but shut a task down.
const LARGEST_SHUTDOWN: u64 = 1 << 10;

impl<S: Source + ?Sized> Reader<'_, '_, S> {
    /// Where every such closure comes by.
    pub(super) fn blocking_spawns(&self, program: &Program, symbols: &ListFunctions) -> Result<Vec<Told>, Untold> {
        let mut queues = self.queues(program).map_err(Untold::Unprobed)?;
        if queues.is_empty() {
            queues.extend(&symbols.spawn_task);
        }
        match queues.iter().collect::<Vec<_>>()[..] {
            [] => Err(Untold::NotFound),
            [&queue] => {
                let bounds = self.code.function(queue).filter(|bounds| bounds.start == queue);
                let bounds = bounds.ok_or(Untold::Unprobed(Unprobed::NoFunction))?;
                let bytes = self.code.bytes(&bounds).map_err(|error| Untold::Unprobed(error.into()))?;
                let told = blocking::at_beginning(&bytes, &bounds, Argument::Second).map_err(Untold::Unprobed)?;
                Ok(vec![told])
            }
            _ => Err(Untold::Ambiguous),
        }
    }

    /// The functions that such closures are given to.
    fn queues(&self, program: &Program) -> Result<FxHashSet<u64>, Unprobed> {
        let is_blocking = |kind: SchedulerKind| kind == SchedulerKind::Blocking;
        let vtables: FxHashSet<u64> =
            program.vtables.iter().filter(|one| is_blocking(one.kind())).map(|one| one.address).collect();
        let mut called = FxHashSet::default();
        for maker in self.takers(&vtables)? {
            for reference in self.code.references(&maker)? {
                if let Reference::Call(to) | Reference::Jump(to) = reference
                    && self.code.function(to).is_some_and(|bounds| bounds.start == to)
                {
                    called.insert(to);
                }
            }
        }
        // So that each function is read once, however often it is called.
        let (mut queues, mut shutdowns) = (FxHashSet::default(), FxHashMap::default());
        for function in called {
            if self.is_queue(function, &mut shutdowns)? {
                queues.insert(function);
            }
        }
        Ok(queues)
    }

    /// Whether a function takes tasks, and is none that has a list of those that await.
    fn is_queue(&self, function: u64, shutdowns: &mut FxHashMap<u64, bool>) -> Result<bool, Unprobed> {
        let Some(bounds) = self.code.function(function).filter(|bounds| bounds.start == function) else {
            return Ok(false);
        };
        let bytes = self.code.bytes(&bounds)?;
        let shuts_first_down = |called| *shutdowns.entry(called).or_insert_with(|| self.is_shutdown(called));
        let lists = || !spawns(&bytes, &bounds, |_| false).is_empty();
        Ok(blocking::shuts_second_down(&bytes, &bounds, shuts_first_down) && !lists())
    }

    /// Whether a function shuts its first argument down, which is a task.
    fn is_shutdown(&self, function: u64) -> bool {
        let bounds = self
            .code
            .function(function)
            .filter(|bounds| bounds.start == function && bounds.end - bounds.start <= LARGEST_SHUTDOWN);
        bounds.is_some_and(|bounds| {
            self.code.bytes(&bounds).is_ok_and(|bytes| blocking::shuts_first_down(&bytes, &bounds))
        })
    }

    /// The functions that take one of these addresses.
    fn takers(&self, addresses: &FxHashSet<u64>) -> Result<Vec<Range<u64>>, Unprobed> {
        let pointers = self.pointers.sorted().iter();
        let words: FxHashSet<u64> =
            pointers.filter(|pointer| addresses.contains(&pointer.to)).map(|pointer| pointer.at).collect();
        let is_taken = |taken: Taken| match taken {
            Taken::Address(address) => addresses.contains(&address),
            Taken::Word(word) => words.contains(&word),
        };
        let mut functions: Vec<Range<u64>> = Vec::new();
        for (start, piece) in pieces_of_code(self.contents) {
            for (bytes, address) in piece?.windows(TAKE_BYTES).zip(start..) {
                if blocking::taken(bytes, address).is_some_and(is_taken)
                    && functions.len() < MAX_MAKERS
                    && functions.last().is_none_or(|last| last.end <= address)
                {
                    functions.extend(self.code.function(address));
                }
            }
        }
        Ok(functions)
    }
}
