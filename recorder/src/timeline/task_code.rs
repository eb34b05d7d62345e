//! Where a program's code polls tasks, and what their futures are called.

use std::{ops::Range, sync::Arc};

use rustc_hash::FxHashMap;

use crate::families::FamilyName;

/// The future of a task, as a trace tells of it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Future {
    /// Short, for a slice.
    pub name: String,
    /// The whole type, or whatever is known.
    pub full_name: String,
    /// How the name was found: how much to trust it.
    pub tier: &'static str,
    /// Where it stands in the source, if that is known: `file:line`.
    pub place: Option<String>,
    /// Whose tasks it is of.
    pub family: FamilyName,
}

#[cfg(test)]
impl Future {
    /// One for tests, which is called that.
    pub fn example(name: &str) -> Future {
        let (name, full_name) = (name.to_owned(), format!("app::{name}"));
        Future { name, full_name, tier: "symbol", place: None, family: FamilyName::Tokio }
    }
}

/// Code that is on the stack while tasks of one kind are polled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PollBody {
    /// Addresses as the file has them.
    pub addresses: Range<u64>,
    /// What is polled there.
    pub future: Arc<Future>,
    /// The task is one of those that may block: code that runs to its end in one poll. Workers are such tasks too.
    pub may_block: bool,
}

/// All such code of a file.
#[derive(Clone, Debug, Default)]
pub struct TaskCode {
    /// Sorted, without overlap.
    bodies: Vec<Arc<PollBody>>,
    vtables: FxHashMap<u64, Arc<PollBody>>,
}

impl TaskCode {
    /// Of bodies that don't overlap: where some do, only the first of them counts.
    pub fn new(mut bodies: Vec<PollBody>) -> TaskCode {
        bodies.sort_by_key(|body| body.addresses.start);
        let mut sorted: Vec<Arc<PollBody>> = Vec::with_capacity(bodies.len());
        for body in bodies {
            if sorted.last().is_none_or(|last| last.addresses.end <= body.addresses.start) {
                sorted.push(Arc::new(body));
            }
        }
        TaskCode { bodies: sorted, vtables: FxHashMap::default() }
    }

    /// And what is polled by the vtables at these addresses, as the file has them, or by functions, where those tell it.
    pub fn with_vtables(self, vtables: impl IntoIterator<Item = (u64, PollBody)>) -> TaskCode {
        let vtables = vtables.into_iter().map(|(address, body)| (address, Arc::new(body))).collect();
        TaskCode { vtables, ..self }
    }

    /// What is polled by the vtable or the function at this address, as the file has it.
    pub fn of_vtable(&self, address: u64) -> Option<&Arc<PollBody>> {
        self.vtables.get(&address)
    }

    /// What is polled while the code at this address, as the file has it, is on the stack.
    pub fn find(&self, address: u64) -> Option<&Arc<PollBody>> {
        let after = self.bodies.partition_point(|body| body.addresses.start <= address);
        self.bodies[..after].last().filter(|body| body.addresses.contains(&address))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_found_inside_a_body_and_nowhere_else() {
        let future = Future::example("f");
        let body = |addresses: Range<u64>| PollBody { addresses, future: Arc::new(future.clone()), may_block: false };
        let code = TaskCode::new(vec![body(30..40), body(10..20), body(15..35)]);
        let found = [9, 10, 19, 20, 29, 30, 39, 40].map(|address| code.find(address).map(|body| body.addresses.start));
        assert_eq!(found, [None, Some(10), Some(10), None, None, Some(30), Some(30), None]);
    }
}
