//! Unwind tables as the kernel programs read them, and what a process's memory holds of them.
//!
//! A table covers a file's code in pages of [`PAGE_BYTES`] addresses. A [`Page`] says where its rows stand; a [`Row`] says
//! which [`Rule`] holds from its address on. So a lookup takes one index and a search among a few rows. Tables of all
//! files stand one after another in shards, which are arrays that the recorder maps into its memory.

/// Addresses that a page covers.
pub const PAGE_BYTES: u64 = 256;

/// Pages or rows in a shard: 256 KiB.
pub const SHARD_ENTRIES: usize = 64 * 1024;

/// Shards of pages, and as many of rows: tables of 256 MiB each.
pub const MAX_SHARDS: usize = 1024;

/// Different rules that all tables together can have. A large program has about a thousand.
pub const MAX_RULES: usize = 64 * 1024;

/// Executable mappings of a process that can be unwound by tables.
pub const MAX_MAPPINGS: usize = 512;

/// Processes that can be unwound by tables at the same time.
pub const MAX_ADDRESS_SPACES: usize = 16 * 1024;

/// Frames of a stack, beyond which it is cut.
pub const MAX_FRAMES: usize = 512;

/// Frames of the kernel's own part of a stack (`kernel.perf_event_max_stack`).
pub const MAX_KERNEL_FRAMES: usize = 127;

/// The rows of [`PAGE_BYTES`] addresses: `first_row:24 | rows:8`. Every page that a table covers has at least one row, and
/// its first row holds for the page's first address.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Page(pub u32);

impl Page {
    /// Rows that a table can have.
    pub const MAX_FIRST_ROW: u32 = (1 << 24) - 1;

    /// `first_row` is at most [`Page::MAX_FIRST_ROW`].
    pub const fn new(first_row: u32, rows: u8) -> Page {
        Page(first_row | (rows as u32) << 24)
    }

    /// Where its rows begin, counted from the table's first.
    #[inline(always)]
    pub const fn first_row(self) -> u32 {
        self.0 & Page::MAX_FIRST_ROW
    }

    /// How many rows it has.
    #[inline(always)]
    pub const fn rows(self) -> u32 {
        self.0 >> 24
    }
}

/// From which address of its page on a rule holds: `address:8 | 0:8 | rule:16`.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Row(pub u32);

impl Row {
    /// `address` is the low byte of the address; `rule` is an index.
    pub const fn new(address: u8, rule: u16) -> Row {
        Row(address as u32 | (rule as u32) << 16)
    }

    /// The low byte of the first address.
    #[inline(always)]
    pub const fn address(self) -> u32 {
        self.0 & 0xff
    }

    /// Index of the rule.
    #[inline(always)]
    pub const fn rule(self) -> u32 {
        self.0 >> 16
    }
}

/// How a frame's caller is found. `cfa` (canonical frame address) is the caller's stack pointer.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Rule {
    /// How the CFA is computed, or why there is no caller.
    pub cfa: Cfa,
    /// Where the caller's frame pointer is.
    pub frame_pointer: Saved,
    /// Where the return address is.
    pub return_address: Saved,
    /// Always 0.
    pub reserved: u8,
    /// Used by [`Cfa`], bytes.
    pub cfa_offset: i32,
    /// Used by `frame_pointer`, bytes.
    pub frame_pointer_offset: i32,
    /// Used by `return_address`, bytes.
    pub return_address_offset: i16,
    /// Used by [`Cfa`], bytes.
    pub cfa_addend: i16,
}

const _: () = assert!(size_of::<Rule>() == 16);

/// How a CFA is computed. Any byte is a valid value; one without a name means [`Cfa::UNSUPPORTED`].
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Cfa(pub u8);

impl Cfa {
    /// The table says nothing about this address.
    pub const UNKNOWN: Cfa = Cfa(0);
    /// `cfa = sp + cfa_offset`
    pub const STACK_POINTER: Cfa = Cfa(1);
    /// `cfa = fp + cfa_offset`
    pub const FRAME_POINTER: Cfa = Cfa(2);
    /// `cfa = *(sp + cfa_offset) + cfa_addend`
    pub const AT_STACK_POINTER: Cfa = Cfa(3);
    /// `cfa = *(fp + cfa_offset) + cfa_addend`
    pub const AT_FRAME_POINTER: Cfa = Cfa(4);
    /// x86-64's procedure linkage table: `cfa = sp + 8 + (pc & 15 >= cfa_offset ? 8 : 0)`
    pub const LINKAGE_TABLE: Cfa = Cfa(5);
    /// The kernel put this frame on the stack to deliver a signal: all registers stand there.
    pub const SIGNAL_FRAME: Cfa = Cfa(6);
    /// A thread or process begins here.
    pub const END_OF_STACK: Cfa = Cfa(7);
    /// There is a rule, but not one that can be said here.
    pub const UNSUPPORTED: Cfa = Cfa(8);
}

/// Where a caller's register is. Any byte is a valid value; one without a name means [`Saved::LOST`].
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Saved(pub u8);

impl Saved {
    /// In the register itself: this frame does not change it. For a return address, in the link register.
    pub const UNCHANGED: Saved = Saved(0);
    /// `*(cfa + offset)`
    pub const AT_CFA: Saved = Saved(1);
    /// `*(fp + offset)`, with this frame's frame pointer
    pub const AT_FRAME_POINTER: Saved = Saved(2);
    /// Nobody knows.
    pub const LOST: Saved = Saved(3);
}

/// Code of a file at some addresses of a process.
///
/// `start..end` is never more than what the file's table covers, so that a lookup stays inside that table.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mapping {
    /// First address.
    pub start: u64,
    /// The address behind the last.
    pub end: u64,
    /// What to subtract (wrapping) from a process's address to get the file's own.
    pub bias: u64,
    /// Index among all pages of what would be the page of the file's address 0 (wrapping).
    pub first_page: u32,
    /// Index among all rows of the table's first.
    pub first_row: u32,
}

const _: () = assert!(size_of::<Mapping>() == 32);

/// Where the [`AddressSpace`] of a process is, and which it is: what was written there later is of no concern to it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SpaceKey {
    /// Index of the map that holds it.
    pub slot: u32,
    /// [`AddressSpace::version`]
    pub version: u32,
}

/// What is known of a process's memory.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressSpace {
    /// `task_struct.self_exec_id` of the process when this was true: another program has other mappings.
    pub exec_id: u64,
    /// Differs between any two states of any processes' mappings, and is never 0.
    pub version: u32,
    /// Mappings in use.
    pub count: u32,
    /// Sorted by address, without overlap. Those not in use begin at `u64::MAX`.
    pub mappings: [Mapping; MAX_MAPPINGS],
}
