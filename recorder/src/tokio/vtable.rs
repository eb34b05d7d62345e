//! Task vtables: the one thing that every build of a Tokio program has.

use std::collections::VecDeque;

use crate::target::image::{Contents, Image, ImageError, Pointer, Pointers, Source};

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

/// Bytes that are looked at in files without relocations. Segments may show the same bytes at many addresses.
const MAX_BYTES: u64 = 1 << 30;

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
    let mut scanner =
        Scanner { contents, pointers, functions: VecDeque::with_capacity(FUNCTIONS), vtables: Vec::new() };
    if pointers.sorted().is_empty() {
        scanner.all_words()?;
    } else {
        for &pointer in pointers.sorted() {
            scanner.add(pointer, contents.is_code(pointer.to))?;
        }
        scanner.end_row()?;
    }
    let mut vtables = scanner.vtables;
    // The word behind a vtable may look like an offset by chance, but not behind all of them.
    if vtables.iter().any(|vtable| vtable.spawn_location_offset.is_none()) {
        vtables.iter_mut().for_each(|vtable| vtable.spawn_location_offset = None);
    }
    Ok(vtables)
}

struct Scanner<'c, 'a, S: ?Sized> {
    contents: &'c Contents<'a, S>,
    pointers: &'c Pointers,
    /// The last addresses of code that stand in a row.
    functions: VecDeque<Pointer>,
    vtables: Vec<Vtable>,
}

impl<S: Source + ?Sized> Scanner<'_, '_, S> {
    /// Takes the next word that holds an address. Those of a vtable are the last ones of their row.
    fn add(&mut self, pointer: Pointer, is_code: bool) -> Result<(), ImageError> {
        let follows = self.functions.back().is_some_and(|last| pointer.at.wrapping_sub(last.at) == 8);
        if follows && !is_code {
            // A vtable's functions are followed by numbers, and this is an address.
            self.functions.clear();
            return Ok(());
        }
        if !follows {
            self.end_row()?;
        }
        if is_code {
            if self.functions.len() == FUNCTIONS {
                self.functions.pop_front();
            }
            self.functions.push_back(pointer);
        }
        Ok(())
    }

    /// Looks whether the row that ends here is a vtable's.
    fn end_row(&mut self) -> Result<(), ImageError> {
        if let Ok(functions) = <&[Pointer; FUNCTIONS]>::try_from(&*self.functions.make_contiguous()) {
            self.vtables.extend(Vtable::read(functions, self.contents, self.pointers)?);
            if self.vtables.len() > MAX_VTABLES {
                let (size, limit) = (self.vtables.len() as u64, MAX_VTABLES as u64);
                return Err(ImageError::TooLarge { what: "its task vtables", size, limit });
            }
        }
        self.functions.clear();
        Ok(())
    }

    /// Takes every word of a file that has no relocations for an address.
    fn all_words(&mut self) -> Result<(), ImageError> {
        const PIECE: u64 = 1 << 20;
        let mut left = MAX_BYTES;
        for (range, _) in self.contents.ranges() {
            let Some(mut address) = range.start.checked_next_multiple_of(8) else { continue };
            while address < range.end && left > 0 {
                let bytes = self.contents.piece(address, PIECE.min(range.end - address))?;
                let (words, _) = bytes.as_chunks::<8>();
                for (index, word) in words.iter().enumerate() {
                    let to = u64::from_le_bytes(*word);
                    if self.contents.is_code(to) {
                        // The range has no end behind that of all addresses.
                        self.add(Pointer { at: address + 8 * index as u64, to }, true)?;
                    }
                }
                if words.is_empty() {
                    break;
                }
                let done = 8 * words.len() as u64;
                address += done;
                left = left.saturating_sub(done);
            }
        }
        self.end_row()
    }
}
