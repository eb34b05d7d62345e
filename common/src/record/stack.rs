//! Stacks, as they are told once.

use super::{DecodeError, Header, Layout, kind_of, read};
use crate::id::Tgid;

/// A stack. [`Stack::frames`] addresses stand behind it, the innermost first: those of the kernel, then the program's own.
///
/// The program's addresses are those to look up: inside the calling instruction for a caller, the very next instruction
/// for a frame that was interrupted. The kernel's are as it tells them itself: the first one is exact, the others are
/// return addresses.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stack {
    /// Time and CPU; see [`super::flags::BY_FRAME_POINTERS`].
    pub header: Header,
    /// A hash of everything that makes this stack, process and program included: equal stacks have equal ids.
    pub id: u64,
    /// The process.
    pub tgid: Tgid,
    /// How many frames there are of the kernel's.
    pub kernel_frames: u16,
    /// How many frames there are of the program's.
    pub user_frames: u16,
    /// Why there are no more frames of the program's.
    pub ending: StackEnding,
    /// Always 0.
    pub reserved: u32,
}

impl Stack {
    /// All of them.
    pub fn frames(&self) -> usize {
        usize::from(self.kernel_frames) + usize::from(self.user_frames)
    }

    /// Reads a stack and the bytes of its frames, eight each.
    pub fn decode(bytes: &[u8]) -> Result<(Stack, &[u8]), DecodeError> {
        match kind_of(bytes)? {
            Stack::KIND => {
                let stack = read::<Stack>(bytes)?;
                let frames = bytes[size_of::<Stack>()..].get(..stack.frames() * 8);
                Ok((stack, frames.ok_or(DecodeError::Short { bytes: bytes.len() })?))
            }
            kind => Err(DecodeError::UnknownKind(kind)),
        }
    }
}

/// Why a stack ends where it does. Any number is a valid value.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StackEnding(pub u32);

impl StackEnding {
    /// The program's part was not asked for, or the thread has none.
    pub const NONE: StackEnding = StackEnding(0);
    /// The thread's or the process's first function.
    pub const ROOT: StackEnding = StackEnding(1);
    /// The code has no unwind information, and there is no frame pointer to go on with.
    pub const NO_RULE: StackEnding = StackEnding(2);
    /// The stack's memory could not be read: it is not there, or on disk.
    pub const UNREADABLE: StackEnding = StackEnding(3);
    /// The code's unwind information is of a kind that the kernel programs can't follow.
    pub const UNSUPPORTED: StackEnding = StackEnding(4);
    /// More than [`crate::unwind::MAX_FRAMES`] frames.
    pub const TOO_DEEP: StackEnding = StackEnding(5);
    /// The unwind information contradicts the stack: a caller would lie inside its callee.
    pub const CONTRADICTION: StackEnding = StackEnding(6);
    /// The process's mappings changed at that very moment.
    pub const MAPPINGS_CHANGED: StackEnding = StackEnding(7);
    /// Code of another architecture (32 bit).
    pub const FOREIGN_CODE: StackEnding = StackEnding(8);
    /// Nothing was known yet of what the process has mapped, and there is no frame pointer to go on with.
    pub const NOT_KNOWN_YET: StackEnding = StackEnding(9);
    /// Only frame pointers were followed, and they lead no further.
    pub const FRAME_POINTERS_END: StackEnding = StackEnding(10);
}
