//! Trying what cannot be told from files: whether `bpf(2)` loads a program of the kind that polletto loads.

use std::{
    ffi::CStr,
    os::fd::{FromRawFd, OwnedFd, RawFd},
};

use rustix::io::Errno;

const BPF_PROG_LOAD: libc::c_int = 5;
const BPF_PROG_TYPE_RAW_TRACEPOINT: u32 = 17;

/// `r0 = 0; exit`, the shortest program that the verifier takes.
const NOTHING: [[u8; 8]; 2] = [[0xb7, 0, 0, 0, 0, 0, 0, 0], [0x95, 0, 0, 0, 0, 0, 0, 0]];

const LICENSE: &CStr = c"GPL";

/// The first fields of the kernel's `union bpf_attr` for [`BPF_PROG_LOAD`]. It takes the rest as zeroes.
#[repr(C)]
struct LoadAttributes {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
}

const _: () = assert!(size_of::<LoadAttributes>() == 48);

/// Loads a tracing program that does nothing, and drops it again. The program is never attached.
pub(super) fn load_a_program() -> Result<(), Errno> {
    let attributes = LoadAttributes {
        prog_type: BPF_PROG_TYPE_RAW_TRACEPOINT,
        insn_cnt: NOTHING.len() as u32,
        insns: NOTHING.as_ptr() as u64,
        license: LICENSE.as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log_buf: 0,
        kern_version: 0,
        prog_flags: 0,
    };
    bpf_prog_load(&attributes).map(drop)
}

fn bpf_prog_load(attributes: &LoadAttributes) -> Result<OwnedFd, Errno> {
    let size = size_of::<LoadAttributes>() as libc::c_uint;
    // SAFETY: the kernel reads `size` bytes of `attributes`, and what they point to are constants of the given lengths.
    let returned = unsafe { libc::syscall(libc::SYS_bpf, BPF_PROG_LOAD, attributes, size) };
    match RawFd::try_from(returned) {
        // SAFETY: the kernel just made this descriptor, and nothing else knows of it.
        Ok(fd) if fd >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        _ => Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::INVAL)),
    }
}
