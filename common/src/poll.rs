//! Polls whose begin and end are told exactly: by probes at the code that polls, and at the code that it returns to.

use crate::{id::Tgid, polled::Polled};

/// Threads of which it is known at the same time what they poll.
pub const MAX_POLLING: usize = 16 * 1024;

/// Polls that a thread can be in at the same time, one inside another.
pub const MAX_NESTED: usize = 4;

/// Addresses that polls return to, of all processes.
pub const MAX_RETURNS: usize = 4096;

/// Where Tokio's `Header` of a task has the address of its vtable, bytes: so since 2022.
pub const HEADER_VTABLE: u64 = 0x10;

/// Where Tokio's `Vtable` begins to say where things are in a task, bytes: the trailer, the scheduler, the id.
pub const VTABLE_OFFSETS: u64 = 0x38;

/// Processes with probes, at the same time.
pub const MAX_PROBED: usize = 1024;

/// What the probes of a process may take of its time on one CPU, and what they have taken there.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Allowance {
    /// What they may take, nanoseconds. From then on they tell nothing.
    pub granted_ns: u64,
    /// What one takes besides what the kernel program itself does, nanoseconds.
    pub trap_ns: u64,
    /// The same where the thread runs a copy of the instruction.
    pub step_ns: u64,
    /// What they have taken, nanoseconds.
    pub spent_ns: u64,
    /// How often one was reached.
    pub hits: u64,
    /// When they had taken all, CLOCK_BOOTTIME nanoseconds; 0 while they have not.
    pub over_ns: u64,
}

/// What a probe passes to the kernel program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cookie(pub u64);

/// What a probe stands at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Site {
    /// A function that polls a task, whose argument is still where the caller had put it.
    Begin {
        /// How far the stack pointer lies below the return address by now, bytes.
        pushed: u64,
    },
    /// A function that polls tasks which are known by it alone, whose argument is still where the caller had put it.
    BeginOwn {
        /// See [`Site::Begin`]; a multiple of 8.
        pushed: u64,
        /// The function.
        function: u64,
        /// What it polls is code that may block.
        may_block: bool,
    },
    /// Code that is reached after each return to one address, and by chance from elsewhere.
    End {
        /// That address.
        return_address: u64,
        /// How far the stack pointer lies above where it was after the return, bytes; a multiple of 8.
        popped: i64,
    },
    /// Code that every call comes by which wakes a task.
    Wake {
        /// Where the task is.
        header: Register,
    },
    /// Code that every call comes by which spawns a task, when the task is made and nobody polls it yet.
    Spawn {
        /// Where the task is.
        header: Register,
    },
}

/// A register, by its place among the words of the kernel's `struct pt_regs`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Register(pub u8);

impl Register {
    /// Where it is in that structure, bytes.
    #[inline(always)]
    pub const fn offset(self) -> usize {
        self.0 as usize * 8
    }
}

impl Cookie {
    const IS_END: u64 = 1 << 63;
    const IS_STEPPED: u64 = 1 << 62;
    const IS_WAKE: u64 = 1 << 61;
    const IS_SPAWN: u64 = 1 << 60;
    const IS_OWN: u64 = 1 << 59;
    const MAY_BLOCK: u64 = 1 << 58;
    /// None of these is set where polls of tasks begin that tell what they are, besides [`Cookie::IS_STEPPED`].
    const NO_BEGIN: u64 = Self::IS_END | Self::IS_WAKE | Self::IS_SPAWN | Self::IS_OWN;
    const ADDRESS_BITS: u32 = 48;
    const WORDS_BITS: u32 = 14;
    /// Where [`Cookie::IS_OWN`] is set.
    const PUSHED_BITS: u32 = 10;
    const NO_WORDS: i64 = 1 << (Self::WORDS_BITS - 1);

    /// There is nothing to tell. No address of a program is that high.
    pub const NOTHING: Cookie = Cookie(u64::MAX);

    /// None for what no program has.
    pub const fn of(site: Site) -> Option<Cookie> {
        match site {
            Site::Begin { pushed } if pushed & (Self::NO_BEGIN | Self::IS_STEPPED) == 0 => Some(Cookie(pushed)),
            Site::Wake { header } => Some(Cookie(Self::IS_WAKE | header.0 as u64)),
            Site::Spawn { header } => Some(Cookie(Self::IS_SPAWN | header.0 as u64)),
            Site::End { return_address, popped } => {
                let words = popped / 8 + Self::NO_WORDS;
                if return_address >> Self::ADDRESS_BITS != 0 || words < 0 || words >> Self::WORDS_BITS != 0 {
                    return None;
                }
                Some(Cookie(Self::IS_END | (words as u64) << Self::ADDRESS_BITS | return_address))
            }
            Site::BeginOwn { pushed, function, may_block } => {
                let words = pushed / 8;
                if function >> Self::ADDRESS_BITS != 0 || words >> Self::PUSHED_BITS != 0 || pushed % 8 != 0 {
                    return None;
                }
                let may_block = if may_block { Self::MAY_BLOCK } else { 0 };
                Some(Cookie(Self::IS_OWN | may_block | words << Self::ADDRESS_BITS | function))
            }
            Site::Begin { .. } => None,
        }
    }

    /// Of a probe at an instruction of which the thread runs a copy.
    pub const fn stepped(self) -> Cookie {
        Cookie(self.0 | Self::IS_STEPPED)
    }

    /// Whether it is of such a probe.
    #[inline(always)]
    pub const fn is_stepped(self) -> bool {
        self.0 & Self::IS_STEPPED != 0
    }

    /// What it was made of.
    #[inline(always)]
    pub const fn site(self) -> Site {
        let Cookie(bits) = self;
        let address = bits & ((1 << Self::ADDRESS_BITS) - 1);
        if bits & Self::IS_END == 0 {
            let header = Register(bits as u8);
            return match bits & Self::NO_BEGIN {
                0 => Site::Begin { pushed: bits & !Self::IS_STEPPED },
                Self::IS_OWN => Site::BeginOwn {
                    pushed: (bits >> Self::ADDRESS_BITS & ((1 << Self::PUSHED_BITS) - 1)) * 8,
                    function: address,
                    may_block: bits & Self::MAY_BLOCK != 0,
                },
                Self::IS_WAKE => Site::Wake { header },
                _ => Site::Spawn { header },
            };
        }
        let words = (bits & !(Self::IS_END | Self::IS_STEPPED)) >> Self::ADDRESS_BITS;
        Site::End { return_address: address, popped: (words as i64 - Self::NO_WORDS) * 8 }
    }
}

/// An address that polls of a process return to.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ReturnKey {
    /// In the process.
    pub address: u64,
    /// The process.
    pub tgid: Tgid,
    /// Always 0.
    pub reserved: u32,
}

const _: () = assert!(size_of::<ReturnKey>() == 16);

/// How the end of polls is seen that return to an address.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Way(pub u64);

impl Way {
    /// It is not seen, so that their begin is of no use either.
    pub const UNKNOWN: Way = Way(0);
    /// There is a probe behind the address.
    pub const PROBE: Way = Way(1);

    /// What stands there does nothing but return itself, to the address that lies so many bytes above its own.
    pub const fn outwards(bytes: u64) -> Way {
        assert!(bytes >= 8);
        Way(bytes)
    }
}

/// What is polled.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PollKind(pub u64);

impl PollKind {
    /// A task that awaits.
    pub const ASYNC: PollKind = PollKind(0);
    /// Code that may block, and runs to its end in one poll.
    pub const BLOCKING: PollKind = PollKind(1);
    /// Such code that polls tasks itself: a worker.
    pub const WORKER: PollKind = PollKind(2);
}

/// A poll that has begun.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenPoll {
    /// Where the stack pointer is once it has returned.
    pub end_sp: u64,
    /// To where it returns.
    pub return_address: u64,
    /// The address of the task's vtable, or of the function that polls it, see [`Site::BeginOwn`].
    pub vtable: u64,
    /// What.
    pub kind: PollKind,
    /// The task, and who polls it; the tick is [`Polled::EXACT`].
    pub polled: Polled,
    /// Where the thread has the worker that it is, eight bytes, which are 0 once it has given it away; 0 if it is none of
    /// several.
    pub core: u64,
}

impl OpenPoll {
    const NONE: OpenPoll = OpenPoll {
        end_sp: 0,
        return_address: 0,
        vtable: 0,
        kind: PollKind::ASYNC,
        polled: Polled { task: 0, runtime: 0, worker: 0, tick: 0 },
        core: 0,
    };
}

/// The polls that a thread is in.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenPolls {
    /// Its process.
    pub tgid: Tgid,
    /// How many there are, at most [`MAX_NESTED`].
    pub depth: u32,
    /// The id of the task that the thread is itself, and shows while it polls nothing; 0 if it is none, as far as known.
    pub own: u64,
    /// The outermost first.
    pub polls: [OpenPoll; MAX_NESTED],
}

const _: () = assert!(size_of::<OpenPolls>() == 16 + MAX_NESTED * 72);

impl OpenPolls {
    /// None.
    pub const NONE: OpenPolls = OpenPolls { tgid: Tgid(0), depth: 0, own: 0, polls: [OpenPoll::NONE; MAX_NESTED] };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cookie_says_what_it_was_made_of() {
        let end = |return_address, popped| Site::End { return_address, popped };
        let sites = [
            Site::Begin { pushed: 0 },
            Site::Begin { pushed: 0x128 },
            end(0x5555_5555_4321, 0),
            end(0x7fff_ffff_ffff, 0xfff8),
            end(0x40_1000, -0x1_0000),
            Site::Wake { header: Register(14) },
            Site::Spawn { header: Register(0) },
            Site::BeginOwn { pushed: 0, function: 0x5555_5555_4320, may_block: false },
            Site::BeginOwn { pushed: 0x1ff8, function: 0x7fff_ffff_ffff, may_block: true },
        ];
        for site in sites {
            let cookie = Cookie::of(site).unwrap();
            assert_eq!((cookie.site(), cookie.is_stepped()), (site, false));
            assert_eq!((cookie.stepped().site(), cookie.stepped().is_stepped()), (site, true));
        }
        for site in [end(1 << 48, 0), end(0, 0x1_0000), end(0, -0x1_0008)] {
            assert_eq!(Cookie::of(site), None, "{site:?}");
        }
    }
}
