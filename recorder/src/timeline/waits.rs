//! What a thread waited for in its sleep, as the kernel's functions on its stack tell.

/// What a sleep was for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Wait {
    /// Another thread: a mutex, a condition variable, a channel, the end of a thread.
    Lock,
    /// A time that was asked for.
    Timer,
    /// A file, or the disk that it lies on.
    File,
    /// The other end of a pipe, or a terminal.
    Pipe,
    /// The other end of a pipe or a socket, whichever it is.
    Stream,
    /// The other end of a socket.
    Network,
    /// Whichever of several descriptors is ready first. `getaddrinfo` waits so for its answers.
    Readiness,
    /// A process's end.
    Child,
    /// Memory that was not there yet.
    PageFault,
    /// Something else.
    Other,
    /// Nobody knows: the thread was not seen to return.
    NotSeen,
}

/// Names as the kernel's functions have them, and numbers.
macro_rules! calls {
    ($($name:ident => $number:ident),* $(,)?) => { &[$((stringify!($name), libc::$number)),*] };
}

/// System calls, what they wait for, and the numbers that they have here.
const CALLS: &[(Wait, &[(&str, libc::c_long)])] = &[
    (
        Wait::Lock,
        calls![
            futex => SYS_futex,
            flock => SYS_flock,
            semop => SYS_semop,
            semtimedop => SYS_semtimedop,
        ],
    ),
    (Wait::Timer, calls![nanosleep => SYS_nanosleep, clock_nanosleep => SYS_clock_nanosleep]),
    (
        Wait::Network,
        calls![
            recvfrom => SYS_recvfrom,
            recvmsg => SYS_recvmsg,
            recvmmsg => SYS_recvmmsg,
            sendto => SYS_sendto,
            sendmsg => SYS_sendmsg,
            sendmmsg => SYS_sendmmsg,
            connect => SYS_connect,
            accept => SYS_accept,
            accept4 => SYS_accept4,
        ],
    ),
    (Wait::Readiness, calls![ppoll => SYS_ppoll, pselect6 => SYS_pselect6, epoll_pwait => SYS_epoll_pwait]),
    (Wait::Child, calls![wait4 => SYS_wait4, waitid => SYS_waitid]),
    (
        Wait::Stream,
        calls![
            read => SYS_read,
            readv => SYS_readv,
            write => SYS_write,
            writev => SYS_writev,
            sendfile64 => SYS_sendfile,
            splice => SYS_splice,
        ],
    ),
    (
        Wait::File,
        calls![
            pread64 => SYS_pread64,
            preadv => SYS_preadv,
            pwrite64 => SYS_pwrite64,
            pwritev => SYS_pwritev,
            fsync => SYS_fsync,
            fdatasync => SYS_fdatasync,
            fadvise64 => SYS_fadvise64,
            sync => SYS_sync,
            syncfs => SYS_syncfs,
            sync_file_range => SYS_sync_file_range,
            openat => SYS_openat,
            close => SYS_close,
            statx => SYS_statx,
            newfstatat => SYS_newfstatat,
            getdents64 => SYS_getdents64,
            unlinkat => SYS_unlinkat,
            renameat2 => SYS_renameat2,
            mkdirat => SYS_mkdirat,
            ftruncate => SYS_ftruncate,
            fallocate => SYS_fallocate,
            copy_file_range => SYS_copy_file_range,
        ],
    ),
];

/// Those that newer CPUs never had.
#[cfg(target_arch = "x86_64")]
const OLD_CALLS: &[(Wait, &[(&str, libc::c_long)])] = &[
    (Wait::Readiness, calls![poll => SYS_poll, select => SYS_select, epoll_wait => SYS_epoll_wait]),
    (
        Wait::File,
        calls![
            open => SYS_open,
            creat => SYS_creat,
            newstat => SYS_stat,
            newlstat => SYS_lstat,
            unlink => SYS_unlink,
            rename => SYS_rename,
            mkdir => SYS_mkdir,
            rmdir => SYS_rmdir,
        ],
    ),
];

/// See the other.
#[cfg(not(target_arch = "x86_64"))]
const OLD_CALLS: &[(Wait, &[(&str, libc::c_long)])] = &[];

/// The kernel's functions that serve system calls have names that begin with one of these, after which the call's stands.
const SERVES: [&str; 4] = ["__x64_sys_", "__arm64_sys_", "__do_sys_", "__se_sys_"];

/// Functions that tell what it is that is read or written, by how their names begin.
const THINGS: [(Wait, &[&str]); 2] = [
    (Wait::Pipe, &["pipe_read", "pipe_write", "anon_pipe_", "fifo_", "tty_", "n_tty_"]),
    (Wait::Network, &["sock_", "unix_stream_", "unix_dgram_", "tcp_", "udp_", "inet_"]),
];

/// How the names of functions begin that serve what no program has asked for.
const FAULTS: [&str; 4] = ["exc_page_fault", "do_user_addr_fault", "do_page_fault", "do_mem_abort"];

impl Wait {
    /// What traces and summaries call it.
    pub fn name(self) -> &'static str {
        match self {
            Wait::Lock => "lock",
            Wait::Timer => "timer",
            Wait::File => "file",
            Wait::Pipe => "pipe",
            Wait::Stream => "pipe or socket",
            Wait::Network => "network",
            Wait::Readiness => "readiness",
            Wait::Child => "child process",
            Wait::PageFault => "page fault",
            Wait::Other => "other",
            Wait::NotSeen => "not seen",
        }
    }

    /// What a slice of such a sleep is called.
    pub fn slice_name(self) -> &'static str {
        match self {
            Wait::Lock => "blocked: lock",
            Wait::Timer => "blocked: timer",
            Wait::File => "blocked: file",
            Wait::Pipe => "blocked: pipe",
            Wait::Stream => "blocked: pipe or socket",
            Wait::Network => "blocked: network",
            Wait::Readiness => "blocked: readiness",
            Wait::Child => "blocked: child process",
            Wait::PageFault => "blocked: page fault",
            Wait::Other | Wait::NotSeen => "blocked",
        }
    }

    /// By the names of the kernel's functions on a stack, the innermost first.
    pub fn of<'a>(functions: impl Iterator<Item = &'a str>) -> Wait {
        let mut thing = None;
        for function in functions {
            if FAULTS.iter().any(|fault| function.starts_with(fault)) {
                return Wait::PageFault;
            }
            if let Some(call) = SERVES.iter().find_map(|prefix| function.strip_prefix(prefix)) {
                let wait = wait_in(|(name, _)| *name == call).unwrap_or(Wait::Other);
                // What is no pipe and no socket is a file.
                return if wait == Wait::Stream { thing.unwrap_or(Wait::File) } else { wait };
            }
            let is_named = |beginnings: &[&str]| beginnings.iter().any(|beginning| function.starts_with(beginning));
            thing = thing.or_else(|| THINGS.iter().find(|(_, names)| is_named(names)).map(|(wait, _)| *wait));
        }
        Wait::Other
    }

    /// By the number of a system call, negative if it is none, and whether the sleep was one that no signal ends.
    pub fn of_call(number: i32, is_uninterruptible: bool) -> Wait {
        if number < 0 {
            return if is_uninterruptible { Wait::PageFault } else { Wait::Other };
        }
        match wait_in(|(_, of)| *of == libc::c_long::from(number)) {
            // Disks are waited for like that, and whoever writes to a pipe is not.
            Some(Wait::Stream) if is_uninterruptible => Wait::File,
            Some(wait) => wait,
            None => Wait::Other,
        }
    }
}

/// The address on which a thread sleeps in a system call with this number and first argument, if it is a `futex`.
pub fn lock_of(number: i32, argument: u64) -> Option<u64> {
    (libc::c_long::from(number) == libc::SYS_futex && argument != 0).then_some(argument)
}

/// What the first system call waits for of which this is true.
fn wait_in(is_it: impl Fn(&(&str, libc::c_long)) -> bool) -> Option<Wait> {
    let mut calls = CALLS.iter().chain(OLD_CALLS);
    calls.find(|(_, calls)| calls.iter().any(&is_it)).map(|(wait, _)| *wait)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_system_call_tells_what_is_waited_for_and_what_it_works_on_tells_better() {
        let cases: [(&[&str], Wait); 9] = [
            (&["__schedule", "schedule", "futex_do_wait", "__futex_wait", "futex_wait", "__x64_sys_futex"], Wait::Lock),
            (&["schedule", "do_nanosleep", "hrtimer_nanosleep", "__x64_sys_clock_nanosleep"], Wait::Timer),
            (&["io_schedule", "folio_wait_bit_common", "filemap_read", "vfs_read", "__x64_sys_pread64"], Wait::File),
            (&["schedule", "anon_pipe_read", "vfs_read", "ksys_read", "__x64_sys_read"], Wait::Pipe),
            (&["wait_woken", "tcp_recvmsg_locked", "sock_recvmsg", "sock_read_iter", "__x64_sys_read"], Wait::Network),
            (&["schedule", "do_sys_poll", "__arm64_sys_ppoll"], Wait::Readiness),
            (&["io_schedule", "filemap_fault", "__do_fault", "do_user_addr_fault", "exc_page_fault"], Wait::PageFault),
            (&["schedule", "do_wait", "kernel_wait4", "__do_sys_wait4"], Wait::Child),
            (&["schedule", "worker_thread"], Wait::Other),
        ];
        for (functions, expected) in cases {
            assert_eq!(Wait::of(functions.iter().copied()), expected, "{functions:?}");
        }
    }

    #[test]
    fn only_what_sleeps_in_futex_sleeps_on_an_address() {
        for (call, argument, expected) in [
            (libc::SYS_futex, 0x7000, Some(0x7000)),
            (libc::SYS_futex, 0, None),
            (libc::SYS_read, 0x7000, None),
            (-1, 0x7000, None),
        ] {
            assert_eq!(lock_of(call as i32, argument), expected, "{call}");
        }
    }

    #[test]
    fn without_functions_the_number_of_the_call_tells_and_how_it_sleeps() {
        for (number, is_uninterruptible, expected) in [
            (libc::SYS_futex, false, Wait::Lock),
            (libc::SYS_clock_nanosleep, false, Wait::Timer),
            (libc::SYS_read, false, Wait::Stream),
            (libc::SYS_read, true, Wait::File),
            (libc::SYS_fsync, true, Wait::File),
            (libc::SYS_getpid, false, Wait::Other),
            (-1, true, Wait::PageFault),
            (-1, false, Wait::Other),
        ] {
            assert_eq!(Wait::of_call(number as i32, is_uninterruptible), expected, "{number}");
        }
    }
}
