//! Vtables of tasks, which every build of such a program has.

use crate::target::image::{Contents, ImageError, Pointer, Pointers, Source, rows_of_functions, within_limit};

/// `async_task::raw::TaskVTable` of one future and one way to schedule it. Addresses are the file's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskVtable {
    /// Where it stands.
    pub address: u64,
    /// Puts the task where somebody runs it.
    pub schedule: u64,
    /// Drops the future.
    pub drop_future: u64,
    /// Polls the task.
    pub run: u64,
    /// Of what `schedule` has captured, bytes: it stands before the future.
    pub schedule_size: u64,
}

/// Functions that a vtable begins with: `schedule`, `drop_future`, `get_output`, `drop_ref`, `destroy`, `run`,
/// `clone_waker`.
const FUNCTIONS: usize = 7;

/// Vtables that a file may have. Large programs have some thousands.
const MAX_VTABLES: usize = 1 << 16;

impl TaskVtable {
    /// What begins at an address of seven functions. `None` if it is no vtable of tasks.
    fn read<S: Source + ?Sized>(
        functions: &[Pointer; FUNCTIONS],
        contents: &Contents<'_, S>,
        pointers: &Pointers,
    ) -> Result<Option<TaskVtable>, ImageError> {
        let [schedule, drop_future, _, _, _, run, _] = functions.map(|function| function.to);
        let address = functions[0].at;
        let behind = address.wrapping_add(8 * FUNCTIONS as u64);
        let layout = match pointers.at(behind) {
            Some(layout) => Some(layout),
            None if pointers.sorted().is_empty() => contents.word(behind)?,
            None => None,
        };
        let Some(layout) = layout.filter(|&layout| !contents.is_code(layout)) else { return Ok(None) };
        let Some(words) = contents.array::<40>(layout)? else { return Ok(None) };
        let (words, _) = words.as_chunks::<8>();
        let words = [words[0], words[1], words[2], words[3], words[4]].map(u64::from_le_bytes);
        let is_relocated = (0..words.len() as u64).any(|word| pointers.at(layout.wrapping_add(8 * word)).is_some());
        let schedule_size = if is_relocated { None } else { size_of_schedule(words) };
        Ok(schedule_size.map(|schedule_size| TaskVtable { address, schedule, drop_future, run, schedule_size }))
    }
}

/// Of a `TaskLayout`: the size and the alignment of a task, and where the schedule function, the future and its output are
/// in it. The compiler may have put the first two in either order. `None` if no task has it.
fn size_of_schedule([one, other, schedule, future, output]: [u64; 5]) -> Option<u64> {
    /// State, waker, vtable.
    const HEADER: u64 = 0x20;
    const LARGEST_TASK: u64 = 1 << 28;
    const LARGEST_ALIGNMENT: u64 = 1 << 12;
    let (size, alignment) = (one.max(other), one.min(other));
    let is_layout = alignment.is_power_of_two()
        && (8..=LARGEST_ALIGNMENT).contains(&alignment)
        && size <= LARGEST_TASK
        && size.is_multiple_of(alignment);
    // The future and what comes of it share their place. One without a size still has it.
    let is_in_order = (HEADER..=future).contains(&schedule) && future == output && future <= size;
    (is_layout && is_in_order).then(|| future - schedule)
}

/// Finds the vtables of all tasks that a file's code can spawn, in the order of their addresses.
pub fn scan<S: Source + ?Sized>(
    contents: &Contents<'_, S>,
    pointers: &Pointers,
) -> Result<Vec<TaskVtable>, ImageError> {
    let mut vtables = Vec::new();
    rows_of_functions(contents, pointers, |functions| {
        vtables.extend(TaskVtable::read(functions, contents, pointers)?);
        within_limit("its task vtables", &vtables, MAX_VTABLES)
    })?;
    Ok(vtables)
}
