//! Probes in recorded programs, which tell when each poll begins and ends.
//!
//! Where polls begin, a program's vtables tell. Where they return to is learnt from the first that do: until there is a
//! probe behind that address too, polls from it are not told.

mod wakes;

use std::{collections::BTreeMap, fs::File, ops::Range, os::unix::fs::FileExt, sync::Arc};

use polletto_common::{
    id::Tgid,
    poll::{Cookie, ReturnKey, Site, Way},
};
use rustc_hash::{FxHashMap, FxHashSet};

use super::{changes::Code, modules::ModuleFile};
use crate::{
    kernel::{PollLink, PollProbes, Probe},
    target::image::{Bytes, Contents, Image},
    tokio::{AfterReturn, Place, PollCode, Program, WakeCode},
};

/// What an unpatched program may have in its place: a breakpoint of x86_64.
const BREAKPOINT: u8 = 0xcc;

/// Reasons that are kept, so that a program of thousands of vtables does not fill a summary.
const MAX_REASONS: usize = 64;

/// What became of the probes, for people to read.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct ProbeSummary {
    /// Places with a probe where polls begin, of all processes.
    pub begins: u64,
    /// Places with a probe where polls have ended, of all processes.
    pub ends: u64,
    /// Places with a probe where tasks are woken, of all processes.
    pub wakes: u64,
    /// Places with a probe where tasks are spawned, of all processes.
    pub spawns: u64,
    /// Places without, by the reason why not.
    pub refused: BTreeMap<String, u64>,
}

/// Attaches probes to processes that poll tasks.
pub struct Probing {
    probes: PollProbes,
    /// By [`ModuleFile::index`].
    files: FxHashMap<usize, Polling>,
    processes: FxHashMap<Tgid, Probed>,
    /// What [`PollProbes::new_returns`] was when it was looked at last.
    returns_seen: u64,
    summary: ProbeSummary,
}

/// A file whose code polls.
struct Polling {
    file: Arc<ModuleFile>,
    code: PollCode,
    wakes: WakeCode,
}

/// A process with probes.
#[derive(Default)]
struct Probed {
    /// Where its files are that poll.
    code: Vec<Code>,
    /// Where probes are, in the process.
    places: FxHashSet<u64>,
    /// Addresses that polls return to, and about which nothing can be done.
    refused: FxHashSet<u64>,
    links: Vec<PollLink>,
}

/// A place in a process, and what the probe there tells.
struct Wanted {
    place: Place,
    site: Site,
}

impl Wanted {
    /// Where it is in a process, and the address that polls return to whose end it tells.
    fn end(&self, bias: u64) -> Option<(u64, u64)> {
        match self.site {
            Site::End { return_address, .. } => Some((self.place.address.wrapping_add(bias), return_address)),
            Site::Begin { .. } | Site::Wake { .. } | Site::Spawn { .. } => None,
        }
    }
}

/// Where polls end, for all that the calls look like: so that the first ones need not be missed.
fn likely_ends(polling: &Polling, code: &Code) -> Vec<Wanted> {
    let Some(image) = &polling.file.image else { return Vec::new() };
    let wanted = polling.code.likely_returns().iter().filter_map(|&address| {
        let after = polling.code.after_return(image, &polling.file.source, address).ok()?;
        let AfterReturn::Place(place) = after else { return None };
        let site = Site::End { return_address: address.wrapping_add(code.bias), popped: place.moved };
        Some(Wanted { place, site })
    });
    wanted.collect()
}

impl Probing {
    pub fn new(probes: PollProbes) -> Probing {
        Probing {
            probes,
            files: FxHashMap::default(),
            processes: FxHashMap::default(),
            returns_seen: 0,
            summary: ProbeSummary::default(),
        }
    }

    /// This file's code polls.
    ///
    /// `bytes` are the file's, as far as they can be read.
    pub fn knows(&mut self, file: &Arc<ModuleFile>, image: &Image, program: &Program, bytes: &[u8]) {
        let code = PollCode::read(program, image, &file.source);
        for (_, entry) in code.entries() {
            if let Err(reason) = entry {
                self.refuse(&reason.to_string());
            }
        }
        let wakes = WakeCode::read(program, image, &file.source, bytes);
        wakes::refusals(&wakes).for_each(|reason| self.refuse(&reason));
        self.files.insert(file.index, Polling { file: Arc::clone(file), code, wakes });
    }

    /// A process has code of files that poll.
    pub fn add(&mut self, process: Tgid, code: &Code) {
        let Some(polling) = code.file.as_ref().and_then(|file| self.files.get(&file.index)) else { return };
        let probed = self.processes.entry(process).or_default();
        if probed.code.iter().any(|known| known.addresses == code.addresses) {
            return;
        }
        probed.code.push(code.clone());
        let entries = polling.code.entries().iter().filter_map(|(_, entry)| entry.as_ref().ok());
        let wanted = entries.map(|place| Wanted {
            place: place.clone(),
            // The stack grows downwards.
            site: Site::Begin { pushed: place.moved.unsigned_abs() },
        });
        let mut wanted: Vec<Wanted> = wanted.filter(|wanted| wanted.place.moved <= 0).collect();
        let begins = wanted.len();
        wanted.extend(likely_ends(polling, code));
        let told = wanted.len();
        wanted.extend(wakes::wanted(&polling.wakes));
        let ends: FxHashMap<u64, u64> =
            wanted[begins..told].iter().filter_map(|wanted| wanted.end(code.bias)).collect();
        let wakes = wakes::places(&wanted[told..], code.bias);
        for place in self.attach(process, code, wanted) {
            let Some(&address) = ends.get(&place) else {
                match wakes.get(&place) {
                    None => self.summary.begins += 1,
                    Some(told) => self.summary.count(*told),
                }
                continue;
            };
            self.summary.ends += 1;
            // Without room, polls that return there are counted as without an end.
            self.probes.set_way(ReturnKey { address, tgid: process, reserved: 0 }, Way::PROBE).ok();
        }
    }

    /// A process began as a copy of another. Its memory has the probes too, which tell nothing until they are attached there.
    pub fn copied(&mut self, from: Tgid, to: Tgid) {
        self.forget(to);
        let code = self.processes.get(&from).map(|probed| probed.code.clone()).unwrap_or_default();
        code.iter().for_each(|code| self.add(to, code));
    }

    /// Whether what is known of a process's code is among this.
    pub fn fits(&self, process: Tgid, code: &[Code]) -> bool {
        let Some(probed) = self.processes.get(&process) else { return true };
        probed.code.iter().all(|known| {
            code.iter().any(|now| {
                let same_file = known.file.as_ref().map(|file| file.index) == now.file.as_ref().map(|file| file.index);
                same_file && known.addresses == now.addresses && known.bias == now.bias
            })
        })
    }

    /// Whether any process has probes, so that [`Probing::learn`] should be called from time to time.
    pub fn is_active(&self) -> bool {
        self.processes.values().any(|probed| !probed.links.is_empty())
    }

    /// Attaches probes to where polls have been seen to return.
    pub fn learn(&mut self) {
        // If that can't be read, nothing is learnt, and the summary tells of polls without an end.
        let Ok(count) = self.probes.new_returns() else { return };
        if count == self.returns_seen {
            return;
        }
        self.returns_seen = count;
        for key in self.probes.unknown_returns() {
            self.follow(key);
        }
    }

    /// The process has ended, or begins another program.
    pub fn forget(&mut self, process: Tgid) {
        if self.processes.remove(&process).is_some() {
            self.probes.forget(process);
        }
    }

    /// Removes all probes.
    pub fn stop(&mut self) {
        self.processes.clear();
        self.files.clear();
    }

    /// What became of it all.
    pub fn summary(&self) -> ProbeSummary {
        self.summary.clone()
    }

    /// Attaches a probe behind an address that polls return to.
    fn follow(&mut self, key: ReturnKey) {
        let Some(probed) = self.processes.get(&key.tgid) else { return };
        if probed.refused.contains(&key.address) {
            return;
        }
        if let Err(reason) = self.try_follow(key) {
            if let Some(probed) = self.processes.get_mut(&key.tgid) {
                probed.refused.insert(key.address);
            }
            if let Some(reason) = reason {
                self.refuse(&format!("where polls return to: {reason}"));
            }
        }
    }

    /// The reason may have been told.
    fn try_follow(&mut self, key: ReturnKey) -> Result<(), Option<String>> {
        let code = self.processes[&key.tgid].code.iter().find(|code| code.addresses.contains(&key.address)).cloned();
        let code = code.ok_or_else(|| Some("it is in a file that polls nothing itself".to_owned()))?;
        let polling = code.file.as_ref().and_then(|file| self.files.get(&file.index)).ok_or(None)?;
        let image = polling.file.image.as_ref().ok_or(None)?;
        let own = key.address.wrapping_sub(code.bias);
        let after = polling.code.after_return(image, &polling.file.source, own);
        match after.map_err(|reason| Some(reason.to_string()))? {
            AfterReturn::Outwards { bytes } => {
                self.probes.set_way(key, Way::outwards(bytes)).map_err(|error| Some(format!("{error:#}")))
            }
            AfterReturn::Place(place) => {
                let site = Site::End { return_address: key.address, popped: place.moved };
                if self.attach(key.tgid, &code, vec![Wanted { place, site }]).is_empty() {
                    return Err(None);
                }
                self.summary.ends += 1;
                self.probes.set_way(key, Way::PROBE).map_err(|error| Some(format!("{error:#}")))
            }
        }
    }

    /// Attaches probes to a process's code, where it is what the file has. Where they are now.
    fn attach(&mut self, process: Tgid, code: &Code, wanted: Vec<Wanted>) -> Vec<u64> {
        let Some(Polling { file, .. }) = code.file.as_ref().and_then(|file| self.files.get(&file.index)) else {
            return Vec::new();
        };
        let (file, probed) = (Arc::clone(file), &self.processes[&process]);
        let (Bytes::File(descriptor), Some(image)) = (&file.source, &file.image) else { return Vec::new() };
        let memory = match File::open(format!("/proc/{process}/mem")) {
            Ok(memory) => memory,
            Err(error) => {
                self.refuse_all(wanted.len(), &format!("the memory of its process can't be read: {error}"));
                return Vec::new();
            }
        };
        let contents = Contents::new(image, &file.source);
        let (mut probes, mut places, mut reasons) = (Vec::new(), Vec::new(), Vec::new());
        let others: FxHashSet<u64> = self.places_in(&file);
        for Wanted { place, site } in wanted {
            let address = place.address.wrapping_add(code.bias);
            if !code.addresses.contains(&address) || probed.places.contains(&address) {
                continue;
            }
            let is_patched = |own: u64| others.contains(&own);
            let checked = is_as_in_file(&contents, &memory, code.bias, &place.seen, is_patched).and_then(|()| {
                let file_offset = image.file_offset_of(place.address).ok_or("its place in the file is unknown")?;
                let cookie = Cookie::of(site).ok_or("its stack is too large")?;
                Ok(Probe { file_offset, cookie })
            });
            match checked {
                Ok(probe) => {
                    probes.push(probe);
                    places.push(address);
                }
                Err(reason) => reasons.push(reason),
            }
        }
        reasons.into_iter().for_each(|reason| self.refuse(reason));
        if probes.is_empty() {
            return Vec::new();
        }
        match self.probes.attach(process, descriptor, &probes) {
            Ok(link) => {
                let probed = self.processes.entry(process).or_default();
                probed.links.push(link);
                probed.places.extend(places.iter().copied());
                places
            }
            Err(error) => {
                self.refuse_all(places.len(), &format!("the kernel attached no probe: {error}"));
                Vec::new()
            }
        }
    }

    /// The file's own addresses at which any process has probes: one that was forked from it has them in its memory.
    fn places_in(&self, file: &ModuleFile) -> FxHashSet<u64> {
        let of = |code: &Code, address: u64| {
            let is_own = code.file.as_ref().is_some_and(|own| own.index == file.index);
            (is_own && code.addresses.contains(&address)).then(|| address.wrapping_sub(code.bias))
        };
        let places = self.processes.values().flat_map(|probed| {
            let owns = |&address: &u64| probed.code.iter().find_map(|code| of(code, address));
            probed.places.iter().filter_map(owns)
        });
        places.collect()
    }

    fn refuse_all(&mut self, count: usize, reason: &str) {
        (0..count).for_each(|_| self.refuse(reason));
    }

    fn refuse(&mut self, reason: &str) {
        let refused = &mut self.summary.refused;
        if refused.len() < MAX_REASONS || refused.contains_key(reason) {
            *refused.entry(reason.to_owned()).or_default() += 1;
        }
    }
}

/// Whether a process has in its memory what its file has at these addresses, but for our own probes.
fn is_as_in_file(
    contents: &Contents<'_, Bytes>,
    memory: &File,
    bias: u64,
    addresses: &Range<u64>,
    is_patched: impl Fn(u64) -> bool,
) -> Result<(), &'static str> {
    let size = addresses.end.saturating_sub(addresses.start) as usize;
    let (mut decoded, mut there) = (vec![0; size], vec![0; size]);
    let is_whole = contents.read(addresses.start, &mut decoded).is_ok_and(|count| count == size);
    if !is_whole || memory.read_exact_at(&mut there, addresses.start.wrapping_add(bias)).is_err() {
        return Err("its code can't be read");
    }
    let same = addresses
        .clone()
        .zip(decoded.iter().zip(&there))
        .all(|(address, (decoded, there))| decoded == there || (*there == BREAKPOINT && is_patched(address)));
    let is_breakpoint = decoded.iter().zip(&there).any(|(decoded, there)| decoded != there && *there == BREAKPOINT);
    match (same, is_breakpoint) {
        (true, _) => Ok(()),
        (false, true) => Err("another tracer or debugger has a breakpoint there"),
        (false, false) => Err("its process has other code there than its file"),
    }
}
