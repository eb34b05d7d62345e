//! Task vtables: the one thing that every build of a Tokio program has.

use crate::target::image::{Contents, Image, ImageError, Pointer, Pointers, Source, rows_of_functions, within_limit};

/// `tokio::runtime::task::raw::Vtable` of one future on one kind of scheduler.
///
/// Addresses are the file's own. Identical functions may have been merged, so of all of these only the vtable's own address
/// tells one future from another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vtable {
    /// Where it stands.
    pub address: u64,
    /// Polls the task.
    pub poll: u64,
    /// Puts the task into a queue.
    pub schedule: u64,
    /// Frees the task.
    pub dealloc: u64,
    /// Moves the result out of the task.
    pub try_read_output: u64,
    /// Called when the last handle goes.
    pub drop_join_handle_slow: u64,
    /// Called when an abort handle goes.
    pub drop_abort_handle: u64,
    /// Cancels the task.
    pub shutdown: u64,
    /// Of the trailer within the task, bytes.
    pub trailer_offset: u64,
    /// Of the scheduler within the task, bytes.
    pub scheduler_offset: u64,
    /// Of the id within the task, bytes.
    pub id_offset: u64,
    /// Of the place where the task was spawned within the task, bytes: only in builds with `tokio_unstable`.
    pub spawn_location_offset: Option<u64>,
}

/// Who polls a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SchedulerKind {
    /// Workers, or one thread: the task awaits.
    Async,
    /// The pool for code that blocks: the task is polled once.
    Blocking,
}

/// Pointers to functions that a vtable begins with.
const FUNCTIONS: usize = 7;

/// Numbers that follow in every build.
const OFFSETS: usize = 3;

/// Vtables that a file may have. Large programs have some thousands.
const MAX_VTABLES: usize = 1 << 16;

impl Vtable {
    /// Who polls the tasks of this vtable.
    ///
    /// A task holds its scheduler right before its id, so the offsets tell the scheduler's size. Those that await hold an
    /// `Arc` of one: one word, on the workers, on a current-thread runtime and in a `LocalSet`. The pool for blocking code
    /// needs no scheduler, and holds nothing (seen in 1.38) or the hook for a task's end (a fat `Arc`: two words; seen since
    /// 1.43), and with the feature `test-util` the runtime's handle before it (two words more). The code of `schedule` tells
    /// less: it only panics, in many ways, and linkers merge functions that are alike. The one known exception would be a
    /// Tokio without the hook, with `test-util` and without `rt-multi-thread`, whose handle takes one word.
    pub fn kind(&self) -> SchedulerKind {
        const ARC: u64 = 8;
        if self.id_offset - self.scheduler_offset == ARC { SchedulerKind::Async } else { SchedulerKind::Blocking }
    }

    /// What begins at an address of seven functions. `None` if it is no vtable of tasks.
    fn read<S: Source + ?Sized>(
        functions: &[Pointer; FUNCTIONS],
        contents: &Contents<'_, S>,
        pointers: &Pointers,
    ) -> Result<Option<Vtable>, ImageError> {
        let Pointer { at: address, .. } = functions[0];
        let behind = |words: usize| address.wrapping_add(8 * (FUNCTIONS + words) as u64);
        let is_number = |words: usize| pointers.at(behind(words)).is_none();
        if !(0..OFFSETS).all(is_number) {
            return Ok(None);
        }
        let [poll, schedule, dealloc, try_read_output, drop_join_handle_slow, drop_abort_handle, shutdown] =
            functions.map(|function| function.to);
        let Some(rest) = contents.array::<{ 8 * OFFSETS }>(behind(0))? else { return Ok(None) };
        let (rest, _) = rest.as_chunks::<8>();
        let [trailer_offset, scheduler_offset, id_offset] = [rest[0], rest[1], rest[2]].map(u64::from_le_bytes);
        let spawn_location_offset = if is_number(OFFSETS) { contents.word(behind(OFFSETS))? } else { None };
        let vtable = Vtable {
            address,
            poll,
            schedule,
            dealloc,
            try_read_output,
            drop_join_handle_slow,
            drop_abort_handle,
            shutdown,
            trailer_offset,
            scheduler_offset,
            id_offset,
            spawn_location_offset: spawn_location_offset.filter(|&offset| offset == id_offset.wrapping_add(8)),
        };
        Ok(vtable.has_offsets_of_a_task().then_some(vtable))
    }

    /// Header (at least state, queue, vtable), scheduler, id, then the future, then the trailer: aligned, and in this order.
    fn has_offsets_of_a_task(&self) -> bool {
        const HEADER: u64 = 0x18;
        const LARGEST_SCHEDULER: u64 = 64;
        const LARGEST_TASK: u64 = 1 << 28;
        let offsets = [self.scheduler_offset, self.id_offset, self.trailer_offset];
        offsets.iter().all(|offset| offset % 8 == 0)
            && (HEADER..=self.id_offset).contains(&self.scheduler_offset)
            && self.id_offset - self.scheduler_offset <= LARGEST_SCHEDULER
            && (self.id_offset + 1..LARGEST_TASK).contains(&self.trailer_offset)
    }
}

/// Finds the vtables of all tasks that a file's code can spawn, in the order of their addresses.
///
/// They are where seven addresses of code stand in a row, and behind them offsets that a task can have. Whatever the file
/// holds takes time that grows with its size.
pub fn scan(image: &Image, source: &(impl Source + ?Sized)) -> Result<Vec<Vtable>, ImageError> {
    let contents = Contents::new(image, source);
    let pointers = Pointers::read(image, source, &contents)?;
    scan_pointers(&contents, &pointers)
}

/// Does what [`scan`] does, with what is read already.
pub(super) fn scan_pointers<S: Source + ?Sized>(
    contents: &Contents<'_, S>,
    pointers: &Pointers,
) -> Result<Vec<Vtable>, ImageError> {
    let mut vtables = Vec::new();
    rows_of_functions(contents, pointers, |functions| {
        vtables.extend(Vtable::read(functions, contents, pointers)?);
        within_limit("its task vtables", &vtables, MAX_VTABLES)
    })?;
    // The word behind a vtable may look like an offset by chance, but not behind all of them.
    if vtables.iter().any(|vtable| vtable.spawn_location_offset.is_none()) {
        vtables.iter_mut().for_each(|vtable| vtable.spawn_location_offset = None);
    }
    Ok(vtables)
}
