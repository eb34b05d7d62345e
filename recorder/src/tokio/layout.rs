//! Where Tokio keeps what it knows, in the memory of a program: by the program's own debug information, or by what was read
//! from that of programs built with the same version.

mod dwarf;
mod fields;
mod table;

pub use self::{
    fields::{
        BlockingPool, Context, Core, CurrentThread, HandleKind, Header, Layout, MultiThread, OnlyCore, Queue, Remote,
        SchedulerContext, Shard, Trailer, Worker,
    },
    table::{Build, Drivers},
};

use self::{
    fields::{FIELDS, PARTS},
    table::COMPILERS,
};

impl Layout {
    /// The layout that a program was built with, from its file or from that which has its debug information, as far as that
    /// tells it. None if it tells nothing of Tokio.
    pub fn described_in(file: &[u8]) -> Result<Option<Layout>, String> {
        dwarf::read(file)
    }

    /// What holds for every program that was built like this. None if the version is not known.
    ///
    /// The more is known of a build, the more is known of its layout.
    pub fn of(build: &Build) -> Option<Layout> {
        let mut candidates = Layout::candidates(build).into_iter();
        let first = candidates.next()?;
        let mut agreed = candidates.fold(first, |agreed, next| agreed.and(&next));
        // There are more sets of features than the table has, and these are moved by them.
        if build.drivers.is_none() || build.parking_lot.is_none() {
            (agreed.multi_thread.size, agreed.multi_thread.blocking_pool) = (None, None);
            (agreed.current_thread.size, agreed.current_thread.blocking_pool) = (None, None);
        }
        if build.parking_lot.is_none() || !build.rustc.is_some_and(|rustc| COMPILERS.contains(&rustc)) {
            agreed.blocking_pool = BlockingPool::default();
        }
        Some(agreed)
    }

    /// All different layouts that a program may have that was built like this, from the most usual one on.
    ///
    /// A reader who has such a program before him can try each. None of them fits if the build was unusual beyond what a
    /// [`Build`] says, and where the blocking pool has its numbers depends on the compiler as well.
    pub fn candidates(build: &Build) -> Vec<Layout> {
        table::known().candidates(build)
    }

    /// Each field with its name.
    pub fn fields(&self) -> impl Iterator<Item = (&'static str, Option<u32>)> {
        FIELDS.iter().map(|field| (field.name, (field.get)(self)))
    }

    /// What two layouts agree on.
    fn and(mut self, other: &Layout) -> Layout {
        for field in FIELDS {
            if (field.get)(&self) != (field.get)(other) {
                (field.set)(&mut self, None);
            }
        }
        self
    }

    /// Adds what another description of the same program knows. One that contradicts is of something else.
    fn learn(&mut self, other: &Layout) {
        let contradicts = FIELDS.iter().any(|field| match ((field.get)(self), (field.get)(other)) {
            (Some(own), Some(others)) => own != others,
            _ => false,
        });
        if contradicts {
            return;
        }
        for field in FIELDS {
            let number = (field.get)(self).or((field.get)(other));
            (field.set)(self, number);
        }
    }

    /// Whether something is known of each part.
    fn knows_every_part(&self) -> bool {
        let is_known = |part: &str| FIELDS.iter().any(|field| field.part == part && (field.get)(self).is_some());
        PARTS.iter().all(|part| is_known(part.name))
    }
}
