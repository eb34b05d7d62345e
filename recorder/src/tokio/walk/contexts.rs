//! Which runtimes a process's threads belong to, as each thread's context tells.

use super::{Doubt, RuntimeAt, RuntimeKind};
use crate::{
    target::{Excerpt, Memory},
    tokio::layout::Layout,
};

/// What the context of any version is smaller than.
const MAX_CONTEXT: u32 = 1024;

/// What the byte behind a context says of it.
const NOT_BEGUN: u64 = 0;
const IN_USE: u64 = 1;
const ENDED: u64 = 2;

/// The fields of a context that are read.
struct Fields {
    size: u64,
    handle_kind: u64,
    tag_size: usize,
    handle: u64,
    entered: u64,
    not_entered: u64,
    kinds: [(u64, RuntimeKind); 2],
}

impl Fields {
    fn of(layout: &Layout) -> Option<Fields> {
        let (context, kinds) = (&layout.context, &layout.handle_kinds);
        Some(Fields {
            size: u64::from(context.size.filter(|&size| size < MAX_CONTEXT)?),
            handle_kind: context.handle_kind?.into(),
            tag_size: kinds.tag_size.filter(|size| (1..=8).contains(size))? as usize,
            handle: context.handle?.into(),
            entered: context.entered?.into(),
            not_entered: context.not_entered?.into(),
            kinds: [
                (kinds.current_thread?.into(), RuntimeKind::CurrentThread),
                // Without its feature there is none, and no number stands for it.
                (kinds.multi_thread.map_or(u64::MAX, u64::from), RuntimeKind::MultiThread),
            ],
        })
    }

    /// The runtime that a thread belongs to.
    fn runtime(&self, context: &Excerpt) -> Result<Option<RuntimeAt>, Doubt> {
        const WHAT: &str = "a thread's context";
        let number = |offset, size| context.number(offset, size).ok_or(Doubt::Unreadable(WHAT));
        match number(self.size, 1)? {
            NOT_BEGUN | ENDED => return Ok(None),
            IN_USE => {}
            _ => return Err(Doubt::Implausible(WHAT)),
        }
        if number(self.entered, 1)? > self.not_entered {
            return Err(Doubt::Implausible(WHAT));
        }
        let tag = number(self.handle_kind, self.tag_size)?;
        let Some((_, kind)) = self.kinds.iter().find(|(number, _)| *number == tag) else {
            let largest = self.kinds.iter().map(|kind| kind.0).filter(|&number| number != u64::MAX).max().unwrap_or(0);
            // One more stands for no handle, or for a kind that was tried once, and then one more for none.
            return if tag <= largest + 2 { Ok(None) } else { Err(Doubt::Implausible(WHAT)) };
        };
        Ok(Some(RuntimeAt { address: number(self.handle, 8)?, kind: *kind }))
    }
}

/// The runtimes of threads whose contexts are at these addresses. What can't be read belongs to a thread that has ended.
pub fn runtimes_of(
    memory: &dyn Memory,
    contexts: impl Iterator<Item = u64>,
    layout: &Layout,
) -> Result<Vec<RuntimeAt>, Doubt> {
    let fields = Fields::of(layout).ok_or(Doubt::NotDescribed("a thread's context"))?;
    let mut contexts: Vec<Excerpt> = contexts.map(|address| Excerpt::of(address, fields.size as usize + 1)).collect();
    memory.read_each(&mut contexts);
    let mut runtimes = Vec::new();
    for context in contexts.iter().filter(|context| context.is_read) {
        runtimes.extend(fields.runtime(context)?);
    }
    Ok(runtimes)
}
