//! Probes in the code of recorded programs, many at once.
//!
//! aya loads programs for one probe each, and attaching thousands of those one by one takes seconds. So this program is
//! loaded and attached by the kernel's own calls. It shares the maps of those that aya has loaded.

use std::{
    collections::HashSet,
    ffi::{CStr, CString},
    fs::File,
    io,
    os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd},
};

use anyhow::{Context, Result, anyhow, bail};
use aya::{
    Ebpf,
    maps::{Array, HashMap, Map, MapData, PerCpuHashMap, PerCpuValues},
    util::nr_cpus,
};
use aya_obj::{Object, generated::bpf_insn};
use polletto_common::{
    id::{Tgid, Tid},
    poll::{Allowance, Cookie, OpenPoll, OpenPolls, PollKind, ReturnKey, Way},
    record::{Header, Layout, Poll, flags},
};

use super::{OBJECT, Shared};

/// `bpf(2)`: `BPF_PROG_LOAD`
const PROG_LOAD: libc::c_long = 5;
/// `bpf(2)`: `BPF_LINK_CREATE`
const LINK_CREATE: libc::c_long = 28;
/// `BPF_PROG_TYPE_KPROBE`
const KPROBE: u32 = 2;
/// `BPF_TRACE_UPROBE_MULTI`, since Linux 6.6
const UPROBE_MULTI: u32 = 48;

/// The entry point.
const PROGRAM: &str = "poll_probe";

/// What the verifier has to say is asked for when it refuses the program.
const LOG_BYTES: usize = 1 << 20;

/// The first fields of the kernel's `union bpf_attr` for [`PROG_LOAD`]. It takes the rest as zeroes.
#[repr(C)]
struct ProgramAttributes {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
    prog_name: [u8; 16],
    prog_ifindex: u32,
    expected_attach_type: u32,
}

const _: () = assert!(size_of::<ProgramAttributes>() == 72);

/// As much of it for [`LINK_CREATE`], with `uprobe_multi`.
#[repr(C)]
struct LinkAttributes {
    prog_fd: u32,
    target_fd: u32,
    attach_type: u32,
    flags: u32,
    path: u64,
    offsets: u64,
    ref_ctr_offsets: u64,
    cookies: u64,
    cnt: u32,
    multi_flags: u32,
    pid: u32,
    padding: u32,
}

const _: () = assert!(size_of::<LinkAttributes>() == 64);

/// The program that is attached where polls begin and end, what it is told of processes and of the addresses to which their
/// polls return, and what it knows of polls that have begun.
pub struct PollProbes {
    program: OwnedFd,
    allowances: PerCpuHashMap<MapData, u32, Shared<Allowance>>,
    possible_cpus: usize,
    open_polls: HashMap<MapData, u32, Shared<OpenPolls>>,
    returns: HashMap<MapData, Shared<ReturnKey>, u64>,
    new_returns: Array<MapData, u64>,
}

/// Where in a file a probe is, and what it passes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probe {
    /// Of the instruction, bytes in the file.
    pub file_offset: u64,
    /// What it stands at.
    pub cookie: Cookie,
}

/// Probes that are attached until this is dropped.
#[derive(Debug)]
#[must_use = "the probes are gone when this is dropped"]
pub struct PollLink {
    _link: OwnedFd,
}

impl PollProbes {
    /// Loads the program. No map may have been taken yet.
    pub(super) fn load(ebpf: &mut Ebpf) -> Result<PollProbes> {
        let program = load_program(ebpf)?;
        let mut take = |name: &str| ebpf.take_map(name).with_context(|| format!("no map `{name}`"));
        Ok(PollProbes {
            program,
            allowances: PerCpuHashMap::try_from(take("ALLOWANCES")?)?,
            possible_cpus: nr_cpus().map_err(|(file, error)| anyhow!("could not read {file}: {error}"))?,
            open_polls: HashMap::try_from(take("OPEN_POLLS")?)?,
            returns: HashMap::try_from(take("RETURNS")?)?,
            new_returns: Array::try_from(take("NEW_RETURNS")?)?,
        })
    }

    /// Attaches probes to a file's code where this process has it mapped.
    pub fn attach(&self, process: Tgid, file: &File, probes: &[Probe]) -> io::Result<PollLink> {
        let path = CString::new(format!("/proc/self/fd/{}", file.as_raw_fd()))?;
        let offsets: Vec<u64> = probes.iter().map(|probe| probe.file_offset).collect();
        let cookies: Vec<u64> = probes.iter().map(|probe| probe.cookie.0).collect();
        let attributes = LinkAttributes {
            prog_fd: self.program.as_raw_fd() as u32,
            target_fd: 0,
            attach_type: UPROBE_MULTI,
            flags: 0,
            path: path.as_ptr() as u64,
            offsets: offsets.as_ptr() as u64,
            ref_ctr_offsets: 0,
            cookies: cookies.as_ptr() as u64,
            cnt: probes.len() as u32,
            multi_flags: 0,
            pid: process.0,
            padding: 0,
        };
        // SAFETY: the kernel reads a path and `cnt` offsets and cookies, all of which live until the call returns.
        let link = unsafe { bpf(LINK_CREATE, &attributes) }?;
        Ok(PollLink { _link: link })
    }

    /// Says what the process's probes may take on each CPU from now on. What they have taken is forgotten, and that of a probe
    /// which is being run just now.
    pub fn allow(&mut self, process: Tgid, allowance: Allowance) -> Result<()> {
        let on_all = PerCpuValues::try_from(vec![Shared(allowance); self.possible_cpus])?;
        self.allowances.insert(process.0, on_all, 0).context("too many processes have probes")
    }

    /// What the process's probes have taken on each CPU where they were reached.
    pub fn taken(&self, process: Tgid) -> Vec<Allowance> {
        let on_all = self.allowances.get(&process.0, 0).ok();
        let taken = on_all.iter().flat_map(|cpus| cpus.iter()).map(|Shared(taken)| *taken);
        taken.filter(|taken| taken.hits > 0).collect()
    }

    /// Takes the polls of a process that had begun and not ended at `until_ns`: of each thread the innermost first. Its
    /// probes must be gone.
    pub fn take_open(&mut self, process: Tgid, until_ns: u64) -> Vec<Poll> {
        let of_process = self.open_polls.iter().flatten().filter(|(_, Shared(open))| open.tgid == process);
        let threads: Vec<(Tid, OpenPolls)> = of_process.map(|(tid, Shared(open))| (Tid(tid), open)).collect();
        let mut polls = Vec::new();
        for (tid, OpenPolls { depth, polls: open, .. }) in threads {
            // It may have ended meanwhile.
            self.open_polls.remove(&tid.0).ok();
            let began = |poll: &&OpenPoll| poll.polled.began_ns().is_some_and(|began_ns| began_ns <= until_ns);
            let is_task = |poll: &&OpenPoll| poll.kind != PollKind::WORKER;
            let shown = open.iter().take(depth as usize).filter(began).filter(is_task);
            let nested = |depth| if depth > 0 { flags::NESTED } else { 0 };
            let told: Vec<Poll> = shown
                .enumerate()
                .map(|(depth, poll)| {
                    let flags = flags::STILL_POLLING | nested(depth);
                    let header = Header { time_ns: until_ns, kind: Poll::KIND, cpu: 0, flags };
                    Poll { header, tid, tgid: process, vtable: poll.vtable, polled: poll.polled }
                })
                .collect();
            polls.extend(told.into_iter().rev());
        }
        polls
    }

    /// Polls of a process that have begun with a worker and not ended: threads, [`polletto_common::polled::Polled::tick`], and
    /// the address in the process of a word that is 0 once the worker was given away.
    pub fn open_with_worker(&self, process: Tgid) -> Vec<(Tid, u64, u64)> {
        let of_process = self.open_polls.iter().flatten().filter(|(_, Shared(open))| open.tgid == process);
        let mut found = Vec::new();
        for (tid, Shared(OpenPolls { depth, polls, .. })) in of_process {
            let with_worker = polls.iter().take(depth as usize).filter(|poll| poll.core != 0);
            found.extend(with_worker.map(|poll| (Tid(tid), poll.polled.tick, poll.core)));
        }
        found
    }

    /// Changes when polls return to addresses that are not known.
    pub fn new_returns(&self) -> Result<u64> {
        Ok(self.new_returns.get(&0, 0)?)
    }

    /// Addresses to which polls return, and of which nothing is known.
    pub fn unknown_returns(&self) -> Vec<ReturnKey> {
        let unknown = self.returns.iter().filter_map(|entry| {
            let (Shared(key), way) = entry.ok()?;
            (Way(way) == Way::UNKNOWN).then_some(key)
        });
        unknown.collect()
    }

    /// Says how the end of polls is seen that return to this address.
    pub fn set_way(&mut self, key: ReturnKey, way: Way) -> Result<()> {
        self.returns.insert(Shared(key), way.0, 0).context("could not tell the kernel programs where polls end")
    }

    /// The process has ended, or runs another program.
    pub fn forget(&mut self, process: Tgid) {
        let keys: Vec<_> = self.returns.keys().flatten().filter(|Shared(key)| key.tgid == process).collect();
        for key in keys {
            // Nobody else removes them.
            self.returns.remove(&key).ok();
        }
        // It may have had none.
        self.allowances.remove(&process.0).ok();
    }
}

fn load_program(ebpf: &Ebpf) -> Result<OwnedFd> {
    let mut object = Object::parse(OBJECT).context("could not read the program that tells polls")?;
    let text: HashSet<usize> = object.functions.keys().map(|(section, _)| *section).collect();
    let maps = object.maps.clone();
    let fd_of = |name: &str| {
        let map = ebpf.map(name).with_context(|| format!("no map `{name}`"))?;
        fd(map).with_context(|| format!("the map `{name}` is of an unexpected kind"))
    };
    let fds = maps.iter().map(|(name, map)| Ok((name.as_str(), fd_of(name)?, map))).collect::<Result<Vec<_>>>()?;
    object.relocate_maps(fds.into_iter(), &text).context("could not give the program that tells polls its maps")?;
    object.relocate_calls(&text).context("could not link the program that tells polls")?;
    let program = object.programs.get(PROGRAM).with_context(|| format!("no program `{PROGRAM}`"))?;
    let function = object.functions.get(&program.function_key()).context("a program without code")?;
    match load_instructions(&function.instructions, &program.license, &mut []) {
        Ok(program) => Ok(program),
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) && !takes_uprobe_multi(&program.license) => {
            bail!("this kernel can't tell polls exactly, which needs Linux 6.6: record without --polls")
        }
        Err(error) => {
            let mut log = vec![0; LOG_BYTES];
            // It fails again, and says why.
            drop(load_instructions(&function.instructions, &program.license, &mut log));
            let log = CStr::from_bytes_until_nul(&log).unwrap_or_default().to_string_lossy().into_owned();
            let lines: Vec<&str> = log.lines().collect();
            let last = lines[lines.len().saturating_sub(20)..].join("\n");
            Err(error).with_context(|| format!("the kernel did not accept the program that tells polls: {last}"))
        }
    }
}

/// Whether the kernel takes any program of this kind.
fn takes_uprobe_multi(license: &CStr) -> bool {
    // `r0 = 0; exit`
    const NOTHING: [[u8; 8]; 2] = [[0xb7, 0, 0, 0, 0, 0, 0, 0], [0x95, 0, 0, 0, 0, 0, 0, 0]];
    aya_obj::copy_instructions(NOTHING.as_flattened())
        .is_ok_and(|nothing| load_instructions(&nothing, license, &mut []).is_ok())
}

fn load_instructions(instructions: &[bpf_insn], license: &CStr, log: &mut [u8]) -> io::Result<OwnedFd> {
    let attributes = ProgramAttributes {
        prog_type: KPROBE,
        insn_cnt: instructions.len() as u32,
        insns: instructions.as_ptr() as u64,
        license: license.as_ptr() as u64,
        log_level: u32::from(!log.is_empty()),
        log_size: log.len() as u32,
        log_buf: if log.is_empty() { 0 } else { log.as_mut_ptr() as u64 },
        kern_version: 0,
        prog_flags: 0,
        prog_name: *b"poll_probe\0\0\0\0\0\0",
        prog_ifindex: 0,
        expected_attach_type: UPROBE_MULTI,
    };
    // SAFETY: the kernel reads the instructions and the license, and writes `log_size` bytes of the log.
    unsafe { bpf(PROG_LOAD, &attributes) }
}

/// The descriptor of a map of any kind that the programs have.
fn fd(map: &Map) -> Option<RawFd> {
    let data = match map {
        Map::Array(data)
        | Map::ArrayOfMaps(data)
        | Map::HashMap(data)
        | Map::HashOfMaps(data)
        | Map::LruHashMap(data)
        | Map::LpmTrie(data)
        | Map::PerCpuArray(data)
        | Map::PerCpuHashMap(data)
        | Map::RingBuf(data)
        | Map::Unsupported(data) => data,
        _ => return None,
    };
    Some(data.fd().as_fd().as_raw_fd())
}

/// A call that makes a descriptor.
///
/// # Safety
/// What the attributes point to is as the command says.
unsafe fn bpf<A>(command: libc::c_long, attributes: &A) -> io::Result<OwnedFd> {
    // SAFETY: the kernel reads as many bytes as the attributes have, and what they point to is the caller's.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, attributes, size_of::<A>()) };
    match RawFd::try_from(result) {
        // SAFETY: the kernel just made this descriptor, and nothing else knows of it.
        Ok(fd) if fd >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        _ => Err(io::Error::last_os_error()),
    }
}
