//! The way from a future to the one that it awaits.

use super::{Await, Awaits, Waits};
use crate::{
    symbols::{dwarf, short},
    target::Memory,
    tokio::described::{Place, Shape, TypeAt},
};

/// Futures that await one another are followed so deep, what is around them included.
const MAX_STEPS: usize = 256;

/// Where a block keeps what it awaits.
const AWAITEE: &[u8] = b"__awaitee";

/// Types that wrap a future and add nothing to wait for that counts more, and where they have it.
const AROUND: [(&str, &[u8]); 10] = [
    ("core::pin::Pin", b"pointer"),
    ("core::pin::Pin", b"__pointer"),
    ("core::mem::manually_drop::ManuallyDrop", b"value"),
    ("core::mem::maybe_dangling::MaybeDangling", b"__0"),
    ("tokio::time::timeout::Timeout", b"value"),
    ("tokio::task::coop::Coop", b"fut"),
    ("tokio::task::coop::unconstrained::Unconstrained", b"inner"),
    ("tracing::instrument::Instrumented", b"inner"),
    ("tracing::instrument::WithDispatch", b"inner"),
    ("core::panic::unwind_safe::AssertUnwindSafe", b"__0"),
];

/// Enumerations that hold a future in one of their variants.
const EITHER: [&str; 5] = [
    "core::option::Option",
    "futures_util::future::maybe_done::MaybeDone",
    "tokio::future::maybe_done::MaybeDone",
    "futures_util::future::either::Either",
    "tokio_util::either::Either",
];

/// Follows futures in a process's memory.
pub struct Chain<'c, 'd, 'a, 'm> {
    awaits: &'c mut Awaits<'d, 'a>,
    memory: &'m dyn Memory,
    bias: u64,
    found: Waits,
}

/// Something of a type in memory.
#[derive(Clone, Copy)]
pub struct Thing {
    pub address: u64,
    pub type_at: TypeAt,
}

impl Thing {
    fn part(self, place: Place) -> Thing {
        Thing { address: self.address.wrapping_add(place.offset), type_at: place.type_at }
    }
}

impl<'c, 'd, 'a, 'm> Chain<'c, 'd, 'a, 'm> {
    pub fn new(awaits: &'c mut Awaits<'d, 'a>, memory: &'m dyn Memory, bias: u64) -> Chain<'c, 'd, 'a, 'm> {
        Chain { awaits, memory, bias, found: Waits::default() }
    }

    /// Of a task of this type.
    pub fn of_task(mut self, cell: TypeAt, task: u64) -> Waits {
        match self.future_of(cell, task) {
            Some(future) => self.of_future(future),
            None => Waits::unknown("it has ended, or can't be read"),
        }
    }

    /// Of a future.
    pub fn of_future(mut self, future: Thing) -> Waits {
        self.found.ends_for = self.follow(future);
        self.found
    }

    /// The future of a task that has one.
    fn future_of(&mut self, cell: TypeAt, task: u64) -> Option<Thing> {
        let types = &mut self.awaits.types;
        let mut stage = Place { offset: 0, type_at: cell };
        for name in ["core", "stage"] {
            stage = types.step(stage, name)?;
        }
        let (tag, running) = (types.tag(stage)?, types.value(stage, "Running"));
        let cell = Thing { address: task, type_at: cell };
        let is = self.number(cell.part(tag))?;
        let types = &mut self.awaits.types;
        let stage = types.innermost(stage);
        let of_tag = types.variant(stage.type_at, is)?;
        // Where the future's own bytes tell them apart, there is no number for the one that is running.
        let is_running = running.map_or(of_tag.name == b"Running", |running| running == is);
        let content = types.step(stage.to(&of_tag)?, "__0").filter(|_| is_running)?;
        Some(cell.part(content))
    }

    /// Follows a future to the last. Tells why it can't be followed to what there is to wait for.
    fn follow(&mut self, from: Thing) -> Option<&'static str> {
        let mut thing = from;
        for _ in 0..MAX_STEPS {
            let Some(shape) = self.awaits.types.get(thing.type_at) else { return Some("a type is not described") };
            if is_block(shape.name) {
                thing = match self.awaited_by(thing, &shape) {
                    Ok(next) => next,
                    Err(reason) => return reason,
                };
                continue;
            }
            let path = self.path(thing.type_at, shape.name);
            match self.inside(thing, &shape, &path) {
                Inside::Future(inner) => thing = inner,
                Inside::Nothing => {
                    let what = without_generics(&path);
                    self.push(what.to_owned(), None);
                    return (what == BY_HAND).then_some("what is polled by hand, as by select!, does not tell");
                }
                Inside::Lost(reason) => {
                    self.push(short(&path), None);
                    return Some(reason);
                }
            }
        }
        Some("it goes on too long")
    }

    /// What a block awaits, and where in it that is.
    fn awaited_by(&mut self, thing: Thing, shape: &Shape<'a>) -> Result<Thing, Option<&'static str>> {
        const UNREAD: Option<&str> = Some("how far a block has come can't be read");
        let what = block_name(&self.path(thing.type_at, shape.name));
        let place = Place { offset: 0, type_at: thing.type_at };
        let tag = self.awaits.types.tag(place).ok_or(UNREAD)?;
        let state = self.number(thing.part(tag)).ok_or(UNREAD)?;
        let variant = self.awaits.types.variant(thing.type_at, state).ok_or(UNREAD)?;
        let content = thing.part(variant.place);
        let suspended = self.awaits.types.get(variant.place.type_at).ok_or(UNREAD)?;
        let stopped = match suspended.name {
            b"Unresumed" => Some("it was never polled"),
            b"Returned" | b"Panicked" => Some("it has ended"),
            _ => None,
        };
        let written_at = variant.written_at.filter(|_| stopped.is_none());
        let place = written_at.and_then(|(file, line)| Some((self.file(thing.type_at.unit, file)?, line)));
        self.push(what, place);
        if stopped.is_some() {
            return Err(stopped);
        }
        let awaited = suspended.members.iter().find(|member| member.name == AWAITEE);
        // A block that gives way without awaiting anything.
        awaited.map(|awaited| content.part(awaited.place)).ok_or(None)
    }

    /// What is in something that is no block.
    fn inside(&mut self, thing: Thing, shape: &Shape<'a>, path: &str) -> Inside {
        let member = |name: &[u8]| shape.members.iter().find(|member| member.name == name).map(|member| member.place);
        if let Some(target) = shape.target {
            return match self.word(thing.address) {
                Some(address) => Inside::Future(Thing { address, type_at: target }),
                None => Inside::Lost("a pointer can't be read"),
            };
        }
        if let (Some(pointer), Some(vtable)) = (member(b"pointer"), member(b"vtable")) {
            let Some((data, vtable)) =
                self.word(thing.part(pointer).address).zip(self.word(thing.part(vtable).address))
            else {
                return Inside::Lost("a pointer can't be read");
            };
            let table = self.awaits.index.tables.get(&vtable.wrapping_sub(self.bias)).copied();
            return match table.and_then(|table| self.awaits.types.get(table)?.methods_of) {
                Some(type_at) => Inside::Future(Thing { address: data, type_at }),
                None => Inside::Lost("whose methods a pointer has is not described"),
            };
        }
        let own = without_generics(path);
        if own == "alloc::boxed::Box" {
            // It is a pointer in wrappers.
            let inner = self.awaits.types.innermost(Place { offset: 0, type_at: thing.type_at });
            return Inside::Future(thing.part(inner));
        }
        if let Some(inner) = AROUND.iter().filter(|(around, _)| *around == own).find_map(|(_, name)| member(name)) {
            return Inside::Future(thing.part(inner));
        }
        if EITHER.contains(&own) {
            return self.variant_of(thing).map_or(Inside::Nothing, Inside::Future);
        }
        Inside::Nothing
    }

    /// What an enumeration holds now, if that is one thing.
    fn variant_of(&mut self, thing: Thing) -> Option<Thing> {
        let tag = self.awaits.types.tag(Place { offset: 0, type_at: thing.type_at })?;
        let number = self.number(thing.part(tag))?;
        let variant = self.awaits.types.variant(thing.type_at, number)?;
        let content = self.awaits.types.get(variant.place.type_at)?;
        match &content.members[..] {
            [only] => Some(thing.part(variant.place).part(only.place)),
            _ => None,
        }
    }

    fn push(&mut self, what: String, place: Option<(String, u32)>) {
        let (file, line) = place.unzip();
        self.found.awaits.push(Await { what, file, line });
    }

    fn word(&self, address: u64) -> Option<u64> {
        self.memory.read(address, 8).word(0)
    }

    fn number(&mut self, thing: Thing) -> Option<u64> {
        let size = self.awaits.types.size(thing.type_at).filter(|size| (1..=8).contains(size))? as usize;
        self.memory.read(thing.address, size).number(0, size)
    }

    /// The whole path of a type.
    fn path(&self, type_at: TypeAt, name: &[u8]) -> String {
        let modules = self.awaits.index.modules_of(type_at);
        let parts = modules.iter().copied().chain([name]).map(String::from_utf8_lossy);
        parts.collect::<Vec<_>>().join("::")
    }

    /// The path of a file of a unit.
    fn file(&mut self, unit: usize, number: u64) -> Option<String> {
        let Awaits { types, files, .. } = &mut *self.awaits;
        let read = || {
            let unit = types.unit(unit);
            dwarf::path(unit, unit.line_program.as_ref()?.header(), number)
        };
        files.entry((unit, number)).or_insert_with(read).clone()
    }
}

/// What is in something.
enum Inside {
    Future(Thing),
    /// What there is to wait for.
    Nothing,
    /// It can't be said.
    Lost(&'static str),
}

/// Whether a type is that of a block of code that awaits.
fn is_block(name: &[u8]) -> bool {
    name.starts_with(b"{async_") && name.windows(5).any(|part| part == b"_env#")
}

/// What is written by hand, or by a macro, and tells nobody what it awaits.
const BY_HAND: &str = "core::future::poll_fn::PollFn";

fn without_generics(path: &str) -> &str {
    path.find('<').filter(|&at| at > 0).map_or(path, |at| path[..at].trim_end_matches("::"))
}

/// `app::run` of `app::{impl#3}::run<T>::{async_fn_env#0}<T>`, and `app::run::{async}` of a block in it.
fn block_name(path: &str) -> String {
    let is_told = |part: &&str| !["{impl#", "{async_fn_env#", "{async_fn#"].iter().any(|one| part.starts_with(one));
    let readable = |part: &str| if part.starts_with("{async_") { "{async}" } else { part }.to_owned();
    let path = without_any_generics(path);
    path.split("::").filter(is_told).map(readable).collect::<Vec<_>>().join("::")
}

/// A path without what any of its parts is generic over.
fn without_any_generics(path: &str) -> String {
    let (mut depth, mut before) = (0_usize, ' ');
    let mut out = String::with_capacity(path.len());
    for character in path.chars() {
        match character {
            '<' => depth += 1,
            // Not the arrow of a function's type.
            '>' if before != '-' => depth = depth.saturating_sub(1),
            other if depth == 0 => out.push(other),
            _ => {}
        }
        before = character;
    }
    out
}
