//! The records that kernel programs write into the per-CPU rings and streams.
//!
//! A record is a [`Header`], fixed fields, and nothing else: its kind fixes its size. Only a [`Stack`] has a tail. A layout
//! that changes gets a new kind, so that a recorder never reads an old record by a new rule.

pub mod flags;
mod polls;
mod sleeper;
mod stack;

pub use self::{
    polls::{Poll, PollLeft, Spawn, Wake},
    sleeper::Sleeper,
    stack::{Stack, StackEnding},
};
use crate::{
    id::{Tgid, Tid},
    limits::COMM_BYTES,
    polled::Polled,
};

/// What stands in front of every record.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// CLOCK_BOOTTIME, nanoseconds. Within one ring it can step back: by the length of an interrupt, and by how long a program
    /// was preempted between reading the clock and writing, which fully preemptible kernels allow.
    pub time_ns: u64,
    /// One of the `KIND` constants below.
    pub kind: u16,
    /// The CPU that wrote the record.
    pub cpu: u16,
    /// Bits whose meaning depends on the kind, see [`flags`].
    pub flags: u32,
}

/// A CPU went from one thread to another.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Switch {
    /// Time, CPU and [`flags`].
    pub header: Header,
    /// The thread that leaves the CPU.
    pub prev_tid: Tid,
    /// The thread that runs from now on; 0 when the CPU goes idle.
    pub next_tid: Tid,
    /// `__state` of the thread that leaves, as the kernel keeps it (not as its tracepoint prints it).
    pub prev_state: u32,
    /// `exit_state` of the thread that leaves: non-zero when it leaves for ever.
    pub prev_exit_state: u16,
    /// Priority of the thread that runs, in the kernel's scale.
    pub next_prio: u16,
}

/// A thread that slept was made runnable.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waking {
    /// Time and the CPU of the waker.
    pub header: Header,
    /// The thread that was woken.
    pub tid: Tid,
    /// Its priority, in the kernel's scale.
    pub prio: u16,
    /// The CPU that it last ran on.
    pub target_cpu: u16,
}

/// A thread was created.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fork {
    /// Time and CPU.
    pub header: Header,
    /// The thread that called `clone` or `fork`.
    pub parent_tid: Tid,
    /// Its process.
    pub parent_tgid: Tgid,
    /// The new thread.
    pub tid: Tid,
    /// Its process: the parent's for a thread, its own id for a new process.
    pub tgid: Tgid,
    /// The new thread's name, inherited from its parent.
    pub comm: [u8; COMM_BYTES],
    /// Where its own variables are; that of its parent if it begins as a copy of it.
    pub thread_pointer: u64,
}

/// A process replaced its program.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exec {
    /// Time and CPU.
    pub header: Header,
    /// The thread that goes on, now the only one, with the id of its process.
    pub tid: Tid,
    /// The id that this thread had before, when it was not the first of its process.
    pub old_tid: Tid,
    /// The program's [`crate::unwind::AddressSpace::exec_id`].
    pub exec_id: u64,
}

/// A thread began to end. It may still run, sleep and be woken before its last switch.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exit {
    /// Time and CPU.
    pub header: Header,
    /// The thread.
    pub tid: Tid,
    /// Its process.
    pub tgid: Tgid,
}

/// A thread changed its name.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rename {
    /// Time and CPU.
    pub header: Header,
    /// The thread.
    pub tid: Tid,
    /// Its process.
    pub tgid: Tgid,
    /// The new name.
    pub comm: [u8; COMM_BYTES],
}

/// What a CPU was running when it was asked.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Current {
    /// Time and CPU; see [`flags::NEXT_RECORDED`].
    pub header: Header,
    /// The running thread, 0 when idle.
    pub tid: Tid,
    /// Its priority, in the kernel's scale.
    pub prio: u32,
}

/// Records of this CPU found no room.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lost {
    /// When the first of them was lost, and the CPU; see [`flags::TASKS_LOST`].
    pub header: Header,
    /// When there was room again, CLOCK_BOOTTIME nanoseconds.
    pub until_ns: u64,
    /// How many they were.
    pub count: u64,
}

/// The timer found a recorded thread running.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// Time and CPU; see [`flags::IN_KERNEL`].
    pub header: Header,
    /// [`Stack::id`] of the thread's stack. This CPU has written that stack before, or nobody could.
    pub stack: u64,
    /// The thread.
    pub tid: Tid,
    /// Its process.
    pub tgid: Tgid,
    /// How much running time the sample stands for, nanoseconds.
    pub period_ns: u64,
    /// What the thread polled.
    pub polled: Polled,
}

/// A recorded thread that had left its CPU to sleep came back.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Blocked {
    /// When the thread ran again, and on which CPU.
    pub header: Header,
    /// [`Stack::id`] of the thread's stack while it slept. The CPU that it left has written that stack before it left.
    pub stack: u64,
    /// When it left its CPU, CLOCK_BOOTTIME nanoseconds.
    pub left_ns: u64,
    /// When it was woken last, CLOCK_BOOTTIME nanoseconds; 0 if never seen. A waker on another CPU may have come shortly
    /// before the thread had left.
    pub woken_ns: u64,
    /// The thread.
    pub tid: Tid,
    /// Its process.
    pub tgid: Tgid,
    /// Who woke it, or was interrupted by what did; 0 if never seen or the idle thread.
    pub waker_tid: Tid,
    /// `__state` in which it left, as [`Switch::prev_state`].
    pub prev_state: u32,
    /// The number of the system call in which it slept; negative if it was in none, or that is unknown.
    pub system_call: i32,
    /// Always 0.
    pub reserved: u32,
    /// The first argument of that system call, if there is one. Of a thread that `parking_lot` has parked instead what
    /// it waits for: see [`crate::parked`].
    pub argument: u64,
    /// What it polled when it left.
    pub polled: Polled,
}

/// A thread that exists. Not written into a ring but by the task iterator, one after another.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Task {
    /// When the list was made; see [`flags::KERNEL_THREAD`], [`flags::RECORDED`] and [`flags::ENDED`].
    pub header: Header,
    /// When the thread started, CLOCK_BOOTTIME nanoseconds.
    pub started_ns: u64,
    /// How often its process has replaced its program, see [`crate::unwind::AddressSpace::exec_id`].
    pub exec_id: u64,
    /// Where the thread's own variables are; 0 where it has not said so yet.
    pub thread_pointer: u64,
    /// The thread.
    pub tid: Tid,
    /// Its process.
    pub tgid: Tgid,
    /// The process that made its process.
    pub parent_tgid: Tgid,
    /// Always 0.
    pub reserved: u32,
    /// Its name.
    pub comm: [u8; COMM_BYTES],
}

/// A structure that can stand in a ring.
///
/// # Safety
/// The type is `#[repr(C)]`, begins with a [`Header`], has no padding, and any bytes make a valid value.
pub unsafe trait Layout: Copy + 'static {
    /// What [`Header::kind`] says for this type.
    const KIND: u16;
}

macro_rules! layouts {
    ($($type:ident = $kind:literal, $size:literal bytes;)*) => {
        $(
            const _: () = assert!(size_of::<$type>() == $size, "the layout of a record changed: give it a new kind");
            const _: () = assert!(align_of::<$type>() == 8);
            // SAFETY: `#[repr(C)]` integers and byte arrays after a `Header`; the size above leaves no room for padding.
            unsafe impl Layout for $type {
                const KIND: u16 = $kind;
            }
        )*

        /// A record of any kind.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Record {
            $(#[doc = concat!("See [`", stringify!($type), "`].")] $type($type),)*
        }

        impl Record {
            /// Reads one record. The bytes may be longer than the record: rings pad to eight bytes.
            pub fn decode(bytes: &[u8]) -> Result<Record, DecodeError> {
                match kind_of(bytes)? {
                    $($type::KIND => read::<$type>(bytes).map(Record::$type),)*
                    kind => Err(DecodeError::UnknownKind(kind)),
                }
            }

            /// Time, kind, CPU and flags.
            pub fn header(&self) -> &Header {
                match self {
                    $(Record::$type(record) => &record.header,)*
                }
            }

            /// The record's own bytes, as the kernel writes them.
            pub fn encode(&self) -> &[u8] {
                match self {
                    $(Record::$type(record) => bytes_of(record),)*
                }
            }
        }
    };
}

layouts! {
    Switch = 1, 32 bytes;
    Waking = 2, 24 bytes;
    Fork = 20, 56 bytes;
    Exec = 4, 32 bytes;
    Exit = 5, 24 bytes;
    Rename = 6, 40 bytes;
    Current = 7, 24 bytes;
    Lost = 8, 32 bytes;
    Task = 21, 72 bytes;
    Sample = 13, 72 bytes;
    Blocked = 25, 104 bytes;
    PollLeft = 15, 56 bytes;
    Poll = 16, 64 bytes;
    Wake = 22, 72 bytes;
    Spawn = 23, 72 bytes;
}

/// Not among the [`Record`]s, since its frames stand behind it: see [`Stack::decode`].
const _: () = assert!(size_of::<Stack>() == 40);
// SAFETY: `#[repr(C)]` integers after a `Header`; the size above leaves no room for padding.
unsafe impl Layout for Stack {
    const KIND: u16 = 12;
}

/// Why bytes are no record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecodeError {
    /// Fewer bytes than the kind, or a header, needs.
    Short {
        /// How many there are.
        bytes: usize,
    },
    /// No record has this kind.
    UnknownKind(u16),
}

impl core::fmt::Display for DecodeError {
    fn fmt(&self, out: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            DecodeError::Short { bytes } => write!(out, "a record of {bytes} bytes is too short for its kind"),
            DecodeError::UnknownKind(kind) => write!(out, "no record has kind {kind}"),
        }
    }
}

impl core::error::Error for DecodeError {}

fn kind_of(bytes: &[u8]) -> Result<u16, DecodeError> {
    const AT: usize = core::mem::offset_of!(Header, kind);
    match bytes.get(AT..AT + 2) {
        Some(kind) => Ok(u16::from_ne_bytes([kind[0], kind[1]])),
        None => Err(DecodeError::Short { bytes: bytes.len() }),
    }
}

fn read<T: Layout>(bytes: &[u8]) -> Result<T, DecodeError> {
    if bytes.len() < size_of::<T>() {
        return Err(DecodeError::Short { bytes: bytes.len() });
    }
    // SAFETY: there are enough bytes, `T` takes any, and `read_unaligned` asks for no alignment.
    Ok(unsafe { bytes.as_ptr().cast::<T>().read_unaligned() })
}

fn bytes_of<T: Layout>(record: &T) -> &[u8] {
    // SAFETY: a `Layout` has no padding, so all of its bytes are initialized, and they live as long as the borrow.
    unsafe { core::slice::from_raw_parts((&raw const *record).cast::<u8>(), size_of::<T>()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(kind: u16) -> Header {
        Header { time_ns: 7, kind, cpu: 3, flags: flags::PREEMPTED }
    }

    #[test]
    fn what_the_kernel_writes_is_what_the_recorder_reads() {
        let switch = Switch {
            header: header(Switch::KIND),
            prev_tid: Tid(11),
            next_tid: Tid(12),
            prev_state: 0x402,
            prev_exit_state: 0x20,
            next_prio: 120,
        };
        let rename = Rename { header: header(Rename::KIND), tid: Tid(5), tgid: Tgid(4), comm: *b"tokio-rt-worker\0" };
        for record in [Record::Switch(switch), Record::Rename(rename)] {
            assert_eq!(Record::decode(record.encode()), Ok(record));
        }
    }

    #[test]
    fn a_cut_or_unknown_record_is_an_error() {
        let record = Record::Exit(Exit { header: header(Exit::KIND), tid: Tid(1), tgid: Tgid(1) });
        let bytes = record.encode();
        for length in 0..bytes.len() {
            assert_eq!(Record::decode(&bytes[..length]), Err(DecodeError::Short { bytes: length }));
        }
        let unknown = Record::Exit(Exit { header: header(999), tid: Tid(1), tgid: Tgid(1) });
        assert_eq!(Record::decode(unknown.encode()), Err(DecodeError::UnknownKind(999)));
    }

    #[test]
    fn a_stack_is_read_with_as_many_frames_as_it_says() {
        let stack = Stack {
            header: header(Stack::KIND),
            id: 1,
            tgid: Tgid(2),
            kernel_frames: 1,
            user_frames: 2,
            ending: StackEnding::ROOT,
            reserved: 0,
        };
        let mut bytes = bytes_of(&stack).to_vec();
        bytes.extend([7; 24 + 8]);
        assert_eq!(Stack::decode(&bytes), Ok((stack, &[7; 24][..])));
        assert_eq!(Stack::decode(&bytes[..60]), Err(DecodeError::Short { bytes: 60 }));
    }

    #[test]
    fn bytes_after_a_record_are_ignored() {
        let record = Record::Exec(Exec { header: header(Exec::KIND), tid: Tid(9), old_tid: Tid(10), exec_id: 3 });
        let mut padded = record.encode().to_vec();
        padded.extend([0xff; 8]);
        assert_eq!(Record::decode(&padded), Ok(record));
    }
}
